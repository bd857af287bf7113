"""Labels as arrays: the class of each image, or every label that fits it.

N images   K classes   labels int64 (N,) into the classes, or multi-hot uint8 (N, K)
"""

from collections.abc import Sequence

import numpy as np


def images_by_class(labels: np.ndarray, classes: int) -> np.ndarray:
    """How many images have each label: (K,)."""
    return labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)


def places_by_class(labels: np.ndarray) -> list[np.ndarray]:
    """The places of every class that has any, in order of class and place.

    Images without a label come last, as if that were a class.
    """
    if labels.ndim == 2:
        columns = [*labels.T.astype(bool), ~labels.any(axis=1)]
        places = [np.flatnonzero(column) for column in columns]
    else:
        ends = np.cumsum(np.bincount(labels))
        places = np.split(np.argsort(labels, kind="stable"), ends[:-1])
    return [part for part in places if len(part)]


def canonical_order(
    keys: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """The order (N,) of images by key (N,), then label, then weight (N,), if they have any."""
    columns = labels.T[::-1] if labels.ndim == 2 else labels[None]
    return np.lexsort((*(() if weights is None else (weights,)), *columns, keys))


def in_words(labels: np.ndarray | np.integer, class_names: Sequence[str]) -> str:
    """The label, or the labels (K,), of one image by name."""
    if labels.ndim == 0:
        return class_names[int(labels)]
    found = [name for name, has in zip(class_names, labels, strict=True) if has]
    return ", ".join(found) or "none"
