"""Conformal prediction: sets of classes that hold the true one as often as a user names.

Adaptive prediction sets (Romano, Sesia & Candes, Classification with valid and adaptive coverage,
2020): classes are taken from the likeliest on until their probabilities add up to a threshold, the
last one by a random number, so that coverage is neither less nor more. Sets are small where a model
is sure. If new images are drawn like the validation images, the true class is in the set with at
least the probability that was asked for, whatever the model; the guarantee is over images, not for
each one. A set may be empty where less is asked for than the model is right without it.

N images   K classes
"""

import math
from collections.abc import Sequence

import numpy as np

from vitlab.errors import ConfigError
from vitlab.records import PredictionSets
from vitlab.stats import wilson

LEVELS = range(50, 100)
"""Coverages that may be asked for, in percent."""

REPORTED = (80, 90, 95)
"""Coverages that are measured."""

SEED = 0


def scores(probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """How much has to be taken before each class is in the set: (N, K).

    Args:
        probabilities: (N, K), rows of which add up to 1.
        uniform: a random number from 0 to 1 for each image, (N,).
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    taken = ranked.cumsum(axis=1) - ranked + uniform[:, None] * ranked
    found = np.empty_like(taken)
    np.put_along_axis(found, order, taken, axis=1)
    return found


def calibrate(probabilities: np.ndarray, labels: np.ndarray) -> list[float | None]:
    """Thresholds of all LEVELS by the probabilities (N, K) and labels (N,) of held-out images.

    None where so many images are too few for a guarantee: then every class is in the set.
    """
    uniform = np.random.default_rng(SEED).random(len(labels))
    own = np.sort(scores(probabilities, uniform)[np.arange(len(labels)), labels])
    ranks = [math.ceil((len(own) + 1) * level / 100) for level in LEVELS]
    return [float(own[rank - 1]) if rank <= len(own) else None for rank in ranks]


def threshold(thresholds: Sequence[float | None], level: int) -> float:
    """The threshold of a coverage in percent; ConfigError if it is none of LEVELS."""
    if level not in LEVELS:
        raise ConfigError([f"coverage={level}: give a whole percentage from 50 to 99"])
    found = thresholds[level - LEVELS[0]]
    return math.inf if found is None else found


def prediction_sets(probabilities: np.ndarray, uniform: np.ndarray, threshold: float) -> np.ndarray:
    """Which classes are in the set of each image: bool (N, K)."""
    return scores(probabilities, uniform) <= threshold


def measure(
    probabilities: np.ndarray, labels: np.ndarray, thresholds: Sequence[float | None] | None
) -> list[PredictionSets]:
    """How often sets hold the label (N,) and how large they are, at each of REPORTED.

    Without thresholds, which were calibrated on other images, those of each half are calibrated on
    the other half.
    """
    rng = np.random.default_rng(SEED + 1)
    uniform, half = rng.random(len(labels)), rng.permutation(len(labels)) % 2
    parts = [(np.full(len(labels), True), thresholds)]
    if thresholds is None:
        parts = [
            (half == one, calibrate(probabilities[half != one], labels[half != one]))
            for one in (0, 1)
        ]
    rows: list[PredictionSets] = []
    for level in REPORTED:
        inside = np.empty(probabilities.shape, bool)
        for part, known in parts:
            assert known is not None
            limit = threshold(known, level)
            inside[part] = prediction_sets(probabilities[part], uniform[part], limit)
        covered = int(inside[np.arange(len(labels)), labels].sum())
        rows.append(
            {
                "level": level / 100,
                "coverage": covered / len(labels),
                "coverage_interval": list(wilson(covered, len(labels))),
                "mean_size": float(inside.sum(axis=1).mean()),
                "empty": float((~inside.any(axis=1)).mean()),
            }
        )
    return rows
