"""Figures of a training: loss, accuracy, learning rate and pace over its epochs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitlab.figures import charts, style
from vitlab.figures.charts import Line
from vitlab.figures.style import BLUE, GREEN, GREY, ORANGE

LINES = {
    "train": ("training batches", GREY),
    "train_clean": ("training images, clean", ORANGE),
    "validation": ("validation", BLUE),
}
"""Name and colour of each split of the metrics."""

COLUMNS = (
    "step", "epoch", "split", "loss", "accuracy", "mean_average_precision", "lr", "grad_norm",
    "images_per_second",
)  # fmt: skip
"""Columns of the CSV; those that no line has are left out."""

SHARES = ("accuracy", "mean_average_precision")
"""What is measured from 0 to 1, on clean images."""


def curves(metrics: Iterable[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw what the lines of metrics.jsonl hold over epochs.

    The loss of training batches is that of mixed and augmented images; accuracy is measured
    on clean ones only. A shipped run keeps its evaluations alone, and has neither learning rate
    nor pace.
    """
    metrics = list(metrics)
    measured = ("loss", *SHARES, "lr", "images_per_second")
    shown = [name for name in measured if any(name in line for line in metrics)] or ["loss"]
    with style.figure(path, style.WIDE, 2.9 * math.ceil(len(shown) / 2) + 0.4, title) as figure:
        panels = figure.subplots(math.ceil(len(shown) / 2), 2, squeeze=False).flat
        for axes, name in zip(panels, shown, strict=False):
            measure(axes, metrics, name)
        for axes in list(figure.axes)[len(shown) :]:
            axes.set_visible(False)
        style.legend(figure, figure.axes[0].lines)
    columns = [name for name in COLUMNS if name not in SHARES or name in shown]
    style.numbers(path, columns, ([line.get(name) for name in columns] for line in metrics))


TITLES = {
    "loss": "Loss",
    "accuracy": "Accuracy",
    "mean_average_precision": "Mean average precision",
    "lr": "Learning rate",
    "images_per_second": "Images per second",
}


def measure(axes: Any, metrics: Iterable[Mapping[str, Any]], name: str) -> None:
    """Draw one number of the metrics over epochs, a line for each split that has it."""
    metrics = list(metrics)
    series = [
        Line(label, found, colour if name in ("loss", *SHARES) else GREEN)
        for split, (label, colour) in LINES.items()
        if (found := points(metrics, split, name))
    ]
    share = name in SHARES
    form = style.percent if share else style.plainly
    low = None if share else 0
    charts.lines(axes, series, across="epoch", form=form, low=low, named=False)
    axes.set_xlim(left=0)
    axes.set_title(TITLES[name])


def points(
    metrics: Iterable[Mapping[str, Any]], split: str, name: str
) -> Sequence[tuple[float, float]]:
    """Epochs and values of a number of one split, without what is not finite."""
    return [
        (line["epoch"], line[name])
        for line in metrics
        if line["split"] == split
        and isinstance(line.get(name), int | float)
        and math.isfinite(line[name])
    ]
