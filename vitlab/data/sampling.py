"""What is done about classes of unequal size: how often they are shown, how much they weigh.

Shapes: N images, K classes.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np


def class_weights(
    labels: np.ndarray, classes: int, weighting: Literal["none", "balanced"] | tuple[float, ...]
) -> np.ndarray:
    """Weights of the classes in the loss: float32 (K,), from training labels (N,).

    `balanced` is the inverse of a class's frequency, scaled so that the mean over the images is
    1 and the loss keeps its size; a class without images weighs 1. `none` is 1 for all; numbers
    are taken as they are.
    """
    if isinstance(weighting, tuple):
        return np.array(weighting, np.float32)
    if weighting == "none":
        return np.ones(classes, np.float32)
    counts = np.bincount(labels, minlength=classes)
    seen = counts > 0
    weights = np.ones(classes, np.float32)
    weights[seen] = len(labels) / (seen.sum() * counts[seen])
    return weights


def balanced_order(by_class: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The order of an epoch that shows as many images of every class: int64 (N,), drawn anew.

    An epoch stays as long as it is without. A class shows all its images before one comes
    again, and those of a class that is too large take turns by chance. What does not divide
    goes to classes drawn at random, one image each.
    """
    images, classes = sum(map(len, by_class)), len(by_class)
    counts = np.full(classes, images // classes)
    counts[rng.permutation(classes)[: images % classes]] += 1
    shown = [
        np.concatenate([rng.permutation(places) for _ in range(-(-count // len(places)))])[:count]
        for places, count in zip(by_class, counts.tolist(), strict=True)
    ]
    return rng.permutation(np.concatenate(shown))


def weighted_order(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The order of an epoch that shows an image as often as it weighs: int64 (N,), drawn anew.

    Weights (N,) are positive. An epoch stays as long as it is without. In expectation an image
    comes weight / mean weight times, and really as often, rounded up or down at random.
    """
    images = len(weights)
    places = rng.permutation(images)
    ends = np.cumsum(weights[places])
    ends *= images / ends[-1]
    ends[-1] = images  # not a rounding error less, which would cost an image
    counts = np.diff(np.floor(ends + rng.random()), prepend=0).astype(np.int64)
    return rng.permutation(places.repeat(counts))
