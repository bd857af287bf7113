"""Small models, and three trained on images in which a coloured square decides the class."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import CNN6Config, Config, DataConfig, ModelConfig, TrainConfig, ViTConfig
from vitlab.models import build_model

SIDE, PATCH = 16, 4
"""Pixels of a planted image and of its square, which is one of 4 x 4."""

COLOURS = 2 * torch.eye(3) - 0.5


def make(model: ModelConfig, image_size=(SIDE, SIDE), spread=1.0) -> nn.Module:
    """A model of four classes with random weights, `spread` times as wide as usual."""
    torch.manual_seed(0)
    data = DataConfig(image_size=image_size, channels=3, classes=4)
    distills = isinstance(model, ViTConfig) and model.distill_token
    train = TrainConfig(teacher="resnet18" if distills else None)
    built = build_model(Config(data=data, model=model, train=train)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(spread if parameter.ndim > 1 else 1)
    return built


def planted(count: int, rng: torch.Generator, classes: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with a square of one of three colours, or of class 3 without one.

    Returns images (B, 3, SIDE, SIDE), classes (B,) and the patch (B,) that the square covers.
    """
    images = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=rng)
    labels = torch.randint(classes, (count,), generator=rng)
    patches = torch.randint((SIDE // PATCH) ** 2, (count,), generator=rng)
    for image, label, patch in zip(images, labels, patches.tolist(), strict=True):
        if label < 3:
            row, column = (PATCH * place for place in divmod(patch, SIDE // PATCH))
            image[:, row : row + PATCH, column : column + PATCH] += COLOURS[label][:, None, None]
    return images, labels, patches


def learn(model: nn.Module, steps: int) -> nn.Module:
    """Train a model on planted images. Smooth labels keep its logits of one size."""
    rng = torch.Generator().manual_seed(1)
    images, labels, _ = planted(1024, rng)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(images), (64,), generator=rng)
        loss = F.cross_entropy(model(images[batch]), labels[batch], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def build() -> Callable[..., nn.Module]:
    """What makes a model in evaluation mode from its config."""
    return make


@pytest.fixture(scope="session")
def squares() -> tuple[Tensor, Tensor, Tensor]:
    """Planted images that all have a square, their classes and their squares."""
    return planted(48, torch.Generator().manual_seed(2), classes=3)


@pytest.fixture(scope="session")
def trained() -> Callable[[str], nn.Module]:
    """The trained models by name, each made when it is first asked for."""
    small = {"width": 24, "patch_size": PATCH, "ffn_ratio": 2.0}
    configs = {
        "cls": (ViTConfig(**small, depth=2, heads=4), 120),
        "mean": (ViTConfig(**small, depth=1, heads=2, pool="mean", cls_token=False), 100),
        "cnn": (CNN6Config(width=4), 80),
    }
    models: dict[str, nn.Module] = {}

    def get(name: str) -> nn.Module:
        if name not in models:
            config, steps = configs[name]
            models[name] = learn(make(config), steps)
        return models[name]

    return get
