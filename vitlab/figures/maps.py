"""Figures of maps: points of a plane, one per image, coloured by class."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vitlab.figures import style
from vitlab.figures.style import FAINT, HUES, INK, MARKERS, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = len(HUES) * 3
"""Most classes that are told apart; further ones are all drawn in the colours of the first."""

DIRECT = len(HUES)
"""Most classes whose names stand in the map, where the class is."""


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
    """Draw maps in rows, each with one point per label (N,); up to ten classes are named inside.

    Axes carry no numbers: a map's scale is its own, and t-SNE's means nothing.
    """
    from matplotlib.lines import Line2D

    columns = max(map(len, rows))
    side = 4.0 if columns <= 2 else 2.9
    with style.figure(path, side * columns + 0.4, side * len(rows) + 0.5, title) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)
        for line, row in zip(grid, rows, strict=True):
            for axes, one in zip(line, row, strict=False):
                axes.set_visible(True)
                points(axes, one, labels, names, 7 if columns <= 2 else 4)
        if DIRECT < len(names) <= NAMED:
            looks = [_look(k) for k in range(len(names))]
            handles = [Line2D([], [], color=c, marker=m, linestyle="") for c, m in looks]
            style.legend(figure, handles, [style.short(name) for name in names])
    lines = (
        (one.title, names[label], f"{x:.5g}", f"{y:.5g}")
        for row in rows
        for one in row
        for label, (x, y) in zip(labels, one.points, strict=True)
    )
    style.numbers(path, ("map", "class", "x", "y"), lines)


def points(axes: "Axes", one: Map, labels: np.ndarray, names: Sequence[str], size: float) -> None:
    """Draw a map; each class is named at the median of its points, if there are few classes."""
    # In mixed order, or the last class would hide the others.
    order = np.random.default_rng(0).permutation(len(labels))
    looks = [_look(label) for label in labels[order].tolist()]
    for marker in dict.fromkeys(look[1] for look in looks):
        chosen = [place for place, look in enumerate(looks) if look[1] == marker]
        x, y = one.points[order[chosen]].T
        axes.scatter(
            x, y, s=size, c=[looks[place][0] for place in chosen], marker=marker, linewidths=0,
            alpha=0.7, rasterized=True,  # thousands of marks would make megabytes of SVG
        )  # fmt: skip
    if len(names) <= DIRECT:
        for k in sorted({int(label) for label in labels}):
            x, y = np.median(one.points[labels == k], axis=0)
            axes.annotate(
                style.short(names[k], 14), (x, y), ha="center", va="center", fontsize=9,
                fontweight="bold", color=_look(k)[0],
                bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 1},
            ).set_in_layout(False)  # fmt: skip
    axes.set_title(style.short(one.title, 60), fontsize=9, color=INK)
    axes.set(xticks=(), yticks=())
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set(visible=True, color=FAINT, linewidth=0.6)


def _look(label: int) -> tuple[str, str]:
    return HUES[label % len(HUES)], MARKERS[label // len(HUES) % 3]
