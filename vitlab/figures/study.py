"""Figures of a study: every seed is a point, means never stand alone, and an arm has one colour."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlab.figures import style
from vitlab.figures.style import BLUE, FAINT, GREY, HUES, INK, LABEL, RED, RULE, prefixed
from vitlab.formatting import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["axes", "compute", "curves", "prefixed", "scaling"]

COLUMNS = 3
"""Most panels side by side."""

MANY = 10
"""Most numbers that are named one by one on an axis."""

CROWDED = 34
"""Letters that fit side by side under a panel."""

POINTS = 200
"""Most points of a curve of training loss, which is drawn for every run."""


def looks(arms: Mapping[str, float]) -> dict[str, str]:
    """A colour for each arm by its place among the arms, the same in all figures of a study.

    Of more arms than there are colours, the highest have them, and the others are pale.

    Args:
        arms: name -> what it reached, in the study's own order.
    """
    ranked = sorted(arms, key=lambda name: -arms[name])[: len(HUES)]
    coloured = style.colours([name for name in arms if name in ranked])
    return {name: coloured.get(name, RULE) for name in arms}


def compute(
    arms: Mapping[str, Sequence[tuple[float, float]]], path: Path, *, title: str = ""
) -> None:
    """Draw accuracy against the multiply-adds of the whole training.

    Arms of equal cost would hide one another: they stand side by side, in the order given.

    Args:
        arms: name -> (multiply-adds, accuracy) of every seed. Of many arms, the most accurate
            are told apart.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter

    known = {name: np.array(points) for name, points in arms.items() if len(points)}
    colours = looks({name: known[name][:, 1].mean() if name in known else -1.0 for name in arms})
    costs = {name: float(np.log(points[:, 0].mean())) for name, points in known.items()}
    low, high = min(costs.values(), default=0.0), max(costs.values(), default=0.0)
    span = max(high - low, np.log(4))
    with style.figure(path, style.WIDE, 4.4, title) as figure:
        axes = figure.subplots()
        for name in sorted(known, key=lambda name: colours[name] != RULE):
            beside = [one for one in known if abs(costs[one] - costs[name]) < 0.01]
            aside = 0.018 * span * (beside.index(name) - (len(beside) - 1) / 2)
            x, y = known[name][:, 0] * np.exp(aside), known[name][:, 1]
            axes.plot(x, y, "o", color=colours[name])
            axes.plot(x.mean(), y.mean(), "_", markersize=15, color=colours[name])
        axes.set_xscale("log")
        edge = (span - (high - low)) / 2 + 0.08 * span
        axes.set_xlim(np.exp(low - edge), np.exp(high + edge))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < np.log(300) else (1,)))
        axes.xaxis.set_major_formatter(prefixed)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("multiply-adds of the whole training")
        axes.yaxis.set_major_formatter(style.percent)
        axes.set_ylabel("validation accuracy, last step")
        _legend(
            figure,
            {n: Line2D([], [], color=colours[n], marker="o", linestyle="") for n in known},
            colours,
        )
    rows = ([name, *point] for name, points in arms.items() for point in points)
    style.numbers(path, ("arm", "training_macs", "accuracy"), rows)


def axes(panels: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, *, title: str = "") -> None:
    """Draw a panel for each axis: the seeds of each arm as points, their mean and its interval.

    All panels share one scale, so that large effects look large; an interval may leave it. The
    band is the interval of the baseline. An arm below a third of the best is a number at the
    lower edge.

    Args:
        panels: axis -> {"word", "baseline", "seeds", "mean", "interval", "failed"} of each arm.
    """
    shown = [arm for arms in panels.values() for arm in arms if arm["seeds"]]
    least = max((arm["mean"] for arm in shown), default=0.0) / 3
    heights = [seed for arm in shown for seed in arm["seeds"] if arm["mean"] >= least]
    heights += [end for arm in shown if arm["baseline"] for end in arm["interval"]]
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    # The baseline has the first colour, every other arm that of its place, as in other figures.
    others = [id(arm) for arms in panels.values() for arm in arms if not arm["baseline"]]
    places = {key: place for place, key in enumerate(others, start=1)}
    colours = {
        id(arm): (*HUES, GREY)[min(places.get(id(arm), 0), len(HUES))]
        for arms in panels.values()
        for arm in arms
    }
    with style.figure(path, (4.8, 7.6, 9.6)[columns - 1], 2.9 * rows + 0.4, title) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        first = grid[0, 0]
        if len(heights) > 1:
            low, high = np.nanmin(heights), np.nanmax(heights)
            margin = max(0.12 * (high - low), 0.002)
            first.set_ylim(low - margin, high + margin)
        first.yaxis.set_major_formatter(style.percent)
        for panel, (axis, arms) in zip(grid.flat, panels.items(), strict=False):
            _panel(panel, arms, least, colours)
            panel.set_title(axis)
            panel.yaxis.set_tick_params(labelleft=True)
        for spare in grid.flat[len(panels) :]:
            spare.set_visible(False)
        for panel in grid[:, 0]:
            panel.set_ylabel("validation accuracy")
    columns_ = ("axis", "word", "baseline", "mean", "low", "high", "failed", "seeds")
    lines = (
        [axis, arm["word"], arm["baseline"], arm["mean"], *arm["interval"], arm["failed"],
         " ".join(map(str, arm["seeds"]))]
        for axis, arms in panels.items()
        for arm in arms
    )  # fmt: skip
    style.numbers(path, columns_, lines)


def _panel(
    panel: "Axes", arms: Sequence[Mapping[str, Any]], least: float, colours: Mapping[int, str]
) -> None:
    """Draw the arms of an axis: at their words, or at their numbers where these are many."""
    words = list(dict.fromkeys(arm["word"] for arm in arms))
    numbers = _numbers(words)
    placed = [arm for arm in arms if numbers is None or arm["word"] in numbers]
    for arm in placed:
        alike = [one for one in placed if one["word"] == arm["word"]]
        step = 0.8 / len(alike)
        if numbers:
            place, spread = numbers[arm["word"]], 0.0
        else:
            place = words.index(arm["word"]) + step * (alike.index(arm) - (len(alike) - 1) / 2)
            spread = 0.3 * step
        known = not math.isnan(arm["interval"][0])
        notes = [f"{arm['failed']} failed"] if arm["failed"] else []
        if arm["seeds"] and arm["mean"] >= least:
            places = place + np.linspace(-spread / 2, spread / 2, len(arm["seeds"]))
            panel.plot(places, arm["seeds"], "o", color=colours[id(arm)], alpha=0.7, markersize=4)
            if known:
                panel.plot(
                    place, arm["mean"], "_", color=INK, markersize=18 if len(alike) == 1 else 7
                )
                panel.vlines(place, *arm["interval"], color=INK, linewidth=1)
            if known and arm["baseline"]:
                panel.axhspan(*arm["interval"], color=BLUE, alpha=0.12, linewidth=0)
        elif arm["seeds"]:
            notes = [f"{100 * arm['mean']:.0f} %", *notes]
        panel.text(
            place, 0.02, "\n".join(notes), transform=panel.get_xaxis_transform(), ha="center",
            color=RED, fontsize=8.5, bbox=LABEL if notes else None,
        )  # fmt: skip
    panel.grid(axis="x", visible=False)
    if numbers:
        values = list(numbers.values())
        if min(values) > 0 and max(values) > 20 * min(values):
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter(style.plainly)
        return
    labels = [style.short(word, 18) for word in words]
    panel.set_xticks(range(len(labels)), labels, color=INK)
    panel.set_xlim(-0.6, len(words) - 0.4)
    if len(labels) * max(map(len, labels), default=0) > CROWDED:
        for label in panel.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")


def _numbers(words: Sequence[str]) -> dict[str, float] | None:
    """Words as numbers, where they are numbers and too many to be named one by one."""
    numbers = {}
    for word in words:
        with contextlib.suppress(ValueError):
            numbers[word] = float(word)
    return numbers if len(numbers) > MANY and len(numbers) >= len(words) - 1 else None


Run = tuple[Sequence[Mapping[str, Any]], bool]
"""The lines of a run's metrics, and whether it finished."""


def curves(arms: Mapping[str, Sequence[Run]], path: Path, *, title: str = "") -> None:
    """Draw the losses and the validation accuracy of all arms over one another.

    A thin line is a seed, a thick one the mean of an arm for as long as all of its seeds are
    there; a cross is where a seed broke off.

    Args:
        arms: name -> the runs that began, of every seed.
    """
    from matplotlib.lines import Line2D

    ends = {name: [run[-1].get("accuracy", 0.0) for run, _ in runs] for name, runs in arms.items()}
    colours = looks({name: float(np.mean(found or [-1.0])) for name, found in ends.items()})
    drawn: list[list[Any]] = []
    kinds = {
        ("train", "loss"): "Loss of training batches",
        ("validation", "loss"): "Validation loss",
        ("validation", "accuracy"): "Validation accuracy",
    }
    with style.figure(path, 10, 3.8, title) as figure:
        for panel, ((split, number), words) in zip(
            figure.subplots(1, 3), kinds.items(), strict=True
        ):
            heights = []
            for name in sorted(arms, key=lambda name: colours[name] != RULE):
                lines = [_line(run, split, number) for run, _ in arms[name]]
                _overlay(panel, lines, [finished for _, finished in arms[name]], colours[name])
                heights += [line[:, 1] for line in lines]
            drawn += [
                [name, place, split, number, *point]
                for name, runs in arms.items()
                for place, (run, _) in enumerate(runs)
                for point in _line(run, split, number).tolist()
            ]
            values = np.concatenate(heights or [np.zeros(0)])
            values = values[np.isfinite(values)]
            if number == "loss" and len(values):
                # A diverging loss would flatten all others.
                low, high = values.min(), np.quantile(values, 0.995)
                panel.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low) + 1e-9)
            panel.set_xlim(left=0)
            panel.set_xlabel("epoch")
            panel.set_title(words)
            panel.grid(axis="x", visible=False)
        figure.axes[2].yaxis.set_major_formatter(style.percent)
        begun = [name for name, runs in arms.items() if runs]
        _legend(figure, {name: Line2D([], [], color=colours[name]) for name in begun}, colours)
    style.numbers(path, ("arm", "run", "split", "number", "epoch", "value"), drawn)


def _line(run: Sequence[Mapping[str, Any]], split: str, number: str) -> np.ndarray:
    """Epochs and values (M, 2) of a number of the metrics."""
    points = [(one["epoch"], one[number]) for one in run if one["split"] == split]
    thinned = points[:: max(1, math.ceil(len(points) / POINTS))]
    return np.array(thinned, dtype=float).reshape(-1, 2)


def _overlay(
    panel: "Axes", lines: Sequence[np.ndarray], finished: Sequence[bool], colour: str
) -> None:
    """Draw the seeds of an arm, and their mean where all of them have a value."""
    values: dict[float, list[float]] = {}
    for line, complete in zip(lines, finished, strict=True):
        panel.plot(*line.T, color=colour, linewidth=0.6, alpha=0.4)
        if len(line) and not complete:
            panel.plot(*line[-1], marker="x", color=colour, markersize=6)
        for epoch, value in line.tolist():
            values.setdefault(epoch, []).append(value)
    common = [(epoch, float(np.mean(found))) for epoch, found in sorted(values.items())
              if len(found) == len(lines)]  # fmt: skip
    panel.plot(*np.array(common).reshape(-1, 2).T, color=colour, linewidth=1.8)


def scaling(found: Mapping[str, Any], path: Path, *, title: str = "") -> None:
    """Draw accuracy against the number of training images: seeds, fitted curves and crossings.

    Args:
        found: {"series": [{"name", "points": [{"images", "accuracies"}], "curve": {a, b, c}}],
            "crossings": [{"of", "images", "interval", "share"}]}; see `vitlab.study.scaling`.
    """
    with style.figure(path, style.WIDE, 4.4, title) as figure:
        panel = figure.subplots()
        handles = []
        for k, one in enumerate(found["series"]):
            colour, marker = HUES[k % len(HUES)], style.MARKERS[k % len(style.MARKERS)]
            for point in one["points"]:
                places = [point["images"]] * len(point["accuracies"])
                panel.plot(places, point["accuracies"], marker, color=colour, alpha=0.6)
            sizes = [point["images"] for point in one["points"]]
            if one["curve"]:
                x = np.geomspace(min(sizes), max(sizes), 200)
                y = 1 - (one["curve"]["a"] * x ** -one["curve"]["b"] + one["curve"]["c"])
            else:
                x, y = sizes, [np.mean(point["accuracies"]) for point in one["points"]]
            panel.plot(x, y, color=colour)
            handles += panel.plot([], [], marker=marker, color=colour,
                                  label=style.short(one["name"], 36))  # fmt: skip
        for k, one in enumerate(one for one in found["crossings"] if one["images"]):
            names = " crosses ".join(style.short(name, 18) for name in one["of"])
            low, high = one["interval"] or (one["images"], one["images"])
            panel.axvspan(low, high, color=GREY, alpha=0.15, linewidth=0)
            handles.append(
                panel.axvline(one["images"], color=FAINT, linewidth=1.2,
                              linestyle=(0, (2 + 2 * k, 2)),
                              label=f"{names} at {one['images']:,.0f}")
            )  # fmt: skip
        panel.set_xscale("log")
        ticks = sorted({point["images"] for one in found["series"] for point in one["points"]})
        panel.set_xticks(ticks, [f"{images:,}" for images in ticks])
        panel.minorticks_off()
        panel.yaxis.set_major_formatter(style.percent)
        panel.set_xlabel("training images")
        panel.set_ylabel("validation accuracy, last step")
        style.legend(figure, handles)
    rows = (
        [one["name"], point["images"], value]
        for one in found["series"]
        for point in one["points"]
        for value in point["accuracies"]
    )
    style.numbers(path, ("series", "images", "accuracy"), rows)


def _legend(figure: "Figure", handles: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """Names of the arms that are told apart, and how many are not."""
    own = {name: handle for name, handle in handles.items() if colours[name] != RULE}
    labels = [style.short(name, 40) for name in own]
    shown = list(own.values())
    if len(own) < len(handles):
        shown.append(next(handle for name, handle in handles.items() if name not in own))
        labels.append(f"{count(len(handles) - len(own), 'other')}, none higher")
    style.legend(figure, shown, labels)
