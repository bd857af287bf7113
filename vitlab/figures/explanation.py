"""Pictures of what a model looks at and what its answers rest on.

H, W height and width of an image   L layers, H heads of a ViT   r, c rows and columns of a map

Numbers of pictures made of maps are written as PATH.npz, the others as PATH.csv.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlab.figures import style
from vitlab.figures.style import BLUE, GREEN, GREY, LABEL, ORANGE, PINK, RED, SKY
from vitlab.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAT = "inferno"
"""Colours of a heatmap: dark to bright, in this order also without colours."""

HEADS = 12
"""Most heads drawn beside each other."""

FILTERS = 60
"""Most filters of the first layer that are drawn, the strongest first."""

CHANNELS = 10
"""Channels drawn of each stage, those that vary most over the image."""

COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
BASELINES = (("black", ":"), (GREY, "--"))
"""Looks of methods, in the order of their names, and of the maps they are compared with."""


def maps(
    image: np.ndarray,
    heats: Mapping[str, np.ndarray],
    answer: Sequence[tuple[str, float]],
    words: str,
    path: Path,
    *,
    seen: tuple[int, int],
    fit: str = "stretch",
    title: str = "",
) -> None:
    """Draw an image, the model's likeliest classes, and each method's map alone and on the image.

    Args:
        image: uint8 (H, W, 3).
        heats: by method, a map (r, c).
        answer: class and probability, likeliest first.
        words: how sure the model is.
        seen, fit: what the model was shown of the image, as `spread` takes it.
    """
    columns = len(heats) + 1
    tall = 2.1 * min(1.5, max(0.6, image.shape[0] / image.shape[1]))
    height, width = image.shape[:2]
    with style.figure(path, max(2.1 * columns, 7), 2 * tall + 1.2, title) as figure:
        grid = figure.subplots(2, columns, squeeze=False)
        style.show(grid[0, 0], image)
        grid[0, 0].set_title("image", fontsize=13, loc="center")
        _bars(grid[1, 0], answer)
        grid[1, 0].set_title(words, fontsize=13, loc="center", fontweight="bold")
        for (above, below), method in zip(grid[:, 1:].T, heats, strict=True):
            rows, columns = heats[method].shape
            style.show(above, coloured(heats[method]))
            above.set_aspect(columns * height / rows / width)
            above.set_title(method, fontsize=13, loc="center")
            style.show(below, overlay(image, spread(heats[method], (height, width), seen, fit)))
    names, probabilities = zip(*answer, strict=True)
    _arrays(path, image=image, classes=np.array(names), probabilities=probabilities, **heats)


def _bars(axes: "Axes", answer: Sequence[tuple[str, float]]) -> None:
    """The likeliest classes as bars, their names above them."""
    for place, (name, probability) in enumerate(answer):
        axes.barh(place, probability, 0.4, color=BLUE if place == 0 else SKY)
        axes.text(0, place - 0.32, style.short(name, 18), fontsize=12)
        axes.text(1, place - 0.32, f"{100 * probability:.1f} %", fontsize=12, ha="right")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(answer) - 0.5, -0.75)
    axes.set(xticks=(), yticks=())
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def strength(values: np.ndarray) -> np.ndarray:
    """Map numbers of any range to 0 to 1; what is negative counts as 0.

    The highest hundredth is all 1, or a single bright pixel would leave the others dark.
    """
    positive = np.clip(values, 0, None).astype(np.float64)
    low, high = positive.min(), np.quantile(positive, 0.99)
    return np.clip((positive - low) / (high - low), 0, 1) if high > low else 0 * positive


def coloured(values: np.ndarray) -> np.ndarray:
    """Map numbers (r, c) to the colours (r, c, 3), uint8, of their strength."""
    from matplotlib import colormaps

    return colormaps[HEAT](strength(values), bytes=True)[..., :3]


def overlay(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay the colours of a map (H, W) on an image (H, W, 3), uint8, which turns grey."""
    grey = image.mean(axis=2, keepdims=True)
    return np.rint(0.45 * grey + 0.55 * coloured(values)).astype(np.uint8)


def spread(
    values: np.ndarray, size: tuple[int, int], seen: tuple[int, int], fit: str = "stretch"
) -> np.ndarray:
    """Bring a map (r, c) onto an image of `size` = (height, width), bilinearly.

    Args:
        seen: height and width the model was shown, which the map covers.
        fit: how the image came to these: stretch, pad or crop. What was cropped is 0.
    """
    scales = [whole / part for whole, part in zip(size, seen, strict=True)]
    if fit != "stretch":
        scales = [max(scales) if fit == "pad" else min(scales)] * 2
    for axis, (whole, part, scale) in enumerate(zip(size, seen, scales, strict=True)):
        pixels = (np.arange(whole) + 0.5 - whole / 2) / scale + part / 2  # as the model counts
        count = values.shape[axis]
        places = pixels / part * count - 0.5
        nearest = np.clip(places, 0, count - 1)
        low = np.clip(np.floor(nearest).astype(int), 0, max(count - 2, 0))
        high = np.minimum(low + 1, count - 1)
        share = np.expand_dims(nearest - low, 1 - axis)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
        inside = np.expand_dims((pixels > 0) & (pixels < part), 1 - axis)
        values = np.where(inside, values, 0)
    return values


def heads(attention: np.ndarray, path: Path, *, title: str = "") -> None:
    """Draw the attention (L, H, r, c) of every head of every layer, and the mean of its heads.

    Every map has a scale of its own, lowest to highest.
    """
    layers, count = attention.shape[:2]
    shown = attention[:, :HEADS]
    rows = [
        [coloured(layer.mean(axis=0)), *map(coloured, part)]
        for layer, part in zip(attention, shown, strict=True)
    ]
    names = ["mean", *(f"head {h}" for h in range(shown.shape[1]))]
    if count > HEADS:
        title += f"; {HEADS} of {count} heads are drawn"
    lines = [f"block{block:02d}" for block in range(layers)]
    _tiles(rows, lines, names, path, title)
    _arrays(path, attention=attention)


def feature_maps(stages: Mapping[str, np.ndarray], path: Path, *, title: str = "") -> None:
    """Draw of every stage (channels, r, c) the channels that vary most over the image.

    Every channel has a scale of its own, lowest to highest.
    """
    height = max(maps.shape[1] for maps in stages.values())
    width = max(maps.shape[2] for maps in stages.values())
    rows, arrays = [], {}
    for name, maps in stages.items():
        strongest = np.argsort(-maps.std(axis=(1, 2)), kind="stable")[:CHANNELS]
        down = np.arange(height) * maps.shape[1] // height
        right = np.arange(width) * maps.shape[2] // width
        rows.append([coloured(maps[k] - maps[k].min())[down][:, right] for k in strongest])
        arrays |= {f"{name}.maps": maps[strongest], f"{name}.channels": strongest}
    _tiles(rows, list(stages), [], path, title)
    _arrays(path, **arrays)


def _tiles(
    rows: Sequence[Sequence[np.ndarray]],
    lines: Sequence[str],
    columns: Sequence[str],
    path: Path,
    title: str,
) -> None:
    """Draw equal pictures (r, c, 3) in rows, each row and perhaps each column with its name."""
    height, width, _ = rows[0][0].shape
    across = max(map(len, rows))
    side = min(1.1, 13 / across)
    high = side * height / width * len(rows)
    factor = math.ceil(32 / max(height, width))  # gaps are then thin beside small maps, too
    large = [
        [np.kron(tile, np.ones((factor, factor, 1), np.uint8)) for tile in row] for row in rows
    ]
    with style.figure(
        path, max(side * across + 1.6, 10.5), high + (1.3 if columns else 0.9), title
    ) as figure:
        figure.set_layout_engine("compressed")
        axes = figure.subplots()
        style.show(axes, style.mosaic(large))
        down, right = factor * height + 2, factor * width + 2
        axes.set_yticks([2 + (n + 0.5) * down - 1 for n in range(len(rows))], lines, fontsize=12)
        axes.set_xticks([2 + (n + 0.5) * right - 1 for n in range(len(columns))], columns)
        axes.xaxis.tick_top()


def filters(weights: np.ndarray, path: Path, *, title: str = "") -> None:
    """Draw filters (F, C, r, c) of the first layer, C being 1 or 3, the strongest first.

    Every filter has a scale of its own; grey is 0.
    """
    size = np.sqrt((weights**2).sum(axis=(1, 2, 3)))
    order = np.argsort(-size, kind="stable")[:FILTERS]
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    tiles = np.rint(127.5 + 127.5 * weights / np.where(largest > 0, largest, 1)).astype(np.uint8)
    tiles = np.broadcast_to(tiles.transpose(0, 2, 3, 1), (*tiles.shape[:1], *tiles.shape[2:], 3))
    across = min(12, len(order))
    rows = [[tiles[k] for k in order[at : at + across]] for at in range(0, len(order), across)]
    if len(weights) > FILTERS:
        title += f"; the {FILTERS} strongest of {len(weights)}"
    _tiles(rows, [""] * len(rows), [], path, title)
    _arrays(path, filters=weights, order=order)


def positions(similarity: np.ndarray, path: Path, *, title: str = "") -> None:
    """Draw for every patch the cosine similarity (r, c, r, c) of its position to all others."""
    r, c = similarity.shape[:2]
    canvas = np.full((r * (r + 1) + 1, c * (c + 1) + 1), np.nan)
    for row, column in np.ndindex(r, c):
        top, left = 1 + row * (r + 1), 1 + column * (c + 1)
        canvas[top : top + r, left : left + c] = similarity[row, column]
    with style.figure(path, 8.6, 7.6 * r / c + 0.7, title) as figure:
        figure.set_layout_engine("compressed")
        axes = figure.subplots()
        picture = axes.imshow(canvas, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xticks(
            [1 + c / 2 - 0.5 + k * (c + 1) for k in range(c)], [str(k + 1) for k in range(c)]
        )
        axes.set_yticks(
            [1 + r / 2 - 0.5 + k * (r + 1) for k in range(r)], [str(k + 1) for k in range(r)]
        )
        axes.set_xlabel("column of the patch")
        axes.set_ylabel("row of the patch")
        bar = figure.colorbar(picture, ax=axes, shrink=0.8)
        bar.set_label("cosine similarity")
        bar.outline.set_visible(False)
    _arrays(path, similarity=similarity)


def distance(means: np.ndarray, even: float, path: Path, *, title: str = "") -> None:
    """Draw how far every head of every layer looks.

    Args:
        means: mean distance (L, H) in pixels.
        even: that of attention to all patches alike.
    """
    layers, count = means.shape
    with style.figure(path, 9, 5.4, title) as figure:
        axes = figure.subplots()
        blocks = range(layers)
        places = np.repeat(blocks, count)
        axes.scatter(places, means.ravel(), s=90, color=BLUE, alpha=0.75, label="one head")
        axes.plot(blocks, means.mean(axis=1), color=RED, label="mean of heads")
        axes.axhline(even, color=GREY, linestyle="--", label="attention to all patches alike")
        axes.set_xticks(blocks)
        axes.set_xlim(-0.5, layers - 0.5)
        axes.margins(y=0.1)
        axes.set_xlabel("block")
        axes.set_ylabel("mean distance in pixels")
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside lower center", ncols=3)
    rows = ((block, head, means[block, head]) for block, head in np.ndindex(*means.shape))
    style.numbers(path, ("block", "head", "distance"), rows)


def faithfulness(result: Mapping[str, Any], path: Path, *, title: str = "") -> None:
    """Draw what `explain.faithfulness.measure` found: curves, gains and the randomisation check."""
    methods = result["methods"]
    tested = [one for one in methods if "similarity" in one]
    looks = _looks(methods)
    shares = np.linspace(0, 1, result["steps"] + 1)
    rows: list[tuple[Any, ...]] = []
    with style.figure(path, 13, 10.6, title) as figure:
        (deletion, insertion), (gain, change) = figure.subplots(2, 2)
        for one in methods:
            name, look = one["method"], looks[one["method"]]
            for axes, word in ((deletion, "deletion"), (insertion, "insertion")):
                axes.plot(shares, one[f"{word}_curve"], **look | {"marker": ""})
                points = zip(shares, one[f"{word}_curve"], strict=True)
                rows += [(name, word, share, value, None, None) for share, value in points]
        for place, one in enumerate(methods):
            mean, (low, high) = one["gain"]["mean"], one["gain"]["interval"]
            gain.barh(place, mean, 0.62, color=looks[one["method"]]["color"], alpha=0.85)
            gain.plot((low, high), (place, place), color="black", linewidth=1.6)
            text = f"{mean:+.3f}"
            gain.text(max(high, 0), place, f" {text}", va="center", fontsize=12, bbox=LABEL)
            rows.append((one["method"], "gain", None, mean, low, high))
        for one in tested:
            means = [each["mean"] for each in one["similarity"]]
            lows, highs = zip(*(each["interval"] for each in one["similarity"]), strict=True)
            look = looks[one["method"]]
            change.plot((0, *result["random_shares"]), (1, *means), **look)
            change.vlines(result["random_shares"], lows, highs, color=look["color"], linewidth=1.2)
            points = zip(result["random_shares"], means, lows, highs, strict=True)
            rows += [(one["method"], "similarity", *point) for point in points]
        deletion.set_title("deletion: lower is better")
        deletion.set_xlabel("share of the image covered, most important first")
        insertion.set_title("insertion: higher is better")
        insertion.set_xlabel("share of the image uncovered, most important first")
        for axes in (deletion, insertion):
            axes.set_ylabel("probability of the class")
            axes.set_ylim(0, 1)
            axes.set_xlim(0, 1)
            axes.xaxis.set_major_formatter(style.percent())
        gain.set_title("gain: insertion less deletion, 95 % interval")
        gain.set_yticks(range(len(methods)), [one["method"] for one in methods])
        gain.invert_yaxis()
        gain.margins(x=0.14)
        gain.axvline(0, color="black", linewidth=1)
        gain.grid(axis="y", visible=False)
        change.set_title("similarity to the map before randomisation")
        change.set_xlabel("share of the weights randomised, head first")
        change.set_ylabel("Spearman's correlation")
        change.set_xlim(0, 1.02)
        change.set_ylim(-0.5, 1.05)
        change.axhline(0, color="black", linewidth=1)
        change.xaxis.set_major_formatter(style.percent())
        handles = [_handle(name, look) for name, look in looks.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    columns = ("method", "quantity", "share", "value", "low", "high")
    style.numbers(path, columns, rows)


def _looks(methods: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A look for every method, the same whatever its rank."""
    tested = sorted(one["method"] for one in methods if "similarity" in one)
    others = sorted(one["method"] for one in methods if "similarity" not in one)
    colours = zip(tested, COLOURS, MARKERS, strict=False)
    looks = {name: {"color": colour, "marker": marker} for name, colour, marker in colours}
    dashed = zip(others, BASELINES, strict=True)
    return looks | {name: {"color": c, "linestyle": dash} for name, (c, dash) in dashed}


def _handle(name: str, look: Mapping[str, Any]) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=name, **look)


def _arrays(path: Path, **arrays: Any) -> None:
    """Write the numbers of a picture as PATH.npz."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    write_bytes(path.with_name(f"{path.name}.npz"), file.getvalue())
