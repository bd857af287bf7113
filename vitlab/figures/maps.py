"""Pictures of maps: points of a plane, one per image, coloured by class."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vitlab.figures import style
from vitlab.figures.style import BLUE, GREEN, ORANGE, PINK, RED, SKY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, "black")
MARKERS = ("o", "^", "x")
"""A class has a colour and a marker of its own until both have run through."""

NAMED = len(COLOURS) * len(MARKERS)
"""Most classes that are told apart; further ones are all drawn in the colours of the first."""


class Map(NamedTuple):
    """A panel: what it shows, in words, and its points (N, 2)."""

    title: str
    points: np.ndarray


def maps(
    rows: Sequence[Sequence[Map]],
    labels: np.ndarray,
    names: Sequence[str],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw maps in rows, each with one point per label (N,), and one legend for all.

    Axes carry no numbers: a map's scale is its own, and t-SNE's means nothing.
    """
    from matplotlib.lines import Line2D

    columns = max(map(len, rows))
    side = 5.6 if columns == 2 else 3.9
    with style.figure(path, side * columns + 2.6, side * len(rows) + 0.9, title) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)
        for line, row in zip(grid, rows, strict=True):
            for axes, one in zip(line, row, strict=False):
                axes.set_visible(True)
                _points(axes, one, labels, 14 if columns <= 2 else 7)
        if len(names) <= NAMED:
            looks = [
                Line2D([], [], color=colour, marker=marker, linestyle="", label=style.short(name))
                for name, (colour, marker) in zip(names, map(_look, range(NAMED)), strict=False)
            ]
            figure.legend(handles=looks, loc="outside right center", markerscale=1.2)
    lines = (
        (one.title, names[label], f"{x:.5g}", f"{y:.5g}")
        for row in rows
        for one in row
        for label, (x, y) in zip(labels, one.points, strict=True)
    )
    style.numbers(path, ("map", "class", "x", "y"), lines)


def _points(axes: "Axes", one: Map, labels: np.ndarray, size: float) -> None:
    # In mixed order, or the last class would hide the others.
    order = np.random.default_rng(0).permutation(len(labels))
    looks = [_look(label) for label in labels[order].tolist()]
    for marker in MARKERS:
        chosen = [place for place, look in enumerate(looks) if look[1] == marker]
        x, y = one.points[order[chosen]].T
        axes.scatter(
            x,
            y,
            s=size,
            c=[looks[place][0] for place in chosen],
            marker=marker,
            linewidths=0.8,
            alpha=0.75,
            rasterized=True,  # thousands of separate marks would make megabytes of SVG
        )
    axes.set_title(one.title, fontsize=12)
    axes.set(xticks=(), yticks=())
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set_visible(True)


def _look(label: int) -> tuple[str, str]:
    colour, marker = label % len(COLOURS), label // len(COLOURS) % len(MARKERS)
    return COLOURS[colour], MARKERS[marker]
