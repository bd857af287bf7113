"""A source's images become one uint8 array in canonical order; decoded once, kept in the cache.

They are decoded into a file of the cache, mapped into memory, so a set may be larger than memory.
The cache folder may be deleted at any time.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import math
import os
import shutil
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vitlab.config import DataConfig
from vitlab.data.find import cache_folder
from vitlab.data.images import convert, header, read
from vitlab.data.labelled import LabelledImages, ask_for, check_range, key_of
from vitlab.data.labels import canonical_order, images_by_class
from vitlab.data.limits import RESIDENT, host_memory
from vitlab.data.source import Items, Source
from vitlab.data.splits import Split, hold_out
from vitlab.errors import DataError
from vitlab.files import replacing
from vitlab.progress import in_threads, tracked

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
        headers = _each(lambda _, item: header(item, config.max_pixels), items, config, source)
        sizes, channels, _ = zip(*dict(headers).values(), strict=True)
    except DataError:
        # Those of broken pixels are named together with those of broken headers.
        checked = _each(
            lambda _, item: read(item, (1, 1), config.max_pixels).shape, items, config, source
        )
        for _ in checked:
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
    return _from_cache(cached, source.class_names) or _decode(config, source, split)


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
    """Read, decode, sort and keep the images of a split, or of both where they are drawn.

    Threads decode, each into the place of its item; only the sort knows the order.
    """
    cached = _cache_path(config, source, split)
    items, labels = _read_items(config, source, split if source.has_test else "train")
    size, channels = config.image_size, config.channels
    assert size and channels, "the config is resolved"
    keys = np.empty(len(items), np.uint64)
    lock = threading.Lock()

    @functools.cache
    def grey_range() -> tuple[int, int]:
        return config.grey_range or _grey_range(config, source)

    def put(place: int, item: Any) -> None:
        pixels, scale = _pixels(item, config), config.grey_range
        if pixels.dtype == np.uint16:
            with lock:  # all wait for the one that reads all
                scale = grey_range()
        keys[place] = key_of(pixels)
        images[place] = convert(pixels, size, channels, config.fit, scale)

    images, file = _room(cached, (len(items), *size, channels), config.dataset)
    try:
        done = _each(put, items, config, source, of_test=split == "test")
        places = np.array([place for place, _ in done], np.int64)
        skipped = len(items) - len(places)
        keys, labels = keys[places], labels[places]
        if skipped and split == "train":
            _check_every_class(config, labels, source)
        order = canonical_order(keys, labels)
        parts: dict[Split, np.ndarray] = {split: order}
        if not source.has_test:
            drawn = hold_out(keys[order], labels[order], config, "test")
            parts = {"test": order[drawn[1]], "train": order[drawn[0]]}
            parts = {split: parts.pop(split), **parts}  # the one asked for in front
        _sort(images, places[np.concatenate(list(parts.values()))])
        scale = config.grey_range or (grey_range() if grey_range.cache_info().currsize else None)
        ends = np.cumsum([len(part) for part in parts.values()])
        found = {
            name: LabelledImages(
                images[end - len(part) : end],
                labels[part],
                source.class_names,
                skipped,
                scale,
                keys[part],
                places=places[part],
            )
            for (name, part), end in zip(parts.items(), ends, strict=True)
        }
        # What was skipped is warned of each time.
        if file is not None and not skipped:
            for name in reversed(parts):  # those in front last: the others leave their file
                _keep(
                    _cache_path(config, source, name), found[name], file if name == split else None
                )
            return _from_cache(cached, source.class_names) or found[split]
        return found[split]
    finally:
        if file is not None:  # what is mapped stays there without its name
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)


def _room(cached: Path, shape: tuple[int, ...], dataset: str) -> tuple[np.ndarray, Path | None]:
    """Room for uint8 images (N, H, W, C): a hidden file of the cache or, if it has none, memory.

    Raises DataError where there is not enough of either.
    """
    needed, folder = math.prod(shape), cached.parent
    file = cached.with_name(f".{cached.name}-images.npy.{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        if (free := shutil.disk_usage(folder).free) < needed:
            raise OSError(
                errno.ENOSPC,
                f"they take {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB of room",
            )
        with open(file, "w+b") as opened:
            with contextlib.suppress(OSError):  # not every disk has locks
                fcntl.flock(opened, fcntl.LOCK_EX)  # and the map holds it
            _write_header(opened, shape)
            first = opened.tell()
            # A page without room on the disk would be a signal, and no error, when it is written.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(opened.fileno(), 0, first + needed)
            return np.asarray(np.memmap(opened, np.uint8, "r+", first, shape)), file
    except OSError as error:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
        reason = error
    try:
        if needed > host_memory():
            raise MemoryError
        images = np.empty(shape, np.uint8)
    except MemoryError:
        raise DataError(
            f"{dataset}: {shape[0]:,} images of {shape[1]} x {shape[2]} pixels take "
            f"{needed / 1e9:.1f} GB, more than there is memory, and cannot be kept on the disk: "
            f"{reason}. Make data.image_size smaller, or let XDG_CACHE_HOME be a folder with room"
        ) from None
    warnings.warn(f"decoded images are not kept for the next time: {reason}", stacklevel=5)
    return images, None


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed left while they decoded: nobody holds its lock."""
    for file in folder.glob(".*-images.npy.*.tmp"):
        with contextlib.suppress(OSError), open(file, "rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    """Write how an .npy file of uint8 begins: as long for any number of images."""
    form = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, form)


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
    """Put `images[order]` in front, without a second copy: the images may be more than memory."""
    rest = np.setdiff1d(np.arange(len(images)), order)
    order = np.concatenate([order, rest])
    done = np.zeros(len(images), bool)
    for start in range(len(images)):
        if done[start]:
            continue
        first, place = images[start].copy(), start
        while (source := order[place]) != start:
            ask_for(images, [source])
            images[place] = images[source]
            done[place], place = True, source
        images[place], done[place] = first, True


def _each(
    function: Callable[[int, Any], Any],
    items: Items,
    config: DataConfig,
    source: Source,
    of_test: bool = False,
) -> Iterator[tuple[int, Any]]:
    """Apply a reader to every image, by place, and yield the place and what was read.

    Then all that could not be read are named: in an error, or where they may be left out and
    others remain, in a warning.
    """

    def attempt(place: int) -> Any:
        try:
            _check_file(items[place])
            return function(place, items[place])
        except DataError as error:
            return error

    words, failures = f"reading {config.dataset}", []
    if isinstance(items, np.ndarray):  # nothing to decode, nothing for threads
        results = map(attempt, tracked(range(len(items)), words))
    else:
        results = in_threads(attempt, range(len(items)), words)
    for place, result in enumerate(results):
        if isinstance(result, DataError):
            encoded = isinstance(items[place], bytes)
            failures.append(f"  {place}: {result}" if encoded else f"  {result}")
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


def why_unreadable(item: Any, config: DataConfig) -> str:
    """Why an image of a resolved config cannot be read; "" if it can."""
    try:
        _check_file(item)
        _pixels(item, config)
    except DataError as error:
        return str(error)
    return ""


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
        file = Path(f"{path}-images.npy")
        mode = "c" if file.stat().st_size <= RESIDENT else "r"
        images = np.load(file, mmap_mode=mode, allow_pickle=False)
        facts = np.load(f"{path}-facts.npz", allow_pickle=False)
        grey_range = tuple(facts["grey_range"].tolist()) or None
        return LabelledImages(
            np.asarray(images), facts["labels"], class_names, 0, grey_range, facts["keys"],
            places=facts["places"],
        )  # fmt: skip
    except Exception:  # not there, or damaged in any way: decoded anew
        return None


def _keep(cached: Path, examples: LabelledImages, file: Path | None) -> None:
    """Keep decoded images for the next time; a warning where that is impossible.

    Args:
        file: what `_room` made, with these images in front, which becomes theirs; None copies them.
    """
    kept = Path(f"{cached}-images.npy")
    try:
        if file is None:
            with replacing(kept) as opened:
                np.save(opened, examples.images, allow_pickle=False)
        else:
            with open(file, "r+b") as opened:
                _write_header(opened, examples.images.shape)
                opened.truncate(opened.tell() + examples.images.nbytes)
                os.fsync(opened.fileno())
            os.replace(file, kept)
        assert examples.places is not None
        with replacing(cached.with_name(f"{cached.name}-facts.npz")) as opened:
            np.savez(
                opened,
                labels=examples.labels,
                keys=examples.keys,
                places=examples.places,
                grey_range=np.array(examples.grey_range or (), np.int64),
            )
    except OSError as error:
        warnings.warn(f"decoded images are not kept for the next time: {error}", stacklevel=5)
