"""Models small enough to be made by the hundred, and two images that they take."""

import torch

from vitlab.config import Config, DataConfig, HybridConfig, TrainConfig, ViTConfig
from vitlab.models import build_model
from vitlab.models.vit import ViT

IMAGES = torch.linspace(-2, 2, 2 * 3 * 16 * 16).sin().view(2, 3, 16, 16)


def config(image_size=(16, 16), channels=3, classes=5, kind="vit", **fields) -> Config:
    """The config of a ViT or hybrid of width 16 and two blocks, with a teacher if it needs one."""
    data = DataConfig(image_size=image_size, channels=channels, classes=classes)
    fields = {"width": 16, "depth": 2, "heads": 2, **fields}
    if kind == "hybrid":
        model = HybridConfig(**{"stage_width": 8, "stage_depth": 1, **fields})
    else:
        model = ViTConfig(**fields)
    teacher = "resnet18" if model.distill_token else None
    return Config(data=data, model=model, train=TrainConfig(teacher=teacher))


def vit(*args, seed=0, **fields) -> ViT:
    """The model of such a config, its weights drawn from a seed."""
    torch.manual_seed(seed)
    return build_model(config(*args, **fields))
