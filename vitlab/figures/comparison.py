"""Pictures of several runs: their curves, what accuracy costs, classes, and where two disagree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlab.figures import style
from vitlab.figures.style import BLUE, GREEN, GREY, LABEL, ORANGE, PINK, RED, SKY

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, "black")

TRANSFORMERS = ("vit", "hybrid")
"""Kinds of model that are drawn solid and round; all others are CNNs, dashed and square."""

COSTS: dict[str, tuple[str, float]] = {
    "macs": ("multiply-adds of an image, million", 1e6),
    "parameters": ("parameters, million", 1e6),
    "process_seconds": ("process time of the training, minutes", 60),
}
"""Costs against which accuracy is drawn: their name and unit."""

FRAMES = {True: BLUE, False: RED}
"""Colour of a right and of a wrong answer."""

ACROSS = 4
"""Disagreements in a row of the gallery, and names in a row of a legend."""


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
    drawn: list[list[Any]] = []
    with style.figure(path, 13, 6.2, title) as figure:
        panels = figure.subplots(1, 2)
        for number, (name, lines) in enumerate(metrics.items()):
            look = _look(number, kinds[name])
            for axes, measure in zip(panels, ("accuracy", "loss"), strict=True):
                for split, width, alpha in (("train_clean", 1.2, 0.65), ("validation", 2.6, 1.0)):
                    points = [
                        (line["epoch"], line[measure])
                        for line in lines
                        if line["split"] == split and measure in line
                    ]
                    marker = look["marker"] if len(points) <= 3 else ""
                    axes.plot(
                        *np.array(points, dtype=float).reshape(-1, 2).T,
                        color=look["color"], linestyle=look["linestyle"], marker=marker,
                        linewidth=width, alpha=alpha,
                    )  # fmt: skip
                    drawn += [[name, split, measure, *point] for point in points]
        for axes, measure in zip(panels, ("accuracy", "loss"), strict=True):
            axes.set_title(measure)
            axes.set_xlabel("epoch")
            axes.set_xlim(left=0)
        panels[0].yaxis.set_major_formatter(style.percent())
        panels[1].set_ylim(bottom=0)
        runs = [_sample(number, name, kinds[name]) for number, name in enumerate(metrics)]
        for handle in runs:
            handle.set(marker="")
        figure.legend(handles=[*runs, *_widths()], loc="outside lower center", ncols=5)
    style.numbers(path, ("run", "split", "measure", "epoch", "value"), drawn)


def cost(runs: Sequence[Mapping[str, Any]], path: Path, *, split: str, title: str = "") -> None:
    """Draw the accuracy of each run against what it costs, with its interval over images.

    Args:
        runs: {"name", "kind", "accuracy", "accuracy_interval"} and the COSTS of each run, None
            where unknown.
        split: what was judged.
    """
    kinds = {one["name"]: one["kind"] for one in runs}
    with style.figure(path, 14, 5.4, title) as figure:
        panels = figure.subplots(1, len(COSTS), sharey=True)
        for panel, (fact, (words, unit)) in zip(panels, COSTS.items(), strict=True):
            known = [
                (number, one)
                for number, one in enumerate(runs)
                if one[fact] is not None and one["accuracy"] is not None
            ]
            for number, one in known:
                low, high = one["accuracy_interval"] or (one["accuracy"], one["accuracy"])
                look = _look(number, one["kind"])
                panel.errorbar(
                    one[fact] / unit,
                    one["accuracy"],
                    [[one["accuracy"] - low], [high - one["accuracy"]]],
                    color=look["color"], marker=look["marker"], markersize=10, capsize=4,
                )  # fmt: skip
            values = [one[fact] / unit for _, one in known]
            panel.set_xlim(0, 1.15 * max(values, default=1.0))
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panel.set_xlabel(words)
            panel.yaxis.set_major_formatter(style.percent(None))
        panels[0].set_ylabel(f"{split} accuracy")
        handles = [_sample(number, *one) for number, one in enumerate(kinds.items())]
        for handle in handles:
            handle.set(linestyle="")
        figure.legend(handles=handles, loc="outside lower center", ncols=ACROSS)
    columns = ("name", "kind", "accuracy", *COSTS)
    style.numbers(path, columns, ([one[name] for name in columns] for one in runs))


def class_differences(
    classes: Sequence[Mapping[str, Any]],
    names: tuple[str, str],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw by how much one run is better or worse than another in each class.

    Args:
        classes: {"class", "difference", "adjusted_p"} of each class, in order; a difference is
            None for a class without images. Differences that a test finds are filled.
        names: the run and what it is held against.
    """
    from matplotlib.patches import Patch

    values = [one["difference"] or 0.0 for one in classes]
    low, high = min(0.0, *values), max(0.0, *values)
    reach = high - low or 0.01
    with style.figure(path, 10, 0.36 * len(classes) + 2.1, title) as figure:
        axes = figure.subplots()
        for place, (one, value) in enumerate(zip(classes, values, strict=True)):
            colour = BLUE if value > 0 else ORANGE
            found = one["difference"] is not None and one["adjusted_p"] < 0.05
            axes.barh(place, value, 0.72, edgecolor=colour, facecolor=colour if found else "none",
                      linewidth=1.5)  # fmt: skip
            words = "no images" if one["difference"] is None else f"{100 * value:+.1f}"
            edge = value + (0.015 if value >= 0 else -0.015) * reach
            axes.text(edge, place, words, va="center", ha="left" if value >= 0 else "right",
                      fontsize=11, bbox=LABEL)  # fmt: skip
        axes.axvline(0, color=GREY, linewidth=1)
        axes.set_yticks(range(len(classes)), [style.short(one["class"]) for one in classes])
        axes.set_ylim(len(classes) - 0.4, -0.6)
        axes.set_xlim(low - 0.12 * reach, high + 0.12 * reach)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
        axes.set_xlabel("difference of the class's accuracy in percentage points")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        run, other = (style.short(name, 30) for name in names)
        handles = [
            Patch(color=BLUE, label=f"{run} is better"),
            Patch(color=ORANGE, label=f"{other} is better"),
            Patch(facecolor="none", edgecolor=GREY, label="may be chance: adjusted p >= 0.05"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
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
    with style.figure(path, 11, (2.2 * ratio + 0.85) * rows + 0.8, title) as figure:
        grid = figure.subplots(rows, ACROSS, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, image, one in zip(grid.flat, images, shown, strict=False):
            # Nearest neighbour: a pixel of the image is a square, not a blur.
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            lines = [
                (f"true: {style.short(one['true'], 18)}", "black"),
                (_said(run, one["predicted"], one["confidence"]),
                 FRAMES[one["predicted"] == one["true"]]),
                (_said(other, one["against_predicted"], one["against_confidence"]),
                 FRAMES[one["against_predicted"] == one["true"]]),
            ]  # fmt: skip
            # The empty title makes room. Words that are wide must not make an image small.
            axes.set_title(" \n \n ", fontsize=12)
            for place, (words, colour) in enumerate(reversed(lines)):
                axes.annotate(
                    words, (0.5, 1), (0, 5 + 14 * place), xycoords="axes fraction",
                    textcoords="offset points", ha="center", color=colour, fontsize=10,
                ).set_in_layout(False)  # fmt: skip
        figure.supxlabel(
            f"{len(images)} of {total:,} disagreements, among the images that evaluate keeps: some "
            "at random, some mistakes; blue is right, red is wrong",
            fontsize=11,
        )
    columns = ("index", "true", "predicted", "confidence", "against_predicted",
               "against_confidence")  # fmt: skip
    style.numbers(path, columns, ([one[name] for name in columns] for one in shown))


def _said(who: str, what: str, confidence: float) -> str:
    return f"{who}: {style.short(what, 12)}, {100 * confidence:.0f} %"


def _look(number: int, kind: str) -> dict[str, Any]:
    """Colour by run, dash and marker by family of models."""
    family = ("-", "o") if kind in TRANSFORMERS else ((0, (4, 1.5)), "s")
    colour = COLOURS[number % len(COLOURS)]
    return {"color": colour, "linestyle": family[0], "marker": family[1]}


def _sample(number: int, name: str, kind: str) -> "Line2D":
    """A run's line and marker, for a legend."""
    from matplotlib.lines import Line2D

    family = "ViT" if kind in TRANSFORMERS else "CNN"
    label = f"{style.short(name, 30)} ({family})"
    return Line2D([], [], **_look(number, kind), linewidth=2.6, markersize=9, label=label)


def _widths() -> list["Line2D"]:
    """What thick and thin lines mean."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=GREY, linewidth=2.6, label="validation"),
        Line2D([], [], color=GREY, linewidth=1.2, label="training images, clean"),
    ]
