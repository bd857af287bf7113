"""What the input pipeline costs: from uint8 images to an augmented normalised batch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitlab.bench.measure import interleaved
from vitlab.config import AugmentConfig, Config
from vitlab.data import LabelledImages
from vitlab.data.batches import Batches, DeviceImages

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGES = 10_000
COMMON = AugmentConfig(crop_padding=4, flip="random", policy="randaugment")
"""What libraries have in common: a crop, a flip and RandAugment, 2 operations of magnitude 9."""

EACH = {
    "nothing but normalising": AugmentConfig(),
    "crop": AugmentConfig(crop_padding=4, crop_fill="reflect"),
    "resized crop": AugmentConfig(resized_crop=0.8),
    "flip": AugmentConfig(flip="random"),
    "RandAugment": AugmentConfig(policy="randaugment"),
    "TrivialAugment": AugmentConfig(policy="trivialaugment"),
    "erasing": AugmentConfig(erasing=0.25),
    "cutout": AugmentConfig(cutout=8),
    "MixUp": AugmentConfig(mixup=0.8),
    "CutMix": AugmentConfig(cutmix=1.0),
}
"""Each technique alone."""


def pipeline(config: Config, device: torch.device, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure a batch of the augmentation that libraries have in common.

    Returns:
        {"images_per_second": {"vitlab": {median, lowest, highest}}, "batch_size"}
    """
    size, calls = config.train.batch_size, {"vitlab": augmented_batches(config, COMMON, device)}
    timings = interleaved(calls, device=device, rounds=rounds, seconds=seconds)
    rates = {name: timing.rate(size) for name, timing in timings.items()}
    return {"batch_size": size, "images_per_second": rates}


def augmentations(
    config: Config, device: torch.device, rounds: int, seconds: float
) -> dict[str, Any]:
    """Measure a batch of every technique alone, and of the config's own augmentation.

    Returns:
        {"milliseconds_per_batch": {technique: median}, "batch_size"}
    """
    wanted = {**EACH, f"all of {config.recipe}": config.augment}
    calls = {name: augmented_batches(config, augment, device) for name, augment in wanted.items()}
    timings = interleaved(calls, device=device, rounds=rounds, seconds=seconds)
    return {
        "batch_size": config.train.batch_size,
        "milliseconds_per_batch": {name: 1e3 * t.median for name, t in timings.items()},
    }


def batches_growth(
    config: Config, device: torch.device, rounds: int, seconds: float
) -> dict[int, Any]:
    """Milliseconds that a batch takes, by the number of training images."""
    counts = (5_000, 50_000, 200_000)
    calls = {count: augmented_batches(config, config.augment, device, count) for count in counts}
    timings = interleaved(calls, device=device, rounds=rounds, seconds=seconds)
    return {count: {"milliseconds_per_batch": 1e3 * t.median} for count, t in timings.items()}


def noise(config: Config, count: int = IMAGES) -> LabelledImages:
    """Images of noise: the cost of augmenting them is that of any others."""
    data, rng = config.data, np.random.default_rng(0)
    assert data.image_size and data.channels and data.classes
    images = rng.integers(256, size=(count, *data.image_size, data.channels), dtype=np.uint8)
    labels = rng.integers(data.classes, size=count)
    return LabelledImages(images, labels, tuple(map(str, range(data.classes))))


def augmented_batches(
    config: Config, augment: AugmentConfig, device: torch.device, count: int = IMAGES
) -> Callable[[], Tensor]:
    """Batch after batch (B, C, H, W) of so many images under an augmentation."""
    images = DeviceImages(noise(config, count), np.arange(count), device)
    made = Batches(images, replace(config, augment=augment), MEAN, STD)
    steps = iter(range(10**9))
    return lambda: made.batch(next(steps))[0]
