"""What cannot work, and what tends to go wrong with small Vision Transformers, in plain words."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from vitlab.config import Config, TrainConfig, ViTConfig
from vitlab.data import KNOWN, LabelledImages
from vitlab.data.duplicates import duplicates_warning
from vitlab.errors import ConfigError
from vitlab.models import build_model
from vitlab.training.optim import blocks_of, is_frozen

SAFE_RATES = {
    "adamw": (1e-4, 4e-3),
    "adam": (1e-4, 2e-3),
    "sgd": (0.01, 0.3),
    "muon": (1e-4, 1e-2),
}
"""Peak learning rates between which our recipes of each optimiser are known to train."""

FEW_IMAGES = 5_000


def refuse(config: Config, examples: LabelledImages, world: int = 1) -> None:
    """Raise ConfigError for what shows only once images and model are known.

    Args:
        config: a resolved config.
        examples: all images that are not the test split.
        world: number of processes that train together.
    """
    images = len(examples.split(config.data)[0])
    if problems := list(problems_of(config, images, world)):
        raise ConfigError(problems)


def problems_of(config: Config, images: int, world: int) -> Iterator[str]:
    """Yield what makes it impossible to train a config on so many images."""
    train, optim = config.train, config.optim
    if train.drop_last and images < train.batch_size:
        yield (
            f"train.drop_last=True leaves no batch: {images} training images are fewer than "
            f"train.batch_size={train.batch_size}: set train.batch_size={images} or less, or "
            "train.drop_last=off"
        )
    with torch.device("meta"):
        model = build_model(config)
    if not has_pairs(train, images, world) and not takes_one_image(model, config):
        yield (
            f"{images} images in batches of {train.batch_size} end in parts of one image, and one "
            "image is too few for batch norm on maps of one pixel: "
            f"{' or '.join(ways_to_pairs(train, images, world)) or 'more images are needed'}"
        )
    names = [name for name, _ in model.named_parameters()]
    for prefix in optim.freeze:
        if not any(is_frozen(name, [prefix]) for name in names):
            # cls_token, patch_embed, blocks.0: what one would want to freeze; longer names work.
            parts = dict.fromkeys(re.findall(r"^\w+(?:\.\d+)?", "\n".join(names), re.MULTILINE))
            yield f"optim.freeze={prefix!r} is no parameter: choose from {', '.join(parts)}"
    if all(is_frozen(name, optim.freeze) for name in names):
        yield f"optim.freeze={','.join(optim.freeze)} leaves nothing to train: name fewer"
    if optim.layer_decay < 1 and not blocks_of(model):
        yield (
            f"optim.layer_decay={optim.layer_decay:g} goes from block to block, and "
            f"model.kind={config.model.kind!r} has none: set optim.layer_decay=1"
        )


def has_pairs(train: TrainConfig, images: int, world: int) -> bool:
    """Whether each part that a batch is computed in has at least two images."""
    last = 0 if train.drop_last else images % train.batch_size
    return (last or train.batch_size) >= 2 * train.accumulate * world


def ways_to_pairs(train: TrainConfig, images: int, world: int) -> Iterator[str]:
    """Yield what could be set so that each part has at least two images."""
    for size in sorted(range(2, images + 1), key=lambda size: abs(size - train.batch_size)):
        if size >= train.accumulate and has_pairs(replace(train, batch_size=size), images, world):
            yield f"set train.batch_size={size}"
            break
    if images >= train.batch_size and has_pairs(replace(train, drop_last=True), images, world):
        yield "set train.drop_last=on"
    if train.accumulate > 1 and has_pairs(replace(train, accumulate=1), images, world):
        yield "set train.accumulate=1"


def takes_one_image(model: nn.Module, config: Config) -> bool:
    """Whether a model on the meta device can train on a single image."""
    size = config.train.small_size or config.data.image_size
    assert size is not None and config.data.channels is not None
    resize = model.resize
    assert callable(resize)
    resize(size)
    try:
        model.train()(torch.empty(1, config.data.channels, *size, device="meta"))
    except ValueError:
        return False
    return True


def copies(config: Config, examples: LabelledImages) -> str | None:
    """Warn of validation images that are also trained on, in data that nobody has looked at."""
    if config.data.dataset in KNOWN:
        return None
    training, validation = examples.split(config.data)
    return duplicates_warning(examples.images[training], examples.images[validation])


def warnings_for(config: Config, images: int) -> Iterator[str]:
    """Yield what a person with experience would remark on a config.

    Args:
        config: a resolved config.
        images: number of training images.
    """
    optim, model, data, train = config.optim, config.model, config.data, config.train
    low, high = SAFE_RATES[optim.optimizer]
    if not low <= optim.lr <= high:
        yield (
            f"optim.lr={optim.lr:g} is outside {low:g} to {high:g}, "
            f"where {optim.optimizer} is known to train"
        )
    if optim.optimizer == "muon" and not 0.002 <= optim.muon_lr <= 0.05:
        yield f"optim.muon_lr={optim.muon_lr:g} is outside 0.002 to 0.05, where Muon trains"
    if train.batch_size > images:
        yield f"train.batch_size={train.batch_size} is more than all {images} images"
    if optim.warmup_epochs >= train.epochs:
        yield (
            f"optim.warmup_epochs={optim.warmup_epochs:g} leaves none of "
            f"train.epochs={train.epochs} at the full rate"
        )
    if 0 < train.stop_patience < train.evaluate_epochs:
        yield (
            f"train.stop_patience={train.stop_patience:g} ends before the second validation: "
            f"train.evaluate_epochs={train.evaluate_epochs:g}"
        )
    falls = optim.schedule in ("cosine", "linear")
    if falls and (train.stop_accuracy or train.stop_patience):
        yield (
            f"a run that stops early misses the low rates at the end of optim.schedule="
            f"{optim.schedule!r}, which are worth some accuracy"
        )
    augment = config.augment
    plain = augment.flip == "none" and augment.policy == "none" and not augment.mixes
    plain = plain and not (augment.crop_padding or augment.resized_crop)
    if plain and images < FEW_IMAGES:
        yield f"no augmentation on {images:,} training images: the model will learn them by heart"
    if isinstance(model, ViTConfig):
        assert data.image_size is not None
        grid = model.grid(data.image_size)
        if math.prod(grid) <= 4:
            yield (
                f"a grid of {grid[0]} x {grid[1]} patches leaves attention nothing to do: "
                f"make model.patch_size={model.patch_size} smaller"
            )
        if optim.warmup_epochs == 0 and optim.optimizer != "sgd":
            yield "optim.warmup_epochs=0: attention learns better after a few epochs of warm-up"
        if model.head_width % 2:
            yield f"an odd head width of {model.head_width} is slow and rare: change width or heads"


def alarm(config: Config, epoch: float, loss: float, accuracy: float) -> str | None:
    """Name a training that is not going anywhere, or None.

    Args:
        epoch: epochs done.
        loss: cross-entropy on clean training images.
        accuracy: share of clean training images classified correctly.
    """
    classes = config.data.classes
    assert classes is not None
    chance = 1 / classes
    patience = max(2.0, config.optim.warmup_epochs + 1, 0.1 * config.train.epochs)
    if epoch <= patience:
        return None
    if loss > 2 * math.log(classes):
        return (
            f"diverging: training loss {loss:.2f} is far above chance ({math.log(classes):.2f}) "
            f"after {epoch:g} epochs; lower optim.lr={config.optim.lr:g}"
        )
    if accuracy < 1.3 * chance:
        return (
            f"stuck at chance: {accuracy:.1%} on training images after {epoch:g} epochs; "
            "try --overfit-one-batch, a lower learning rate or a warm-up"
        )
    return None
