"""Confident learning: which labels are probably wrong (Northcutt, Jiang and Chuang, 2021).

Nothing but labels and probabilities goes in, each image's by a model that was not trained on it.

N images   K classes
"""

from typing import NamedTuple

import numpy as np


class LabelErrors(NamedTuple):
    """Labels that are probably wrong, the surest first."""

    places: np.ndarray
    """Which of the images, (M,)."""
    proposed: np.ndarray
    """The class that each is likelier of, (M,)."""
    margins: np.ndarray
    """Probability of the given label less that of the likeliest other, -1 to 0: (M,)."""


def confident_joint(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many images are labelled i and are of class j, estimated: float (K, K).

    An image counts as of class j if its probability of j is at least the mean over the images
    labelled j; of the likeliest such class where there are several. Counts are then scaled so that
    each row has as many as there are labels. A class without images has no row and no column.

    Args:
        probabilities: (N, K), each row of sum 1.
        labels: (N,) into the classes.
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    given = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels, weights=given, minlength=classes)
    thresholds = np.divide(sums, counts, out=np.full(classes, np.inf), where=counts > 0)
    # The mean of equal probabilities may be rounded to slightly more than each of them.
    reached = np.where(probabilities >= thresholds - 1e-9, probabilities, -1.0)
    sure = reached.max(axis=1, initial=-1.0) >= 0
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[sure], reached[sure].argmax(axis=1)), 1)
    unsure = joint.sum(axis=1) == 0  # nothing speaks against the labels of such a class
    joint[unsure, unsure] = 1
    return joint * (counts / joint.sum(axis=1))[:, None]


def rounded(joint: np.ndarray) -> np.ndarray:
    """Counts (K, K) whose rows have whole sums, as whole numbers of the same sums."""
    floor = np.floor(joint + 1e-9)
    missing = np.rint(joint.sum(axis=1) - floor.sum(axis=1))
    ranks = np.argsort(np.argsort(floor - joint, axis=1, kind="stable"), axis=1)
    return (floor + (ranks < missing[:, None])).astype(int)


def label_errors(probabilities: np.ndarray, labels: np.ndarray) -> LabelErrors:
    """Images whose labels are probably wrong, pruned by noise rate.

    Of the images labelled i, as many are taken for class j as the confident joint counts: those by
    whose probabilities j is likelier than i by most, and likelier at all.

    Args:
        probabilities: (N, K), each row of sum 1.
        labels: (N,) into the classes.
    """
    joint = rounded(confident_joint(probabilities, labels))
    given = probabilities[np.arange(len(labels)), labels]
    taken = np.zeros(len(labels), bool)
    for i, j in np.argwhere(joint):
        own = np.flatnonzero(labels == i)
        margins = probabilities[own, j] - given[own]  # 0 where j is i
        largest = np.argsort(-margins, kind="stable")[: joint[i, j]]
        taken[own[largest[margins[largest] > 0]]] = True
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    margins = given - others.max(axis=1)
    places = np.flatnonzero(taken)
    places = places[np.argsort(margins[places], kind="stable")]
    return LabelErrors(places, others[places].argmax(axis=1), margins[places])
