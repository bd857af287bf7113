"""Pictures of a study: every seed is a point, and means never stand alone."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlab.figures import style
from vitlab.figures.style import BLUE, GREEN, GREY, LABEL, ORANGE, PALE, PINK, RED, SKY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, "black")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

TOLD_APART = 14
"""Most arms that get a look of their own: seven colours, twice."""

COLUMNS = 3
"""Most panels side by side."""

MANY = 10
"""Most numbers that are named one by one on an axis."""

CROWDED = 44
"""Letters that fit side by side under a panel."""

POINTS = 200
"""Most points of a curve of training loss, which is drawn for every run."""


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
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    known = {name: np.array(points) for name, points in arms.items() if len(points)}
    looks = _looks({name: float(points[:, 1].mean()) for name, points in known.items()})
    costs = {name: float(np.log(points[:, 0].mean())) for name, points in known.items()}
    low, high = min(costs.values(), default=0.0), max(costs.values(), default=0.0)
    span = max(high - low, np.log(4))
    with style.figure(path, 13, 6.2, title) as figure:
        axes = figure.subplots()
        for name in looks:
            beside = [one for one in known if abs(costs[one] - costs[name]) < 0.01]
            aside = 0.018 * span * (beside.index(name) - (len(beside) - 1) / 2)
            x, y = known[name][:, 0] * np.exp(aside), known[name][:, 1]
            axes.plot(x, y, **_dots(looks[name]))
            axes.plot(x.mean(), y.mean(), "_", markersize=20, color=looks[name]["color"])
        axes.set_xscale("log")
        edge = (span - (high - low)) / 2 + 0.08 * span
        axes.set_xlim(np.exp(low - edge), np.exp(high + edge))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < np.log(300) else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: prefixed(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("multiply-adds of the whole training")
        axes.yaxis.set_major_formatter(_percent(axes))
        axes.set_ylabel("validation accuracy, last step")
        lines = [Line2D([], [], **_dots(look)) for look in looks.values()]
        _legend(figure, lines, list(looks), looks)
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
    with style.figure(path, (8, 12, 16)[columns - 1], 4.4 * rows + 0.8, title) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        first = grid[0, 0]
        if len(heights) > 1:
            low, high = np.nanmin(heights), np.nanmax(heights)
            margin = max(0.12 * (high - low), 0.002)
            first.set_ylim(low - margin, high + margin)
        first.yaxis.set_major_formatter(_percent(first))
        for panel, (axis, arms) in zip(grid.flat, panels.items(), strict=False):
            _panel(panel, arms, least)
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


def _panel(panel: "Axes", arms: Sequence[Mapping[str, Any]], least: float) -> None:
    """Draw the arms of an axis: at their words, or at their numbers where these are many."""
    words = list(dict.fromkeys(arm["word"] for arm in arms))
    numbers = _numbers(words)
    placed = [arm for arm in arms if numbers is None or arm["word"] in numbers]
    for arm in placed:
        alike = [one for one in placed if one["word"] == arm["word"]]
        step = 0.8 / len(alike)
        colour = BLUE if arm["baseline"] else ORANGE
        if numbers:
            place, spread = numbers[arm["word"]], 0.0
        else:
            place = words.index(arm["word"]) + step * (alike.index(arm) - (len(alike) - 1) / 2)
            spread = 0.3 * step
        known = not math.isnan(arm["interval"][0])
        if arm["seeds"] and arm["mean"] >= least:
            places = place + np.linspace(-spread / 2, spread / 2, len(arm["seeds"]))
            panel.plot(places, arm["seeds"], "o", color=colour, alpha=0.6, markersize=6)
            if known:
                size = 26 if len(alike) == 1 else 10
                panel.plot(place, arm["mean"], "_", color="black", markersize=size, mew=2)
                panel.vlines(place, *arm["interval"], color="black", linewidth=1.5)
            if known and arm["baseline"]:
                panel.axhspan(*arm["interval"], color=BLUE, alpha=0.1, linewidth=0)
            notes = []
        else:
            notes = [f"{100 * arm['mean']:.0f} %"] if arm["seeds"] else []
        notes += [f"{arm['failed']} failed"] if arm["failed"] else []
        panel.text(
            place, 0.02, "\n".join(notes), transform=panel.get_xaxis_transform(), ha="center",
            color=RED, fontsize=11, bbox=LABEL if notes else None,
        )  # fmt: skip
    panel.grid(axis="x", visible=False)
    if numbers:
        values = list(numbers.values())
        if min(values) > 0 and max(values) > 20 * min(values):
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        return
    labels = [style.short(word, 18) for word in words]
    panel.set_xticks(range(len(labels)), labels, fontsize=12)
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
    looks = _looks({name: float(np.mean(found)) for name, found in ends.items() if found})
    drawn: list[list[Any]] = []
    with style.figure(path, 17, 6, title) as figure:
        panels = figure.subplots(1, 3)
        kinds = (("train", "loss"), ("validation", "loss"), ("validation", "accuracy"))
        for panel, (split, number) in zip(panels, kinds, strict=True):
            heights = []
            for name, look in looks.items():
                lines = [_line(run, split, number) for run, _ in arms[name]]
                _overlay(panel, lines, [finished for _, finished in arms[name]], look)
                heights += [line[:, 1] for line in lines]
                drawn += [
                    [name, place, split, number, *point]
                    for place, line in enumerate(lines)
                    for point in line.tolist()
                ]
            values = np.concatenate(heights or [np.zeros(0)])
            if number == "loss" and len(values):
                # A diverging loss would flatten all others.
                low, high = np.nanmin(values), np.nanquantile(values, 0.995)
                panel.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low) + 1e-9)
            panel.set_xlim(left=0)
            panel.set_xlabel("epoch")
        panels[0].set_title("loss of training batches")
        panels[1].set_title("validation loss")
        panels[2].set_title("validation accuracy")
        panels[2].yaxis.set_major_formatter(_percent(panels[2]))
        named = [Line2D([], [], **look) for look in looks.values()]
        _legend(figure, named, list(looks), looks)
    style.numbers(path, ("arm", "run", "split", "number", "epoch", "value"), drawn)


def _line(run: Sequence[Mapping[str, Any]], split: str, number: str) -> np.ndarray:
    """Epochs and values (M, 2) of a number of the metrics."""
    points = [(one["epoch"], one[number]) for one in run if one["split"] == split]
    thinned = points[:: max(1, math.ceil(len(points) / POINTS))]
    return np.array(thinned, dtype=float).reshape(-1, 2)


def _overlay(
    panel: "Axes", lines: Sequence[np.ndarray], finished: Sequence[bool], look: Mapping[str, Any]
) -> None:
    """Draw the seeds of an arm, and their mean where all of them have a value."""
    values: dict[float, list[float]] = {}
    for line, complete in zip(lines, finished, strict=True):
        panel.plot(*line.T, **{**look, "linewidth": 0.8, "alpha": 0.35})
        if len(line) and not complete:
            panel.plot(*line[-1], marker="x", color=look["color"], markersize=8)
        for epoch, value in line.tolist():
            values.setdefault(epoch, []).append(value)
    common = [(epoch, float(np.mean(found))) for epoch, found in sorted(values.items())
              if len(found) == len(lines)]  # fmt: skip
    panel.plot(*np.array(common).reshape(-1, 2).T, **look)


def scaling(found: Mapping[str, Any], path: Path, *, title: str = "") -> None:
    """Draw accuracy against the number of training images: seeds, fitted curves and crossings.

    Args:
        found: {"series": [{"name", "points": [{"images", "accuracies"}], "curve": {a, b, c}}],
            "crossings": [{"of", "images", "interval", "share"}]}; see `vitlab.study.scaling`.
    """
    with style.figure(path, 12, 6.6, title) as figure:
        panel = figure.subplots()
        for k, one in enumerate(found["series"]):
            look: dict[str, Any] = {
                "color": COLOURS[k % len(COLOURS)],
                "marker": MARKERS[k % len(MARKERS)],
            }
            for point in one["points"]:
                places = [point["images"]] * len(point["accuracies"])
                panel.plot(places, point["accuracies"], linestyle="", alpha=0.6, **look)
            sizes = [point["images"] for point in one["points"]]
            if one["curve"]:
                x = np.geomspace(min(sizes), max(sizes), 200)
                y = 1 - (one["curve"]["a"] * x ** -one["curve"]["b"] + one["curve"]["c"])
            else:
                x, y = sizes, [np.mean(point["accuracies"]) for point in one["points"]]
            panel.plot(x, y, color=look["color"])
            panel.plot([], [], label=style.short(one["name"], 36), **look)
        for k, one in enumerate(one for one in found["crossings"] if one["images"]):
            names = " crosses ".join(style.short(name, 18) for name in one["of"])
            dashes = (0, (2 + 2 * k, 2))
            low, high = one["interval"] or (one["images"], one["images"])
            panel.axvspan(low, high, color=GREY, alpha=0.15, linewidth=0)
            panel.axvline(one["images"], color=GREY, linewidth=1.5, linestyle=dashes,
                          label=f"{names} at {one['images']:,.0f}")  # fmt: skip
        panel.set_xscale("log")
        ticks = sorted({point["images"] for one in found["series"] for point in one["points"]})
        panel.set_xticks(ticks, [f"{images:,}" for images in ticks], fontsize=12)
        panel.minorticks_off()
        panel.yaxis.set_major_formatter(_percent(panel))
        panel.set_xlabel("training images")
        panel.set_ylabel("validation accuracy, last step")
        figure.legend(loc="outside right upper")
    rows = (
        [one["name"], point["images"], value]
        for one in found["series"]
        for point in one["points"]
        for value in point["accuracies"]
    )
    style.numbers(path, ("series", "images", "accuracy"), rows)


def _looks(merits: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Colour, dash and marker of each arm; of too many, the lowest are pale and drawn first."""
    ranked = sorted(merits, key=lambda name: -merits[name])
    chosen = {name for name in merits if name in ranked[:TOLD_APART]}
    looks = {name: {"color": PALE, "linestyle": "-", "marker": ""}
             for name in merits if name not in chosen}  # fmt: skip
    for k, name in enumerate(name for name in merits if name in chosen):
        dash = ("-", "--")[k // len(COLOURS)]
        looks[name] = {"color": COLOURS[k % len(COLOURS)], "linestyle": dash, "marker": ""}
    return looks


def _dots(look: Mapping[str, Any]) -> dict[str, Any]:
    """An arm's look as points: hollow where its line is dashed."""
    hollow = look["linestyle"] == "--"
    face = {"markerfacecolor": "none"} if hollow else {}
    return {"color": look["color"], "marker": "o", "linestyle": "", "markersize": 8, **face}


def _legend(
    figure: "Figure", handles: Sequence[Any], names: Sequence[str], looks: Mapping[str, Any]
) -> None:
    own = [(handle, style.short(name, 40)) for handle, name in zip(handles, names, strict=True)
           if looks[name]["color"] != PALE]  # fmt: skip
    if len(own) < len(names):
        pale = handles[names.index(next(n for n in names if looks[n]["color"] == PALE))]
        own.append((pale, f"{len(names) - len(own)} others, none higher"))
    if own:
        figure.legend(*zip(*own, strict=True), loc="outside right upper")


def _percent(axes: "Axes") -> Any:
    """Percent, with as many decimals as the ticks need."""
    from matplotlib.ticker import FuncFormatter

    def write(value: float, _: int) -> str:
        ticks = 100 * np.asarray(axes.get_yticks())
        digits = next((n for n in (0, 1) if np.allclose(ticks, ticks.round(n), atol=1e-6)), 2)
        return f"{100 * value:.{digits}f} %"

    return FuncFormatter(write)


def prefixed(value: float) -> str:
    """A count with the prefix of its thousands, in three digits: 3.28 T."""
    units = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))
    unit, name = next(((unit, name) for unit, name in units if value >= unit), (1, ""))
    return f"{value / unit:.3g} {name}"
