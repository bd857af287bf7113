"""Whether an export answers as the run it came from, on images that anybody has.

run -> images: of its validation split, or crops of two photographs where its data is not here
logits before, logits after -> how far they differ, and whether that is little enough
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vitlab.data import ARRAYS, KNOWN, Data, locate
from vitlab.data.images import convert
from vitlab.errors import VitlabError
from vitlab.inference import TrainedModel
from vitlab.ledger import open_split
from vitlab.metrics.tasks import TASKS
from vitlab.preprocessing import Preprocessing
from vitlab.run import Run

Logits = Callable[[np.ndarray], np.ndarray]
"""What maps normalised images (B, C, height, width) float32 to logits (B, K)."""

IMAGES = 1_000
"""Images on which an export is compared with its run."""

TOLERANCE = 1e-4
"""Largest difference between two logits that exact arithmetic may make, for logits up to 1; larger
logits have room in proportion."""

AGREEMENT = 0.999
"""Least share of images that exact arithmetic puts into the same class: a tie may fall either way.
"""

LOSS = 0.02
"""Most accuracy that rounding to int8 may cost."""

SEED = 0
"""Seed that draws images."""

BATCH = 64


class Sample(NamedTuple):
    """Images to compare on."""

    images: np.ndarray
    """uint8 (N, H, W, C), of the run's size."""
    labels: np.ndarray | None
    """(N,) or (N, K), or None where nobody knows them."""
    description: str
    """What they are."""


def draw(
    run: Run,
    preprocessing: Preprocessing,
    count: int = IMAGES,
    data: Data = None,
    data_root: str | os.PathLike[str] | None = None,
) -> Sample:
    """So many validation images of a run; crops of photographs if its data is not here.

    Nothing is fetched for this.
    """
    try:
        if data is None and not at_hand(run, data_root):
            return crops(preprocessing, count)
        examples, index = open_split(run, "validation", data, data_root)
    except VitlabError:
        return crops(preprocessing, count)
    places = np.sort(np.random.default_rng(SEED).permutation(index)[:count])
    return Sample(examples.images[places], examples.labels[places], "validation images")


def at_hand(run: Run, data_root: str | os.PathLike[str] | None) -> bool:
    """True if a run's data set need not be fetched."""
    dataset = run.config.data.dataset
    if dataset in KNOWN and KNOWN[dataset].mirrors:
        return locate(dataset, data_root) is not None
    return dataset != ARRAYS


def crops(preprocessing: Preprocessing, count: int = IMAGES) -> Sample:
    """Squares of 32 to 160 pixels, cut anywhere out of the photographs that scikit-learn brings."""
    from sklearn.datasets import load_sample_images

    draws = np.random.default_rng(SEED)
    photographs = load_sample_images().images
    images = np.empty((count, *preprocessing.image_size, preprocessing.channels), np.uint8)
    for place in range(count):
        photograph = photographs[place % len(photographs)]
        side = int(draws.integers(32, 161))
        top, left = (int(draws.integers(0, n - side + 1)) for n in photograph.shape[:2])
        cut = np.ascontiguousarray(photograph[top : top + side, left : left + side])
        form = preprocessing.image_size, preprocessing.channels, preprocessing.fit
        images[place] = convert(cut, *form)
    return Sample(images, None, "random crops of the two photographs that come with scikit-learn")


def compute(logits: Logits, model: TrainedModel, images: np.ndarray) -> np.ndarray:
    """Logits (N, K) of uint8 images (N, H, W, C), prepared as for the model."""
    starts = range(0, len(images), BATCH)
    parts = [logits(model.prepare(images[start : start + BATCH]).numpy()) for start in starts]
    return np.concatenate(parts)


def compare(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray | None, exact: bool
) -> dict[str, Any]:
    """How two sets of logits (N, K) of the same images differ, and whether that `passed`.

    Exact arithmetic is held to the logits themselves; int8 to the accuracy that it leaves, the mean
    average precision of several labels, or to the classes where there are no labels.
    """
    difference = float(np.abs(before - after).max())
    same = float((before.argmax(axis=1) == after.argmax(axis=1)).mean())
    found: dict[str, Any] = {"max_difference": difference, "top1_agreement": same}
    if labels is not None:
        task = TASKS["multilabel" if labels.ndim == 2 else "multiclass"]
        scores = {"before": task.measure(before, labels), "after": task.measure(after, labels)}
        found[task.score] = scores
    if exact:
        found["tolerance"] = TOLERANCE * max(1.0, float(np.abs(before).max()))
        found["passed"] = difference <= found["tolerance"] and same >= AGREEMENT
    else:
        found["tolerance"] = None
        lost = 1 - same
        if labels is not None:
            lost = scores["before"] - scores["after"]
        found["passed"] = lost <= LOSS
    return found
