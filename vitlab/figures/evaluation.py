"""Pictures of a judged model: classes, confusions, ROC curves, calibration, robustness, images."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlab.figures import style
from vitlab.figures.style import BLUE, GREEN, GREY, LABEL, ORANGE, PALE, PINK, RED, SKY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


def per_class_bars(
    accuracies: Sequence[float | None], names: Sequence[str], path: Path, *, title: str = ""
) -> None:
    """Draw the accuracy of each class, in the order given, coloured by band.

    None stands for a class without images.
    """
    from matplotlib.patches import Patch

    with _class_panels(names, path, 0.34, title) as (figure, panels):
        for axes, part in panels:
            for place, k in enumerate(part):
                value = accuracies[k] or 0.0
                text = "no images" if accuracies[k] is None else f"{100 * value:.1f}"
                axes.barh(place, value, 0.72, color=_band(value))
                axes.text(value + 0.015, place, text, va="center", fontsize=11, bbox=LABEL)
            axes.set_xlim(0, 1.15)
        bands = [Patch(color=colour, label=label) for _, label, colour in BANDS]
        figure.legend(handles=bands, loc="outside lower center", ncols=len(BANDS))
    style.numbers(path, ("class", "accuracy"), zip(names, accuracies, strict=True))


def grouped_bars(
    series: Mapping[str, Sequence[float | None]],
    names: Sequence[str],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw two or three numbers of each class beside each other, in the order given.

    Args:
        series: what is drawn, by its name: a fraction per class, None without images.
    """
    from matplotlib.patches import Patch

    looks = dict(zip(series, (BLUE, ORANGE, GREEN), strict=False))
    height = 0.8 / len(series)
    with _class_panels(names, path, 0.12 + 0.17 * len(series), title) as (figure, panels):
        for axes, part in panels:
            for number, (name, values) in enumerate(series.items()):
                places = np.arange(len(part)) + (number - (len(series) - 1) / 2) * height
                widths = [values[k] or 0.0 for k in part]
                axes.barh(places, widths, 0.9 * height, color=looks[name])
            for place, k in enumerate(part):
                if all(values[k] is None for values in series.values()):
                    axes.text(0.015, place, "no images", va="center", fontsize=11)
            axes.set_xlim(0, 1)
        handles = [Patch(color=colour, label=name) for name, colour in looks.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(series))
    style.numbers(path, ("class", *series), zip(names, *series.values(), strict=True))


@contextmanager
def _class_panels(
    names: Sequence[str], path: Path, height: float, title: str
) -> Iterator[tuple["Figure", list[tuple["Axes", range]]]]:
    """A figure of named rows for horizontal bars, `height` inches each: axes and their classes."""
    count = math.ceil(len(names) / BARS)
    columns = min(4, count)
    rows = math.ceil(count / columns)
    bars = math.ceil(len(names) / count)
    size = max(8, 5.5 * columns), rows * (height * bars + 0.5) + 1.3
    with style.figure(path, *size, title) as figure:
        panels = []
        for panel, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            part = range(len(names))[panel * bars : (panel + 1) * bars]
            axes.set_yticks(range(len(part)), [style.short(names[k]) for k in part], fontsize=12)
            axes.set_ylim(bars - 0.4, -0.6)
            axes.set_xticks(np.linspace(0, 1, 6 if count == 1 else 3))
            axes.xaxis.set_major_formatter(style.percent())
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
            axes.set_visible(bool(part))
            panels.append((axes, part))
        yield figure, panels


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
    with style.figure(path, side + 3, side + 1.5, title) as figure:
        figure.set_layout_engine("compressed")
        axes = figure.subplots()
        picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
        for true, predicted in zip(*np.nonzero(counts), strict=True) if size == 11 else ():
            colour = "white" if shares[true, predicted] > 0.35 else "black"
            text = str(counts[true, predicted])
            axes.text(predicted, true, text, ha="center", va="center", color=colour, fontsize=size)
        ticks = range(0, len(names), math.ceil(len(names) / LABELLED))
        labels = [style.short(names[k]) for k in ticks]
        slant = max(map(len, labels)) * size / 110 > side / len(names)
        axes.set_xticks(ticks, labels, fontsize=size, rotation=90 if slant else 0)
        axes.set_yticks(ticks, labels, fontsize=size)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        ticks = (0, 0.01, 0.05, 0.2, 0.5, 1)
        bar = figure.colorbar(picture, ax=axes, shrink=0.8, ticks=ticks, format=style.percent())
        bar.set_label("share of the true class")
        bar.ax.spines[:].set_visible(False)
    rows = ([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
    style.numbers(path, ("true", *names), rows)


def confusions(top: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw the most frequent mistakes, most frequent first, with their share of all mistakes.

    Args:
        top: {"true", "predicted", "count", "share", "pair_share"}, as metrics.top_confusions.
    """
    from matplotlib.ticker import MaxNLocator

    most = max((one["count"] for one in top), default=1)
    with style.figure(path, 13, 0.42 * max(len(top), 1) + 1.7, title) as figure:
        axes = figure.subplots()
        for place, one in enumerate(top):
            axes.barh(place, one["count"], 0.72, color=BLUE)
            share, both = 100 * one["share"], 100 * one["pair_share"]
            text = f"{share:.1f} %, with the reverse {both:.1f} %"
            axes.text(one["count"] + most / 50, place, text, va="center", fontsize=11, bbox=LABEL)
        labels = [f"{style.short(one['true'])} as {style.short(one['predicted'])}" for one in top]
        axes.set_yticks(range(len(top)), labels)
        axes.set_ylim(len(top) - 0.4, -0.6)
        axes.set_xlim(0, 1.7 * most)  # room for the text
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("images, and their share of all mistakes")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        if not top:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no mistakes", ha="center", transform=axes.transAxes)
    columns = ("true", "predicted", "count", "share", "pair_share")
    style.numbers(path, columns, ([one[name] for name in columns] for one in top))


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
    legend = [
        (Line2D([], [], **lines[k]), f"{style.short(names[k])}: {areas[k]:.4f}") for k in shown
    ]
    if len(ranked) > CURVES:
        others = f"{len(ranked) - CURVES} others, none lower"
        legend.append((Line2D([], [], color=PALE, linewidth=1), others))
    with style.figure(path, 15, 5.8, title) as figure:
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
    style.numbers(path, ("class", "auc", "false_positive_rate", "true_positive_rate"), rows)


def reliability(
    bins: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    scaled: Sequence[Mapping[str, Any]] | None = None,
    heads: tuple[str, str] = ("as trained", "after temperature scaling"),
    title: str = "",
) -> None:
    """Draw accuracy against confidence, and how many images have which confidence.

    Args:
        bins: {"above", "to", "images", "confidence", "accuracy"}, None where a bin is empty.
        scaled: the bins of the same images after temperature scaling, drawn beside the others.
        heads: what stands over each of the two.
    """
    sides = [bins] if scaled is None else [bins, scaled]
    with style.figure(path, 1 + 7 * len(sides), 7.5, title) as figure:
        grid = figure.subplots(2, len(sides), sharex=True, sharey="row", height_ratios=(3, 1))
        for side, head, (upper, lower) in zip(
            sides, heads, np.reshape(grid, (2, -1)).T, strict=False
        ):
            _reliability(side, upper, lower)
            upper.set_title(head)
        first = figure.axes[0]
        first.set_ylabel("accuracy")
        figure.axes[len(sides)].set_ylabel("images")
        figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    columns = ("above", "to", "images", "confidence", "accuracy")
    rows = [
        [word, *(one[name] for name in columns)]
        for word, side in zip(("no", "yes"), sides, strict=False)
        for one in side
    ]
    style.numbers(path, ("scaled", *columns), rows)


def _reliability(bins: Sequence[Mapping[str, Any]], upper: "Axes", lower: "Axes") -> None:
    known = [one for one in bins if one["images"]]
    total = sum(one["images"] for one in known)
    left = [one["above"] for one in known]
    accuracy = [one["accuracy"] for one in known]
    confidence = [one["confidence"] for one in known]
    bars = {"width": 1 / len(bins), "align": "edge", "edgecolor": "white"}
    upper.bar(left, accuracy, color=BLUE, label="accuracy", **bars)
    upper.plot((0, 1), (0, 1), color=GREY, linestyle=":", label="perfect calibration")
    upper.plot(confidence, accuracy, "o", color=RED, label="mean confidence of the bin")
    upper.set_ylim(0, 1.02)
    lower.bar(left, [one["images"] / total for one in known], color=GREY, **bars)
    lower.set_xlabel("confidence")
    lower.set_xlim(0, 1)
    for axis in (upper.yaxis, lower.yaxis, lower.xaxis):
        axis.set_major_formatter(style.percent())


def robustness(conditions: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw accuracy against the severity of each corruption, and under attack.

    Args:
        conditions: {"condition", "severity", "images", "correct", "accuracy",
            "accuracy_interval"}: one without severity named clean, corruptions at severities 1
            to 5, and others without severity, which are attacks.
    """
    alone = [one for one in conditions if not one["severity"]]
    kinds = list(dict.fromkeys(one["condition"] for one in conditions if one["severity"]))
    looks = zip((BLUE, ORANGE, GREEN, RED, PINK, SKY), ("o", "s", "^", "D", "v", "P"), strict=True)
    with style.figure(path, 14, 6, title) as figure:
        corrupted, attacked = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1.2))
        for kind, (colour, marker) in zip(kinds, looks, strict=False):
            line = [one for one in conditions if one["condition"] in ("clean", kind)]
            severity = [one["severity"] for one in line]
            look = {"color": colour, "marker": marker, "capsize": 3, "elinewidth": 1}
            corrupted.errorbar(
                severity, [one["accuracy"] for one in line], _whiskers(line), label=kind, **look
            )
        corrupted.set_ylim(0, 1)
        corrupted.yaxis.set_major_formatter(style.percent())
        corrupted.set_xticks(range(6), ["clean", *map(str, range(1, 6))])
        corrupted.set_xlabel("severity")
        corrupted.set_ylabel("accuracy")
        corrupted.set_title("common corruptions")
        corrupted.legend(loc="lower left", ncols=2)
        names = [one["condition"] for one in alone]
        heights = [one["accuracy"] for one in alone]
        attacked.bar(names, heights, 0.6, color=[GREY] + [RED] * (len(alone) - 1))
        attacked.errorbar(names, heights, _whiskers(alone), fmt="none", color="black", capsize=4)
        for place, (one, value) in enumerate(zip(alone, heights, strict=True)):
            top = one["accuracy_interval"][1] + 0.015
            attacked.text(place, top, f"{100 * value:.1f}", ha="center", fontsize=12)
        attacked.set_title("attacks")
        attacked.grid(axis="x", visible=False)
    rows = (
        [*(one[name] for name in ("condition", "severity", "images", "correct", "accuracy")),
         *one["accuracy_interval"]]
        for one in conditions
    )  # fmt: skip
    columns = ("condition", "severity", "images", "correct", "accuracy", "low", "high")
    style.numbers(path, columns, rows)


def _whiskers(lines: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """How far intervals reach below and above their accuracies, (2, N)."""
    centre = np.array([one["accuracy"] for one in lines])
    low, high = np.array([one["accuracy_interval"] for one in lines]).T
    return np.maximum([centre - low, high - centre], 0)


def gallery(
    images: np.ndarray,
    shown: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw images in rows of four, each with its predicted class, confidence and true class.

    Args:
        images: uint8 (N, H, W, C) with 1 or 3 channels.
        shown: {"index", "true", "predicted", "confidence"} of each image.
    """
    rows = max(math.ceil(len(images) / 4), 1)
    ratio = min(images.shape[1] / images.shape[2], 2)
    with style.figure(path, 10, (2.4 * ratio + 0.55) * rows + 0.6, title) as figure:
        grid = figure.subplots(rows, 4, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        if not len(images):
            figure.text(0.5, 0.4, "no such images", ha="center")
        for axes, image, one in zip(grid.flat, images, shown, strict=False):
            # Nearest neighbour: a pixel of the image is a square, not a blur.
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            right = one["true"] == one["predicted"]
            guess = f"{style.short(one['predicted'], 16)}, {100 * one['confidence']:.0f} %"
            verdict = "correct" if right else f"true class: {style.short(one['true'], 14)}"
            axes.set_title(f"{guess}\n{verdict}", fontsize=12, color=BLUE if right else RED)
    columns = ("index", "true", "predicted", "confidence")
    style.numbers(path, columns, ([one[name] for name in columns] for one in shown))


def _band(accuracy: float) -> str:
    (high, _, best), (middle, _, fair), (_, _, weak) = BANDS
    return best if accuracy > high else fair if accuracy >= middle else weak
