"""A config becomes a drawing of its model: what each part is, what it hands on, what it weighs.

Shapes follow from the config. How many parameters a part has is read off the names and shapes of a
checkpoint's weights, so a run without weights is drawn without shares.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from markupsafe import Markup

from vitlab.config import CNN6Config, Config, HybridConfig, ModelConfig, ResNet18Config, ViTConfig
from vitlab.report.drawing import TIMES, WIDE, drawing, group, line, rect, tag, text

Shape = tuple[int, ...]

COUNTED_NOT = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names of what a checkpoint holds beside parameters: statistics of batch norms."""

KINDS = {
    "vit": "Vision Transformer",
    "hybrid": "hybrid of CNN and Vision Transformer",
    "resnet18": "ResNet-18",
    "cnn6": "six-layer CNN",
}


class Part(NamedTuple):
    """A part of a model, in the order in which an image meets it."""

    look: str
    """How it is drawn: image, maps, map (to tokens), tokens, block, read."""
    name: str
    words: str
    shape: Shape
    """What it hands on, without the batch."""
    weights: tuple[str, ...] = ()
    """Starts of the names of its weights."""
    inside: tuple[tuple[str, str], ...] = ()
    """Of a block: its steps, each a name and what it is."""


def parts(config: Config) -> list[Part]:
    """The parts of a config whose images are known."""
    data = config.data
    assert data.image_size and data.channels and data.classes
    height, width = data.image_size
    image = Part("image", "image", f"{height}{TIMES}{width} pixels", (data.channels, height, width))
    match config.model:
        case ViTConfig():
            body = _vit(config.model, (height, width), data.classes)
        case ResNet18Config():
            body = _resnet(config.model, (height, width), data.classes)
        case CNN6Config():
            body = _cnn6(config.model, (height, width), data.classes)
    return [image, *body]


def _vit(cfg: ViTConfig, size: tuple[int, int], classes: int) -> Iterator[Part]:
    rows, columns = cfg.grid(size)
    patches, tokens = rows * columns, rows * columns + cfg.prefix
    own = ("patch_embed.",)
    if isinstance(cfg, HybridConfig):
        maps = (cfg.stage_width, size[0] // cfg.stage_size, size[1] // cfg.stage_size)
        words = f"{cfg.stage_depth} blocks, 7{TIMES}7"
        yield Part("maps", "convolutional stage", words, maps, ("patch_embed.proj.stage.",))
        own = ("patch_embed.proj.patch.", "patch_embed.norm.")
    side = cfg.patch_size
    yield Part(
        "map",
        f"patches: {cfg.patch}",
        f"{rows}{TIMES}{columns} of {side}{TIMES}{side}",
        (patches, cfg.width),
        own,
    )
    prefix = [
        *(["CLS"] if cfg.cls_token else []),
        *(["distillation"] if cfg.distill_token else []),
        *([f"{cfg.registers} registers"] if cfg.registers else []),
    ]
    position = f"position: {cfg.position}"
    words = f"{' + '.join([*prefix, f'{patches} patches'])}"
    learned = ("cls_token", "dist_token", "reg_token", "pos_embed.")
    yield Part("tokens", position, words, (tokens, cfg.width), learned)
    switches = [name for name, on in (("QK-norm", cfg.qk_norm), ("LSA", cfg.lsa)) if on]
    norm = {"layer": "LayerNorm", "rms": "RMSNorm"}[cfg.norm]
    heads = f"{cfg.heads} heads of {cfg.head_width}"
    attention = ("attention", ", ".join([heads, *switches]))
    ffn = ("feed-forward", f"{cfg.ffn}, {cfg.ffn_ratio:g} {TIMES} width")
    steps = (
        ((norm, ""), attention, (norm, ""), ffn)
        if cfg.norm_place == "pre"
        else (attention, (norm, ""), ffn, (norm, ""))
    )
    yield Part(
        "block",
        f"{cfg.depth} blocks",
        f"{cfg.norm_place}-norm",
        (tokens, cfg.width),
        ("blocks.",),
        steps,
    )
    pooled = cfg.width * (2 if cfg.pool == "cls+mean" else 1)
    final = ("norm.",) if cfg.norm_place == "pre" else ()
    words = f"after {norm}" if final else ""
    yield Part("read", f"pool: {cfg.pool}", words, (pooled,), (*final, "pool."))
    heads = "two linear layers" if cfg.distill_token else "linear layer"
    yield Part("read", "head", heads, (classes,), ("head.", "head_dist."))


def _resnet(cfg: ResNet18Config, size: tuple[int, int], classes: int) -> Iterator[Part]:
    width, side = cfg.width, size
    yield Part("maps", "stem", f"3{TIMES}3 convolution", (width, *side), ("stages.stem.",))
    for stage in range(4):
        channels = width * 2**stage
        if stage:
            side = (-(-side[0] // 2), -(-side[1] // 2))
        words = "2 residual blocks" + (", half" if stage else "")
        name = f"stage {stage + 1}"
        yield Part("maps", name, words, (channels, *side), (f"stages.stage{stage + 1}.",))
    yield Part("read", "mean", "over all places", (8 * width,))
    yield Part("read", "head", "linear layer", (classes,), ("head.",))


def _cnn6(cfg: CNN6Config, size: tuple[int, int], classes: int) -> Iterator[Part]:
    width, side = cfg.width, size
    for stage, channels in enumerate((2 * width, 4 * width, 8 * width), start=1):
        side = (side[0] // 2, side[1] // 2)
        words = "2 convolutions, half"
        name = f"stage {stage}"
        yield Part("maps", name, words, (channels, *side), (f"stages.stage{stage}.",))
    flat = 8 * width * side[0] * side[1]
    yield Part("read", "flatten", "all places of all maps", (flat,))
    words = "three linear layers"
    yield Part("read", "head", words, (classes,), ("head.",))


def parameters(cfg: ModelConfig, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Numbers of parameters by name of the weight; what is stored but not trained is left out."""
    fixed = ("patch_embed.proj.0.weight",) if getattr(cfg, "patch", "") == "whitened" else ()
    counts = {}
    for name, shape in shapes.items():
        if not name.endswith(COUNTED_NOT) and name not in fixed:
            counts[name] = 1
            for side in shape:
                counts[name] *= side
    return counts


def shares(found: list[Part], counts: Mapping[str, int]) -> list[int]:
    """Parameters of every part."""
    return [
        sum(
            count
            for name, count in counts.items()
            if part.weights and name.startswith(part.weights)
        )
        for part in found
    ]


SHAPE, BAR, END = 322, 340, WIDE - 4
"""Where the two columns beside the drawing stand: shapes end at one, bars begin at the other."""

AXIS, BOX, BESIDE = 60, 54, 124
"""Where the stream runs down, half the width of a box, and where words begin."""

INNER = 24
"""Where it runs down inside of a block."""


def draw(config: Config, shapes: Mapping[str, Shape] | None, alt: str) -> Markup:
    """Draw a model from top to bottom, with the shape and the share of parameters of each part."""
    found = parts(config)
    counts = shares(found, parameters(config.model, shapes)) if shapes else [0] * len(found)
    total = sum(counts)
    out = [text(SHAPE, 12, "output", "name", "end")]
    if total:
        out.append(text(END, 12, "parameters", "name", "end"))
    y = 22.0
    for place, (part, count) in enumerate(zip(found, counts, strict=True)):
        height = {"image": 66, "block": 158, "maps": 60, "tokens": 58}.get(part.look, 50)
        body, top = height - 14, y
        if place:
            out.append(_stream(found[place - 1], part, y))
        out += list(PLACED[part.look](part, config, y, body))
        middle = top + body / 2
        shape = TIMES.join(map(str, part.shape))
        out.append(text(SHAPE, middle + 4, shape, "shape", "end"))
        if total and part.weights:
            share = count / total
            out.append(text(END, middle - 1, percent(share), "value", "end"))
            out.append(rect(BAR, middle + 5, END - BAR, 4, "track-bar", 2))
            out.append(rect(BAR, middle + 5, max(0.8, (END - BAR) * share), 4, "s1 bar", 2))
        y += height
    return drawing(out, y - 6, alt)


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
        yield group(
            line(INNER - 3, low, INNER + 3, low, "sign"),
            line(INNER, low - 3, INNER, low + 3, "sign"),
        )


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
