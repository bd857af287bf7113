"""The charts that several subjects share, each drawn into the axes it is given.

A chart fits a figure as wide as a phone: names stand above their values where both are words, and
what is a number has a column of its own.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vitlab.figures import style
from vitlab.figures.style import BLUE, FAINT, INK, LABEL, ORANGE, PAPER, RULE, SOFT, WASH
from vitlab.stats import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Form = Callable[[float, Any], str]

ROW = 0.4
"""Inches of a row of `dots`."""

LINE = 0.24
"""Inches of a row of `bars` and of `class_dots`."""


CROWDED = 42
"""Letters that fit side by side under a confusion matrix."""


class Row(NamedTuple):
    """A line of a dot chart: what it is, its value with its interval, and the same in words."""

    name: str
    value: float
    interval: Sequence[float] | None
    words: str
    colour: str = BLUE
    hollow: bool = False
    points: Sequence[float] = ()
    """Single measurements behind the value."""


def dots_height(rows: int, labelled: bool = False) -> float:
    """Inches of a dot chart of so many rows, with its ticks and perhaps a label."""
    return ROW * rows + 0.3 + 0.2 * labelled


def dots(
    axes: "Axes",
    rows: Sequence[Row],
    *,
    form: Form = style.percent,
    zero: float | None = None,
    across: str = "",
    longest: int = 34,
) -> None:
    """Values below one another, each with its interval under its name.

    Args:
        form: writes a number at the axis.
        zero: a value to be on one side of, which is marked on every track.
        across: what the axis measures.
        longest: most letters of a name.
    """
    values = [n for row in rows for n in (row.value, *(row.interval or ()), *row.points)]
    axes.set_xlim(*style.limits([*values, *([] if zero is None else [zero])], 0.04))
    axes.set_ylim(len(rows), 0)
    words = axes.get_yaxis_transform()
    for place, row in enumerate(rows):
        track = place + 0.68
        name = style.short(row.name, longest)
        axes.text(0, place + 0.42, name, transform=words).set_in_layout(False)
        value = axes.text(1, place + 0.42, row.words, transform=words, ha="right", color=SOFT)
        value.set_in_layout(False)
        axes.plot((0, 1), (track, track), color=RULE, linewidth=0.8, transform=words, zorder=1)
        if zero is not None:
            axes.plot((zero, zero), (track - 0.11, track + 0.16), color=FAINT, linewidth=1.4)
        if row.interval:
            axes.plot(row.interval, (track, track), color=row.colour, linewidth=3.2, alpha=0.4,
                      solid_capstyle="round")  # fmt: skip
        axes.plot(row.points, [track] * len(row.points), "o", color=row.colour, markersize=3.4,
                  alpha=0.55, markeredgewidth=0)  # fmt: skip
        inside = PAPER if row.hollow else row.colour
        axes.plot(row.value, track, "o", color=row.colour, markerfacecolor=inside, markersize=7,
                  markeredgewidth=1.5, clip_on=False)  # fmt: skip
    style.no_frame(axes, "both")
    axes.set_yticks(())
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(form)
    axes.set_xlabel(across)


def bars(
    axes: "Axes",
    rows: Sequence[tuple[str, float, str, str]],
    *,
    across: str = "",
    room: float = 0.2,
    whole: bool = False,
) -> None:
    """Horizontal bars of (name, value, words, colour), the words behind the end of each.

    Args:
        room: share of the longest bar that is left for words.
        whole: values are counts, and so are the ticks.
    """
    most = max((value for _, value, _, _ in rows), default=1.0) or 1.0
    for place, (_, value, words, colour) in enumerate(rows):
        axes.barh(place, value, 0.62, color=colour)
        axes.text(value + 0.012 * most, place, words, va="center", fontsize=9, bbox=LABEL)
    axes.set_yticks(range(len(rows)), [style.short(name, 28) for name, *_ in rows], color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, (1 + room) * most)
    axes.locator_params(axis="x", nbins=5, integer=whole)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.set_xlabel(across)
    style.no_frame(axes, "y")


class Line(NamedTuple):
    """A line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dash: str = "-"
    marker: str = ""


def lines(
    axes: "Axes",
    series: Sequence[Line],
    *,
    across: str,
    form: Form = style.plainly,
    low: float | None = None,
    high: float | None = None,
    named: bool = True,
) -> None:
    """Lines over one another, with a legend above them; a line of few points has markers.

    Args:
        across: what the horizontal axis is.
        form: writes a number at the vertical one.
        named: False leaves the legend to the figure.
    """
    for one in series:
        x, y = np.array(one.points, dtype=float).reshape(-1, 2).T
        marker = one.marker or ("o" if len(x) <= 12 else "")
        axes.plot(x, y, color=one.colour, linestyle=one.dash, marker=marker, markersize=4,
                  label=style.short(one.name, 44))  # fmt: skip
    axes.set_ylim(bottom=low, top=high)
    axes.set_xlabel(across)
    axes.yaxis.set_major_formatter(form)
    axes.locator_params(axis="y", nbins=6)
    axes.locator_params(axis="x", nbins=7)
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="x", length=3)
    if named and len(series) > 1 and axes.figure:
        style.legend(axes.get_figure(), axes.lines)  # type: ignore[arg-type]


def confusion(
    axes: "Axes", counts: Sequence[Sequence[int]] | np.ndarray, names: Sequence[str]
) -> None:
    """Counts of true class (row) by predicted class (column), with their share of the row.

    Cells are shaded by the root of the share, or the mistakes of a good model would hardly show.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    many = len(names)
    size = min(9.0, 74 * axes.get_figure().get_figwidth() / 4.2 / many)  # type: ignore[union-attr]
    places = list(np.ndindex(*counts.shape))
    cells = [Rectangle((column - 0.47, row - 0.47), 0.94, 0.94) for row, column in places]
    shades = [
        (*to_rgb(BLUE if row == column else ORANGE), math.sqrt(shares[row, column]))
        for row, column in places
    ]
    axes.add_collection(PatchCollection(cells, facecolors=WASH, linewidths=0))
    axes.add_collection(PatchCollection(cells, facecolors=shades, linewidths=0))
    for true, predicted in np.argwhere(counts).tolist():
        share = shares[true, predicted]
        ink = PAPER if share > 0.36 else INK
        look: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
        aside = 0.17 if many <= 12 else 0
        number = f"{counts[true, predicted]}"
        axes.text(predicted, true - aside, number, fontsize=size, **look).set_in_layout(False)
        if aside:
            words = f"{100 * share:.0f} %" if share > 0.0051 else "<1 %"
            text = axes.text(predicted, true + 0.22, words, fontsize=0.74 * size, **look)
            text.set_in_layout(False)
    labels = [style.short(name, 14) for name in names]
    fontsize = min(9.5, 100 / many)
    axes.set_xticks(range(many), labels, fontsize=fontsize, color=INK)
    axes.set_yticks(range(many), labels, fontsize=fontsize, color=INK)
    if max(map(len, labels), default=0) * many > CROWDED:
        for label in axes.get_xticklabels():
            label.set(rotation=50, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, many - 0.5)
    axes.set_ylim(many - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    style.no_frame(axes, "both")


def confusion_height(names: Sequence[str]) -> float:
    """Inches of a confusion matrix of these classes in a narrow figure."""
    longest = max((len(style.short(name, 14)) for name in names), default=0)
    side = style.NARROW - 0.082 * longest - 0.35
    slanted = longest * len(names) > CROWDED
    return side + (0.06 * longest + 0.25 if slanted else 0.25) + 0.25


class Mark(NamedTuple):
    """A point of a scatter, and what it is called."""

    x: float
    y: float
    name: str
    colour: str


def scatter(
    axes: "Axes", marks: Sequence[Mark], *, across: str, form: Form = style.percent
) -> None:
    """Named points, x on a logarithmic axis; names that would meet move apart."""
    from matplotlib.ticker import LogLocator, NullFormatter

    logs = [math.log(mark.x) for mark in marks]
    span = max(max(logs) - min(logs), math.log(4))
    middle = (max(logs) + min(logs)) / 2
    ends = middle - 0.58 * span, middle + 0.58 * span
    axes.set_xscale("log")
    axes.set_xlim(*np.exp(ends))
    low, high = style.limits([mark.y for mark in marks], 0.1)
    axes.set_ylim(low, high)
    step = (high - low) / 15
    taken: list[tuple[float, float]] = []
    for mark in sorted(marks, key=lambda mark: -mark.y):
        place = (math.log(mark.x) - ends[0]) / (ends[1] - ends[0])
        right = place > 0.5
        y = min([mark.y, *(other - step for there, other in taken if abs(place - there) < 0.45)])
        taken.append((place, y))
        axes.plot(mark.x, mark.y, "o", color=mark.colour, markersize=7)
        axes.annotate(
            style.short(mark.name, 24), (mark.x, mark.y),
            (math.exp(math.log(mark.x) + (-1 if right else 1) * 0.05 * (ends[1] - ends[0])), y),
            ha="right" if right else "left", va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkA": 1,
                        "shrinkB": 4} if mark.y - y > step / 4 else None,
        )  # fmt: skip
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < math.log(300) else (1,)))
    axes.xaxis.set_major_formatter(style.prefixed)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(form)
    axes.locator_params(axis="y", nbins=6)
    axes.set_xlabel(across)
    axes.grid(axis="x", visible=False)


def reliability(
    axes: "Axes", bins: Sequence[Mapping[str, Any]], colour: str = BLUE, name: str = ""
) -> None:
    """Accuracy against confidence: a dot per bin, as large as it has images, with its interval.

    Args:
        bins: {"images", "confidence", "accuracy"}, None where a bin is empty.
    """
    known = [one for one in bins if one["images"]]
    total = sum(one["images"] for one in known)
    axes.plot((0, 1), (0, 1), color=FAINT, linestyle=(0, (4, 3)), linewidth=1)
    x, y = [one["confidence"] for one in known], [one["accuracy"] for one in known]
    for one in known:
        right = round(one["accuracy"] * one["images"])
        axes.plot([one["confidence"]] * 2, wilson(right, one["images"]), color=colour, alpha=0.35,
                  linewidth=2, solid_capstyle="round")  # fmt: skip
    sizes = [8 + 110 * math.sqrt(one["images"] / total) for one in known]
    axes.scatter(
        x, y, sizes, color=colour, zorder=3, linewidths=0, label=name or "a bin of confidence"
    )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_formatter(style.percent)
    axes.yaxis.set_major_formatter(style.percent)
    axes.set_xlabel("how sure the model is")
    axes.set_ylabel("how often it is right")


def class_dots(
    axes: "Axes",
    series: Mapping[str, Sequence[float | None]],
    names: Sequence[str],
    images: Sequence[int] | None = None,
    ends: tuple[float, float] | None = None,
) -> None:
    """A row for each class, with a dot for each number that is measured of it, on a zoomed axis.

    Args:
        series: what is drawn, by its name: a fraction per class, None where it has no images.
        images: of each class; with them the intervals of the first number are drawn (Wilson).
        ends: of the axis; default what the numbers need.
    """
    colours = style.colours(list(series))
    for k in range(len(names)):
        found = [(name, values[k]) for name, values in series.items() if values[k] is not None]
        if not found:
            axes.text(0.02, k, "no images", transform=axes.get_yaxis_transform(), va="center",
                      color=SOFT, fontsize=9)  # fmt: skip
        values = [value for _, value in found if value is not None]
        if images is not None and values:
            low, high = wilson(round(values[0] * images[k]), images[k])
            axes.plot((low, high), (k, k), color=BLUE, alpha=0.35, linewidth=3,
                      solid_capstyle="round")  # fmt: skip
        elif len(values) > 1:
            axes.plot((min(values), max(values)), (k, k), color=RULE, linewidth=3, zorder=1)
    for (name, values), marker in zip(series.items(), style.MARKERS, strict=False):
        axes.plot([math.nan if v is None else v for v in values], range(len(names)), marker,
                  color=colours[name], label=name, clip_on=False)  # fmt: skip
    known = [v for values in series.values() for v in values if v is not None]
    low, high = ends or style.limits(known)
    axes.set_xlim(max(low, -0.005), min(high, 1.005))
    axes.set_yticks(range(len(names)), [style.short(name) for name in names], color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(style.percent)
    style.no_frame(axes)


def gallery(
    figure: "Figure",
    images: Iterable[np.ndarray],
    words: Iterable[Sequence[tuple[str, str]]],
    across: int,
    rows: int,
) -> None:
    """Images (H, W, C), uint8, in rows, each under its lines of (text, colour)."""
    grid = figure.subplots(rows, across, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, lines in zip(grid.flat, images, words, strict=False):
        style.show(axes, image)
        axes.set_axis_on()
        # The empty title makes room. Words that are wide must not make an image small.
        axes.set_title("\n".join([" "] * len(lines)), fontsize=9)
        for place, (text, colour) in enumerate(reversed(lines)):
            axes.annotate(
                text, (0.5, 1), (0, 4 + 11 * place), xycoords="axes fraction",
                textcoords="offset points", ha="center", color=colour, fontsize=8.5,
            ).set_in_layout(False)  # fmt: skip


def columns_of(count: int, most: int = 25) -> list[range]:
    """Split so many rows into columns of at most `most`, about equally long."""
    columns = max(1, math.ceil(count / most))
    length = max(1, math.ceil(count / columns))
    return [range(count)[start : start + length] for start in range(0, count, length)]
