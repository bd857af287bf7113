"""Contact sheets of an audit: images, each with two lines below it."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitlab.figures import style
from vitlab.figures.exploration import Tile
from vitlab.figures.style import INK

ACROSS = 10
"""Images in a row."""

INCHES = 0.86
"""Width of an image and its gap."""

GAP = 2
"""Pixels between two images."""


def contact_sheet(tiles: Sequence[Tile], path: Path, *, title: str) -> None:
    """Draw images of one size, (H, W, C) uint8, in rows of ACROSS; words may have two lines."""
    rows = [tiles[start : start + ACROSS] for start in range(0, len(tiles), ACROSS)]
    height, width = tiles[0].image.shape[:2]
    room = math.ceil(0.36 * width)
    high = INCHES * (height + room) / width
    with style.figure(path, INCHES * ACROSS, high * len(rows) + 0.5, title) as figure:
        axes = figure.subplots()
        canvas = style.mosaic([[below(tile.image, room) for tile in row] for row in rows], GAP)
        whole = GAP + (width + GAP) * ACROSS
        style.show(axes, canvas)
        axes.set_xlim(-0.5, whole - 0.5)  # a last row alone keeps the size of its images
        for place, tile in enumerate(tiles):
            row, column = divmod(place, ACROSS)
            x = GAP + (width + GAP) * column + width / 2
            y = GAP + (height + room + GAP) * row + 1.03 * height
            words = "\n".join(style.short(line, 16) for line in tile.words.split("\n"))
            axes.text(x, y, words, ha="center", va="top", fontsize=6, color=INK, linespacing=1.1)


def below(image: np.ndarray, room: int) -> np.ndarray:
    """An image (H, W, 1, 3 or 4) with so many transparent lines below it: (H + room, W, 4)."""
    whole = np.zeros((len(image) + room, image.shape[1], 4), np.uint8)
    whole[: len(image), :, 3] = 255
    whole[: len(image), :, : max(3, image.shape[2])] = image
    return whole
