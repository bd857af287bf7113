"""A named data set becomes uint8 images, labels, class names and a fingerprint.

The training and the test images leave by separate doors, `load_train` and `load_test`.
What was decoded once is kept in the cache folder, which may be deleted at any time.
"""

import difflib
import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from vitlab.config import DataConfig
from vitlab.data.formats import Digits, Folder, Format, Items, Parquet, Split, parquet_files
from vitlab.data.images import conform, decode, header
from vitlab.data.known import KNOWN
from vitlab.data.splits import hold_out
from vitlab.errors import DataError

CACHE_VERSION = 1
"""Raised when decoding changes, so that arrays decoded before are not used again."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled images of one split.

    `images` uint8 (N, H, W, C), `labels` int64 (N,) indexing `class_names`.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of shape, pixels, labels and class names: equal data, equal fingerprint."""
        digest = hashlib.sha256(json.dumps([self.images.shape, self.class_names]).encode())
        digest.update(self.images)
        digest.update(self.labels.astype("<i8"))
        return digest.hexdigest()


def from_arrays(
    images: np.ndarray, labels: np.ndarray, class_names: Sequence[str] | None = None
) -> Examples:
    """Examples from arrays in memory: uint8 (N, H, W) or (N, H, W, C) and integers (N,).

    C is 1 or 3. Without `class_names` the classes are called 0 to the largest label. Raises
    DataError for any other type or shape, unequal lengths and labels outside the classes.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError(
            f"images are {images.dtype} {images.shape}: needed is uint8 (N, H, W), (N, H, W, 1) or "
            "(N, H, W, 3) with values 0 to 255"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise DataError(f"labels are {labels.dtype} {labels.shape}: needed are integers (N,)")
    if len(images) != len(labels) or not len(images):
        raise DataError(f"{len(images)} images and {len(labels)} labels: needed is one label each")
    names = tuple(class_names or map(str, range(labels.max() + 1)))
    _check_labels(labels, names)
    return Examples(np.ascontiguousarray(images), labels.astype(np.int64), names)


def resolve(config: DataConfig, root: str | os.PathLike | None = None) -> DataConfig:
    """Fill in the image size, channels and classes that are None from the data set.

    Known sets are resolved from their facts: nothing is read or fetched. Raises DataError
    where the images differ in size and none is asked for, or `classes` is not the set's.
    """
    if known := KNOWN.get(config.dataset):
        found = {"image_size": known.image_size, "channels": known.channels, "classes": known.classes}
    else:
        source = _find(config.dataset, root)
        found = {"classes": len(source.class_names)}
        if None in (config.image_size, config.channels):
            found |= _survey(config, source)
    if config.classes not in (None, found["classes"]):
        raise DataError(
            f"data.classes={config.classes}, but {config.dataset} has {found['classes']}: "
            "leave data.classes out"
        )
    return replace(config, **{k: v for k, v in found.items() if getattr(config, k) is None})


def load_train(config: DataConfig, root: str | os.PathLike | None = None) -> Examples:
    """Read every training image, validation images included, in the config's form.

    A set that comes without a test split gives up `test_fraction` of every class first.
    Raises DataError for whatever is missing, damaged or contradictory, naming the file.
    """
    return _load(config, root, "train")


def load_test(config: DataConfig, root: str | os.PathLike | None = None) -> Examples:
    """Read the test images in the config's form; the one door to them."""
    return _load(config, root, "test")


def statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, H, W, C), in 0..1.

    Sums are of whole numbers, so neither the order of the images nor the machine matters.
    """
    channels = images.shape[-1]
    total, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for start in range(0, len(images), 1024):
        pixels = images[start : start + 1024].reshape(-1, channels).astype(np.int64)
        total += pixels.sum(axis=0)
        squares += (pixels**2).sum(axis=0)
    count = images.size // channels
    mean = total / count
    std = np.sqrt(squares / count - mean**2)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def cache_folder() -> Path:
    """Where downloads and decoded images are kept: `$XDG_CACHE_HOME/vitlab` or `~/.cache/vitlab`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vitlab"


def _roots(root: str | os.PathLike | None) -> list[Path]:
    given = [root, os.environ.get("VITLAB_DATA"), cache_folder()]
    return [Path(folder).expanduser() for folder in given if folder]


def _find(dataset: str, root: str | os.PathLike | None) -> Format:
    known = KNOWN.get(dataset)
    if dataset == "digits":
        return Digits()
    for folder in [r / dataset for r in _roots(root)] + ([] if known else [Path(dataset).expanduser()]):
        if folder.is_file() and folder.suffix == ".parquet":
            return Parquet(folder)
        if folder.is_dir():
            if any(parquet_files(folder)):
                return Parquet(folder, known and known.class_names, known.label if known else "label")
            return Folder(folder)
    close = difflib.get_close_matches(dataset, KNOWN, n=1)
    raise DataError(f"no data set {dataset!r}" + (f": did you mean {close[0]}?" if close else ""))


def _survey(config: DataConfig, source: Format) -> dict:
    items, _ = source.read("train")
    if isinstance(items, np.ndarray):
        return {"image_size": items.shape[1:3], "channels": items.shape[3]}
    found = [header(item) for item in items]
    sizes = {size for size, _ in found}
    if len(sizes) > 1 and config.image_size is None:
        raise DataError(
            f"{config.dataset} has images of {len(sizes)} sizes, from {min(sizes)} to {max(sizes)}: "
            "set data.image_size (height,width)"
        )
    return {"image_size": min(sizes), "channels": max(channels for _, channels in found)}


def _load(config: DataConfig, root: str | os.PathLike | None, split: Split) -> Examples:
    if not config.resolved:
        config = resolve(config, root)
    source = _find(config.dataset, root)
    kept = _kept(config, source, split)
    if kept and kept.exists():
        try:
            with np.load(kept, allow_pickle=False) as arrays:
                return Examples(arrays["images"], arrays["labels"], source.class_names)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            pass  # a damaged copy is decoded and written anew
    items, labels = source.read(split)
    _check_labels(labels, source.class_names)
    if not source.has_test:
        index = hold_out(labels, config, "test")[0 if split == "train" else 1]
        items, labels = _take(items, index), labels[index]
    examples = Examples(_decode_all(items, config), labels, source.class_names)
    if kept:
        _keep(kept, examples)
    return examples


def _take(items: Items, index: np.ndarray) -> Items:
    return items[index] if isinstance(items, np.ndarray) else [items[i] for i in index]


def _decode_all(items: Items, config: DataConfig) -> np.ndarray:
    from PIL import Image

    assert config.image_size and config.channels
    shape = (len(items), *config.image_size, config.channels)
    if isinstance(items, np.ndarray) and items.shape == shape:
        return np.ascontiguousarray(items)
    images, failures = np.empty(shape, np.uint8), []
    for place, item in enumerate(items):
        if isinstance(item, np.ndarray):
            picture = Image.fromarray(item.squeeze(-1) if item.shape[-1] == 1 else item)
            images[place] = conform(picture, config.image_size, config.channels)
            continue
        try:
            images[place] = decode(item, config.image_size, config.channels)
        except DataError as error:
            failures.append(f"  image {place}: {error}")
    if failures:
        raise DataError(
            f"{len(failures)} of {len(items)} images cannot be read:\n" + "\n".join(failures[:5])
        )
    return images


def _check_labels(labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    if len(class_names) < 2:
        raise DataError(f"one class only ({', '.join(class_names)}): a classifier needs at least two")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(wrong):
        raise DataError(
            f"{len(wrong)} of {len(labels)} labels are outside 0..{len(class_names) - 1}, first at "
            f"{wrong[:5].tolist()}: {labels[wrong[:5]].tolist()}"
        )


def _kept(config: DataConfig, source: Format, split: Split) -> Path | None:
    files = source.files(split)
    if not files:
        return None
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    form = [config.image_size, config.channels]
    if not source.has_test:
        form += [split, config.test_fraction, config.split_seed]
    key = hashlib.sha256(json.dumps([CACHE_VERSION, stats, form]).encode()).hexdigest()
    return cache_folder() / "decoded" / f"{key[:32]}.npz"


def _keep(kept: Path, examples: Examples) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_suffix(f".{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        np.savez(file, images=examples.images, labels=examples.labels)
    os.replace(temporary, kept)
