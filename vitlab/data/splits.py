"""Which images are trained on and which are only looked at: seeded, stratified splits.

A split is a sorted index into the images. Every class gives the same share, and which images it
gives depends on `split_seed` and the images' own pixels alone: not on the order or the names of
files, so all seeds of a study and all forms of a data set share one split. An image that is added
moves few others, and a smaller share is drawn from inside the larger.

Where an image has several labels, the rarest label is served first, as in iterative stratification
(Sechidis et al., 2011): its share is exact, and a label that is more frequent gives what its share
still lacks of the images that no rarer label has decided on. Images without a label are a class.
"""

import hashlib
from typing import Literal

import numpy as np

from vitlab.config import DataConfig
from vitlab.data.labels import images_by_class, places_by_class
from vitlab.errors import DataError

Split = Literal["train", "validation", "test"]


def train_validation(
    keys: np.ndarray, labels: np.ndarray, config: DataConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Split images into a training and a validation index, int64 and sorted.

    First `validation_fraction` of every class is set aside, then `train_fraction` of what is
    left is kept. Raises DataError where a class has too few images to be in both.

    Args:
        keys: uint64 (N,), `LabelledImages.keys`.
        labels: int64 (N,), or multi-hot uint8 (N, K).
    """
    rest, validation = hold_out(keys, labels, config, "validation")
    kept = draw(keys[rest], labels[rest], config.train_fraction, config.split_seed, "train")
    return rest[kept], validation


def hold_out(
    keys: np.ndarray, labels: np.ndarray, config: DataConfig, split: Literal["test", "validation"]
) -> tuple[np.ndarray, np.ndarray]:
    """Split images into the index of the rest and the index of those held out."""
    fraction = config.test_fraction if split == "test" else config.validation_fraction
    counts = images_by_class(labels, config.classes or 0)
    least = 1 if fraction == 0 else 2
    if counts.min() < least:
        small = np.flatnonzero(counts < least)[:5]
        raise DataError(
            f"too few images: classes {small.tolist()} have {counts[small].tolist()}, but "
            f"data.{split}_fraction={fraction} needs at least {least} of every class"
        )
    held = draw(keys, labels, fraction, config.split_seed, split)
    rest = np.setdiff1d(np.arange(len(labels)), held)
    if len(empty := np.flatnonzero(images_by_class(labels[rest], config.classes or 0) == 0)):
        raise DataError(
            f"too few images: all of classes {empty[:5].tolist()} share a rarer label that "
            f"data.{split}_fraction={fraction} holds out: add images, or choose another fraction "
            "or data.split_seed"
        )
    return rest, held


def draw(
    keys: np.ndarray, labels: np.ndarray, fraction: float, seed: int, split: Split
) -> np.ndarray:
    """Draw the same share of every class: a sorted int64 index into images.

    Of every class those with the smallest numbers are drawn, and an image's number is a function
    of its key, the seed and the split. A share is rounded to whole images; below 1 it is neither
    none nor, where a class has two images, all of them.
    """
    numbers = mix(keys ^ address(seed, split))
    drawn, decided = np.zeros((2, len(labels)), bool)
    for places in sorted(places_by_class(labels), key=len) if fraction else ():
        count = round(fraction * len(places))
        if fraction < 1:
            count = max(1, min(count, len(places) - 1))
        free = places[~decided[places]]
        lacking = max(0, count - int(drawn[places].sum()))
        drawn[free[numbers[free].argsort(kind="stable")[:lacking]]] = True
        decided[places] = True
    return np.flatnonzero(drawn)


def address(seed: int, split: Split) -> np.uint64:
    """64 bits that stand for a seed and a split."""
    digest = hashlib.sha256(f"{seed} {split}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


def mix(words: np.ndarray) -> np.ndarray:
    """Scramble uint64 words, each by itself (the finaliser of SplitMix64, Steele et al., 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def index_sha256(index: np.ndarray) -> str:
    """Hash of an index, to prove that two runs share a split."""
    return hashlib.sha256(np.asarray(index, "<i8").tobytes()).hexdigest()
