"""A config becomes a drawing of its model: what each part is, what it hands on, what it weighs.

Shapes and parameters are those that `models.cost.summary` finds of the model itself.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

from markupsafe import Markup, escape

from vitlab.config import (
    BackboneConfig,
    CNN6Config,
    Config,
    HybridConfig,
    ResNet18Config,
    ViTConfig,
)
from vitlab.formatting import plain
from vitlab.models.cost import Row, summary

Shape = tuple[int, ...]

WIDE = 400
"""Units that the drawing is wide, as a phone is."""

TIMES = "\u00d7"
"""The sign between the sides of a shape."""


def tag(name: str, *inside: str, **attributes: object) -> Markup:
    """An element; text and attributes are escaped. `class_` is class, `text_anchor` text-anchor."""
    words = []
    for key, value in attributes.items():
        if value is not None:
            shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
            words.append(f' {key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    return Markup(f"<{name}{''.join(words)}>{''.join(map(escape, inside))}</{name}>")


def text(x: float, y: float, words: str, look: str, anchor: str | None = None) -> Markup:
    """A line of text."""
    return tag("text", words, x=float(x), y=float(y), class_=look, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, look: str) -> Markup:
    """A straight line."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=look)


def rect(x: float, y: float, width: float, height: float, look: str, rounded: float = 0) -> Markup:
    """A rectangle."""
    size = {"width": float(width), "height": float(height)}
    return tag("rect", x=float(x), y=float(y), **size, class_=look, rx=float(rounded) or None)


class Part(NamedTuple):
    """A part of a model, in the order in which an image meets it."""

    look: str
    """How it is drawn: image, maps, map (to tokens), tokens, block, read."""
    name: str
    words: str
    shape: Shape
    """What it hands on, without the batch."""
    parameters: int = 0
    inside: tuple[tuple[str, str], ...] = ()
    """Of a block: its steps, each a name and what it is."""


class Layers:
    """The rows of a model's summary, found by the starts of their names."""

    def __init__(self, rows: list[Row]):
        self.rows = rows

    def named(self, *starts: str) -> list[Row]:
        """The rows of a part."""
        return [row for row in self.rows if row.name.startswith(starts)]

    def parameters(self, *starts: str) -> int:
        """How many parameters a part has."""
        return sum(row.parameters for row in self.named(*starts))

    def output(self, *starts: str) -> Shape:
        """What the last layer of a part hands on."""
        return self.named(*starts)[-1].output

    def input(self, *starts: str) -> Shape:
        """What the first layer of a part is handed."""
        return self.named(*starts)[0].input


@functools.lru_cache(maxsize=8)
def parts(config: Config) -> list[Part]:
    """The parts of a config whose images are known."""
    data = config.data
    assert data.image_size and data.channels and data.classes
    height, width = data.image_size
    layers = Layers(summary(config))
    match config.model:
        case ViTConfig():
            body = _vit(config.model, layers, (height, width))
        case ResNet18Config():
            body = _resnet(layers)
        case CNN6Config():
            body = _cnn6(layers)
        case BackboneConfig():
            body = _backbone(config.model, layers)
    image = Part("image", "image", f"{height}{TIMES}{width} pixels", (data.channels, height, width))
    return [image, *body]


def _backbone(cfg: BackboneConfig, layers: Layers) -> Iterator[Part]:
    maps = layers.output("body")
    yield Part("maps", cfg.name.rpartition("/")[2], "pretrained", maps, layers.parameters("body"))
    yield Part("read", "head", "linear", layers.output("head"), layers.parameters("head"))


def _vit(cfg: ViTConfig, layers: Layers, size: tuple[int, int]) -> Iterator[Part]:
    rows, columns = cfg.grid(size)
    patches, stage = rows * columns, "patch_embed.proj.stage."
    if isinstance(cfg, HybridConfig):
        words = f"{cfg.stage_depth} blocks, 7{TIMES}7"
        maps = layers.output(stage)
        yield Part("maps", "convolutional stage", words, maps, layers.parameters(stage))
    yield Part(
        "map",
        f"patches: {cfg.patch}",
        f"{rows}{TIMES}{columns} of {cfg.patch_size}{TIMES}{cfg.patch_size}",
        (patches, cfg.width),
        layers.parameters("patch_embed") - layers.parameters(stage),
    )
    prefix = [
        *(["CLS"] if cfg.cls_token else []),
        *(["distillation"] if cfg.distill_token else []),
        *([f"{cfg.registers} registers"] if cfg.registers else []),
    ]
    words = " + ".join([*prefix, f"{patches} patches"])
    learned = layers.parameters("cls_token", "dist_token", "reg_token", "pos_embed")
    tokens = layers.input("blocks.")
    yield Part("tokens", f"position: {cfg.position}", words, tokens, learned)
    switches = [name for name, on in (("QK-norm", cfg.qk_norm), ("LSA", cfg.lsa)) if on]
    norm = {"layer": "LayerNorm", "rms": "RMSNorm"}.get(cfg.norm, cfg.norm)
    heads = f"{cfg.heads} heads of {cfg.head_width}"
    attention = ("attention", ", ".join([heads, *switches]))
    ffn = ("feed-forward", f"{cfg.ffn}, {cfg.ffn_ratio:g} {TIMES} width")
    steps = (
        ((norm, ""), attention, (norm, ""), ffn)
        if cfg.norm_place == "pre"
        else (attention, (norm, ""), ffn, (norm, ""))
    )
    name, words = f"{cfg.depth} blocks", f"{cfg.norm_place}-norm"
    yield Part("block", name, words, tokens, layers.parameters("blocks."), steps)
    words = f"after {norm}" if cfg.norm_place == "pre" else ""
    pooled = layers.input("head")
    yield Part("read", f"pool: {cfg.pool}", words, pooled, layers.parameters("norm", "pool"))
    heads = "two linear layers" if cfg.distill_token else "linear layer"
    yield Part("read", "head", heads, layers.output("head"), layers.parameters("head"))


def _resnet(layers: Layers) -> Iterator[Part]:
    stem = "stages.stem."
    yield Part(
        "maps", "stem", f"3{TIMES}3 convolution", layers.output(stem), layers.parameters(stem)
    )
    for stage in range(1, 5):
        start = f"stages.stage{stage}."
        words = "2 residual blocks" if stage == 1 else "2 blocks, half size"
        maps = layers.output(start)
        yield Part("maps", f"stage {stage}", words, maps, layers.parameters(start))
    yield Part("read", "mean", "over all places", layers.input("head"))
    yield Part("read", "head", "linear layer", layers.output("head"), layers.parameters("head"))


def _cnn6(layers: Layers) -> Iterator[Part]:
    for stage in range(1, 4):
        start, words = f"stages.stage{stage}.", "2 convolutions, half"
        maps = layers.output(start)
        yield Part("maps", f"stage {stage}", words, maps, layers.parameters(start))
    yield Part("read", "flatten", "all places of all maps", layers.input("head"))
    words = "three linear layers"
    yield Part("read", "head", words, layers.output("head"), layers.parameters("head"))


SHAPE, BAR, END = 322, 340, WIDE - 4
"""Where the two columns beside the drawing stand: shapes end at one, bars begin at the other."""

AXIS, BOX, BESIDE = 60, 54, 124
"""Where the stream runs down, half the width of a box, and where words begin."""

INNER = 24
"""Where it runs down inside of a block."""


def draw(config: Config, alt: str) -> Markup:
    """Draw a model from top to bottom, with the shape and the share of parameters of each part."""
    found = parts(config)
    total = sum(part.parameters for part in found)
    out = [text(SHAPE, 12, "output", "name", "end"), text(END, 12, "parameters", "name", "end")]
    y = 22.0
    for place, part in enumerate(found):
        height = {"image": 66, "block": 158, "maps": 60, "tokens": 58}.get(part.look, 50)
        body, top = height - 14, y
        if place:
            out.append(_stream(found[place - 1], part, y))
        out += list(PLACED[part.look](part, config, y, body))
        middle = top + body / 2
        shape = TIMES.join(map(str, part.shape))
        out.append(text(SHAPE, middle + 4, shape, "shape", "end"))
        if part.parameters:
            share = part.parameters / total
            out.append(text(END, middle - 1, percent(share), "value", "end"))
            out.append(rect(BAR, middle + 5, END - BAR, 4, "track-bar", 2))
            out.append(rect(BAR, middle + 5, max(0.8, (END - BAR) * share), 4, "bar", 2))
        y += height
    box = f"0 0 {WIDE} {math.ceil(y - 6)}"
    return tag("svg", *out, viewBox=box, role="img", aria_label=plain(alt), class_="model")


def _stream(before: Part, after: Part, y: float) -> Markup:
    """The stream from a part to the next; inside a block it runs beside the branches."""
    start, end = (INNER if part.look == "block" else AXIS for part in (before, after))
    return tag("path", d=f"M{start} {y - 14:.1f}V{y - 7:.1f}H{end}V{y:.1f}", class_="stream")


def percent(share: float) -> str:
    """A share in percent, to a tenth where it is small."""
    if share < 0.001:
        return "< 0.1 %" if share else "0 %"
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def _titles(part: Part, x: float, y: float) -> list[Markup]:
    return [text(x, y - 3, part.name, "label"), text(x, y + 13, part.words, "sub")]


def _image(part: Part, config: Config, y: float, height: float) -> Iterator[Markup]:
    """A square, cut where the patches will be."""
    x = AXIS - height / 2
    yield rect(x, y, height, height, "picture", 3)
    cfg = config.model
    assert config.data.image_size
    if isinstance(cfg, ViTConfig):
        rows, columns = cfg.grid(config.data.image_size)
        if max(rows, columns) <= 16:
            for k in range(1, columns):
                yield line(x + height * k / columns, y, x + height * k / columns, y + height, "cut")
            for k in range(1, rows):
                yield line(x, y + height * k / rows, x + height, y + height * k / rows, "cut")
    yield from _titles(part, BESIDE, y + height / 2)


def _maps(part: Part, _: Config, y: float, height: float) -> Iterator[Markup]:
    """Sheets behind one another: smaller with fewer places, more with more channels."""
    channels, rows = part.shape[:2]
    side = max(10.0, min(height - 6, 6.6 * rows**0.55))
    sheets = max(2, min(6, round(channels**0.5 / 3)))
    middle = y + height / 2
    for k in reversed(range(sheets)):
        shift = 3.2 * (k - (sheets - 1) / 2)
        yield rect(AXIS - side / 2 + shift, middle - side / 2 - shift, side, side, "sheet", 2)
    yield from _titles(part, BESIDE, middle)


def _map(part: Part, _: Config, y: float, height: float) -> Iterator[Markup]:
    yield rect(AXIS - BOX, y, 2 * BOX, height, "box", 7)
    yield from _inside(part, y, height)


def _read(part: Part, config: Config, y: float, height: float) -> Iterator[Markup]:
    yield from _map(part, config, y, height)


def _inside(part: Part, y: float, height: float) -> Iterator[Markup]:
    """A box that holds its name, with its words beside it."""
    first, _, second = part.name.partition(": ")
    middle = y + height / 2
    yield text(AXIS, middle + 4, second or first, "label", "middle")
    yield text(BESIDE, middle - 3 if second else middle + 4, first if second else part.words, "sub")
    if second:
        yield text(BESIDE, middle + 12, part.words, "sub")


def _tokens(part: Part, config: Config, y: float, height: float) -> Iterator[Markup]:
    """A strip of tokens, those of the prefix in another colour."""
    cfg = config.model
    assert isinstance(cfg, ViTConfig)
    shown, side = 9, 11.0
    left, middle = AXIS - shown * (side + 2.4) / 2, y + height / 2
    yield line(AXIS, y, AXIS, middle - side / 2, "stream")
    yield line(AXIS, middle + side / 2, AXIS, y + height, "stream")
    for k in range(shown):
        look = "token prefix" if k < min(cfg.prefix, 3) else "token"
        yield rect(left + k * (side + 2.4), middle - side / 2, side, side, look, 2)
    second = part.name.partition(": ")[2]
    yield text(
        BESIDE, middle - 3, f"+ {second} position" if second != "none" else "no position", "sub"
    )
    yield text(BESIDE, middle + 12, part.words, "sub")


def _block(part: Part, _: Config, y: float, height: float) -> Iterator[Markup]:
    """What is repeated, with the two branches that are added to the stream."""
    yield rect(2, y + 4, 242, height, "behind", 9)
    yield rect(6, y, 242, height, "frame", 9)
    yield text(240, y + 17, f"{TIMES} {part.name.split()[0]}", "repeat", "end")
    step = (height - 16) / len(part.inside)
    yield line(INNER, y, INNER, y + height, "stream")
    for k, (name, words) in enumerate(part.inside):
        top = y + 8 + step * k
        yield rect(INNER + 17, top + 3, 96, step - 7, "box", 6)
        yield text(INNER + 65, top + step / 2 + 3.5, name, "label", "middle")
        if words:
            yield from _two(words, INNER + 121, top + step / 2)
    for first in (0, 2):
        top, low = (y + 7 + step * (first + k + 0.5) for k in (0, 1))
        yield tag("path", d=f"M{INNER} {top:.1f}H{INNER + 17}", class_="stream")
        yield tag("path", d=f"M{INNER + 17} {low:.1f}H{INNER + 5}", class_="stream")
        yield tag("circle", cx=INNER, cy=low, r=5.5, class_="plus")
        yield line(INNER - 3, low, INNER + 3, low, "sign")
        yield line(INNER, low - 3, INNER, low + 3, "sign")


def _two(words: str, x: float, middle: float) -> Iterator[Markup]:
    """Words on one line, or on two where there is a comma."""
    first, comma, second = words.partition(", ")
    yield text(x, middle - (3 if comma else -3.5), first, "sub")
    if comma:
        yield text(x, middle + 11, second, "sub")


PLACED = {
    "image": _image,
    "maps": _maps,
    "map": _map,
    "tokens": _tokens,
    "block": _block,
    "read": _read,
}
"""How each part is drawn."""
