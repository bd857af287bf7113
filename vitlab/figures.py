"""Numbers become pictures, all in one style and nothing but what was handed in.

Each function writes three files side by side: PATH.png, PATH.svg, and PATH.csv with the
numbers that it draws. Equal numbers give equal bytes. The colours tell apart for the
colour-blind as well (Okabe and Ito, 2008), and the letters are made for a slide.
"""

import csv
import io
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlab.files import write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, SKY, ORANGE, RED = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
GREEN, PINK, GREY, PALE = "#009E73", "#CC79A7", "#767676", "#D9D9D9"

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 14,
    "figure.titlesize": 15,
    "font.size": 13,
    "grid.color": "#E5E5E5",
    "legend.fontsize": 12,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "savefig.dpi": 150,
    "svg.hashsalt": "vitlab",
    "text.parse_math": False,  # a class may be called $5
    "xtick.color": "#333333",
    "ytick.color": "#333333",
}

LINES = {
    "train": ("training batches", PALE),
    "train_clean": ("training images, clean", ORANGE),
    "validation": ("validation", BLUE),
}
"""Name and colour of each split of the metrics."""

BANDS = ((0.9, "above 90 %", BLUE), (0.8, "80 to 90 %", SKY), (-1.0, "below 80 %", RED))
"""Accuracy above which a band begins, its name and colour; 90 % itself is in the second."""

BARS = 25
"""Classes in one column of bars."""

NAMED = 20
"""Most classes whose confusions are written as counts."""

CURVES = 10
"""Most classes that get a ROC curve of their own colour."""


def curves(metrics: Iterable[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw loss, accuracy and learning rate over epochs from the lines of metrics.jsonl.

    The loss of training batches is that of mixed and augmented images; accuracy is measured
    on clean ones only.
    """
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    metrics = list(metrics)
    with _figure(path, 14, 4.8, title) as figure:
        loss, accuracy, rate = figure.subplots(1, 3, width_ratios=(3, 3, 2))
        for split, (label, colour) in LINES.items():
            lines = [record for record in metrics if record["split"] == split]
            _line(loss, lines, "loss", label, colour)
            _line(accuracy, lines, "accuracy", label, colour)
            _line(rate, lines, "lr", label, GREEN)
        accuracy.set_ylim(0, 1)
        accuracy.yaxis.set_major_locator(MultipleLocator(0.1))
        accuracy.yaxis.set_major_formatter(PercentFormatter(1))
        rate.ticklabel_format(axis="y", scilimits=(-3, 3))
        for axes, name in ((loss, "loss"), (accuracy, "accuracy"), (rate, "learning rate")):
            axes.set_title(name)
            axes.set_xlabel("epoch")
            axes.set_xlim(left=0)
        rate.set_ylim(bottom=0)
        for axes, place in ((loss, "upper right"), (accuracy, "lower right")):
            if axes.lines:
                axes.legend(loc=place)
    columns = ("step", "epoch", "split", "loss", "accuracy", "lr", "grad_norm", "images_per_second")
    _numbers(path, columns, ([record.get(name) for name in columns] for record in metrics))


def per_class_bars(
    accuracies: Sequence[float | None], names: Sequence[str], path: Path, *, title: str = ""
) -> None:
    """Draw the accuracy of each class, in the order given, coloured by band.

    None stands for a class without images.
    """
    from matplotlib.patches import Patch
    from matplotlib.ticker import PercentFormatter

    panels = math.ceil(len(names) / BARS)
    columns = min(4, panels)
    rows = math.ceil(panels / columns)
    height = rows * (0.34 * math.ceil(len(names) / panels) + 0.5) + 1.3
    with _figure(path, max(8, 5 * columns), height, title) as figure:
        for panel, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            part = range(panel * BARS, min(len(names), (panel + 1) * BARS))
            if not part:
                axes.set_axis_off()
                continue
            places = range(len(part))
            axes.barh(
                places, [accuracies[k] or 0 for k in part], 0.72, color=[_band(accuracies[k]) for k in part]
            )
            for place, value in zip(places, (accuracies[k] for k in part), strict=True):
                text = "no images" if value is None else f"{100 * value:.1f}"
                axes.text((value or 0) + 0.012, place, text, va="center", fontsize=11)
            axes.set_yticks(places, [_short(names[k]) for k in part], fontsize=12)
            axes.set_ylim(max(places[-1], BARS - 1 if panels > 1 else 0) + 0.6, -0.6)
            axes.set_xlim(0, 1.13)
            axes.set_xticks(np.linspace(0, 1, 6))
            axes.xaxis.set_major_formatter(PercentFormatter(1))
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
        bands = [Patch(color=colour, label=label) for _, label, colour in BANDS]
        figure.legend(handles=bands, loc="outside lower center", ncols=3)
    _numbers(path, ("class", "accuracy"), zip(names, accuracies, strict=True))


def confusion(
    matrix: Sequence[Sequence[int]] | np.ndarray,
    names: Sequence[str],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw a confusion matrix: rows are true classes, colours shares of the row, text counts.

    Many classes leave no room for text: their counts are in the CSV. Colours grow with the
    root of the share, or the mistakes of a good model would all look white.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = len(names) <= NAMED
    side = min(max(0.72 * len(names), 4.2), 13)
    size = 11 if named else max(4.5, min(10, 580 / len(names) / 1.2))
    with _figure(path, side + 3, side + 1.8, title) as figure:
        axes = figure.subplots()
        picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
        for true, predicted in zip(*np.nonzero(counts), strict=True) if named else ():
            light = "white" if shares[true, predicted] > 0.35 else "black"
            text = str(counts[true, predicted])
            axes.text(predicted, true, text, ha="center", va="center", color=light, fontsize=size)
        labels = [_short(name) for name in names]
        slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if named else {"rotation": 90}
        axes.set_xticks(range(len(names)), labels, fontsize=size, **slant)
        axes.set_yticks(range(len(names)), labels, fontsize=size)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(picture, ax=axes, shrink=0.8, ticks=(0, 0.01, 0.05, 0.2, 0.5, 1))
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)  # type: ignore[operator]
    rows = ([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
    _numbers(path, ("true", *names), rows)


def roc(
    points: Sequence[np.ndarray | None],
    areas: Sequence[float | None],
    names: Sequence[str],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw one-vs-rest ROC curves, whole and the corner that good models live in.

    Args:
        points: per class (M, 2) rows of false and true positive rate, or None.
        areas: AUC per class, or None. Of many classes, those of lowest AUC are drawn in colour.
    """
    from matplotlib.lines import Line2D

    known = [(area, k) for k, area in enumerate(areas) if area is not None]
    shown = sorted(sorted(known)[:CURVES], key=lambda pair: pair[1])
    chosen = {k for _, k in shown}
    styles = [(c, s) for s in ("-", "--") for c in (BLUE, ORANGE, GREEN, RED, PINK, SKY, "black")]
    handles, labels = [], []
    with _figure(path, 14, 5.6, title) as figure:
        panels = figure.subplots(1, 2)
        for k, curve in enumerate(points):
            if curve is not None and k not in chosen:
                for axes in panels:
                    axes.plot(*curve.T, color=PALE, linewidth=1)
        for (area, k), (colour, style) in zip(shown, styles, strict=False):
            for axes in panels:
                axes.plot(*np.asarray(points[k]).T, color=colour, linestyle=style)
            handles.append(Line2D([], [], color=colour, linestyle=style))
            labels.append(f"{_short(names[k])}: {area:.4f}")
        if len(known) > len(shown):
            handles.append(Line2D([], [], color=PALE))
            labels.append(f"{len(known) - len(shown)} others, all higher")
        for axes, span, name in zip(panels, (1.0, 0.2), ("ROC, one class against the rest",
                                                         "its upper left corner"), strict=True):
            axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle=":")
            margin = 0.01 * span
            axes.set_xlim(-margin, span)
            axes.set_ylim(1 - span, 1 + margin)
            axes.set_aspect("equal")
            axes.set_title(name)
            axes.set_xlabel("false positive rate")
            axes.set_ylabel("true positive rate")
        mean = f"AUC (mean {np.mean([area for area, _ in known]):.4f})" if known else "no AUC"
        figure.legend(
            handles, labels, title=mean, loc="outside right center", alignment="left"
        )
    rows = (
        [name, area, *point]
        for name, area, curve in zip(names, areas, points, strict=True)
        if curve is not None
        for point in curve.tolist()
    )
    _numbers(path, ("class", "auc", "false_positive_rate", "true_positive_rate"), rows)


def reliability(bins: Sequence[Mapping[str, Any]], error: float, path: Path, *, title: str = "") -> None:
    """Draw accuracy against confidence, and how many images have which confidence.

    Args:
        bins: {"above", "to", "images", "confidence", "accuracy"}, None where a bin is empty.
        error: expected calibration error, 0 to 1.
    """
    from matplotlib.ticker import PercentFormatter

    left = [b["above"] for b in bins]
    width = [b["to"] - b["above"] for b in bins]
    total = sum(b["images"] for b in bins)
    with _figure(path, 7.5, 8, title) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.bar(
            left,
            [b["accuracy"] or 0 for b in bins],
            width,
            align="edge",
            color=BLUE,
            edgecolor="white",
            label="accuracy",
        )
        known = [b for b in bins if b["images"]]
        upper.plot(
            [b["confidence"] for b in known],
            [b["accuracy"] for b in known],
            "o",
            color=RED,
            label="mean confidence of the bin",
        )
        upper.plot((0, 1), (0, 1), color=GREY, linestyle=":", label="perfect calibration")
        upper.set_ylim(0, 1.02)
        upper.set_ylabel("accuracy")
        upper.set_title(f"expected calibration error {100 * error:.2f} %")
        upper.legend(loc="upper left")
        lower.bar(
            left, [b["images"] / total for b in bins], width, align="edge", color=GREY, edgecolor="white"
        )
        lower.set_ylabel("images")
        lower.set_xlabel("confidence")
        lower.set_xlim(0, 1)
        for axis in (upper.yaxis, lower.yaxis, lower.xaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
    columns = ("above", "to", "images", "confidence", "accuracy")
    _numbers(path, columns, ([b[name] for name in columns] for b in bins))


@contextmanager
def _figure(path: Path, width: float, height: float, title: str) -> Iterator["Figure"]:
    """A figure in our style, inches wide and high, written as PNG and SVG when the block ends."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # a user's own matplotlibrc changes none of our bytes
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", "Glyph")  # a class name may be in any script
        figure = Figure(figsize=(width, height), layout="constrained")
        if title:
            figure.suptitle(_short(title, 90))
        yield figure
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=metadata)
            write_bytes(path.with_name(f"{path.name}.{kind}"), buffer.getvalue())


def _numbers(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path.with_name(f"{path.name}.csv"), text.getvalue())


def _line(axes: "Axes", records: list[Mapping[str, Any]], name: str, label: str, colour: str) -> None:
    points = [(record["epoch"], record[name]) for record in records if name in record]
    if points:
        marker = "o" if len(points) <= 10 else ""  # a single point has no line to be seen by
        axes.plot(*zip(*points, strict=True), color=colour, label=label, marker=marker)


def _band(accuracy: float | None) -> str:
    return next(colour for least, _, colour in BANDS if (accuracy or 0) > least)


def _short(name: str, most: int = 20) -> str:
    """A name on one line, its middle left out where it is too long."""
    name = " ".join(name.split())
    half = most // 2
    return name if len(name) <= most else f"{name[: most - half]}…{name[1 - half :]}"
