"""How many more labels would help: accuracy by number of pictures, and what follows from it.

Of the pictures that there are, some of each class are drawn, a linear classifier is fitted to their
features, and the others are classified. The error is taken to be a power law above a floor
(`vitlab.study.scaling`); what it says of more pictures than there are is an extrapolation, and its
interval, from drawing anew, knows nothing of what the law does not hold for.
"""

from typing import Any

import numpy as np

from vitlab.formatting import between, percent
from vitlab.selection.candidates import Linear
from vitlab.study import scaling
from vitlab.training.head import logistic_regression

DRAWS = 10
"""Draws of every number of pictures."""

LEFT = 0.2
"""Part of the pictures of a class that is always left to be classified."""


def label_curve(linear: Linear, labels_per_class: int, quiet: bool) -> dict[str, Any]:
    """What a linear classifier reaches by number of labelled pictures, as JSON values.

    Args:
        linear: a candidate whose features are kept, as it has answered before.
        labels_per_class: pictures of each class to say the accuracy for.
        quiet: show no progress.

    Returns:
        `series`, as `study.scaling.summarize` has it, over all pictures of all classes;
        `labels_per_class`, its `accuracy` and `interval`, None where there are too few pictures for
        a curve; and a `sentence`.
    """
    places = linear.places
    some = linear.pool.part(linear.size, places)
    features = linear.frozen.features(some, np.arange(len(places)), quiet=quiet)
    classes, decay = len(some.class_names), linear.config.optim.weight_decay
    points: scaling.Points = {}
    most = int((1 - LEFT) * np.bincount(some.labels, minlength=classes).min())
    for each in sizes(most):
        for number in range(DRAWS):
            order = np.random.default_rng([number, each]).permutation(len(places))
            drawn = np.concatenate(
                [order[some.labels[order] == label][:each] for label in range(classes)]
            )
            rest = np.setdiff1d(order, drawn)
            even = np.ones(len(drawn))
            matrix, bias = logistic_regression(
                features[drawn], some.labels[drawn], even, classes, decay
            )
            predicted = (features[rest] @ matrix.T + bias).argmax(axis=1)
            right = float((predicted == some.labels[rest]).mean())
            points.setdefault(each * classes, []).append(right)
    found = scaling.summarize({linear.name: points}) or {"series": [], "crossings": []}
    wanted = labels_per_class * classes
    result = {**found, "labels_per_class": labels_per_class, "accuracy": None, "interval": None}
    now = len(places) // classes
    if len(points) < scaling.SIZES:
        words = (
            f"{len(places):,} pictures, some {now} of each class, are too few to say what more "
            "labels would reach."
        )
        return result | {"sentence": words}
    random = np.random.default_rng(0)
    curves = [scaling.fit(scaling.redrawn(points, random)) for _ in range(scaling.DRAWS)]
    reached = [float(scaling.accuracy(curve, np.array(float(wanted)))) for curve in curves]
    accuracy = float(scaling.accuracy(scaling.fit(points), np.array(float(wanted))))
    interval = np.quantile(reached, [0.025, 0.975]).tolist()
    last = max(points)
    words = (
        f"With {last // classes} labelled pictures of each class the {linear.name} is right on "
        f"{percent(float(np.mean(points[last])))} of the others (mean of {DRAWS} draws); "
        f"{labels_per_class} would reach about {percent(accuracy)} (95 % interval of the curve "
        f"{between(interval)})"
    )
    words += "." if wanted <= len(places) else ", if it goes on as it does so far."
    return result | {"accuracy": accuracy, "interval": interval, "sentence": words}


def sizes(most: int) -> list[int]:
    """Numbers of pictures of a class to try: 1, 2, 4 and so on, and the most."""
    found = [2**power for power in range(max(1, most).bit_length()) if 2**power <= most]
    return sorted({*found, most} - {0})
