"""Figures of a data set: its images, its classes, its colours, and what a ViT is handed of it.

H, W height and width   C channels, 1 or 3   K classes   P pixels on a side of a patch
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vitlab.figures import charts, style
from vitlab.figures.style import BLUE, FAINT, GREEN, GREY, INK, LABEL, ORANGE, RED, RULE, SKY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = 25
"""Most classes below one another."""

CHANNELS = {1: (("grey", GREY),), 3: (("red", RED), ("green", GREEN), ("blue", BLUE))}
"""Name and colour of each channel, by their number."""

GAP = 2
"""Pixels between two images."""

SPLITS = {"training": BLUE, "validation": SKY, "test": ORANGE}


class Tile(NamedTuple):
    """An image (H, W, C), uint8, and a few words to stand below it."""

    image: np.ndarray
    words: str = ""


def samples(
    images: Sequence[Sequence[np.ndarray]],
    places: Sequence[Sequence[int]],
    names: Sequence[str],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw a row of images (H, W, C) for each class.

    Args:
        images: uint8, by class; a class may have fewer than the others.
        places: the number of each image in the data set, for the CSV.
    """
    rows = {name: list(map(Tile, row)) for name, row in zip(names, images, strict=True)}
    parts = charts.columns_of(len(names), LINES)
    sheet(rows, path, title=title, panels=len(parts), inches=0.46)
    lines = (
        (name, column, place)
        for name, row in zip(names, places, strict=True)
        for column, place in enumerate(row)
    )
    style.numbers(path, ("class", "column", "index"), lines)


def class_counts(
    counts: Mapping[str, Sequence[int]], names: Sequence[str], path: Path, *, title: str = ""
) -> None:
    """Draw how many images of each class each split has, one after another, and their sum."""
    parts = charts.columns_of(len(names), LINES)
    total = np.sum(list(counts.values()), axis=0)
    width = 5.6 if len(parts) == 1 else 3.4 * len(parts)
    with style.figure(path, width, charts.LINE * len(parts[0]) + 1.1, title) as figure:
        for axes, part in zip(_panels(figure, len(parts)), parts, strict=True):
            left = np.zeros(len(part), int)
            for split, values in counts.items():
                wide = np.asarray(values)[part]
                axes.barh(range(len(part)), wide, 0.64, left, color=SPLITS[split], label=split)
                left = left + wide
            for place, k in enumerate(part):
                end = total[k] + 0.015 * total.max()
                axes.text(end, place, f"{total[k]:,}", va="center", fontsize=9, bbox=LABEL)
            axes.set_yticks(range(len(part)), [style.short(names[k]) for k in part], color=INK)
            axes.set_ylim(len(parts[0]) - 0.4, -0.6)
            axes.set_xlim(0, 1.16 * total.max())
            axes.locator_params(axis="x", nbins=5, integer=True)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            style.no_frame(axes, "y")
        style.legend(figure, figure.axes[0].containers)
    style.numbers(path, ("class", *counts), zip(names, *counts.values(), strict=True))


def intensities(
    shares: np.ndarray, mean: Sequence[float], std: Sequence[float], path: Path, *, title: str = ""
) -> None:
    """Draw how often each channel has each value, 0 to 255.

    Args:
        shares: (C, 256), each row of sum 1.
        mean, std: of each channel, in 0..1.
    """
    channels = CHANNELS[len(shares)]
    with style.figure(path, 2.8 * len(channels) + 1.2, 3, title) as figure:
        panels = zip(_panels(figure, len(channels)), channels, shares, mean, std, strict=True)
        for axes, (name, colour), share, m, s in panels:
            axes.fill_between(range(256), share, step="mid", color=colour, alpha=0.85, linewidth=0)
            band = axes.axvspan(255 * (m - s), 255 * (m + s), color=RULE, alpha=0.6, zorder=0)
            line = axes.axvline(255 * m, color=INK, linewidth=1.2)
            axes.set_title(f"{name}: mean {m:.4f}, std {s:.4f}")
            axes.set_xlim(-2, 257)
            axes.set_xticks((0, 64, 128, 192, 255))
            axes.set_ylim(0, 1.05 * shares.max())
            axes.yaxis.set_major_formatter(style.percent)
            axes.set_xlabel("value of a pixel")
            axes.grid(axis="x", visible=False)
        figure.axes[0].set_ylabel("share of pixels")
        words = ("mean", "one standard deviation to either side")
        style.legend(figure, [line, band], words)
    columns = ("value", *(name for name, _ in channels))
    style.numbers(path, columns, ((v, *share) for v, share in enumerate(shares.T.tolist())))


def patches(
    images: np.ndarray, side: int, names: Sequence[str], path: Path, *, title: str = ""
) -> None:
    """Draw an image of each class, uint8 (K, H, W, C), whole and cut into patches."""
    across = 5 if len(names) <= LINES else 10
    cells = [_pair(image, side) for image in images]
    high, wide, _ = cells[0].shape
    above = round(0.24 * high)  # room for the name
    cells = [np.pad(cell, ((above, 0), (0, 0), (0, 0))) for cell in cells]
    lines: list[list[np.ndarray | None]] = [
        [*cells[start : start + across]] for start in range(0, len(cells), across)
    ]
    across = max(map(len, lines))
    inches = 1.76 if len(names) <= LINES else 1.6
    size = (inches * across, inches * len(lines) * (high + above) / wide + 0.4)
    with style.figure(path, max(size[0], style.NARROW), size[1], title) as figure:
        axes = figure.subplots()
        style.show(axes, style.mosaic(lines, 4))
        for place, name in enumerate(names):
            row, column = divmod(place, across)
            x, y = 4 + column * (wide + 4), 3 + row * (high + above + 4) + above
            axes.text(x, y, style.short(name), fontsize=9, va="bottom")
    rows, columns = (length // side for length in images.shape[1:3])
    style.numbers(
        path,
        ("class", "height", "width", "patch", "rows", "columns"),
        ((name, *images.shape[1:3], side, rows, columns) for name in names),
    )


def _pair(image: np.ndarray, side: int) -> np.ndarray:
    """An image (H, W, C), and to its right its patches with gaps between them: (h, w, 4)."""
    image, side = _enlarged(image, side)
    cut = _cut(image, side)
    whole = image[: cut.shape[0] * side, : cut.shape[1] * side]
    apart = style.mosaic(list(cut), 1)
    above, below = (len(apart) - len(whole)) // 2, -(-(len(apart) - len(whole)) // 2)
    beside = np.pad(style.mosaic([[whole]], 0), ((above, below), (0, 4), (0, 0)))
    return np.concatenate([beside, apart], axis=1)


def tokens(image: np.ndarray, side: int, path: Path, *, title: str = "") -> None:
    """Draw how an image (H, W, C) becomes a row of numbers per patch of `side` pixels.

    From left to right: the image; its patches; the matrix (N, P * P * C) whose rows they are, every
    pixel's channels side by side. One patch is marked in all three. The CSV holds the matrix.
    """
    height, width, channels = image.shape
    cut = _cut(image, side)
    rows, columns = cut.shape[:2]
    matrix = cut.reshape(rows * columns, -1)
    count, numbers = matrix.shape
    row, column = rows // 2, columns // 2
    large, each = _enlarged(image, side)
    with style.figure(path, style.WIDE, 3.3, title) as figure:
        whole, apart, table = figure.subplots(1, 3, width_ratios=(1, 1, 1.5))
        style.show(whole, style.mosaic([[large]], 0))
        whole.set_title(f"image: {height} x {width} x {channels} numbers", fontsize=9)
        _mark(whole, column * each, row * each, each, each)
        style.show(apart, style.mosaic(list(_cut(large, each)), 1))
        apart.set_title(f"{rows} x {columns} patches of {side} x {side} pixels", fontsize=9)
        _mark(apart, column * (each + 1) + 1, row * (each + 1) + 1, each, each)
        table.imshow(matrix, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="nearest")
        table.grid(visible=False)
        table.locator_params(integer=True)
        table.set_title(f"{count} patches of {numbers} numbers", fontsize=9)
        table.set_xlabel("pixel by pixel" + ", each red, green, blue" * (channels == 3))
        table.set_ylabel("patch, row by row")
        _mark(table, 0, row * columns + column, numbers, 1)
    header = ("patch", *map(str, range(numbers)))
    style.numbers(path, header, ([n, *values] for n, values in enumerate(matrix.tolist())))


def tiles(
    rows: Mapping[str, Sequence[Tile]],
    path: Path,
    *,
    title: str = "",
    columns: Sequence[str] = (),
    panels: int = 1,
) -> None:
    """Draw rows of images as `sheet` does, and write down what stands where."""
    sheet(rows, path, title=title, columns=columns, panels=panels)
    lines = (
        (name, columns[place] if columns else place, tile.words)
        for name, row in rows.items()
        for place, tile in enumerate(row)
    )
    style.numbers(path, ("row", "column", "words"), lines)


def sheet(
    rows: Mapping[str, Sequence[Tile]],
    path: Path,
    *,
    title: str = "",
    columns: Sequence[str] = (),
    panels: int = 1,
    inches: float = 0.68,
) -> None:
    """Draw rows of images of one size, named on the left and, if `columns` are given, from above.

    The rows stand in as many panels side by side as wanted, each image `inches` high or higher. No
    numbers are written.
    """
    names = list(rows)
    length = math.ceil(len(names) / panels)
    height, width = next(iter(rows.values()))[0].image.shape[:2]
    across = max(map(len, rows.values()))
    cell = inches * max(1, width / height)
    worded = sum(any(tile.words for tile in row) for row in rows.values())
    high = length * cell * height / width + 0.18 * worded
    size = max(panels * (cell * across + 1.5), style.NARROW), high + 0.7
    with style.figure(path, *size, title) as figure:
        figure.set_layout_engine("compressed")
        for panel, axes in enumerate(_panels(figure, panels)):
            _stack(axes, {name: rows[name] for name in names[panel * length :][:length]})
            if columns:
                centres = [GAP + (width + GAP) * c + width / 2 for c in range(len(columns))]
                axes.set_xticks(centres, [style.short(name, 11) for name in columns], fontsize=8.5)
                axes.xaxis.tick_top()


def _stack(axes: "Axes", rows: Mapping[str, Sequence[Tile]]) -> None:
    """Rows of tiles below one another; rows with words have room for them."""
    strips, middles, top = [], [], 0
    for row in rows.values():
        height, width = row[0].image.shape[:2]
        strip = style.mosaic([[tile.image for tile in row]], GAP)
        middles.append(top + GAP + height / 2)
        for column, tile in enumerate(row):
            x = GAP + (width + GAP) * column + width / 2
            y = top + 1.05 * height + GAP
            axes.text(x, y, style.short(tile.words, 14), ha="center", va="top", fontsize=7)
        room = round(0.28 * height) if any(tile.words for tile in row) else 0
        strips.append(np.pad(strip, ((0, room), (0, 0), (0, 0))))
        top += len(strips[-1])
    most = max(strip.shape[1] for strip in strips)
    wide = [np.pad(strip, ((0, 0), (0, most - strip.shape[1]), (0, 0))) for strip in strips]
    style.show(axes, np.concatenate(wide))
    names = ["\n".join(style.short(line, 24) for line in name.split("\n")) for name in rows]
    axes.set_yticks(middles, names, color=INK)


def _panels(figure: "Figure", count: int) -> "list[Axes]":
    return list(figure.subplots(1, count, squeeze=False).flat)


def _mark(axes: "Axes", left: float, top: float, width: float, height: float) -> None:
    """Frame a part of a picture, in its pixels."""
    from matplotlib.patches import Rectangle

    corner = (left - 0.5, top - 0.5)
    axes.add_patch(
        Rectangle(corner, width, height, fill=False, edgecolor=RED, linewidth=2, clip_on=False)
    )
    axes.spines[:].set_color(FAINT)


def _cut(image: np.ndarray, side: int) -> np.ndarray:
    """Cut an image (H, W, C) into patches (rows, columns, P, P, C); a remainder is left out."""
    rows, columns = image.shape[0] // side, image.shape[1] // side
    image = image[: rows * side, : columns * side]
    return image.reshape(rows, side, columns, side, -1).swapaxes(1, 2)


def _enlarged(image: np.ndarray, side: int) -> tuple[np.ndarray, int]:
    """An image (H, W, C) and its patches' side, larger where a gap would outweigh a patch."""
    zoom = math.ceil(4 / side)
    return image.repeat(zoom, 0).repeat(zoom, 1), side * zoom


def stretched(picture: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A picture (R, S, 3) over (height, width) pixels, without smoothing."""
    row, column = (np.arange(n) * have // n for n, have in zip(size, picture.shape, strict=False))
    return picture[row[:, None], column]
