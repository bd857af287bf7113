"""A named data set becomes uint8 images, labels, class names and a fingerprint.

Training and test images leave by separate doors, `load_train` and `load_test`, in an order that
depends on their pixels alone, whatever file or folder they came from. A set is looked for below
the data root, then below $VITLAB_DATA, then in the cache folder, and then fetched. What was
decoded once is kept in the cache folder, which may be deleted at any time.
"""

import difflib
import hashlib
import json
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vitlab.config import DataConfig
from vitlab.data.arrays import check_images, check_labels
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
from vitlab.data.images import convert, header, read
from vitlab.data.known import KNOWN, KnownSet
from vitlab.data.loose import Loose, holds_files
from vitlab.data.splits import hold_out, train_validation
from vitlab.data.table import Table
from vitlab.errors import DataError
from vitlab.files import replacing
from vitlab.formatting import plain

Root = str | os.PathLike[str] | None

ARRAYS = "arrays"
"""What `config.data.dataset` says of images that were handed in as arrays."""

SHOWN_CLASSES = 12
"""Classes that are told one by one; of more only the smallest and the largest."""

DECODER = 2
"""Number of the way images are decoded; arrays kept under another are not used."""


class _UnreadableError(DataError):
    """Images that cannot be read, and the way out."""

    def __init__(self, told: str, way_out: str):
        self.told = told
        super().__init__(f"{told}\n{way_out}")


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Labelled images: `images` uint8 (N, H, W, C), `labels` int64 (N,) into `class_names`."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    skipped: int = 0
    """Images that could not be read and were left out, where the config allows it."""
    grey_range: tuple[int, int] | None = None
    """The values of 16-bit images that became 0 and 255; None for 8-bit images."""
    known_keys: np.ndarray | None = None
    """The keys, where they were computed before, from pixels of another size."""
    weights: np.ndarray | None = None
    """How often an image is shown beside others, positive (N,); None shows all equally often."""

    @cached_property
    def keys(self) -> np.ndarray:
        """uint64 (N,): 64 bits of SHA-256 of each image's pixels as they are stored.

        They name an image in any order, under any file name and at any `image_size`.
        """
        return keys_of(self.images) if self.known_keys is None else self.known_keys

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of shape, class names, pixels, labels, weights: equal data, equal fingerprint."""
        digest = hashlib.sha256(json.dumps([self.images.shape, self.class_names]).encode())
        digest.update(self.images.data)
        digest.update(self.labels.astype("<i8").data)
        if self.weights is not None:
            digest.update(self.weights.astype("<f8").data)
        return digest.hexdigest()

    @cached_property
    def content(self) -> str:
        """SHA-256 of keys and labels, to know a published set at any image size."""
        digest = hashlib.sha256(self.keys.astype("<u8").data)
        digest.update(self.labels.astype("<i8").data)
        return digest.hexdigest()

    def canonical(self) -> "LabelledImages":
        """The same examples in the one order that every copy of them has: sorted by key, label."""
        weights = np.zeros(len(self.labels)) if self.weights is None else self.weights
        order = np.lexsort((weights, self.labels, self.keys))
        if np.array_equal(order, np.arange(len(order))):
            return self
        return replace(
            self,
            images=self.images[order],
            labels=self.labels[order],
            known_keys=self.keys[order],
            weights=None if self.weights is None else self.weights[order],
        )

    def split(self, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
        """Index of the training and of the validation images, as `splits.train_validation`."""
        return train_validation(self.keys, self.labels, config)


def keys_of(images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Keys, uint64 (N,), of images (H, W, C) uint8 or uint16."""
    return np.fromiter(map(key_of, images), np.uint64, len(images))


def key_of(image: np.ndarray) -> int:
    """64 bits of SHA-256 of an image's type, shape and pixels."""
    digest = hashlib.sha256(f"{image.dtype} {image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return int.from_bytes(digest.digest()[:8], "little")


def from_arrays(
    images: np.ndarray, labels: np.ndarray, class_names: Sequence[str] | None = None
) -> LabelledImages:
    """Examples from arrays: uint8 (N, H, W) or (N, H, W, C) of 1 or 3 channels, integers (N,).

    They are sorted like all examples (`LabelledImages.canonical`). Without `class_names` classes
    are 0 to the largest label, and each needs an image. Raises DataError for another type, shape,
    unequal lengths, labels outside the classes and fewer than two classes.
    """
    images = check_images(images)
    labels = check_labels(labels, len(images), class_names)
    names = numbered(labels) if class_names is None else tuple(map(str, class_names))
    _check_labels("the arrays", labels, names)
    return LabelledImages(np.ascontiguousarray(images), labels, names).canonical()


Data = LabelledImages | tuple[np.ndarray, np.ndarray] | None
"""Images and labels in memory, instead of those that `DataConfig.dataset` names."""


class Dataset:
    """The images of a config that are not its test split: what they are, and how they are split.

    Args:
        config: which images; `Dataset.config` is the same with nothing left open.
        data: training images in memory instead.
        root: folder of data sets; default $VITLAB_DATA, else the cache.

    Raises:
        DataError: for what is missing, damaged or contradictory, naming the files. Headers are read
            at once, pixels when they are first asked for.
    """

    def __init__(self, config: DataConfig, data: Data = None, root: Root = None):
        self.root = root
        self._given = None
        if data is None and config.dataset == ARRAYS:
            raise DataError("the images were arrays in memory: hand them in again as data=")
        if data is None:
            self.config = resolve(config, root)
            return
        examples = data.canonical() if isinstance(data, LabelledImages) else from_arrays(*data)
        height, width, channels = examples.images.shape[1:]
        found = {
            "image_size": (height, width),
            "channels": channels,
            "classes": len(examples.class_names),
        }
        for name, value in found.items():
            if getattr(config, name) not in (None, value):
                raise DataError(
                    f"data.{name}={getattr(config, name)} does not fit the images given: {value}"
                )
        self.config = replace(config, dataset=ARRAYS, **found)
        self._given = examples

    @cached_property
    def examples(self) -> LabelledImages:
        """All images, those for validation included, in their canonical order."""
        return load_train(self.config, self.root) if self._given is None else self._given

    @cached_property
    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Index of the training and of the validation images."""
        return self.examples.split(self.config)

    @property
    def description(self) -> list[str]:
        """What of the data set is used for what, and what is not; nothing of arrays."""
        return [] if self._given is not None else describe(self.config, self.root)

    @property
    def train_count(self) -> int:
        """Number of training images; before they are read, what is known of it: at least 1."""
        if self._given is not None or "examples" in vars(self):
            return len(self.split[0])
        known, config = KNOWN.get(self.config.dataset), self.config
        share = (1 - config.validation_fraction) * config.train_fraction
        return max(1, int(known.train * share)) if known else 1


def open_dataset(config: DataConfig, data: Data = None, root: Root = None) -> Dataset:
    """Open the training and validation images of a config; see `Dataset`."""
    return Dataset(config, data, root)


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


def load_train(config: DataConfig, root: Root = None) -> LabelledImages:
    """Read all training images, those for validation included, in the config's form.

    A set that comes without a test split gives up `test_fraction` of every class first.
    Raises one DataError for what is missing, damaged or contradictory, naming the files. Warns
    if a known set is unlike the published one.
    """
    return _load(config, root, "train")


def find_again(config: DataConfig, root: Root = None) -> DataConfig:
    """The config of a run's data with the place where it lies now, which may not be where it lay.

    A folder or file that is gone is looked for by its name below the data root, and then the root
    itself is taken for it. DataError where nothing is found, with the way to tell the place.
    """
    place = Path(config.dataset).expanduser()
    if config.dataset in KNOWN or place.exists():
        return config
    for folder in _roots(root):
        for found in (folder / place, folder / place.name):
            if found.exists():
                return replace(config, dataset=str(found))
    if root is not None:
        return replace(config, dataset=str(root))
    raise DataError(
        f"{config.dataset}, where the data of this run lay, is gone: tell where it is now with "
        "--data-root FOLDER; that it is the same is checked"
    )


def draws_test(config: DataConfig, root: Root = None) -> bool:
    """True if a set comes without a test split, so that one is drawn from all its images."""
    return not _find(config.dataset, root).has_test


def load_test(config: DataConfig, root: Root = None) -> LabelledImages:
    """Read the test images in the config's form; the one door to them."""
    try:
        return _load(config, root, "test")
    except _UnreadableError as error:
        # Without an image other ones would be drawn, some of which were trained on.
        way_out = "Replace or remove" if _find(config.dataset, root).has_test else "Replace"
        raise DataError(
            f"test images of {error.told}\n{way_out} them; a run keeps data.unreadable, so leaving "
            "them out takes a training with data.unreadable=skip"
        ) from error


def statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, H, W, C), in 0..1.

    Counting the values is exact, so neither order nor machine changes the result. The deviation
    of a channel of one value is given as 1, so that images can be divided by it.
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
    std = np.where(counts.astype(bool).sum(axis=1) > 1, np.sqrt(variance), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


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
        ending = place.suffix.lower()
        if (ending == ".parquet" and place.is_file()) or any(parquet_files(place)):
            return Parquet(place)
        if ending in (".csv", ".tsv") and place.is_file():
            return Table(place)
        if place.is_dir():
            if name := next((n for n, one in KNOWN.items() if holds_batches(place, one)), None):
                raise DataError(
                    f"{place} holds {name}: give data.dataset={name} and "
                    f"{place.absolute().parent} as --data-root"
                )
            return Folder(place)
    if Path(dataset).is_file():
        raise DataError(
            f"{dataset} is no .csv, .tsv or .parquet file: unpack an archive and give its folder"
        )
    close = difflib.get_close_matches(dataset, KNOWN, n=1)
    raise DataError(
        f"no data set {dataset!r}{f': did you mean {close[0]}?' if close else ''}\n"
        f"known: {', '.join(KNOWN)}; or the path of a folder of class folders or Parquet files, "
        "or of a CSV file, or its name below the data root"
    )


def describe(config: DataConfig, root: Root = None) -> list[str]:
    """What of a data set is used for what, and a sentence for each thing that is not, and why."""
    source = _find(config.dataset, root)
    share = f"{100 * config.test_fraction:g} % of every class"
    told = [source.uses + ("" if source.has_test else f", test images drawn: {share}")]
    told += source.notes
    if config.dataset in KNOWN:
        used = [path.resolve() for path in source.files("train")[:1]]
        places = Path(config.dataset), *(folder / config.dataset for folder in _roots(root))
        for place in dict.fromkeys(places):
            if place.is_dir() and not any(path.is_relative_to(place.resolve()) for path in used):
                told.append(f"the folder {place} is not used: for it give {_as_path(place)}")
    return told


def class_counts(labels: np.ndarray, class_names: Sequence[str]) -> str:
    """How many of labels (N,) are of which class; of many classes only the extremes."""
    counts = np.bincount(labels, minlength=len(class_names)).tolist()
    by_class = [f"{plain(name)} {n:,}" for name, n in zip(class_names, counts, strict=True)]
    if len(by_class) <= SHOWN_CLASSES:
        return ", ".join(by_class)
    few, most = np.argmin(counts), np.argmax(counts)
    return f"{len(by_class)}, the smallest {by_class[few]}, the largest {by_class[most]}"


def _as_path(folder: Path) -> str:
    """A folder as a word that is no name of a known set."""
    return str(folder) if len(folder.parts) > 1 else os.path.join(os.curdir, folder)


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
            f"or move the folder away. For a folder of class folders give {_as_path(folder)}"
        )
    return None


def _survey(config: DataConfig, source: Format) -> dict[str, Any]:
    items, _ = _read(config, source, "train")
    if isinstance(items, np.ndarray):
        return {"image_size": items.shape[1:3], "channels": items.shape[3]}
    try:
        found = dict(_each(lambda item: header(item, config.max_pixels), items, config))
    except _UnreadableError:
        # Those of broken pixels are told together with those of broken headers.
        for _ in _each(lambda item: read(item, (1, 1), config.max_pixels), items, config):
            pass
        raise
    sizes, channels, _ = zip(*found.values(), strict=True)
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


def _load(config: DataConfig, root: Root, split: Split) -> LabelledImages:
    config = resolve(config, root)
    source = _find(config.dataset, root)
    kept = _kept(config, source, split)
    examples = _recall(kept, source.class_names)
    if examples is None:
        examples = _decode(config, source, split)
        if not examples.skipped and _keep(kept, examples):  # else nobody hears of them next time
            # The disk's copy can leave the memory again.
            examples = _recall(kept, source.class_names) or examples
    if known := KNOWN.get(config.dataset):
        _compare(config, examples, known, split)
    return examples


def _decode(config: DataConfig, source: Format, split: Split) -> LabelledImages:
    items, labels = _read(config, source, split if source.has_test else "train")
    size, channels, grey_range = config.image_size, config.channels, config.grey_range
    assert size and channels
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
    for place, pixels in _each(lambda item: _pixels(item, config), items, config):
        if pixels.dtype == np.uint16 and grey_range is None:
            grey_range = _grey_range(config, source)
        keys[len(places)] = key_of(pixels)
        images[len(places)] = convert(pixels, size, channels, config.fit, grey_range)
        places.append(place)
    skipped = len(items) - len(places)
    images, keys, labels = images[: len(places)], keys[: len(places)], labels[places]
    if skipped:
        _check_present(config, labels, source, split)
    order = np.lexsort((labels, keys))
    if not source.has_test:
        rest, held = hold_out(keys[order], labels[order], config, "test")
        order = order[held if split == "test" else rest]
    return LabelledImages(
        _take(images, order), labels[order], source.class_names, skipped, grey_range, keys[order]
    )


def _pixels(item: Any, config: DataConfig) -> np.ndarray:
    """The stored pixels of an item, which an array holds already."""
    if isinstance(item, np.ndarray):
        return item
    assert config.image_size
    return read(item, config.image_size, config.max_pixels)


def _grey_range(config: DataConfig, source: Format) -> tuple[int, int]:
    """The lowest and the highest value of the 16-bit images that are not the test split's own."""
    low, high = 65535, 0
    for item in source.read("train")[0]:
        try:
            _check_file(item)
            pixels = _pixels(item, config)
        except DataError:
            continue  # is told when the images are read
        if pixels.dtype == np.uint16:
            low, high = min(low, int(pixels.min())), max(high, int(pixels.max()))
    return low, max(high, low + 1)


def _take(images: np.ndarray, order: np.ndarray) -> np.ndarray:
    """`images[order]` without a second copy of images that may fill half of the memory."""
    chosen = np.zeros(len(images), bool)
    chosen[order] = True
    whole = np.concatenate([order, np.flatnonzero(~chosen)])
    done = np.zeros(len(images), bool)
    for start in range(len(images)):
        place = start
        first = images[start].copy() if whole[start] != start and not done[start] else None
        while not done[place]:
            done[place] = True
            source = whole[place]
            if first is not None:
                images[place] = first if source == start else images[source]
            place = source
    return images[: len(order)]


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
                _check_file(item)
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
            raise _UnreadableError("\n".join([f"{head}:", *failures[:10], *more]), way_out)


def _check_file(item: Any) -> None:
    """Refuse what would be waited for, and what is not there, in words."""
    if not isinstance(item, Path):
        return
    try:
        regular = stat.S_ISREG(item.stat().st_mode)
    except OSError as error:
        link = f"a broken link to {os.readlink(item)!r}" if item.is_symlink() else error.strerror
        raise DataError(f"{str(item)!r}: {link}") from error
    if not regular:
        raise DataError(f"{str(item)!r}: not a file: a pipe, a socket or a device")


def _kept(config: DataConfig, source: Format, split: Split) -> Path:
    """Where the decoded images of these very files, in this form, are kept."""
    # Values of 16 bits are scaled as the training images need it.
    files = {*source.files(split), *source.files("train")}
    identity = [
        DECODER,
        [(str(path.absolute()), *_size_and_time(path)) for path in sorted(files)],
        [split, source.class_names, config.image_size, config.channels, config.fit],
        [config.grey_range, config.max_pixels],
        None if source.has_test else [config.test_fraction, config.split_seed],
    ]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    return cache_folder() / "decoded" / name


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:  # a broken link, which is told where images are read
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _recall(kept: Path, class_names: tuple[str, ...]) -> LabelledImages | None:
    """Examples whose images stay on the disk until somebody looks at them."""
    try:
        images = np.load(f"{kept}-images.npy", mmap_mode="c", allow_pickle=False)
        facts = np.load(f"{kept}-facts.npz", allow_pickle=False)
        grey_range = tuple(facts["grey_range"].tolist()) or None
        return LabelledImages(
            np.asarray(images), facts["labels"], class_names, 0, grey_range, facts["keys"]
        )
    except Exception:  # not there, or damaged in any way: decoded anew
        return None


def _keep(kept: Path, examples: LabelledImages) -> bool:
    """Keep decoded images for the next time; False, with a warning, where that is impossible."""
    assert examples.known_keys is not None
    try:
        with replacing(kept.with_name(f"{kept.name}-images.npy")) as file:
            np.save(file, examples.images, allow_pickle=False)
        with replacing(kept.with_name(f"{kept.name}-facts.npz")) as file:
            np.savez(
                file,
                labels=examples.labels,
                keys=examples.known_keys,
                grey_range=np.array(examples.grey_range or (), np.int64),
            )
    except OSError as error:
        warnings.warn(f"decoded images are not kept for the next time: {error}", stacklevel=4)
        return False
    return True


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


def _compare(config: DataConfig, examples: LabelledImages, known: KnownSet, split: Split) -> None:
    """Warn where a known set does not hold the published images."""
    if known.mean is None or known.std is None or known.content.get(split) == examples.content:
        return
    found, published = f"{len(examples.labels):,} images", f"{getattr(known, split):,} images"
    as_published = (config.image_size, config.channels) == (known.image_size, known.channels)
    if split == "train" and as_published:
        found += _in_words(*statistics(examples.images))
        published += _in_words(known.mean, known.std)
    if split in known.content or found != published:
        warnings.warn(
            f"{config.dataset}: the {split} split is not the published one: {found}; published: "
            f"{published}. Results will not compare; a JPEG copy, for one, costs 2 to 3 %",
            stacklevel=4,
        )


def _in_words(mean: Sequence[float], std: Sequence[float]) -> str:
    means, stds = (" ".join(f"{value:.4f}" for value in values) for values in (mean, std))
    return f", mean {means}, std {stds}"
