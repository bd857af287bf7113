"""Numbers become pictures, all in one style and nothing but what was handed in.

Each function writes three files side by side: PATH.png, PATH.svg, and PATH.csv with the
numbers that it draws. Equal numbers give equal bytes. The colours tell apart for the
colour-blind as well (Okabe and Ito, 2008), and the letters are made for a slide.
"""

import csv
import io
import math
import textwrap
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
    from matplotlib.ticker import PercentFormatter

BLUE, SKY, ORANGE, RED = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
GREEN, PINK, GREY, PALE = "#009E73", "#CC79A7", "#767676", "#D9D9D9"

STYLE: dict[Any, Any] = {
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

LABEL = {"facecolor": "white", "edgecolor": "none", "pad": 1}
"""What keeps a number readable on a grid line."""

LINES = {
    "train": ("training batches", "#ABABAB", 1.2),
    "train_clean": ("training images, clean", ORANGE, 2.2),
    "validation": ("validation", BLUE, 2.2),
}
"""Name, colour and width of each split of the metrics."""

BANDS = ((0.9, "above 90 %", BLUE), (0.8, "80 to 90 %", SKY), (0.0, "below 80 %", RED))
"""Least accuracy of each band, its name and colour; 90 % itself is in the second."""

BARS = 25
"""Most classes in one column of bars."""

COUNTED = 20
"""Most classes whose confusions are written as counts."""

LABELLED = 100
"""Most classes named beside a confusion matrix."""

CURVES = 10
"""Most classes that get a ROC curve of their own colour."""


def curves(metrics: Iterable[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw loss, accuracy and learning rate over epochs from the lines of metrics.jsonl.

    The loss of training batches is that of mixed and augmented images; accuracy is measured
    on clean ones only.
    """
    from matplotlib.ticker import MultipleLocator

    metrics = list(metrics)
    with _figure(path, 14, 5.2, title) as figure:
        loss, accuracy, rate = figure.subplots(1, 3, width_ratios=(3, 3, 2))
        for split, (label, colour, width) in LINES.items():
            lines = [record for record in metrics if record["split"] == split]
            for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
                _line(axes, lines, name, color=colour, linewidth=width, label=label)
            _line(rate, lines, "lr", color=GREEN)
        accuracy.set_ylim(0, 1)
        accuracy.yaxis.set_major_locator(MultipleLocator(0.1))
        accuracy.yaxis.set_major_formatter(_percent())
        rate.set_ylim(bottom=0)
        rate.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for axes, name in ((loss, "loss"), (accuracy, "accuracy"), (rate, "learning rate")):
            axes.set_title(name)
            axes.set_xlabel("epoch")
            axes.set_xlim(left=0)
        figure.legend(handles=loss.lines, loc="outside lower center", ncols=len(LINES))
    columns = ("step", "epoch", "split", "loss", "accuracy", "lr", "grad_norm", "images_per_second")
    _numbers(path, columns, ([record.get(name) for name in columns] for record in metrics))


def per_class_bars(
    accuracies: Sequence[float | None], names: Sequence[str], path: Path, *, title: str = ""
) -> None:
    """Draw the accuracy of each class, in the order given, coloured by band.

    None stands for a class without images.
    """
    from matplotlib.patches import Patch

    panels = math.ceil(len(names) / BARS)
    columns = min(4, panels)
    rows = math.ceil(panels / columns)
    bars = math.ceil(len(names) / panels)
    with _figure(path, max(8, 5.5 * columns), rows * (0.34 * bars + 0.5) + 1.3, title) as figure:
        for panel, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            part = range(len(names))[panel * bars : (panel + 1) * bars]
            for place, k in enumerate(part):
                value = accuracies[k] or 0.0
                text = "no images" if accuracies[k] is None else f"{100 * value:.1f}"
                axes.barh(place, value, 0.72, color=_band(value))
                axes.text(value + 0.015, place, text, va="center", fontsize=11, bbox=LABEL)
            axes.set_yticks(range(len(part)), [_short(names[k]) for k in part], fontsize=12)
            axes.set_ylim(bars - 0.4, -0.6)
            axes.set_xlim(0, 1.15)
            axes.set_xticks(np.linspace(0, 1, 6 if panels == 1 else 3))
            axes.xaxis.set_major_formatter(_percent())
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
            axes.set_visible(bool(part))
        bands = [Patch(color=colour, label=label) for _, label, colour in BANDS]
        figure.legend(handles=bands, loc="outside lower center", ncols=len(BANDS))
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

    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(0.72 * len(names), 4.2), 13)
    size = 11 if len(names) <= COUNTED else 7
    with _figure(path, side + 3, side + 1.5, title) as figure:
        figure.set_layout_engine("compressed")
        axes = figure.subplots()
        picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
        for true, predicted in zip(*np.nonzero(counts), strict=True) if size == 11 else ():
            colour = "white" if shares[true, predicted] > 0.35 else "black"
            text = str(counts[true, predicted])
            axes.text(predicted, true, text, ha="center", va="center", color=colour, fontsize=size)
        ticks = range(0, len(names), math.ceil(len(names) / LABELLED))
        labels = [_short(names[k]) for k in ticks]
        slant = max(map(len, labels)) * size / 110 > side / len(names)
        axes.set_xticks(ticks, labels, fontsize=size, rotation=90 if slant else 0)
        axes.set_yticks(ticks, labels, fontsize=size)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        ticks = (0, 0.01, 0.05, 0.2, 0.5, 1)
        bar = figure.colorbar(picture, ax=axes, shrink=0.8, ticks=ticks, format=_percent())
        bar.set_label("share of the true class")
        bar.ax.spines[:].set_visible(False)
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
    """Draw one-vs-rest ROC curves, whole and in the corner where good models live.

    Args:
        points: per class (M, 2) rows of false and true positive rate, or None.
        areas: AUC per class, or None. Of many classes, those of lowest AUC are drawn in colour.
    """
    from matplotlib.lines import Line2D

    ranked = sorted((area, k) for k, area in enumerate(areas) if area is not None)
    shown = sorted(k for _, k in ranked[:CURVES])
    colours = (BLUE, ORANGE, GREEN, RED, PINK, SKY, "black")
    looks = [{"color": colour, "linestyle": dash} for dash in ("-", "--") for colour in colours]
    lines = {k: {"color": PALE, "linewidth": 1} for _, k in ranked[CURVES:]}
    lines |= dict(zip(shown, looks, strict=False))  # drawn last, and so on top
    legend = [(Line2D([], [], **lines[k]), f"{_short(names[k])}: {areas[k]:.4f}") for k in shown]
    if len(ranked) > CURVES:
        others = f"{len(ranked) - CURVES} others, none lower"
        legend.append((Line2D([], [], color=PALE, linewidth=1), others))
    with _figure(path, 15, 5.8, title) as figure:
        whole, corner = figure.subplots(1, 2)
        for axes, span in ((whole, 1.0), (corner, 0.2)):
            for k, look in lines.items():
                axes.plot(*np.asarray(points[k]).T, **look)
            axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle=":")
            axes.set_xlim(-0.01 * span, span)
            axes.set_ylim(1 - span, 1 + 0.01 * span)
            axes.set_xticks(np.linspace(0, span, 5))
            axes.set_yticks(np.linspace(1 - span, 1, 5))
            axes.set_xlabel("false positive rate")
            axes.set_ylabel("true positive rate")
        whole.set_title("each class against the rest")
        corner.set_title("upper left corner")
        mean = f"mean AUC {np.mean([area for area, _ in ranked]):.4f}" if ranked else "no AUC"
        handles, labels = zip(*legend, strict=True) if legend else ((), ())
        place = "outside right center"
        figure.legend(handles, labels, title=mean, loc=place, alignment="left")
    rows = (
        [name, area, *point]
        for name, area, curve in zip(names, areas, points, strict=True)
        if curve is not None
        for point in curve.tolist()
    )
    _numbers(path, ("class", "auc", "false_positive_rate", "true_positive_rate"), rows)


def reliability(bins: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw accuracy against confidence, and how many images have which confidence.

    Args:
        bins: {"above", "to", "images", "confidence", "accuracy"}, None where a bin is empty.
    """
    known = [one for one in bins if one["images"]]
    total = sum(one["images"] for one in known)
    left = [one["above"] for one in known]
    accuracy = [one["accuracy"] for one in known]
    confidence = [one["confidence"] for one in known]
    bars = {"width": 1 / len(bins), "align": "edge", "edgecolor": "white"}
    with _figure(path, 8, 8, title) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.bar(left, accuracy, color=BLUE, label="accuracy", **bars)
        upper.plot((0, 1), (0, 1), color=GREY, linestyle=":", label="perfect calibration")
        upper.plot(confidence, accuracy, "o", color=RED, label="mean confidence of the bin")
        upper.set_ylim(0, 1.02)
        upper.set_ylabel("accuracy")
        lower.bar(left, [one["images"] / total for one in known], color=GREY, **bars)
        lower.set_ylabel("images")
        lower.set_xlabel("confidence")
        lower.set_xlim(0, 1)
        for axis in (upper.yaxis, lower.yaxis, lower.xaxis):
            axis.set_major_formatter(_percent())
        figure.legend(loc="outside lower center", ncols=3)
    columns = ("above", "to", "images", "confidence", "accuracy")
    _numbers(path, columns, ([one[name] for name in columns] for one in bins))


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
            figure.suptitle(textwrap.fill(title, round(8 * width)))
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


def _line(axes: "Axes", records: list[Mapping[str, Any]], name: str, **look: Any) -> None:
    points = [(record["epoch"], record[name]) for record in records if name in record]
    if points:
        marker = "o" if len(points) <= 10 else ""  # a single point has no line to be seen by
        axes.plot(*zip(*points, strict=True), marker=marker, **look)


def _percent() -> "PercentFormatter":
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1, decimals=0, symbol=" %")


def _band(accuracy: float) -> str:
    (high, _, best), (middle, _, fair), (_, _, weak) = BANDS
    return best if accuracy > high else fair if accuracy >= middle else weak


def _short(name: str, most: int = 20) -> str:
    """A name on one line, its middle left out where it is too long."""
    name = " ".join(name.split())
    half = most // 2
    return name if len(name) <= most else f"{name[: most - half]}…{name[1 - half :]}"
