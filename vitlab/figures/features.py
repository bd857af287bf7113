"""Pictures of what layers know: how much can be read from each, and what their tokens are about.

K classes  R, S rows and columns of patch tokens
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitlab.figures import exploration, style
from vitlab.figures.exploration import Tile
from vitlab.figures.style import BLUE, ORANGE

KINDS = {
    "pooled": ("mean of patch tokens", "-"),
    "cls": ("CLS token", "--"),
    "patch": ("one patch token", ":"),
}
"""What is read of a layer, in words, and its line."""

MEASURES = {
    "linear_probe": "accuracy of a linear probe",
    "neighbors": "accuracy of nearest neighbours",
    "ratio": "distance between / within classes",
}


def layers(runs: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw what can be read from each layer of one or two runs over their depth.

    Args:
        runs: {"run", "layers": [{"layer", "depth", "pooled": {"linear_probe", "neighbors",
            "ratio"}, "patch": the same, "cls": the same or None}]}; depth runs from 0 to 1.
    """
    with style.figure(path, 15, 5.6, title) as figure:
        panels = figure.subplots(1, len(MEASURES))
        for axes, (measure, words) in zip(panels, MEASURES.items(), strict=True):
            for run, colour in zip(runs, (BLUE, ORANGE), strict=False):
                for kind, (of, dash) in KINDS.items():
                    known = [one for one in run["layers"] if one[kind] is not None]
                    points = [(one["depth"], one[kind][measure]) for one in known]
                    if points:
                        label = f"{style.short(run['run'])}: {of}"
                        look = {"color": colour, "linestyle": dash, "marker": "o"}
                        axes.plot(*zip(*points, strict=True), markersize=5, label=label, **look)
            axes.set_title(words)
            axes.set_xlabel("depth, from the first layer to the last")
            axes.set_xticks((0, 0.25, 0.5, 0.75, 1), ("first", "", "middle", "", "last"))
            if measure != "ratio":
                axes.set_ylim(0, 1)
                axes.yaxis.set_major_formatter(style.percent())
        figure.legend(handles=panels[0].lines, loc="outside lower center", ncols=len(runs))
    lines = (
        (run["run"], one["layer"], one["depth"], kind, *(one[kind][name] for name in MEASURES))
        for run in runs
        for one in run["layers"]
        for kind in KINDS
        if one[kind] is not None
    )
    style.numbers(path, ("run", "layer", "depth", "of", *MEASURES), lines)


def components(
    images: np.ndarray,
    found: Mapping[tuple[str, str], np.ndarray],
    names: Sequence[str],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw three numbers of each patch token as red, green and blue, below their images.

    Args:
        images: uint8 (K, H, W, C), one of each class.
        found: run and layer -> (K, R, S, 3), 0 being black and 1 full colour.
    """
    rows = {"image": [Tile(image) for image in images]}
    for (run, layer), colours in found.items():
        pictures = (255 * colours.clip(0, 1)).astype(np.uint8)
        tiles = [Tile(_stretched(picture, images.shape[1:3])) for picture in pictures]
        rows[f"{style.short(run)}\n{layer}"] = tiles
    exploration.sheet(rows, path, title=title, columns=names)
    lines = (
        (run, layer, names[k], row, column, *(f"{value:.4f}" for value in colours[k, row, column]))
        for (run, layer), colours in found.items()
        for k, row, column in np.ndindex(colours.shape[:3])
    )
    style.numbers(path, ("run", "layer", "class", "row", "column", "red", "green", "blue"), lines)


def _stretched(picture: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A picture (R, S, 3) over (height, width) pixels, without smoothing."""
    row, column = (np.arange(n) * have // n for n, have in zip(size, picture.shape, strict=False))
    return picture[row[:, None], column]
