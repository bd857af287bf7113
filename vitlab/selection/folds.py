"""The same held-out images for every candidate: folds, and predictions of images not trained on.

N images   D numbers that describe an image   K classes
"""

from collections.abc import Iterator

import numpy as np

from vitlab.data.splits import address, mix
from vitlab.training.head import logistic_regression

FOLDS = 5

NEIGHBORS = 5
"""How many nearest images vote."""

NEVER = -1
"""The fold of an image that is always trained on, as no other of its class is there."""


def assign_folds(keys: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """The fold that each image is held out in, 0 to FOLDS - 1 or NEVER: (N,).

    Every fold holds the same share of every class, and copies of an image share one. Which images
    it holds depends on the seed and their pixels alone.

    Args:
        keys: uint64 (N,), `LabelledImages.keys`.
        labels: (N,).
    """
    numbers = mix(keys ^ address(seed, "validation"))
    folds = np.full(len(keys), NEVER)
    dealt = 0
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        unique, which = np.unique(numbers[places], return_inverse=True)
        if len(unique) > 1:
            folds[places] = (which + dealt) % FOLDS
            dealt += len(unique)
    return folds


def held_out(folds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for every fold the index of the other images and that of its own, where it has some."""
    for fold in range(FOLDS):
        inside = folds == fold
        if inside.any():
            yield np.flatnonzero(~inside), np.flatnonzero(inside)


def linear_logits(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, classes: int, decay: float
) -> np.ndarray:
    """Logits (N, K) by logistic regression on the features of the other folds; else NaN.

    Args:
        features: (N, D).
        labels: (N,).
        decay: `optim.weight_decay` of the regression.
    """
    logits = np.full((len(labels), classes), np.nan)
    for others, own in held_out(folds):
        if len(np.unique(labels[others])) < 2:
            continue  # nothing to tell apart
        even = np.ones(len(others))
        matrix, bias = logistic_regression(features[others], labels[others], even, classes, decay)
        logits[own] = features[own] @ matrix.T + bias
    return logits


def neighbor_logits(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, classes: int
) -> np.ndarray:
    """Logits (N, K) by the vote of the nearest images of the other folds, by cosine; else NaN."""
    from sklearn.neighbors import KNeighborsClassifier

    logits = np.full((len(labels), classes), np.nan)
    for others, own in held_out(folds):
        if not len(others):
            continue
        most = min(NEIGHBORS, len(others))
        vote = KNeighborsClassifier(most, weights="distance", metric="cosine", algorithm="brute")
        vote.fit(features[others], labels[others])
        logits[own] = -30.0  # a class that no neighbour is of
        shares = vote.predict_proba(features[own])
        logits[own[:, None], vote.classes_] = np.log(np.maximum(shares, 1e-13))
    return logits


def majority_logits(labels: np.ndarray, folds: np.ndarray, classes: int) -> np.ndarray:
    """Logits (N, K) that say the most frequent class of the other folds; else NaN."""
    logits = np.full((len(labels), classes), np.nan)
    for others, own in held_out(folds):
        if not len(others):
            continue
        counts = np.bincount(labels[others], minlength=classes)
        logits[own] = np.log(np.maximum(counts, 1e-13) / len(others))
    return logits
