"""Accuracy against the number of training images: fitted curves, and where they cross.

The error of a model that is trained on n images is taken to be a * n**-b + c: a power law above
a floor. Fits and crossings are those of the mean over seeds; their intervals come from drawing
the seeds of every size anew.
"""

from itertools import combinations
from typing import Any

import numpy as np

IMAGES = "data.train_fraction"
"""The field that changes the number of training images and nothing else."""

SIZES = 4
"""Sizes that a curve of three numbers needs at least."""

DRAWS = 200
"""Bootstrap draws behind an interval: each is a fit."""

GRID = 400
"""Points of a curve where crossings are looked for."""

Curve = tuple[float, float, float]
"""a, b and c of error = a * n**-b + c."""


Points = dict[int, list[float]]
"""Number of training images -> validation accuracies, a seed each."""


def summarize(found: dict[str, Points]) -> dict[str, Any] | None:
    """Points, curves and crossings of series as JSON values; None for a study of a single size."""
    series = {name: points for name, points in found.items() if len(points) > 1}
    if not series:
        return None
    random = np.random.default_rng(0)
    draws = {name: [fit(redrawn(points, random)) for _ in range(DRAWS)]
             for name, points in series.items() if len(points) >= SIZES}  # fmt: skip
    curves = {name: fit(series[name]) for name in draws}
    return {
        "series": [
            {
                "name": name,
                "points": [
                    {"images": images, "accuracies": values} for images, values in points.items()
                ],
                "curve": dict(zip("abc", curves[name], strict=True)) if name in curves else None,
            }
            for name, points in series.items()
        ],
        "crossings": [
            {
                "of": [one, other],
                **crossing(
                    (curves[one], curves[other]),
                    list(zip(draws[one], draws[other], strict=True)),
                    shared(series[one], series[other]),
                ),
            }
            for one, other in combinations(curves, 2)
        ],
    }


def fit(points: Points) -> Curve:
    """Least squares of a, b and c over the mean errors of all sizes."""
    from scipy.optimize import least_squares

    images = np.array(list(points), dtype=float)
    errors = np.array([1 - np.mean(values) for values in points.values()])
    scale = np.log(images / images[0])  # around the smallest size, a and b hardly depend

    def misses(guess: np.ndarray) -> np.ndarray:
        height, exponent, floor = guess
        return height * np.exp(-exponent * scale) + floor - errors

    start = (errors[0] - errors[-1] / 2, 0.5, errors[-1] / 2)
    found = least_squares(misses, np.clip(start, 1e-6, 1), bounds=((0, 0, 0), (np.inf, 3, 1)))
    height, exponent, floor = map(float, found.x)
    return height * float(images[0]) ** exponent, exponent, floor


def accuracy(curve: Curve, images: np.ndarray) -> np.ndarray:
    """What a curve says of numbers of training images."""
    a, b, c = curve
    return 1 - (a * images**-b + c)


def redrawn(points: Points, random: np.random.Generator) -> Points:
    """Points with the seeds of every size drawn anew."""
    return {
        images: random.choice(values, len(values)).tolist() for images, values in points.items()
    }


def shared(one: Points, other: Points) -> tuple[int, int]:
    """The range of sizes that both were trained on."""
    return max(min(one), min(other)), min(max(one), max(other))


def crossing(
    curves: tuple[Curve, Curve],
    draws: list[tuple[Curve, Curve]],
    span: tuple[int, int],
) -> dict[str, Any]:
    """Where the second of two curves overtakes the first or the reverse, within a span of sizes.

    Returns:
        {"images", "interval", "share"}: the crossing, None where there is none; its 95 %
        interval, None below half of the draws; and the share of draws that cross at all.
        Outside of what was measured nothing is said.
    """
    found = [place for pair in draws if (place := first_crossing(*pair, span)) is not None]
    share = len(found) / len(draws)
    interval = np.quantile(found, [0.025, 0.975]).tolist() if share >= 0.5 else None
    return {"images": first_crossing(*curves, span), "interval": interval, "share": share}


def first_crossing(one: Curve, other: Curve, span: tuple[int, int]) -> float | None:
    """The smallest number of images in a span at which two curves change places."""
    images = np.geomspace(*span, GRID)
    gap = accuracy(one, images) - accuracy(other, images)
    changes = np.flatnonzero(np.sign(gap[1:]) != np.sign(gap[:-1]))
    if not len(changes):
        return None
    k = changes[0]
    share = gap[k] / (gap[k] - gap[k + 1])  # on a straight line between two points of the grid
    return float(images[k] * (images[k + 1] / images[k]) ** share)
