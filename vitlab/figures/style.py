"""One style for every figure, and the way from a drawing to SVG, PNG and CSV.

A figure is drawn by matplotlib in the colours of `PALETTE`. Its SVG keeps text as text and names
these colours, so that the same drawing stands in a file, on a page and on a slide, in the light and
in the dark: a page that has `COLOURS` in its style sheet decides how they look. Viewers without
style sheets show the light ones.
"""

import io
import math
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlab.files import write_bytes, write_text
from vitlab.formatting import csv_text, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#fbfbf9", "#14171b"),
    "ink": ("#1b1f24", "#e8e8e4"),
    "soft": ("#525b66", "#adb5bd"),
    "faint": ("#7a838d", "#88919a"),
    "rule": ("#e3e3de", "#2e343b"),
    "wash": ("#f1f1ec", "#20252b"),
    "blue": ("#0b6fb0", "#5ab0ea"),
    "orange": ("#cf5600", "#f58c4b"),
    "green": ("#00835f", "#45c79d"),
    "gold": ("#b87900", "#e7b04a"),
    "pink": ("#b35f92", "#dd94c0"),
    "red": ("#c2263a", "#ff7b86"),
    "purple": ("#6a51a3", "#b7a6f0"),
    "sky": ("#3f9fc9", "#a3dcf5"),
    "olive": ("#7b8b1a", "#c3d35c"),
    "brown": ("#8a5a3b", "#c99d7d"),
    "grey": ("#6d7780", "#98a2ac"),
}
"""Name of a colour -> how it looks on light and on dark paper."""

(PAPER, INK, SOFT, FAINT, RULE, WASH, BLUE, ORANGE, GREEN, GOLD, PINK, RED, PURPLE, SKY, OLIVE,
 BROWN, GREY) = (light for light, _ in PALETTE.values())  # fmt: skip

HUES = (BLUE, ORANGE, GREEN, GOLD, PINK, RED, PURPLE, SKY, OLIVE, BROWN)
"""Ten colours that tell classes, runs or arms apart, in the order in which they are given out."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

NARROW, WIDE = 4.2, 8.8
"""Inches: a figure as wide as a phone, of which two stand side by side on a page, and a row of
panels."""


LONGEST = 220
"""Most letters of a title."""


def _variables(shade: int) -> str:
    return "".join(f"--{name}:{looks[shade]};" for name, looks in PALETTE.items())


COLOURS = (
    f":root{{{_variables(0)}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(1)}}}}}"
    + "".join(
        f'[fill="{light}"]{{fill:var(--{name},{light})}}'
        f'[stroke="{light}"]{{stroke:var(--{name},{light})}}'
        for name, (light, _) in PALETTE.items()
    )
)
"""The style sheet that gives the colours of figures their looks."""

FONT = "-apple-system, Segoe UI, Roboto, Helvetica Neue, Noto Sans, Liberation Sans, sans-serif"

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 9,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.facecolor": PAPER,
    "figure.titlesize": 10.5,
    "font.size": 9.5,
    "grid.color": RULE,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "savefig.dpi": 200,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "svg.hashsalt": "vitlab",
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $5
    "xtick.color": FAINT,
    "xtick.labelcolor": SOFT,
    "xtick.labelsize": 9,
    "ytick.color": FAINT,
    "ytick.labelcolor": SOFT,
    "ytick.labelsize": 9,
    "ytick.left": False,
}

LABEL = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}
"""What keeps a number readable on a grid line."""


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib in our style, whatever a user's own matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", "Glyph")  # a class name may be in any script
        yield


@contextmanager
def figure(path: Path, width: float, height: float, title: str) -> Iterator["Figure"]:
    """A figure, inches wide and high, written as PATH.png and PATH.svg when the block ends."""
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(width, height), layout="constrained")
        if title:
            figure.suptitle(
                textwrap.fill(short(title, LONGEST), round(10.5 * width)),
                x=0.01,
                ha="left",
                color=INK,
            )
        yield figure
        write_text(path.with_name(f"{path.name}.svg"), to_svg(figure, title, COLOURS))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        write_bytes(path.with_name(f"{path.name}.png"), buffer.getvalue())


@contextmanager
def drawing(height: float, alt: str, width: float = NARROW) -> Iterator[tuple["Axes", list[str]]]:
    """One chart for a page that has `COLOURS`: its axes, and a list that gets its SVG at the end.

    Args:
        height, width: inches.
        alt: what it shows, in words.
    """
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(width, height), layout="constrained")
        made: list[str] = []
        yield figure.subplots(), made
        made.append(to_svg(figure, alt))


def to_svg(figure: "Figure", alt: str, sheet: str = "") -> str:
    """A figure as SVG without ids of its own, colours and fonts open to the page it stands in.

    matplotlib writes looks as `style` attributes, which a page with a content security policy does
    not obey; here they become plain attributes.
    """
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    body = buffer.getvalue().decode().partition("<svg ")[2]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r' style="([^"]*)"', lambda found: _attributes(found[1]), body)
    body = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", body)
    body = re.sub(r'(?<= d=")[^"]*', lambda found: _path(found[0]), body)
    body = re.sub(r"\n\s*", "\n", body)
    rules = f"<style>{sheet}</style>" if sheet else ""
    joints = '<style type="text/css">*{stroke-linejoin: round; stroke-linecap: butt}</style>'
    body = body.replace(joints, rules)
    head = f'<svg role="img" aria-label="{escape(plain(alt))}" font-family="{FONT}" '
    return f'{head}stroke-linejoin="round" {body}'


def _attributes(looks: str) -> str:
    """The declarations of a style attribute as attributes; the font's family is the page's."""
    parts = []
    for declaration in looks.split("; "):
        name, _, value = declaration.partition(": ")
        if name == "font":  # matplotlib before 3.10
            name, value = "font-size", value.partition("px")[0].rpartition(" ")[2]
        if name != "font-family":
            parts.append((name, value.removesuffix("px")))
    return "".join(f' {name}="{value}"' for name, value in parts)


def _path(commands: str) -> str:
    """The commands of a path to a hundredth of a point."""
    short = re.sub(
        r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), commands
    )
    return " ".join(short.split())


def numbers(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write the numbers that a picture draws beside it, as PATH.csv."""
    write_text(path.with_name(f"{path.name}.csv"), csv_text([columns, *rows]))


def percent(value: float, _: Any = None) -> str:
    """A fraction at an axis, in percent."""
    return f"{100 * value:.4g} %"


def points(value: float, _: Any = None) -> str:
    """A difference of fractions at an axis, in percentage points."""
    return f"{100 * value:+.4g}" if abs(value) > 1e-9 else "0"


def plainly(value: float, _: Any = None) -> str:
    """A number at an axis."""
    return f"{value:.4g}"


def prefixed(value: float, _: Any = None) -> str:
    """A count with the prefix of its thousands, in three digits: 3.28 T."""
    units = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))
    unit, name = next(((unit, name) for unit, name in units if value >= unit), (1, ""))
    return f"{value / unit:.3g} {name}"


def short(name: str, most: int = 20) -> str:
    """A name on one line, its middle left out where it is too long."""
    name = plain(name)
    half = most // 2
    return name if len(name) <= most else f"{name[: most - half]}…{name[1 - half :]}"


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name by its place, grey beyond the tenth: equal names, equal colours."""
    return {name: HUES[k] if k < len(HUES) else GREY for k, name in enumerate(names)}


def legend(figure: "Figure", handles: Sequence[Any], labels: Sequence[str] | None = None) -> None:
    """A legend above the panels, or below them where there is a title, in columns that fit."""
    texts = [each.get_label() for each in handles] if labels is None else list(labels)
    if not texts:
        return
    room = figure.get_figwidth() / (0.085 * max(map(len, texts)) + 0.5)
    columns = max(1, min(len(texts), math.floor(room)))
    columns = math.ceil(len(texts) / math.ceil(len(texts) / columns))  # rows of about equal length
    figure.legend(
        handles, texts, ncols=columns, handlelength=1.6, columnspacing=1.4, borderpad=0.1,
        loc="outside lower left" if figure.get_suptitle() else "outside upper left",
    )  # fmt: skip


def mosaic(rows: Sequence[Sequence[np.ndarray | None]], gap: int = 2) -> np.ndarray:
    """Lay out equal images (H, W, 1, 3 or 4), uint8, in rows, `gap` pixels apart and from the edge.

    None leaves a place empty. Returns (h, w, 4), uint8, transparent where no image is.
    """
    height, width, _ = next(image for row in rows for image in row if image is not None).shape
    down, right = height + gap, width + gap
    canvas = np.zeros((len(rows) * down + gap, max(map(len, rows)) * right + gap, 4), np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            if image is not None:
                top, left = gap + r * down, gap + c * right
                place = canvas[top : top + height, left : left + width]
                place[..., 3] = 255
                place[..., : max(3, image.shape[2])] = image
    return canvas


def show(axes: "Axes", picture: np.ndarray) -> None:
    """Show an image (H, W, 1, 3 or 4) pixel by pixel, without a frame; ticks may name its parts."""
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.shape[-1] == 1 else {}
    axes.imshow(picture, interpolation="nearest", **grey)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set(xticks=(), yticks=())
    axes.spines[:].set_visible(False)


def no_frame(axes: "Axes", ticks: str = "") -> None:
    """Take away spines, tick marks, and the grid of an axis that has names instead of numbers."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if ticks:
        axes.grid(axis=ticks, visible=False)  # type: ignore[arg-type]


def limits(values: Iterable[float], margin: float = 0.06) -> tuple[float, float]:
    """Ends of an axis that leave a margin around finite values."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    room = margin * (max(known) - min(known)) or 0.01
    return min(known) - room, max(known) + room


Named = Mapping[str, Sequence[float | None]]
"""Numbers by the name of what they measure, one for each class; None where there is none."""
