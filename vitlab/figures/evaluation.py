"""Figures of an evaluated model: classes, confusions, ROC, calibration, robustness, images."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitlab.figures import charts, style
from vitlab.figures.style import BLUE, GREY, HUES, INK, LABEL, RED, RULE, SOFT
from vitlab.formatting import count

COUNTED = 20
"""Most classes whose confusions are written as counts."""

LABELLED = 100
"""Most classes named beside a confusion matrix."""

CURVES = 10
"""Most classes that get a ROC curve of their own colour."""


def classes(
    series: Mapping[str, Sequence[float | None]],
    names: Sequence[str],
    path: Path,
    *,
    images: Sequence[int] | None = None,
    heading: str = "Accuracy of each class",
    title: str = "",
) -> None:
    """Draw one to three numbers of each class beside each other, in the order given.

    Args:
        series: what is drawn, by its name: a fraction per class, None without images.
        images: of each class; with them the first number has its 95 % interval.
        heading: what the figure is; `title` says of what.
    """
    parts = charts.columns_of(len(names))
    width = style.NARROW + 1 if len(parts) == 1 else 3.2 * len(parts)
    known = [v for values in series.values() for v in values if v is not None]
    ends = style.limits(known, 0.12) if len(parts) > 1 else None
    heading = f"{heading}, with 95 % intervals" if images is not None else heading
    with style.figure(
        path, width, charts.LINE * len(parts[0]) + 1.2, headed(heading, title)
    ) as figure:
        for axes, part in zip(
            figure.subplots(1, len(parts), squeeze=False).flat, parts, strict=True
        ):
            own = {name: [values[k] for k in part] for name, values in series.items()}
            counts = None if images is None else [images[k] for k in part]
            charts.class_dots(axes, own, [names[k] for k in part], counts, ends)
        if len(series) > 1:
            handles = [line for line in figure.axes[0].lines if line.get_label() in series]
            style.legend(figure, handles)
    style.numbers(path, ("class", *series), zip(names, *series.values(), strict=True))


def headed(heading: str, title: str) -> str:
    """What a figure shows, and of what."""
    return f"{heading}: {title}" if title else heading


def confusion(
    matrix: Sequence[Sequence[int]] | np.ndarray,
    names: Sequence[str],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw a confusion matrix: rows are true classes, shades shares of the row, text counts.

    Many classes leave no room for text: their counts are in the CSV.
    """
    counts = np.asarray(matrix)
    side = min(max(0.55 * len(names) + 1.2, 4.2), style.WIDE)
    with style.figure(path, side, side + 0.2, headed("Confusion matrix", title)) as figure:
        axes = figure.subplots()
        if len(names) <= COUNTED:
            charts.confusion(axes, counts, names)
        else:
            _shares(axes, counts, names)
    rows = ([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
    style.numbers(path, ("true", *names), rows)


def _shares(axes: Any, counts: np.ndarray, names: Sequence[str]) -> None:
    """Shares of the row as shades, without numbers."""
    from matplotlib.colors import to_rgb

    shares = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    picture = np.empty((*shares.shape, 4))
    picture[..., :3], picture[..., 3] = to_rgb(BLUE), shares
    style.show(axes, picture)
    ticks = range(0, len(names), math.ceil(len(names) / LABELLED))
    size = min(9, 380 / len(names))
    labels = [style.short(names[k], 16) for k in ticks]
    axes.set_xticks(ticks, labels, fontsize=size, rotation=90)
    axes.set_yticks(ticks, labels, fontsize=size)
    axes.set_xlabel("predicted class; shade: root of the share of the true class")
    axes.set_ylabel("true class")


def confusions(top: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw the most frequent mistakes, most frequent first, with their share of all mistakes.

    Args:
        top: {"true", "predicted", "count", "share", "pair_share"}, as metrics.top_confusions.
    """
    height = charts.LINE * max(len(top), 1) + 1.2
    with style.figure(path, 6.6, height, headed("Most frequent mistakes", title)) as figure:
        axes = figure.subplots()
        rows = [
            (
                f"{style.short(one['true'], 12)} as {style.short(one['predicted'], 12)}",
                one["count"],
                f"{100 * one['share']:.1f} %, with the reverse {100 * one['pair_share']:.1f} %",
                BLUE,
            )
            for one in top
        ]
        across = "images, and their share of all mistakes"
        charts.bars(axes, rows, across=across, room=0.75, whole=True)
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
    looks: dict[int, dict[str, Any]] = {k: {"color": RULE, "linewidth": 0.8} for _, k in ranked}
    looks |= {k: {"color": colour} for k, colour in zip(shown, HUES, strict=False)}
    mean = f"mean AUC {np.mean([area for area, _ in ranked]):.4f}" if ranked else "no AUC"
    with style.figure(path, style.WIDE, 3.6, headed(f"ROC curves, {mean}", title)) as figure:
        for axes, span in zip(figure.subplots(1, 2), (1.0, 0.2), strict=True):
            for k in [k for _, k in ranked if k not in shown] + shown:
                axes.plot(*np.asarray(points[k]).T, **{"linewidth": 1.4} | looks[k])
            axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle=":")
            axes.set_xlim(-0.01 * span, span)
            axes.set_ylim(1 - span, 1 + 0.01 * span)
            axes.set_xticks(np.linspace(0, span, 5))
            axes.set_yticks(np.linspace(1 - span, 1, 5))
            axes.set_xlabel("false positive rate")
            axes.set_ylabel("true positive rate")
            axes.set_aspect("equal")
        figure.axes[0].set_title("each class against the rest")
        figure.axes[1].set_title("upper left corner")
        handles = [Line2D([], [], **looks[k]) for k in shown]
        labels = [f"{style.short(names[k])}: {areas[k]:.4f}" for k in shown]
        if len(ranked) > CURVES:
            handles.append(Line2D([], [], color=RULE))
            labels.append(f"{count(len(ranked) - CURVES, 'other')}, none lower")
        figure.legend(handles, labels, loc="outside right center", handlelength=1.6)
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
    heading = headed("Confidence and accuracy; a dot is a bin, as large as it has images", title)
    with style.figure(path, style.NARROW * len(sides) + 0.4, 5, heading) as figure:
        grid = figure.subplots(2, len(sides), sharex=True, sharey="row", height_ratios=(4, 1))
        for side, head, (upper, lower) in zip(
            sides, heads, np.reshape(grid, (2, -1)).T, strict=False
        ):
            charts.reliability(upper, side)
            upper.set_xlabel("")
            upper.set_title(head)
            known = [one for one in side if one["images"]]
            total = sum(one["images"] for one in known)
            lower.bar(
                [one["above"] for one in known],
                [one["images"] / total for one in known],
                0.92 / len(side), align="edge", color=GREY,
            )  # fmt: skip
            lower.yaxis.set_major_formatter(style.percent)
            lower.set_xlabel("how sure the model is")
            lower.set_ylabel("images")
            lower.locator_params(axis="y", nbins=3)
    columns = ("above", "to", "images", "confidence", "accuracy")
    rows = [
        [word, *(one[name] for name in columns)]
        for word, side in zip(("no", "yes"), sides, strict=False)
        for one in side
    ]
    style.numbers(path, ("scaled", *columns), rows)


def robustness(conditions: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw accuracy against the severity of each corruption, and under attack.

    Args:
        conditions: {"condition", "severity", "images", "correct", "accuracy",
            "accuracy_interval"}: one without severity named clean, corruptions at severities 1
            to 5, and others without severity, which are attacks.
    """
    alone = [one for one in conditions if not one["severity"]]
    kinds = list(dict.fromkeys(one["condition"] for one in conditions if one["severity"]))
    with style.figure(path, style.WIDE, 3.8, headed("Robustness", title)) as figure:
        corrupted, attacked = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1.2))
        for kind, colour, marker in zip(kinds, HUES, style.MARKERS, strict=False):
            line = [one for one in conditions if one["condition"] in ("clean", kind)]
            corrupted.errorbar(
                [one["severity"] for one in line], [one["accuracy"] for one in line],
                _whiskers(line), label=kind, color=colour, marker=marker, markersize=4,
                elinewidth=0.8, capsize=2,
            )  # fmt: skip
        corrupted.set_ylim(0, 1)
        corrupted.yaxis.set_major_formatter(style.percent)
        corrupted.set_xticks(range(6), ["clean", *map(str, range(1, 6))])
        corrupted.set_xlabel("severity")
        corrupted.set_ylabel("accuracy")
        corrupted.set_title("common corruptions")
        corrupted.legend(loc="lower left", ncols=2)
        names = [one["condition"] for one in alone]
        heights = [one["accuracy"] for one in alone]
        attacked.bar(names, heights, 0.6, color=[GREY] + [RED] * (len(alone) - 1))
        attacked.errorbar(names, heights, _whiskers(alone), fmt="none", color=INK, capsize=3)
        for place, (one, value) in enumerate(zip(alone, heights, strict=True)):
            top = one["accuracy_interval"][1] + 0.015
            attacked.text(place, top, f"{100 * value:.1f}", ha="center", bbox=LABEL)
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


def label_gallery(
    images: np.ndarray, shown: Sequence[Mapping[str, Any]], path: Path, *, title: str = ""
) -> None:
    """Draw images in rows of four, each with the labels that it was given and that it has.

    Args:
        images: uint8 (N, H, W, C) with 1 or 3 channels.
        shown: {"index", "true", "predicted"} of each image, labels in words.
    """
    rows = max(math.ceil(len(images) / 4), 1)
    ratio = min(images.shape[1] / images.shape[2], 2)
    with style.figure(path, 6.4, (1.5 * ratio + 0.45) * rows + 0.4, title) as figure:
        words = [
            (
                (style.short(one["predicted"], 24),
                 BLUE if one["true"] == one["predicted"] else RED),
                ("correct" if one["true"] == one["predicted"]
                 else f"true: {style.short(one['true'], 18)}", SOFT),
            )
            for one in shown
        ]  # fmt: skip
        charts.gallery(figure, images, words, 4, rows)
    columns = ("index", "true", "predicted")
    style.numbers(path, columns, ([one[name] for name in columns] for one in shown))


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
    with style.figure(path, 6.4, (1.5 * ratio + 0.45) * rows + 0.4, title) as figure:
        words = [
            (
                (f"{style.short(one['predicted'], 14)}, {100 * one['confidence']:.0f} %",
                 BLUE if one["true"] == one["predicted"] else RED),
                ("correct" if one["true"] == one["predicted"]
                 else f"true: {style.short(one['true'], 14)}", SOFT),
            )
            for one in shown
        ]  # fmt: skip
        charts.gallery(figure, images, words, 4, rows)
        if not len(images):
            figure.text(0.5, 0.4, "no such images", ha="center")
    columns = ("index", "true", "predicted", "confidence")
    style.numbers(path, columns, ([one[name] for name in columns] for one in shown))
