"""Figures of several runs: their curves, what accuracy costs, classes, and where two disagree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitlab.figures import charts, style
from vitlab.figures.charts import Line, Row
from vitlab.figures.style import BLUE, GREY, INK, ORANGE, RED, SOFT
from vitlab.figures.training import points
from vitlab.formatting import count, p_value, signed

TRANSFORMERS = ("vit", "hybrid")
"""Kinds of model that are drawn solid and round; all others are CNNs, dashed and square."""

COSTS: dict[str, tuple[str, float]] = {
    "macs": ("multiply-adds of an image, million", 1e6),
    "parameters": ("parameters, million", 1e6),
    "process_seconds": ("process time of the training, minutes", 60),
}
"""Costs against which accuracy is drawn: their name and unit."""

FOUND = 0.05
"""A corrected p below this is a difference."""

ACROSS = 4
"""Disagreements in a row of the gallery."""


def curves(
    metrics: Mapping[str, Sequence[Mapping[str, Any]]],
    kinds: Mapping[str, str],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw accuracy and loss of all runs over epochs: validation thick, clean training thin.

    Args:
        metrics: name of a run -> the lines of its metrics.jsonl.
        kinds: name of a run -> its kind of model, which the dashes tell.
    """
    from matplotlib.lines import Line2D

    drawn: list[list[Any]] = []
    hues = style.colours(list(metrics))
    with style.figure(path, style.WIDE, 3.8, title) as figure:
        for axes, measure in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
            series = [
                (split, Line(name, found, hues[name], dash(kinds[name])))
                for name, lines in metrics.items()
                for split in ("train_clean", "validation")
                if (found := points(lines, split, measure)) or split == "validation"
            ]
            form = style.percent if measure == "accuracy" else style.plainly
            charts.lines(axes, [line for _, line in series], across="epoch", form=form, named=False)
            for drawing, (split, line) in zip(axes.lines, series, strict=True):
                thin = split == "train_clean"
                drawing.set(linewidth=0.9 if thin else 2.0, alpha=0.7 if thin else 1.0)
                drawn += [[line.name, split, measure, *point] for point in line.points]
            axes.set_title(measure.capitalize())
            axes.set_xlim(left=0)
        handles = [
            Line2D([], [], color=hues[name], linestyle=dash(kinds[name]), label=_label(name, kinds))
            for name in metrics
        ]
        handles += [
            Line2D([], [], color=GREY, linewidth=2.0, label="validation"),
            Line2D([], [], color=GREY, linewidth=0.9, label="training images, clean"),
        ]
        style.legend(figure, handles)
    style.numbers(path, ("run", "split", "measure", "epoch", "value"), drawn)


def dash(kind: str) -> Any:
    """Solid for a ViT, dashed for a CNN."""
    return "-" if kind in TRANSFORMERS else (0, (4, 1.5))


def _label(name: str, kinds: Mapping[str, str]) -> str:
    return f"{style.short(name, 30)} ({'ViT' if kinds[name] in TRANSFORMERS else 'CNN'})"


def cost(runs: Sequence[Mapping[str, Any]], path: Path, *, split: str, title: str = "") -> None:
    """Draw the accuracy of each run against what it costs, with its interval over images.

    Args:
        runs: {"name", "kind", "accuracy", "accuracy_interval"} and the COSTS of each run, None
            where unknown.
        split: what was evaluated.
    """
    from matplotlib.lines import Line2D

    kinds = {one["name"]: one["kind"] for one in runs}
    hues = style.colours(list(kinds))
    marks = {name: "o" if kind in TRANSFORMERS else "s" for name, kind in kinds.items()}
    with style.figure(path, style.WIDE, 3.4, title) as figure:
        panels = figure.subplots(1, len(COSTS), sharey=True)
        for panel, (fact, (words, unit)) in zip(panels, COSTS.items(), strict=True):
            known = [one for one in runs if None not in (one[fact], one["accuracy"])]
            for one in known:
                low, high = one["accuracy_interval"] or (one["accuracy"], one["accuracy"])
                panel.errorbar(
                    one[fact] / unit, one["accuracy"],
                    [[one["accuracy"] - low], [high - one["accuracy"]]],
                    color=hues[one["name"]], marker=marks[one["name"]], markersize=7, capsize=3,
                )  # fmt: skip
            panel.set_xlim(0, 1.15 * max((one[fact] / unit for one in known), default=1.0))
            panel.xaxis.set_major_formatter(style.plainly)
            panel.locator_params(axis="x", nbins=5)
            panel.set_xlabel(words)
            panel.yaxis.set_major_formatter(style.percent)
        panels[0].set_ylabel(f"{split} accuracy")
        handles = [
            Line2D([], [], color=hues[name], marker=marks[name], linestyle="",
                   label=_label(name, kinds))
            for name in kinds
        ]  # fmt: skip
        style.legend(figure, handles)
    columns = ("name", "kind", "accuracy", *COSTS)
    style.numbers(path, columns, ([one[name] for name in columns] for one in runs))


def class_rows(classes: Sequence[Mapping[str, Any]]) -> list[Row]:
    """By how much one run is better or worse in each class; hollow where a test finds nothing.

    Args:
        classes: {"class", "difference", "adjusted_p"} of each class; those without a difference
            have no images, and no row.
    """
    return [
        Row(
            one["class"], one["difference"], None,
            signed(one["difference"])
            + (f", p {p_value(one['adjusted_p'])}" if one["adjusted_p"] < FOUND else ""),
            BLUE if one["difference"] > 0 else ORANGE,
            hollow=one["adjusted_p"] >= FOUND,
        )
        for one in classes
        if one["difference"] is not None
    ]  # fmt: skip


def class_differences(
    classes: Sequence[Mapping[str, Any]],
    names: tuple[str, str],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw by how much one run is better or worse than another in each class.

    Args:
        classes: as `class_rows` takes them, in order.
        names: the run and what it is held against.
    """
    from matplotlib.lines import Line2D

    rows = class_rows(classes)
    parts = charts.columns_of(len(rows), 30) if rows else []
    size = style.NARROW + 0.6 if len(parts) < 2 else style.NARROW * len(parts)
    height = charts.dots_height(max(map(len, parts), default=1), True) + 0.9
    with style.figure(path, size, height, title) as figure:
        grid = figure.subplots(1, max(1, len(parts)), squeeze=False, sharex=True).flat
        for axes, part in zip(grid, parts, strict=False):
            charts.dots(axes, [rows[k] for k in part], zero=0.0, form=style.points, longest=26,
                        across="difference of the class's accuracy in points")  # fmt: skip
        run, other = (style.short(name, 30) for name in names)
        look: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 7}
        style.legend(
            figure,
            [
                Line2D([], [], color=BLUE, label=f"{run} is better", **look),
                Line2D([], [], color=ORANGE, label=f"{other} is better", **look),
                Line2D([], [], color=GREY, markerfacecolor="none",
                       label=f"may be chance: adjusted p >= {FOUND}", **look),
            ],
        )  # fmt: skip
    columns = ("class", "images", "accuracy", "against_accuracy", "difference", "adjusted_p")
    style.numbers(path, columns, ([one.get(name) for name in columns] for one in classes))


def disagreements(
    images: Sequence[np.ndarray],
    shown: Sequence[Mapping[str, Any]],
    names: tuple[str, str],
    path: Path,
    *,
    total: int,
    title: str = "",
) -> None:
    """Draw images that two runs call differently, with what each of them says.

    Args:
        images: uint8 (H, W, C) with 1 or 3 channels, at least one.
        shown: {"index", "true", "predicted", "confidence", "against_predicted",
            "against_confidence"} of each image.
        names: the run and what it is held against.
        total: disagreements of the whole split.
    """
    rows = -(-len(images) // ACROSS)
    ratio = min(images[0].shape[0] / images[0].shape[1], 2)
    run, other = (style.short(name, 12) for name in names)
    with style.figure(path, 7.6, (1.6 * ratio + 0.65) * rows + 0.5, title) as figure:
        words = [
            (
                (f"true: {style.short(one['true'], 18)}", INK),
                _said(run, one["predicted"], one["confidence"], one["true"]),
                _said(other, one["against_predicted"], one["against_confidence"], one["true"]),
            )
            for one in shown
        ]
        charts.gallery(figure, images, words, ACROSS, rows)
        figure.supxlabel(
            f"{len(images)} of {count(total, 'disagreement')}, among the images that evaluate "
            "keeps: some at random, some mistakes; blue is right, red is wrong",
            fontsize=8.5, color=SOFT,
        )  # fmt: skip
    columns = ("index", "true", "predicted", "confidence", "against_predicted",
               "against_confidence")  # fmt: skip
    style.numbers(path, columns, ([one[name] for name in columns] for one in shown))


def _said(who: str, what: str, confidence: float, true: str) -> tuple[str, str]:
    """What a run says of an image, and the colour of a right or a wrong answer."""
    words = f"{who}: {style.short(what, 12)}, {100 * confidence:.0f} %"
    return words, BLUE if what == true else RED
