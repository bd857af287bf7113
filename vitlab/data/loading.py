"""A source's images become one uint8 array in canonical order; decoded once, kept in the cache.

The cache folder may be deleted at any time.
"""

import hashlib
import json
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vitlab.config import DataConfig
from vitlab.data.find import cache_folder
from vitlab.data.images import convert, header, read
from vitlab.data.labelled import LabelledImages, check_range, key_of
from vitlab.data.labels import canonical_order, images_by_class
from vitlab.data.source import Items, Source
from vitlab.data.splits import Split, hold_out
from vitlab.errors import DataError
from vitlab.files import replacing
from vitlab.progress import tracked

DECODER = 2
"""Number of the way images are decoded; arrays kept under another are not used."""

SHOWN_FAILURES = 10
"""Images that cannot be read which an error names; of more only the number."""


def survey(config: DataConfig, source: Source) -> tuple[tuple[int, int], int]:
    """The (height, width) and the channels of the training images, by their headers.

    Grey is what holds only grey images. Raises DataError where the images do not agree in size and
    the config does not set one.
    """
    items, _ = _read_items(config, source, "train")
    if isinstance(items, np.ndarray):
        return (items.shape[1], items.shape[2]), items.shape[3]
    try:
        headers = _each(lambda item: header(item, config.max_pixels), items, config, source)
        sizes, channels, _ = zip(*dict(headers).values(), strict=True)
    except DataError:
        # Those of broken pixels are named together with those of broken headers.
        for _ in _each(lambda item: read(item, (1, 1), config.max_pixels), items, config, source):
            pass
        raise
    if len(set(sizes)) > 1 and config.image_size is None:
        raise DataError(
            f"{config.dataset} has images of {len(set(sizes))} sizes, {min(sizes)} to {max(sizes)} "
            "(height, width): set data.image_size, and data.fit for those of another shape"
        )
    return sizes[0], max(channels)


def load(config: DataConfig, source: Source, split: Split) -> LabelledImages:
    """The training images, those for validation included, or the test images of a resolved config.

    A set that comes without a test split gives up `test_fraction` of every class. Raises one
    DataError for all that is missing or damaged, naming the files.
    """
    cached = _cache_path(config, source, split)
    examples = _from_cache(cached, source.class_names)
    if examples is None:
        examples = _decode(config, source, split)
        # What was skipped is warned of each time.
        if not examples.skipped and _to_cache(cached, examples):
            # The disk's copy can leave the memory again.
            examples = _from_cache(cached, source.class_names) or examples
    return examples


def _read_items(config: DataConfig, source: Source, split: Split) -> tuple[Items, np.ndarray]:
    items, labels = source.read(split)
    if not len(labels):
        raise DataError(f"{config.dataset} has no {split} images")
    check_range(config.dataset, labels, source.class_names)
    if split == "train":
        _check_every_class(config, labels, source)
    return items, labels


def _check_every_class(config: DataConfig, labels: np.ndarray, source: Source) -> None:
    counts = images_by_class(labels, len(source.class_names))
    if not counts.all():
        empty = [name for name, count in zip(source.class_names, counts, strict=True) if not count]
        raise DataError(
            f"{config.dataset} has no training image of class {', '.join(empty[:5])}: add PNG, "
            "JPEG or WebP images that can be read, or remove the class"
        )


def _decode(config: DataConfig, source: Source, split: Split) -> LabelledImages:
    """Read, decode and sort the images of a split; draw it where the set has no test split."""
    items, labels = _read_items(config, source, split if source.has_test else "train")
    size, channels, grey_range = config.image_size, config.channels, config.grey_range
    assert size and channels, "the config is resolved"
    try:
        images = np.empty((len(items), *size, channels), np.uint8)
    except MemoryError:
        needed = len(items) * math.prod(size) * channels / 1e9
        raise DataError(
            f"{config.dataset}: {len(items):,} images of {size[0]} x {size[1]} pixels take "
            f"{needed:.1f} GB, more than there is memory: make data.image_size smaller"
        ) from None
    keys = np.empty(len(items), np.uint64)
    places: list[int] = []
    for place, pixels in _each(
        lambda item: _pixels(item, config), items, config, source, of_test=split == "test"
    ):
        if pixels.dtype == np.uint16 and grey_range is None:
            grey_range = _grey_range(config, source)
        keys[len(places)] = key_of(pixels)
        images[len(places)] = convert(pixels, size, channels, config.fit, grey_range)
        places.append(place)
    skipped = len(items) - len(places)
    images, keys, labels = images[: len(places)], keys[: len(places)], labels[places]
    if skipped and split == "train":
        _check_every_class(config, labels, source)
    order = canonical_order(keys, labels)
    if not source.has_test:
        rest, held_out = hold_out(keys[order], labels[order], config, "test")
        order = order[held_out if split == "test" else rest]
    _sort(images, order)
    return LabelledImages(
        images[: len(order)], labels[order], source.class_names, skipped, grey_range, keys[order]
    )


def _pixels(item: Any, config: DataConfig) -> np.ndarray:
    """The stored pixels of an item, which an array holds already."""
    if isinstance(item, np.ndarray):
        return item
    assert config.image_size
    return read(item, config.image_size, config.max_pixels)


def _grey_range(config: DataConfig, source: Source) -> tuple[int, int]:
    """The lowest and the highest value of the 16-bit images that are not the test split's own."""
    low, high = 65535, 0
    for item in source.read("train")[0]:
        try:
            _check_file(item)
            pixels = _pixels(item, config)
        except DataError:
            continue  # is named when the images are read
        if pixels.dtype == np.uint16:
            low, high = min(low, int(pixels.min())), max(high, int(pixels.max()))
    return low, max(high, low + 1)


def _sort(images: np.ndarray, order: np.ndarray) -> None:
    """Put `images[order]` in front, without a second copy: the images may fill half the memory."""
    rest = np.setdiff1d(np.arange(len(images)), order)
    order = np.concatenate([order, rest])
    done = np.zeros(len(images), bool)
    for start in range(len(images)):
        if done[start]:
            continue
        first, place = images[start].copy(), start
        while (source := order[place]) != start:
            images[place] = images[source]
            done[place], place = True, source
        images[place], done[place] = first, True


def _each(
    function: Callable[[Any], Any],
    items: Items,
    config: DataConfig,
    source: Source,
    of_test: bool = False,
) -> Iterator[tuple[int, Any]]:
    """Apply a reader to every image and yield its place and what was read.

    Then all that could not be read are named: in an error, or where they may be left out and
    others remain, in a warning.
    """
    failures = []
    for place, item in enumerate(tracked(items, f"reading {config.dataset}")):
        try:
            _check_file(item)
            result = function(item)
        except DataError as error:
            failures.append(f"  {place}: {error}" if isinstance(item, bytes) else f"  {error}")
        else:
            yield place, result
    if not failures:
        return
    head = f"{config.dataset}: {len(failures)} of {len(items)} images cannot be read"
    lines = failures[:SHOWN_FAILURES]
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"  and {len(failures) - SHOWN_FAILURES} more")
    if config.unreadable == "skip" and len(failures) < len(items):
        warnings.warn("\n".join([f"{head} and are left out:", *lines]), stacklevel=2)
        return
    # Without an image that was drawn, others would be, some of which were trained on.
    way_out = "Replace them" if of_test and not source.has_test else "Replace or remove them"
    if of_test:
        head = f"test images of {head}"
        way_out += (
            "; a run keeps data.unreadable, so leaving them out takes a training with "
            "--data.unreadable skip"
        )
    elif len(failures) < len(items):
        way_out += ", or leave them out: --data.unreadable skip"
    raise DataError("\n".join([f"{head}:", *lines, way_out]))


def _check_file(item: Any) -> None:
    """Refuse what is not there, and what reading would wait for."""
    if not isinstance(item, Path):
        return
    try:
        regular = stat.S_ISREG(item.stat().st_mode)
    except OSError as error:
        link = f"a broken link to {os.readlink(item)!r}" if item.is_symlink() else error.strerror
        raise DataError(f"{str(item)!r}: {link}") from error
    if not regular:
        raise DataError(f"{str(item)!r}: not a file: a pipe, a socket or a device")


def _cache_path(config: DataConfig, source: Source, split: Split) -> Path:
    """Where the decoded images of these very files, in this form, are kept."""
    # Values of 16 bits are scaled as the training images need it.
    files = {*source.files(split), *source.files("train")}
    identity = [
        DECODER,
        [(str(path.absolute()), *_size_and_time(path)) for path in sorted(files)],
        [split, source.class_names, config.image_size, config.channels, config.fit],
        [config.grey_range, config.max_pixels],
        None if source.has_test else [config.test_fraction, config.split_seed],
        *([[config.task, config.label_separator]] if config.task != "multiclass" else []),
    ]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    return cache_folder() / "decoded" / name


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:  # a broken link or a file gone, which is named where images are read
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _from_cache(path: Path, class_names: tuple[str, ...]) -> LabelledImages | None:
    """Examples whose images stay on the disk until they are used."""
    try:
        images = np.load(f"{path}-images.npy", mmap_mode="c", allow_pickle=False)
        facts = np.load(f"{path}-facts.npz", allow_pickle=False)
        grey_range = tuple(facts["grey_range"].tolist()) or None
        return LabelledImages(
            np.asarray(images), facts["labels"], class_names, 0, grey_range, facts["keys"]
        )
    except Exception:  # not there, or damaged in any way: decoded anew
        return None


def _to_cache(path: Path, examples: LabelledImages) -> bool:
    """Keep decoded images for the next time; False, with a warning, where that is impossible."""
    try:
        with replacing(path.with_name(f"{path.name}-images.npy")) as file:
            np.save(file, examples.images, allow_pickle=False)
        with replacing(path.with_name(f"{path.name}-facts.npz")) as file:
            np.savez(
                file,
                labels=examples.labels,
                keys=examples.keys,
                grey_range=np.array(examples.grey_range or (), np.int64),
            )
    except OSError as error:
        warnings.warn(f"decoded images are not kept for the next time: {error}", stacklevel=4)
        return False
    return True
