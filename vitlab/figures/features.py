"""Figures of what layers know: how much can be read from each, and what their tokens are about.

K classes  R, S rows and columns of patch tokens
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitlab.figures import charts, exploration, style
from vitlab.figures.charts import Line
from vitlab.figures.exploration import Tile

KINDS = {
    "pooled": ("mean of patch tokens", "-"),
    "cls": ("CLS token", "--"),
    "patch": ("one patch token", ":"),
}
"""What is read of a layer, in words, and its line."""

MEASURES = {
    "linear_probe": "Accuracy of a linear probe",
    "neighbors": "Accuracy of nearest neighbours",
    "ratio": "Distance between / within classes",
}


def layers(runs: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw what can be read from each layer of one or two runs over their depth.

    Args:
        runs: {"run", "layers": [{"layer", "depth", "pooled": {"linear_probe", "neighbors",
            "ratio"}, "patch": the same, "cls": the same or None}]}; depth runs from 0 to 1.
    """
    with style.figure(path, 10, 3.6, title) as figure:
        panels = figure.subplots(1, len(MEASURES))
        for axes, (measure, words) in zip(panels, MEASURES.items(), strict=True):
            depth(axes, runs, measure, named=False)
            axes.set_title(words)
        style.legend(figure, panels[0].lines)
    lines = (
        (run["run"], one["layer"], one["depth"], kind, *(one[kind][name] for name in MEASURES))
        for run in runs
        for one in run["layers"]
        for kind in KINDS
        if one[kind] is not None
    )
    style.numbers(path, ("run", "layer", "depth", "of", *MEASURES), lines)


def depth(
    axes: Any, runs: Sequence[Mapping[str, Any]], measure: str, *, named: bool = True
) -> None:
    """Draw one of `MEASURES` over the depth of one or two runs, as `layers` takes them."""
    hues = style.colours([run["run"] for run in runs])
    series = []
    for run in runs:
        for kind, (of, dash) in KINDS.items():
            known = [one for one in run["layers"] if one[kind] is not None]
            found = [(one["depth"], one[kind][measure]) for one in known]
            if found:
                name = f"{style.short(run['run'])}: {of}" if len(runs) > 1 else of
                series.append(Line(name, found, hues[run["run"]], dash, "o"))
    form = style.plainly if measure == "ratio" else style.percent
    charts.lines(axes, series, across="depth", form=form, named=named)
    axes.set_xticks((0, 0.5, 1), ("first layer", "middle", "last layer"))


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
        tiles = [Tile(exploration.stretched(one, images.shape[1:3])) for one in pictures]
        rows[f"{style.short(run)}\n{layer}"] = tiles
    exploration.sheet(rows, path, title=title, columns=names)
    lines = (
        (run, layer, names[k], row, column, *(f"{value:.4f}" for value in colours[k, row, column]))
        for (run, layer), colours in found.items()
        for k, row, column in np.ndindex(colours.shape[:3])
    )
    style.numbers(path, ("run", "layer", "class", "row", "column", "red", "green", "blue"), lines)
