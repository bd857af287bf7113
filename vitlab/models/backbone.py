"""A network that others pretrained, with a head of ours: a body, a vector per image, logits.

Every body maps images (B, 3, height, width) to a `Description`. What it needs of an image, its
`Input`, travels in the config; its weights are read by `vitlab.pretrained.backbones`.

B images  C channels  D numbers that describe an image  R rows  S columns  T tokens
"""

import json
import math
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import BackboneConfig
from vitlab.errors import ConfigError
from vitlab.models.efficientnet import EfficientNetLite0
from vitlab.models.vit import Trace

EFFICIENTNET, TIMM = "efficientnet-lite0", "timm:"

SMALL = 1e-4
"""What is added before a root is taken, whose slope has no bound at zero."""

POOLED = frozenset({"clip_vision_model", "siglip_vision_model", "siglip2_vision_model"})
"""Models of the Hub whose pooled vector was trained; those of others are random, or of another
task."""


class Description(NamedTuple):
    """What a body makes of images."""

    maps: Tensor
    """Its last tokens or maps, as maps (B, D, R, S)."""
    summary: Tensor | None
    """A vector of the whole image beside them, (B, D): a CLS token, a pooled vector."""


class Backbone(nn.Module):
    """Maps normalised images (B, C, height, width) to logits (B, K) by a pretrained network.

    Images are enlarged or shrunk inside to the size that the network was made for, and grey ones
    are shown to it as colour. The head reads the mean of the last maps, beside it the network's own
    summary of the image where it has one. Means of EfficientNet, never negative, are read as their
    roots, so that a few strong channels do not drown the others (Perronnin et al., 2010).
    """

    def __init__(
        self, cfg: BackboneConfig, image_size: tuple[int, int], channels: int, classes: int
    ):
        super().__init__()
        self.body, width = open_body(cfg)
        self.input_size = cfg.input_size or EfficientNetLite0.input_size
        self.rooted = isinstance(self.body, EfficientNetLite0)
        self.dropout = nn.Dropout(cfg.dropout)
        self.head = nn.Linear(width, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def blocks_path(self) -> str:
        """Name of the list of blocks that the body is a chain of: the outermost, then longest."""
        lists = [
            (-name.count("."), len(module), name)
            for name, module in self.named_modules()
            if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1
            if all(any(True for _ in child.parameters()) for child in module)
        ]
        return max(lists)[2] if lists else ""

    @property
    def blocks(self) -> nn.Module:
        """The blocks that the body is a chain of."""
        return self.get_submodule(self.blocks_path) if self.blocks_path else nn.ModuleList()

    def train(self, mode: bool = True) -> Self:
        """Learn, or answer. Batch norms keep the statistics of many images that they came with."""
        super().train(mode)
        for module in self.body.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, images: Tensor, trace: Trace = None) -> Tensor:
        """A dictionary given as `trace` is filled with maps (B, D, R, S) by name."""
        return self.head(self.dropout(self.features(images, trace)))

    def features(self, images: Tensor, trace: Trace = None) -> Tensor:
        """The vectors (B, D) that the head reads of normalised images (B, C, height, width)."""
        if images.shape[-2:] != self.input_size:  # as files are brought to a size
            shrunk = images.shape[-2] > self.input_size[0] or images.shape[-1] > self.input_size[1]
            images = F.interpolate(images, self.input_size, mode="bicubic", antialias=shrunk)
        images = images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        maps, summary = self.body(images, trace)
        if trace is not None:
            trace["maps"] = maps
        vector = maps.mean(dim=(2, 3))
        if self.rooted:
            vector = (vector + SMALL).sqrt()
        return vector if summary is None else torch.cat((summary, vector), dim=1)

    def resize(self, image_size: tuple[int, int]) -> None:
        """Take images of another (height, width): all are brought to one size inside."""


class EfficientNetBody(EfficientNetLite0):
    """EfficientNet-Lite0 as a body."""

    def forward(self, images: Tensor, trace: Trace = None) -> Description:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Its last maps."""
        return Description(super().forward(images, trace), None)


class HubBody(nn.Module):
    """A model of the transformers library as a body."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    @property
    def width(self) -> int:
        """Numbers that describe an image."""
        config = self.model.config
        width = getattr(config, "hidden_size", None) or config.hidden_sizes[-1]
        return width * (1 + self.has_summary)

    @property
    def has_summary(self) -> bool:
        """Whether there is a summary of the image beside its maps."""
        names = (name for name, _ in self.model.named_parameters())
        return self.pools or any(name.endswith(("cls_token", "class_embedding")) for name in names)

    @property
    def pools(self) -> bool:
        """Whether the model's own pooled vector is its summary."""
        return self.model.config.model_type in POOLED

    def forward(self, images: Tensor, trace: Trace = None) -> Description:
        """Its last tokens or maps, its CLS token or its pooled vector."""
        found = self.model(pixel_values=images)
        last = found.last_hidden_state
        if last.ndim == 4:
            return Description(last, None)
        size = (images.shape[2], images.shape[3])
        rows, columns = grid(last.shape[1], size, self.model.config)
        maps = last[:, -rows * columns :].mT.unflatten(2, (rows, columns))
        if self.pools:
            return Description(maps, found.pooler_output)
        return Description(maps, last[:, 0] if self.has_summary else None)


class TimmBody(nn.Module):
    """A model of timm as a body."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    @property
    def width(self) -> int:
        """Numbers that describe an image."""
        return self.model.num_features * (1 + self.has_summary)

    @property
    def has_summary(self) -> bool:
        """Whether it has a CLS token, which comes first."""
        return getattr(self.model, "cls_token", None) is not None

    def forward(self, images: Tensor, trace: Trace = None) -> Description:
        """Its last tokens or maps, and its CLS token."""
        last = self.model.forward_features(images)
        if last.ndim == 4:  # maps, the channels first or, in some families, last
            first = getattr(self.model, "output_fmt", "NCHW") == "NCHW"
            return Description(last if first else last.permute(0, 3, 1, 2), None)
        prefix = getattr(self.model, "num_prefix_tokens", 0)
        side = math.isqrt(last.shape[1] - prefix)
        maps = last[:, prefix : prefix + side * side].mT.unflatten(2, (side, side))
        return Description(maps, last[:, 0] if self.has_summary else None)


def grid(tokens: int, size: tuple[int, int], config: Any) -> tuple[int, int]:
    """Rows and columns of the patches that come last of so many tokens of an image of a size."""
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, int) and (size[0] // patch) * (size[1] // patch) <= tokens:
        return size[0] // patch, size[1] // patch
    side = math.isqrt(tokens)
    return side, tokens // side


def open_body(cfg: BackboneConfig) -> tuple[nn.Module, int]:
    """The body of a resolved config, its weights random, and how many numbers it makes.

    ConfigError where the library that it is of is missing.
    """
    if cfg.name == EFFICIENTNET:
        return EfficientNetBody(), EfficientNetBody.width
    if cfg.name.startswith(TIMM):
        body = TimmBody(create_timm(cfg.name, pretrained=False))
        return body, body.width
    if cfg.architecture is None:
        raise ConfigError([f"model.architecture of {cfg.name} is not known yet: read it first"])
    body = HubBody(hub_model(cfg.architecture))
    return body, body.width


def create_timm(name: str, pretrained: bool) -> Any:
    """A model of timm without its head."""
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:  # timm needs a torchvision that fits to torch
        raise ConfigError([f"{name} needs timm, which cannot be imported here: {error}"]) from None
    try:
        return timm.create_model(name.removeprefix(TIMM), pretrained=pretrained, num_classes=0)
    except (RuntimeError, ValueError) as error:
        raise ConfigError([f"model.name={name}: {error}"]) from None


def hub_model(architecture: str) -> Any:
    """A model of the transformers library from the JSON of its configuration."""
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise ConfigError(
            [f"a model of the Hub needs `pip install 'vitlab[pretrained]'` ({error})"]
        ) from None
    fields = json.loads(architecture)
    return AutoModel.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
