"""Which images are trained on and which are only looked at: seeded, stratified splits.

A split is a sorted index into the labels. Every class gives the same share, and what is
drawn depends on the labels and `split_seed` alone, so all seeds of a study share one split.
A smaller share is drawn from inside the larger.
"""

import hashlib
from typing import Literal

import numpy as np

from vitlab.config import DataConfig
from vitlab.errors import DataError

Part = Literal["test", "validation", "train"]
STREAMS: dict[Part, int] = {"test": 0, "validation": 1, "train": 2}


def train_validation(labels: np.ndarray, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """Split labels (N,) into a training and a validation index, int64 and sorted.

    First `validation_fraction` of every class is set aside, then `train_fraction` of what is
    left is kept. Raises DataError where a class has too few images to be in both.
    """
    rest, validation = hold_out(labels, config, "validation")
    return rest[draw(labels[rest], config.train_fraction, config.split_seed, "train")], validation


def hold_out(
    labels: np.ndarray, config: DataConfig, part: Literal["test", "validation"]
) -> tuple[np.ndarray, np.ndarray]:
    """Split labels (N,) into the index of the rest and the index of the part held out."""
    fraction = {"test": config.test_fraction, "validation": config.validation_fraction}[part]
    counts = np.bincount(labels, minlength=config.classes or 0)
    least = 1 if fraction == 0 else 2
    if counts.min() < least:
        small = np.flatnonzero(counts < least)[:5]
        raise DataError(
            f"too few images: classes {small.tolist()} have {counts[small].tolist()}, but "
            f"data.{part}_fraction={fraction} needs at least {least} of every class"
        )
    held = draw(labels, fraction, config.split_seed, part)
    return np.setdiff1d(np.arange(len(labels)), held), held


def draw(labels: np.ndarray, fraction: float, seed: int, part: Part) -> np.ndarray:
    """Draw the same share of every class: a sorted int64 index into labels (N,).

    A share is rounded to whole images; below 1 it is neither none nor, where a class has two
    images, all of them.
    """
    drawn = [np.empty(0, np.int64)]
    for label in np.unique(labels) if fraction else ():
        places = np.flatnonzero(labels == label)
        count = round(fraction * len(places))
        if fraction < 1:
            count = max(1, min(count, len(places) - 1))
        # Uniform numbers are sorted because numpy keeps their stream from version to
        # version, which it does not promise of its shuffles.
        stream = np.random.default_rng([seed, STREAMS[part], int(label)])
        drawn.append(places[stream.random(len(places)).argsort()[:count]])
    return np.sort(np.concatenate(drawn))


def index_sha256(index: np.ndarray) -> str:
    """Hash of an index, to prove that two runs share a split."""
    return hashlib.sha256(np.asarray(index, "<i8").tobytes()).hexdigest()
