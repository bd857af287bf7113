"""Figures of what a model looks at and what its answers rest on.

H, W height and width of an image   L layers, H heads of a ViT   r, c rows and columns of a map

Numbers of figures made of maps are written as PATH.npz, the others as PATH.csv.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlab.figures import charts, style
from vitlab.figures.charts import Line, Row
from vitlab.figures.exploration import Tile, sheet, stretched
from vitlab.figures.style import BLUE, FAINT, GREEN, GREY, HUES, INK, RED, SOFT
from vitlab.files import write_bytes
from vitlab.records import PASSED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAT = "inferno"
"""Colours of a heatmap: dark to bright, in this order also without colours."""

HEADS = 12
"""Most heads drawn beside each other."""

COMPONENTS = 30
"""Most principal components of the first layer's filters that are drawn."""

CHANNELS = 10
"""Channels drawn of each stage, those that vary most over the image."""

TILE = 96
"""Most pixels on the longer side of an image among maps."""


def maps(
    image: np.ndarray,
    heats: Mapping[str, np.ndarray],
    answer: Sequence[tuple[str, float]],
    words: str,
    path: Path,
    *,
    seen: tuple[int, int],
    fit: str = "stretch",
    verdicts: Mapping[str, str] | None = None,
    title: str = "",
) -> None:
    """Draw an image, the model's likeliest classes, and each method's map alone and on the image.

    The maps explain the likeliest class, which is named. A method that passed its own test on
    other images is marked.

    Args:
        image: uint8 (H, W, 3).
        heats: by method, a map (r, c).
        answer: class and probability, likeliest first.
        words: how sure the model is.
        seen, fit: what the model was shown of the image, as `spread` takes it.
        verdicts: by method, what its test came to; those without one are not marked.
    """
    columns = len(heats) + 1
    height, width = image.shape[:2]
    tall = 1.35 * min(1.5, max(0.6, height / width))
    explained = style.short(answer[0][0], 24)
    subject = f"{title}; maps of what speaks for {explained}" if title else ""
    with style.figure(path, max(1.35 * columns, 5.4), 2 * tall + 1.1, subject) as figure:
        grid = figure.subplots(2, columns, squeeze=False)
        style.show(grid[0, 0], image)
        grid[0, 0].set_title("image", fontsize=9, loc="center")
        _bars(grid[1, 0], answer)
        grid[1, 0].set_title(words, fontsize=9, loc="center", fontweight="bold")
        for (above, below), method in zip(grid[:, 1:].T, heats, strict=True):
            rows, across = heats[method].shape
            style.show(above, coloured(heats[method]))
            above.set_aspect(across * height / rows / width)
            above.set_title(method, fontsize=9, loc="center")
            style.show(below, overlay(image, spread(heats[method], (height, width), seen, fit)))
            if verdicts and method in verdicts:
                passed = verdicts[method] == PASSED
                below.set_xlabel(
                    "passed its test" if passed else "not shown true", fontsize=8,
                    color=GREEN if passed else FAINT, fontweight="bold" if passed else "normal",
                )  # fmt: skip
    names, probabilities = zip(*answer, strict=True)
    _arrays(path, image=image, classes=np.array(names), probabilities=probabilities, **heats)


def _bars(axes: "Axes", answer: Sequence[tuple[str, float]]) -> None:
    """The likeliest classes as bars, their names above them."""
    for place, (name, probability) in enumerate(answer):
        axes.barh(place, probability, 0.3, color=BLUE if place == 0 else GREY)
        axes.text(0, place - 0.24, style.short(name, 12), fontsize=8)
        axes.text(1, place - 0.24, f"{100 * probability:.0f} %", fontsize=8, ha="right")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(answer) - 0.5, -0.75)
    axes.set(xticks=(), yticks=())
    style.no_frame(axes, "both")


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


def heads(
    attention: np.ndarray, path: Path, *, image: np.ndarray | None = None, title: str = ""
) -> None:
    """Draw the attention (L, H, r, c) of every head of every layer, and the mean of its heads.

    Every map has a scale of its own, lowest to highest. `image` is what the model was shown, uint8
    (h, w, C).
    """
    count = attention.shape[1]
    shown = attention[:, :HEADS]
    rows = {
        f"block{k:02d}": [coloured(layer.mean(axis=0)), *map(coloured, part)]
        for k, (layer, part) in enumerate(zip(attention, shown, strict=True))
    }
    names = ["mean", *(f"head {h}" for h in range(shown.shape[1]))]
    if count > HEADS:
        title += f"; {HEADS} of {count} heads are drawn"
    _tiles(rows, path, title, image, names)
    _arrays(path, attention=attention)


def feature_maps(
    stages: Mapping[str, np.ndarray],
    path: Path,
    *,
    image: np.ndarray | None = None,
    title: str = "",
) -> None:
    """Draw of every stage (channels, r, c) the channels that vary most over the image.

    Every channel has a scale of its own, lowest to highest. `image` is what the model was shown,
    uint8 (h, w, C).
    """
    rows, arrays = {}, {}
    for name, maps in stages.items():
        strongest = np.argsort(-maps.std(axis=(1, 2)), kind="stable")[:CHANNELS]
        rows[name] = [coloured(maps[k] - maps[k].min()) for k in strongest]
        arrays |= {f"{name}.maps": maps[strongest], f"{name}.channels": strongest}
    _tiles(rows, path, title, image)
    _arrays(path, **arrays)


def _tiles(
    rows: Mapping[str, Sequence[np.ndarray]],
    path: Path,
    title: str,
    image: np.ndarray | None = None,
    columns: Sequence[str] = (),
) -> None:
    """Draw pictures (r, c, 3) in rows as large as the image, which stands before the first."""
    pictures = [tile for row in rows.values() for tile in row]
    height, width = (max(sizes) for sizes in zip(*(p.shape[:2] for p in pictures), strict=True))
    if image is not None:
        height, width = image.shape[:2]
    scale = TILE / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    table = {name: [Tile(stretched(tile, size)) for tile in row] for name, row in rows.items()}
    names = list(columns)
    if image is not None:
        # What a map is of stands before the first row; below it is nothing.
        own = stretched(np.broadcast_to(image, (*image.shape[:2], 3)), size)
        before = [own, *[np.zeros((*size, 4), np.uint8)] * (len(rows) - 1)]
        table = {
            name: [Tile(first), *row]
            for first, (name, row) in zip(before, table.items(), strict=True)
        }
        names = ["image", *names]
    inches = min(0.7, 8 / max(map(len, table.values())))
    sheet(table, path, title=title, columns=names, inches=inches)


def filters(weights: np.ndarray, path: Path, *, title: str = "") -> None:
    """Draw the principal components of the filters (F, C, r, c) of the first layer, C 1 or 3.

    Single filters of a trained model look like noise; what they have in common is a few patterns
    (Dosovitskiy et al., 2021). Every component has a scale of its own; grey is 0.
    """
    _, sizes, found = np.linalg.svd(weights.reshape(len(weights), -1), full_matrices=False)
    shares = sizes**2 / max(float((sizes**2).sum()), np.finfo(float).tiny)
    found = found.reshape(-1, *weights.shape[1:])[:COMPONENTS]
    largest = np.abs(found).max(axis=(1, 2, 3), keepdims=True)
    tiles = np.rint(127.5 + 127.5 * found / np.where(largest > 0, largest, 1)).astype(np.uint8)
    tiles = np.broadcast_to(tiles.transpose(0, 2, 3, 1), (len(found), *weights.shape[2:], 3))
    rows = {}
    for at in range(0, len(tiles), 10):
        last = min(at + 10, len(tiles))
        words = f"{at + 1} to {last}\n{100 * shares[at:last].sum():.0f} % of the variance"
        rows[words] = list(tiles[at:last])
    _tiles(rows, path, title)
    _arrays(path, filters=weights, components=found, shares=shares)


def positions(similarity: np.ndarray, path: Path, *, title: str = "") -> None:
    """Draw for every patch the cosine similarity (r, c, r, c) of its position to all others."""
    r, c = similarity.shape[:2]
    canvas = np.full((r * (r + 1) + 1, c * (c + 1) + 1), np.nan)
    for row, column in np.ndindex(r, c):
        top, left = 1 + row * (r + 1), 1 + column * (c + 1)
        canvas[top : top + r, left : left + c] = similarity[row, column]
    with style.figure(path, 5.6, 4.8 * r / c + 0.7, title) as figure:
        figure.set_layout_engine("compressed")
        axes = figure.subplots()
        picture = axes.imshow(canvas, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        style.no_frame(axes, "both")
        for n, set_ticks in ((c, axes.set_xticks), (r, axes.set_yticks)):
            set_ticks([n / 2 + 0.5 + k * (n + 1) for k in range(n)], [str(k + 1) for k in range(n)])
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
    with style.figure(path, 5.8, 3.6, title) as figure:
        axes = figure.subplots()
        blocks = range(layers)
        places = np.repeat(blocks, count)
        dots = axes.scatter(places, means.ravel(), s=36, color=BLUE, alpha=0.75, label="one head")
        (line,) = axes.plot(blocks, means.mean(axis=1), color=RED, label="mean of heads")
        level = axes.axhline(even, color=GREY, linestyle="--", label="attention to all alike")
        axes.set_xticks(blocks)
        axes.set_xlim(-0.5, layers - 0.5)
        axes.margins(y=0.1)
        axes.set_xlabel("block")
        axes.set_ylabel("mean distance in pixels")
        axes.grid(axis="x", visible=False)
        style.legend(figure, [dots, line, level])
    rows = ((block, head, means[block, head]) for block, head in np.ndindex(*means.shape))
    style.numbers(path, ("block", "head", "distance"), rows)


def faithfulness(result: Mapping[str, Any], path: Path, *, title: str = "") -> None:
    """Draw what `explain.faithfulness.measure` found: curves, gains and the randomisation check."""
    methods = result["methods"]
    hues = _hues(methods)
    shares = np.linspace(0, 1, result["steps"] + 1)
    rows: list[tuple[Any, ...]] = []
    with style.figure(path, style.WIDE, 7.4, title) as figure:
        (deletion, insertion), (gain, change) = figure.subplots(2, 2)
        for axes, word, better in (
            (deletion, "deletion", "lower"),
            (insertion, "insertion", "higher"),
        ):
            series = [
                Line(one["method"], list(zip(shares, one[f"{word}_curve"], strict=True)),
                     *hues[one["method"]])
                for one in methods
            ]  # fmt: skip
            share = f"share of the image {'un' if word == 'insertion' else ''}covered"
            charts.lines(axes, series, across=f"{share}, most important first", named=False,
                         form=style.percent, low=0, high=1)  # fmt: skip
            axes.set_title(f"{word.capitalize()}: {better} is better")
            axes.set_ylabel("probability of the class")
            axes.xaxis.set_major_formatter(style.percent)
            rows += [
                (line.name, word, *point, None, None) for line in series for point in line.points
            ]
        charts.dots(gain, gains(methods), zero=0.0, form=style.plainly)
        gain.set_title("Gain: insertion less deletion, 95 % interval")
        rows += [(one["method"], "gain", None, one["gain"]["mean"], *one["gain"]["interval"])
                 for one in methods]  # fmt: skip
        for one in [one for one in methods if "similarity" in one]:
            means = [each["mean"] for each in one["similarity"]]
            lows, highs = zip(*(each["interval"] for each in one["similarity"]), strict=True)
            colour, _ = hues[one["method"]]
            change.plot((0, *result["random_shares"]), (1, *means), "o-", color=colour)
            change.vlines(result["random_shares"], lows, highs, color=colour, linewidth=1)
            points = zip(result["random_shares"], means, lows, highs, strict=True)
            rows += [(one["method"], "similarity", *point) for point in points]
        change.set_title("Similarity to the map before randomisation")
        change.set_xlabel("share of the weights randomised, head first")
        change.set_ylabel("Spearman's correlation")
        change.set_xlim(0, 1.02)
        change.set_ylim(-0.5, 1.05)
        change.axhline(0, color=INK, linewidth=0.8)
        change.xaxis.set_major_formatter(style.percent)
        style.legend(figure, deletion.lines)
    columns = ("method", "quantity", "share", "value", "low", "high")
    style.numbers(path, columns, rows)


def gains(methods: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The gain of each map; hollow are maps that know neither image nor model."""
    return [
        Row(
            one["method"], one["gain"]["mean"], one["gain"]["interval"],
            f"{one['gain']['mean']:+.3f}", _hues(methods)[one["method"]][0],
            hollow="similarity" not in one,
        )
        for one in methods
    ]  # fmt: skip


def _hues(methods: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Colour and dash of every method, the same whatever its rank."""
    tested = sorted(one["method"] for one in methods if "similarity" in one)
    others = sorted(one["method"] for one in methods if "similarity" not in one)
    return dict(zip(tested, ((hue, "-") for hue in HUES), strict=False)) | dict(
        zip(others, ((SOFT, ":"), (GREY, "--")), strict=False)
    )


def _arrays(path: Path, **arrays: Any) -> None:
    """Write the numbers of a figure as PATH.npz."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    write_bytes(path.with_name(f"{path.name}.npz"), file.getvalue())
