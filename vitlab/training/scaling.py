"""Batch size and epochs of a recipe for fewer images than it was made for."""

import math
from collections.abc import Collection

from vitlab.config import BackboneConfig, Config, fields_of
from vitlab.data import KNOWN
from vitlab.diagnosis import FEW_BATCHES, FEW_STEPS, SMALL_BATCH
from vitlab.recipes import ALL_RECIPES, recipe

EPOCHS = 400
"""Most epochs: images that were seen so often have nothing left to teach."""

IN_EPOCHS = (
    "optim.warmup_epochs",
    "optim.hold_epochs",
    "optim.step_epochs",
    "train.small_epochs",
    "train.evaluate_epochs",
    "train.checkpoint_epochs",
)
"""What keeps its share of the training when there are more epochs."""

SCALED = ("train.batch_size", "train.epochs", *IN_EPOCHS)
"""What is scaled to the number of images unless it is given."""


def scale_to_images(config: Config, images: int, fields: Collection[str] = SCALED) -> Config:
    """A config with fewer images in a batch and more epochs, where a recipe meets few images.

    Args:
        config: begins with a recipe; one that does not is returned as it is.
        images: number of training images. With half as many as the recipe's own data set, or
            more, nothing changes.
        fields: what may change, out of SCALED.
    """
    if config.recipe not in ALL_RECIPES or not fields or config.optim.optimizer == "lbfgs":
        return config
    known = KNOWN.get(recipe(config.recipe).data.dataset)
    if known is None or images >= known.train // 2:
        return config
    train = config.train
    batch_size = train.batch_size
    if "train.batch_size" in fields:
        power = 2 ** int(math.log2(max(1, images // FEW_BATCHES)))
        batch_size = min(batch_size, max(SMALL_BATCH, power, train.accumulate))
    epochs = train.epochs
    # What is pretrained needs no more looks at fewer images.
    if "train.epochs" in fields and not isinstance(config.model, BackboneConfig):
        enough = math.ceil(FEW_STEPS / max(1, images // batch_size))
        epochs = max(epochs, min(EPOCHS, enough))
    now, share = fields_of(config), epochs / train.epochs
    longer = {name: _times(now[name], share) for name in IN_EPOCHS if name in fields and share > 1}
    return config.override({**longer, "train.batch_size": batch_size, "train.epochs": epochs})


def _times(value: float | tuple[float, ...], share: float) -> float | tuple[float, ...]:
    if isinstance(value, tuple):
        return tuple(round(share * each, 1) for each in value)
    return round(share * value) if isinstance(value, int) else round(share * value, 1)
