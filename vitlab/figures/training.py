"""Pictures of a training: loss, accuracy and learning rate over its epochs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitlab.figures import style
from vitlab.figures.style import BLUE, GREEN, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = {
    "train": ("training batches", "#ABABAB", 1.2),
    "train_clean": ("training images, clean", ORANGE, 2.2),
    "validation": ("validation", BLUE, 2.2),
}
"""Name, colour and width of each split of the metrics."""


def curves(metrics: Iterable[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw loss, accuracy and learning rate over epochs from the lines of metrics.jsonl.

    The loss of training batches is that of mixed and augmented images; accuracy is measured
    on clean ones only. A shipped run keeps its judgements alone, and has no learning rate.
    """
    from matplotlib.ticker import MultipleLocator

    metrics = list(metrics)
    with style.figure(path, 14, 5.2, title) as figure:
        count = 3 if any("lr" in record for record in metrics) else 2
        loss, accuracy, *rate = figure.subplots(1, count, width_ratios=(3, 3, 2)[:count])
        for split, (label, colour, width) in LINES.items():
            lines = [record for record in metrics if record["split"] == split]
            for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
                _line(axes, lines, name, color=colour, linewidth=width, label=label)
            for axes in rate:
                _line(axes, lines, "lr", color=GREEN)
        accuracy.set_ylim(0, 1)
        accuracy.yaxis.set_major_locator(MultipleLocator(0.1))
        accuracy.yaxis.set_major_formatter(style.percent())
        for axes in rate:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for axes, name in zip(figure.axes, ("loss", "accuracy", "learning rate"), strict=False):
            axes.set_title(name)
            axes.set_xlabel("epoch")
            axes.set_xlim(left=0)
        figure.legend(handles=loss.lines, loc="outside lower center", ncols=len(LINES))
    columns = ("step", "epoch", "split", "loss", "accuracy", "lr", "grad_norm", "images_per_second")
    style.numbers(path, columns, ([record.get(name) for name in columns] for record in metrics))


def _line(axes: "Axes", records: list[Mapping[str, Any]], name: str, **look: Any) -> None:
    points = [(record["epoch"], record[name]) for record in records if name in record]
    if points:
        marker = "o" if len(points) <= 10 else ""  # a single point has no line to be seen by
        axes.plot(*zip(*points, strict=True), marker=marker, **look)
