"""A named data set becomes uint8 images, labels, class names and a fingerprint.

Training and test images leave by separate doors, `load_train` and `load_test`. A set is looked
for below the data root, then below $VITLAB_DATA, then in the cache folder, and then fetched.
What was decoded once is kept in the cache folder, which may be deleted at any time.
"""

import difflib
import hashlib
import io
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vitlab.config import DataConfig
from vitlab.data.cifar import Cifar, holds_batches
from vitlab.data.download import fetch
from vitlab.data.formats import (
    Digits,
    Folder,
    Format,
    Items,
    Parquet,
    Split,
    numbered,
    parquet_files,
)
from vitlab.data.images import convert, decode, header
from vitlab.data.known import KNOWN, KnownSet
from vitlab.data.loose import Loose, holds_files
from vitlab.data.splits import hold_out
from vitlab.data.table import Table
from vitlab.errors import DataError
from vitlab.files import write_bytes

Root = str | os.PathLike[str] | None

ARRAYS = "arrays"
"""What `config.data.dataset` says of images that were handed in as arrays."""

DECODER = 1
"""Number of the way images are decoded; arrays kept under another are not used."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled images: `images` uint8 (N, H, W, C), `labels` int64 (N,) into `class_names`."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    skipped: int = 0
    """Images that could not be read and were left out, where the config allows it."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of shape, class names, pixels and labels: equal data, equal fingerprint."""
        digest = hashlib.sha256(json.dumps([self.images.shape, self.class_names]).encode())
        digest.update(self.images.data)
        digest.update(self.labels.astype("<i8").data)
        return digest.hexdigest()

    @cached_property
    def content(self) -> str:
        """SHA-256 of pixels and labels whatever their order, to know a set in any container."""
        pairs = zip(self.images, self.labels.tolist(), strict=True)
        each = sorted(
            hashlib.sha256(image.tobytes() + label.to_bytes(8, "little")).digest()
            for image, label in pairs
        )
        return hashlib.sha256(b"".join(each)).hexdigest()


def from_arrays(
    images: np.ndarray, labels: np.ndarray, class_names: Sequence[str] | None = None
) -> Examples:
    """Examples from arrays: uint8 (N, H, W) or (N, H, W, C) of 1 or 3 channels, integers (N,).

    Without `class_names` the classes are 0 to the largest label. Raises DataError for another
    type or shape, unequal lengths, labels outside the classes and fewer than two classes.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    shape = (*images.shape, 1) if images.ndim == 3 else images.shape
    if images.dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3) or 0 in shape:
        raise DataError(
            f"images are {images.dtype} {images.shape}: give uint8 of 0 to 255, (N, H, W) or "
            "(N, H, W, C) with 1 or 3 channels"
        )
    if labels.shape != shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels are {labels.dtype} {labels.shape}: give each of {shape[0]} images an integer"
        )
    names = numbered(labels) if class_names is None else tuple(class_names)
    _check_labels("the arrays", labels, names)
    return Examples(np.ascontiguousarray(images.reshape(shape)), labels.astype(np.int64), names)


def resolve(config: DataConfig, root: Root = None) -> DataConfig:
    """Fill in the image size, channels and classes that are None from the data set.

    Known sets are resolved from their facts: nothing is read or fetched. Elsewhere the headers
    of all training images are read: grey is what holds only grey images, and the images must
    agree in size. Raises DataError where they do not, or where `classes` is not the set's.
    """
    if known := KNOWN.get(config.dataset):
        found = {
            "image_size": known.image_size,
            "channels": known.channels,
            "classes": known.classes,
        }
    else:
        source = _find(config.dataset, root)
        _check_classes(config.dataset, source.class_names)
        found = {"classes": len(source.class_names)}
        if None in (config.image_size, config.channels):
            found |= _survey(config, source)
    if config.classes not in (None, found["classes"]):
        raise DataError(
            f"data.classes={config.classes}, but {config.dataset} has {found['classes']} classes: "
            "leave data.classes out"
        )
    return replace(config, **{k: v for k, v in found.items() if getattr(config, k) is None})


def load_train(config: DataConfig, root: Root = None) -> Examples:
    """Read all training images, those for validation included, in the config's form.

    A set that comes without a test split gives up `test_fraction` of every class first.
    Raises one DataError for what is missing, damaged or contradictory, naming the files. Warns
    if a known set is unlike the published one.
    """
    return _load(config, root, "train")


def load_test(config: DataConfig, root: Root = None) -> Examples:
    """Read the test images in the config's form; the one door to them."""
    return _load(config, root, "test")


def statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, H, W, C), in 0..1.

    Counting the values is exact, so neither order nor machine changes the result.
    """
    counts = np.zeros((images.shape[-1], 256), np.int64)
    part = max(1, (1 << 20) // math.prod(images.shape[1:3]))  # bincount makes int64 of them
    for start in range(0, len(images), part):
        for channel, count in enumerate(counts):
            count += np.bincount(images[start : start + part, ..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    variance = (shares * (values - mean[:, None]) ** 2).sum(axis=1)
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())


def cache_folder() -> Path:
    """Where downloads and decoded images are kept: $XDG_CACHE_HOME/vitlab or ~/.cache/vitlab."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitlab"


def locate(name: str, root: Root = None) -> Path | None:
    """The folder where a known set lies on this machine, or None if it is still to be fetched."""
    places = (folder / name for folder in (*_roots(root), cache_folder()))
    return next((place for place in places if _find_known(place, KNOWN[name])), None)


def _roots(root: Root) -> list[Path]:
    roots = [Path(r).expanduser() for r in (root, os.environ.get("VITLAB_DATA")) if r]
    for folder in roots:
        if not folder.is_dir():
            raise DataError(f"data root {folder} is not a folder")
    return roots


def _find(dataset: str, root: Root) -> Format:
    if dataset == "digits":
        return Digits()
    roots = _roots(root)
    if known := KNOWN.get(dataset):
        cache = cache_folder()
        places = (folder / dataset for folder in (*roots, cache))
        found = (source for place in places if (source := _find_known(place, known)))
        source = next(found, None) or _find_known(fetch(dataset, known, cache), known)
        assert source, "what was fetched is found"
        return source
    for place in (Path(dataset).expanduser(), *(folder / dataset for folder in roots)):
        if (place.suffix == ".parquet" and place.is_file()) or any(parquet_files(place)):
            return Parquet(place)
        if place.suffix == ".csv" and place.is_file():
            return Table(place)
        if place.is_dir():
            return Folder(place)
    close = difflib.get_close_matches(dataset, KNOWN, n=1)
    raise DataError(
        f"no data set {dataset!r}{f': did you mean {close[0]}?' if close else ''}\n"
        f"known: {', '.join(KNOWN)}; or the path of a folder of class folders or Parquet files, "
        "or of a CSV file, or its name below the data root"
    )


def _find_known(folder: Path, known: KnownSet) -> Format | None:
    """The known set that lies in ROOT/name, or under one of its usual names beside it."""
    if any(parquet_files(folder)):
        source = Parquet(folder, known.class_names, known.label)
        if not source.has_test:
            raise DataError(f"{folder} has Parquet files, but not both train and test: fetch all")
        return source
    archives = sorted(folder.glob("*.tar.gz"))
    usual = [base / name for base in (folder, folder.parent) for name in known.local]
    for place in (folder, *usual, *archives):
        if holds_batches(place, known):
            return Cifar(place, known)
        if holds_files(place, known):
            return Loose(place, known)
    if folder.is_dir() and any(folder.iterdir()):
        expected = known.local if known.batches else [file.name for file in known.official]
        raise DataError(
            f"{folder} holds neither Parquet files nor {', '.join(expected)}: add them "
            "or move the folder away. A folder of class folders is given by its path"
        )
    return None


def _survey(config: DataConfig, source: Format) -> dict[str, Any]:
    items, _ = _read(config, source, "train")
    if isinstance(items, np.ndarray):
        return {"image_size": items.shape[1:3], "channels": items.shape[3]}
    found = dict(_each(header, items, config))
    sizes, channels = zip(*found.values(), strict=True)
    if len(set(sizes)) > 1 and config.image_size is None:
        raise DataError(
            f"{config.dataset} has images of {len(set(sizes))} sizes, {min(sizes)} to {max(sizes)} "
            "(height, width): set data.image_size, and data.fit for those of another shape"
        )
    return {"image_size": sizes[0], "channels": max(channels)}


def _read(config: DataConfig, source: Format, split: Split) -> tuple[Items, np.ndarray]:
    items, labels = source.read(split)
    if not len(labels):
        raise DataError(f"{config.dataset} has no {split} images")
    _check_labels(config.dataset, labels, source.class_names)
    _check_present(config, labels, source, split)
    return items, labels


def _check_present(config: DataConfig, labels: np.ndarray, source: Format, split: Split) -> None:
    counts = np.bincount(labels, minlength=len(source.class_names))
    if split == "train" and not counts.all():
        empty = [name for name, count in zip(source.class_names, counts, strict=True) if not count]
        raise DataError(
            f"{config.dataset} has no training image of class {', '.join(empty[:5])}: add PNG, "
            "JPEG or WebP images that can be read, or remove the class"
        )


def _load(config: DataConfig, root: Root, split: Split) -> Examples:
    config = resolve(config, root)
    source = _find(config.dataset, root)
    kept = _kept(config, source, split)
    examples = _recall(kept, source.class_names)
    if examples is None:
        examples = _decode(config, source, split)
        if not examples.skipped:  # else the next reader would not hear of them
            _keep(kept, examples)
    known = KNOWN.get(config.dataset)
    if known and (config.image_size, config.channels) == (known.image_size, known.channels):
        _compare(config.dataset, examples, known, split)
    return examples


def _decode(config: DataConfig, source: Format, split: Split) -> Examples:
    items, labels = _read(config, source, split if source.has_test else "train")
    if not source.has_test:
        rest, held = hold_out(labels, config, "test")
        index = held if split == "test" else rest
        items = items[index] if isinstance(items, np.ndarray) else [items[i] for i in index]
        labels = labels[index]
    size, channels = config.image_size, config.channels
    assert size and channels
    if isinstance(items, np.ndarray) and items.shape[1:] == (*size, channels):
        return Examples(np.ascontiguousarray(items), labels, source.class_names)
    images = np.empty((len(items), *size, channels), np.uint8)
    read = convert if isinstance(items, np.ndarray) else decode
    places: list[int] = []
    for place, image in _each(lambda item: read(item, size, channels, config.fit), items, config):
        images[len(places)] = image
        places.append(place)
    if skipped := len(items) - len(places):
        images, labels = images[: len(places)], labels[places]
        _check_present(config, labels, source, split)
    return Examples(images, labels, source.class_names, skipped)


def _each(
    function: Callable[[Any], Any], items: Items, config: DataConfig
) -> Iterator[tuple[int, Any]]:
    """Apply a reader to every image and yield its place and what was read.

    Then all that could not be read are told: as an error, or where they may be left out and
    others remain, as a warning.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    failures = []
    with bar:
        for place, item in enumerate(bar.track(items, description=f"reading {config.dataset}")):
            try:
                result = function(item)
            except DataError as error:
                failures.append(f"  {place}: {error}" if isinstance(item, bytes) else f"  {error}")
            else:
                yield place, result
    if failures:
        more = [f"  and {len(failures) - 10} more"] if len(failures) > 10 else []
        head = f"{config.dataset}: {len(failures)} of {len(items)} images cannot be read"
        if config.unreadable == "skip" and len(failures) < len(items):
            told = "\n".join([f"{head} and are left out:", *failures[:10], *more])
            warnings.warn(told, stacklevel=2)
        else:
            way_out = "Replace or remove them"
            if len(failures) < len(items):
                way_out += ", or leave them out: data.unreadable=skip"
            raise DataError("\n".join([f"{head}:", *failures[:10], *more, way_out]))


def _kept(config: DataConfig, source: Format, split: Split) -> Path:
    """Where the decoded images of these very files, in this form, are kept."""
    stats = [(str(p.absolute()), p.stat()) for p in source.files(split)]
    identity = [
        DECODER,
        [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
        [split, source.class_names, config.image_size, config.channels, config.fit],
        None if source.has_test else [config.test_fraction, config.split_seed],
    ]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    return cache_folder() / "decoded" / name


def _recall(kept: Path, class_names: tuple[str, ...]) -> Examples | None:
    """Examples whose images stay on the disk until somebody looks at them."""
    try:
        images = np.load(f"{kept}-images.npy", mmap_mode="c", allow_pickle=False)
        return Examples(np.asarray(images), np.load(f"{kept}-labels.npy"), class_names)
    except Exception:  # not there, or damaged in any way: decoded anew
        return None


def _keep(kept: Path, examples: Examples) -> None:
    try:
        for name, array in (("images", examples.images), ("labels", examples.labels)):
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            write_bytes(kept.with_name(f"{kept.name}-{name}.npy"), buffer.getvalue())
    except OSError as error:
        warnings.warn(f"decoded images are not kept for the next time: {error}", stacklevel=4)


def _check_labels(dataset: str, labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(wrong):
        first = wrong[:5]
        raise DataError(
            f"{dataset}: {len(wrong)} of {len(labels)} labels are outside 0 to "
            f"{len(class_names) - 1}: {labels[first].tolist()} at {first.tolist()}"
        )
    _check_classes(dataset, class_names)


def _check_classes(dataset: str, class_names: tuple[str, ...]) -> None:
    if len(class_names) < 2:
        raise DataError(
            f"{dataset} has one class, {', '.join(class_names)}: a classifier needs two"
        )


def _compare(dataset: str, examples: Examples, known: KnownSet, split: Split) -> None:
    """Warn where a known set does not hold the published images."""
    if known.mean is None or known.std is None or known.content.get(split) == examples.content:
        return
    found, published = f"{len(examples.labels):,} images", f"{getattr(known, split):,} images"
    if split == "train":
        found += _in_words(*statistics(examples.images))
        published += _in_words(known.mean, known.std)
    if split in known.content or found != published:
        warnings.warn(
            f"{dataset}: the {split} split is not the published one: {found}; published: "
            f"{published}. Results will not compare; a JPEG copy, for one, costs 2 to 3 %",
            stacklevel=4,
        )


def _in_words(mean: Sequence[float], std: Sequence[float]) -> str:
    means, stds = (" ".join(f"{value:.4f}" for value in values) for values in (mean, std))
    return f", mean {means}, std {stds}"
