"""The models: `build_model` makes what a config describes, `describe_parts` says how it works."""

import inspect
import os
from collections.abc import Callable
from typing import Any

import torch

from vitlab.config import (
    BackboneConfig,
    CNN6Config,
    Config,
    ModelConfig,
    ResNet18Config,
    ViTConfig,
    fields_of,
)
from vitlab.errors import ConfigError, VitlabError
from vitlab.fields import text
from vitlab.models.backbone import Backbone
from vitlab.models.convnet import CNN6, ResNet18
from vitlab.models.ffn import FFNS
from vitlab.models.norm import NORMS
from vitlab.models.patch import PATCHES
from vitlab.models.pool import POOLS
from vitlab.models.position import POSITIONS
from vitlab.models.stage import ConvStage
from vitlab.models.vit import BLOCKS, ViT

AXES: dict[str, dict[str, type]] = {
    "patch": PATCHES,
    "position": POSITIONS,
    "norm": NORMS,
    "norm_place": BLOCKS,
    "ffn": FFNS,
    "pool": POOLS,
}
"""The values of each axis of a ViT and the classes they stand for."""

SWITCHES: dict[str, str] = {
    "qk_norm": "Normalises every query and key before their product. Neither can then grow until "
    "attention sees a single token and stops learning (Dehghani et al., 2023).",
    "lsa": "Locality self-attention: no token attends to itself, and the scores of each head are "
    "divided by a learned temperature instead of the root of its width. Both sharpen attention, "
    "which is too even where images are few (Lee et al., 2021).",
    "distill_token": "A second learned token beside CLS, with a head of its own, which is asked "
    "for the answers of a teacher instead of the labels. In evaluation the logits of both heads "
    "are averaged (Touvron et al., 2021).",
    "registers": "Learned tokens that take part in every block and are never read out. They give "
    "the blocks a place for notes about the image that would otherwise overwrite patches of its "
    "background (Darcet et al., 2024).",
    "layer_scale": "A learned factor per channel on every branch, small at the start. Each block "
    "begins as almost nothing, which steadies deep models (Touvron et al., 2021).",
    "drop_path": "Leaves whole branches out for some images of a training batch, the later the "
    "block, the more often. No block can lean on another one, and the model learns as many "
    "shallower ones do (Huang et al., 2016).",
}
"""How the parts of a ViT work that are on or off."""


def build_model(config: Config) -> ViT | ResNet18 | CNN6 | Backbone:
    """Return the model of a config, its weights drawn from torch's global generator.

    It maps normalised images (B, C, height, width) to logits (B, K); a dictionary given as
    `trace` is filled with named intermediates. Raises ConfigError if `config.data` does not say
    yet what the images are, and VitlabError if the weights are more than this machine's memory.
    """
    data = config.data
    if data.image_size is None or data.channels is None or data.classes is None:
        raise ConfigError(
            [
                "a model needs data.image_size, data.channels and data.classes: set them, or "
                "resolve the config from its data set first"
            ]
        )
    images = (data.image_size, data.channels, data.classes)
    if torch.get_default_device().type != "meta":
        check_memory(config)
    match config.model:
        case ViTConfig():
            return ViT(config.model, *images)
        case ResNet18Config():
            return ResNet18(config.model, *images)
        case CNN6Config():
            return CNN6(config.model, *images)
        case BackboneConfig():
            return Backbone(config.model, *images)


def check_memory(config: Config) -> None:
    """Raise VitlabError for a model whose weights are more than this machine's memory."""
    with torch.device("meta"):  # where weights have shapes and no numbers
        needed = 4 * sum(weight.numel() for weight in build_model(config).parameters())
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        fields = fields_of(config)
        names = ("width", "depth", "ffn_ratio", "patch_size", "stage_width", "stage_depth")
        names = (*(f"model.{name}" for name in names), "data.image_size", "data.classes")
        sizes = ", ".join(f"{name}={text(fields[name])}" for name in names if name in fields)
        raise VitlabError(
            f"out of memory: {sizes} make a model whose weights take {needed / 1e9:,.0f} GB, and "
            f"this machine has {available / 1e9:,.0f} GB: choose smaller ones"
        )


def describe_parts(cfg: ModelConfig) -> dict[str, str]:
    """Return for each field that says how a model works what its value means, in a few sentences.

    These are the kind of a model that is no plain ViT, and the axes and switches of a ViT, a switch
    only if it is on.
    """
    kinds = {"hybrid": ConvStage, "resnet18": ResNet18, "cnn6": CNN6, "backbone": Backbone}
    texts = {"kind": first_paragraph(kinds[cfg.kind])} if cfg.kind in kinds else {}
    if isinstance(cfg, ViTConfig):
        for axis, values in AXES.items():
            texts[axis] = first_paragraph(values[getattr(cfg, axis)])
        texts |= {name: text for name, text in SWITCHES.items() if getattr(cfg, name)}
    return texts


def first_paragraph(thing: Callable[..., Any]) -> str:
    """The first paragraph of the docstring of a class or function as one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
