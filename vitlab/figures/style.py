"""One style for every picture, and the way from a drawing to its files.

The colours tell apart for the colour-blind as well (Okabe and Ito, 2008), and the letters are
made for a slide.
"""

import io
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlab.files import write_bytes, write_text
from vitlab.formatting import csv_text, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

BLUE, SKY, ORANGE, RED = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
GREEN, PINK, GREY, PALE = "#009E73", "#CC79A7", "#767676", "#D9D9D9"

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 14,
    "figure.titlesize": 15,
    "font.size": 13,
    "grid.color": "#E5E5E5",
    "legend.fontsize": 12,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "savefig.dpi": 150,
    "svg.hashsalt": "vitlab",
    "text.parse_math": False,  # a class may be called $5
    "xtick.color": "#333333",
    "ytick.color": "#333333",
}

LABEL = {"facecolor": "white", "edgecolor": "none", "pad": 1}
"""What keeps a number readable on a grid line."""


@contextmanager
def figure(path: Path, width: float, height: float, title: str) -> Iterator["Figure"]:
    """A figure in our style, inches wide and high, written as PNG and SVG when the block ends."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # a user's own matplotlibrc changes none of our bytes
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", "Glyph")  # a class name may be in any script
        figure = Figure(figsize=(width, height), layout="constrained")
        if title:
            figure.suptitle(textwrap.fill(title, round(8 * width)))
        yield figure
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=metadata)
            write_bytes(path.with_name(f"{path.name}.{kind}"), buffer.getvalue())


def numbers(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write the numbers that a picture draws beside it, as PATH.csv."""
    write_text(path.with_name(f"{path.name}.csv"), csv_text([columns, *rows]))


def percent(decimals: int | None = 0) -> "PercentFormatter":
    """Show the fractions of an axis in percent; None takes as many decimals as its ticks need."""
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1, decimals=decimals, symbol=" %")


def short(name: str, most: int = 20) -> str:
    """A name on one line, its middle left out where it is too long."""
    name = plain(name)
    half = most // 2
    return name if len(name) <= most else f"{name[: most - half]}…{name[1 - half :]}"


def mosaic(
    rows: Sequence[Sequence[np.ndarray | None]], gap: int = 2, paper: int = 255
) -> np.ndarray:
    """Lay out equal images (H, W, 1 or 3), uint8, in rows, `gap` pixels apart and from the edge.

    None leaves a place empty; `paper` is the grey of what lies between. Returns (h, w, 3), uint8.
    """
    height, width, _ = next(image for row in rows for image in row if image is not None).shape
    down, right = height + gap, width + gap
    shape = (len(rows) * down + gap, max(map(len, rows)) * right + gap, 3)
    canvas = np.full(shape, paper, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            if image is not None:
                top, left = gap + r * down, gap + c * right
                canvas[top : top + height, left : left + width] = image
    return canvas


def show(axes: "Axes", picture: np.ndarray) -> None:
    """Show an image (H, W, 3) pixel by pixel, without a frame; ticks may still name its parts."""
    axes.imshow(picture, interpolation="nearest")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set(xticks=(), yticks=())
    axes.spines[:].set_visible(False)
