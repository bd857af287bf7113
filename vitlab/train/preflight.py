"""What tends to go wrong with small Vision Transformers, said in plain words before and during."""

import math
from collections.abc import Iterator

from vitlab.config import Config, ViTConfig

SAFE_RATES = {
    "adamw": (1e-4, 4e-3),
    "adam": (1e-4, 2e-3),
    "sgd": (0.01, 0.3),
    "muon": (1e-4, 1e-2),
}
"""Peak learning rates between which our recipes of each optimiser are known to train."""

FEW_IMAGES = 5_000


def warnings_for(config: Config, images: int) -> Iterator[str]:
    """Yield what a person with experience would remark on a config.

    Args:
        config: a resolved config.
        images: number of training images.
    """
    optim, model, data = config.optim, config.model, config.data
    low, high = SAFE_RATES[optim.optimizer]
    if not low <= optim.lr <= high:
        yield (
            f"optim.lr={optim.lr:g} is outside {low:g} to {high:g}, "
            f"where {optim.optimizer} is known to train"
        )
    if optim.optimizer == "muon" and not 0.002 <= optim.muon_lr <= 0.05:
        yield f"optim.muon_lr={optim.muon_lr:g} is outside 0.002 to 0.05, where Muon trains"
    if config.train.batch_size > images:
        yield f"train.batch_size={config.train.batch_size} is more than all {images} images"
    if optim.warmup_epochs >= config.train.epochs:
        yield (
            f"optim.warmup_epochs={optim.warmup_epochs:g} leaves none of "
            f"train.epochs={config.train.epochs} at the full rate"
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
