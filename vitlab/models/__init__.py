"""The models: `build_model` makes the one a config describes, `explain` says how its parts work."""

import inspect

from vitlab.config import CNN6Config, Config, ModelConfig, ResNet18Config, ViTConfig
from vitlab.errors import ConfigError
from vitlab.models.convnet import CNN6, ResNet18
from vitlab.models.ffn import FFNS
from vitlab.models.norm import NORMS
from vitlab.models.patch import PATCHES
from vitlab.models.pool import POOLS
from vitlab.models.position import POSITIONS
from vitlab.models.vit import ViT

AXES: dict[str, dict[str, type]] = {
    "patch": PATCHES,
    "position": POSITIONS,
    "norm": NORMS,
    "ffn": FFNS,
    "pool": POOLS,
}
"""The words of each axis of a ViT and the classes they stand for."""


def build_model(config: Config) -> ViT | ResNet18 | CNN6:
    """Return the model of a config, its weights drawn from torch's global generator.

    It maps normalised images (B, C, height, width) to logits (B, K); a dictionary given as
    `trace` is filled with named intermediates. Raises ConfigError if `config.data` does not say
    yet what the images are.
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
    match config.model:
        case ViTConfig():
            return ViT(config.model, *images)
        case ResNet18Config():
            return ResNet18(config.model, *images)
        case CNN6Config():
            return CNN6(config.model, *images)


def explain(cfg: ModelConfig) -> dict[str, str]:
    """Return for each axis of a model how the chosen word works, in about two sentences."""
    if isinstance(cfg, ViTConfig):
        return {axis: first_paragraph(words[getattr(cfg, axis)]) for axis, words in AXES.items()}
    return {"kind": first_paragraph({"resnet18": ResNet18, "cnn6": CNN6}[cfg.kind])}


def first_paragraph(thing: type) -> str:
    """The first paragraph of a docstring as one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
