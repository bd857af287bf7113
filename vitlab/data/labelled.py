"""Images with labels in memory, and what is known of them: keys, fingerprint, statistics."""

import hashlib
import json
import math
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from vitlab.config import DataConfig
from vitlab.data.arrays import check_images, check_labels, check_multi_hot
from vitlab.data.labels import canonical_order, images_by_class
from vitlab.data.limits import RESIDENT
from vitlab.data.source import numbered
from vitlab.data.splits import train_validation
from vitlab.errors import DataError
from vitlab.formatting import plain

LISTED_CLASSES = 12
"""Classes whose images are counted one by one; of more only the smallest and the largest."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Labelled images: `images` uint8 (N, H, W, C), `labels` int64 (N,) into `class_names`.

    Where an image may have several labels, `labels` is multi-hot: uint8 (N, K).
    """

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
    places: np.ndarray | None = None
    """Place of each image among the items that its source has for the split, (N,); of images handed
    in as arrays, place in them; None where it is not known."""

    @cached_property
    def keys(self) -> np.ndarray:
        """uint64 (N,): 64 bits of SHA-256 of each image's pixels as they are stored.

        They name an image in any order, under any file name and at any `image_size`.
        """
        if self.known_keys is not None:
            return self.known_keys
        return np.fromiter(map(key_of, self.images), np.uint64, len(self.images))

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
        order = canonical_order(self.keys, self.labels, self.weights)
        if np.array_equal(order, np.arange(len(order))):
            return self
        return replace(
            self,
            images=self.images[order],
            labels=self.labels[order],
            known_keys=self.keys[order],
            weights=None if self.weights is None else self.weights[order],
            places=None if self.places is None else self.places[order],
        )

    def split(self, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
        """Index of the training and of the validation images, as `splits.train_validation`."""
        return train_validation(self.keys, self.labels, config)


class Subset:
    """Some of the images of an array (N, H, W, C), copied only where they are looked at."""

    def __init__(self, images: np.ndarray, index: np.ndarray):
        self._images, self._index = images, index
        self.shape = (len(index), *images.shape[1:])

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, places: int | slice | np.ndarray) -> np.ndarray:
        ask_for(self._images, np.atleast_1d(self._index[places]))
        return self._images[self._index[places]]


def ask_for(images: np.ndarray, places: Iterable[int]) -> None:
    """Have images of a set that is not in memory read from its file, all of them at once.

    One after another, where they are touched, each would wait for its own and for megabytes around
    it that are not wanted.
    """
    if images.nbytes <= RESIDENT or not hasattr(mmap.mmap, "madvise"):
        return
    file = images.base
    while isinstance(file, np.ndarray):
        file = file.base
    if not isinstance(file, mmap.mmap):
        return
    size = images[0].nbytes
    first = images.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data
    for place in places:
        begin = first + int(place) * size
        start = begin - begin % mmap.PAGESIZE
        file.madvise(mmap.MADV_WILLNEED, start, begin + size - start)


def key_of(image: np.ndarray) -> int:
    """64 bits of SHA-256 of an image's type, shape and pixels, (H, W, C) uint8 or uint16."""
    digest = hashlib.sha256(f"{image.dtype} {image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return int.from_bytes(digest.digest()[:8], "little")


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str] | None = None,
    task: Literal["multiclass", "multilabel"] = "multiclass",
) -> LabelledImages:
    """Examples from arrays: uint8 (N, H, W) or (N, H, W, C) of 1 or 3 channels, integers (N,).

    They are sorted like all examples (`LabelledImages.canonical`). Without `class_names` classes
    are 0 to the largest label, and each needs an image. For the task multilabel labels are (N, K)
    of 0 and 1. Raises DataError for another type, shape, unequal lengths, labels outside the
    classes and fewer than two classes.
    """
    images = check_images(images)
    if task == "multilabel":
        labels = check_multi_hot(labels, len(images), class_names)
        names = tuple(map(str, range(labels.shape[1]) if class_names is None else class_names))
        check_classes("the arrays", names)
    else:
        labels = check_labels(labels, len(images), class_names)
        names = numbered(labels) if class_names is None else tuple(map(str, class_names))
        check_range("the arrays", labels, names)
    places = np.arange(len(images))
    images = np.ascontiguousarray(images)
    return LabelledImages(images, labels, names, places=places).canonical()


def check_range(dataset: str, labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Refuse labels (N,) outside the classes, and fewer than two classes."""
    if labels.ndim == 2:  # multi-hot: a column each
        return check_classes(dataset, class_names)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(wrong):
        first = wrong[:5]
        raise DataError(
            f"{dataset}: {len(wrong)} of {len(labels)} labels are outside 0 to "
            f"{len(class_names) - 1}: {labels[first].tolist()} at {first.tolist()}"
        )
    check_classes(dataset, class_names)


def check_classes(dataset: str, class_names: tuple[str, ...]) -> None:
    """Refuse fewer than two classes."""
    if len(class_names) < 2:
        raise DataError(
            f"{dataset} has one class, {', '.join(class_names)}: a classifier needs two"
        )


def statistics(images: np.ndarray | Subset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, H, W, C), in 0..1.

    Counting the values is exact, so neither order nor machine changes the result. The deviation
    of a channel of one value is given as 1, so that images can be divided by it.
    """
    counts = value_counts(images)
    values = np.arange(256) / 255
    frequencies = counts / counts.sum(axis=1, keepdims=True)
    mean = frequencies @ values
    variance = (frequencies * (values - mean[:, None]) ** 2).sum(axis=1)
    std = np.where(counts.astype(bool).sum(axis=1) > 1, np.sqrt(variance), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def value_counts(images: np.ndarray | Subset) -> np.ndarray:
    """How often each channel of uint8 images (N, H, W, C) has each value: int64 (C, 256)."""
    counts = np.zeros((images.shape[-1], 256), np.int64)
    part = max(1, (1 << 20) // math.prod(images.shape[1:3]))  # bincount makes int64 of them
    for start in range(0, len(images), part):
        pixels = images[start : start + part]
        for channel, count in enumerate(counts):
            count += np.bincount(pixels[..., channel].ravel(), minlength=256)
    return counts


def class_counts(labels: np.ndarray, class_names: Sequence[str]) -> str:
    """How many images have which of the labels; of many classes only the extremes."""
    counts = images_by_class(labels, len(class_names)).tolist()
    by_class = [f"{plain(name)} {n:,}" for name, n in zip(class_names, counts, strict=True)]
    if len(by_class) <= LISTED_CLASSES:
        return ", ".join(by_class)
    few, most = np.argmin(counts), np.argmax(counts)
    return f"{len(by_class)}, the smallest {by_class[few]}, the largest {by_class[most]}"
