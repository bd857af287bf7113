"""From uint8 images to an augmented normalised batch: ours, torchvision's and kornia's.

Every pipeline crops with 4 pixels of padding, flips, applies RandAugment with 2 operations of
magnitude 9, and normalises. torchvision works on one PIL image after another in the workers of
a DataLoader, as its users do; kornia on batches, where all images of a batch get the same
operation. Ours draws per image.
"""

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitlab.bench.measure import interleaved, synchronize
from vitlab.config import AugmentConfig, Config
from vitlab.data import LabelledImages
from vitlab.data.batches import Batches, DeviceImages
from vitlab.export.timm import declare_torchvision_operators

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WORKERS = (0, 1, 2, 4, 8, 16)
IMAGES = 10_000
COMMON = AugmentConfig(crop_padding=4, flip="random", policy="randaugment")

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
    """Measure the input pipeline of training beside torchvision's and kornia's.

    Returns:
        {"images_per_second": {name: ...}, "ratios": {peer: times faster ours is}, "missing",
        "torchvision_workers": the count that was best}
    """
    size = config.train.batch_size
    examples = noise(config)
    calls: dict[str, Callable[[], object]] = {"vitlab": ours(config, COMMON, examples, device)}
    absent, workers = {}, None
    if importlib.util.find_spec("torchvision"):
        workers = best_workers(examples, size, device)
        batches = endless(loader(examples, size, workers))
        calls["torchvision"] = lambda: next(batches).to(device, non_blocking=True)
    else:
        absent["torchvision"] = "torchvision"
    if importlib.util.find_spec("kornia"):
        calls["kornia"] = kornia(config, examples, device)
    else:
        absent["kornia"] = "kornia"
    timings = interleaved(calls, device=device, rounds=rounds, seconds=seconds)
    return {
        "batch_size": size,
        "images_per_second": {name: timing.rate(size) for name, timing in timings.items()},
        "ratios": {
            name: timings["vitlab"].ratio(timing)
            for name, timing in timings.items()
            if name != "vitlab"
        },
        "missing": absent,
        "torchvision_workers": workers,
    }


def augmentations(
    config: Config, device: torch.device, rounds: int, seconds: float
) -> dict[str, Any]:
    """Measure a batch of every technique alone, and of the config's own augmentation.

    Returns:
        {"milliseconds_per_batch": {technique: median}, "batch_size"}
    """
    examples = noise(config)
    wanted = {**EACH, f"all of {config.recipe}": config.augment}
    calls = {name: ours(config, augment, examples, device) for name, augment in wanted.items()}
    timings = interleaved(calls, device=device, rounds=rounds, seconds=seconds)
    return {
        "batch_size": config.train.batch_size,
        "milliseconds_per_batch": {name: 1e3 * t.median for name, t in timings.items()},
    }


def noise(config: Config) -> LabelledImages:
    """Images of noise: the cost of augmenting them is that of any others."""
    data = config.data
    assert data.image_size and data.channels and data.classes
    draws = np.random.default_rng(0)
    images = draws.integers(256, size=(IMAGES, *data.image_size, data.channels), dtype=np.uint8)
    labels = draws.integers(data.classes, size=IMAGES)
    return LabelledImages(images, labels, tuple(map(str, range(data.classes))))


def ours(
    config: Config, augment: AugmentConfig, examples: LabelledImages, device: torch.device
) -> Callable[[], Tensor]:
    """Batch after batch of vitlab."""
    from dataclasses import replace

    images = DeviceImages(examples, np.arange(len(examples.labels)), device)
    batches = Batches(images, replace(config, augment=augment), MEAN, STD)
    steps = iter(range(10**9))
    return lambda: batches.batch(next(steps))[0]


class Pictures(Dataset):
    """PIL images through torchvision's transforms, one by one."""

    def __init__(self, examples: LabelledImages):
        declare_torchvision_operators()
        from torchvision import transforms as T  # pyright: ignore[reportMissingImports]

        self.images = examples.images
        self.transform = T.Compose(
            [
                T.ToPILImage(),
                T.RandomCrop(self.images.shape[1:3], padding=4),
                T.RandomHorizontalFlip(),
                T.RandAugment(2, 9),
                T.ToTensor(),
                T.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.images[index])


def loader(examples: LabelledImages, size: int, workers: int) -> DataLoader:
    """A DataLoader as its documentation advises."""
    return DataLoader(
        Pictures(examples),
        batch_size=size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )


def endless(batches: DataLoader) -> Iterator[Tensor]:
    """Epoch after epoch of a loader."""
    while True:
        yield from batches


def best_workers(examples: LabelledImages, size: int, device: torch.device) -> int:
    """The worker count, up to the number of cores, with which torchvision is fastest here."""
    import os
    import time

    speed = {}
    for workers in (count for count in WORKERS if count <= (os.cpu_count() or 1)):
        batches = endless(loader(examples, size, workers))
        next(batches)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < 2:
            next(batches).to(device, non_blocking=True)
            count += 1
        synchronize(device)
        speed[workers] = count / (time.perf_counter() - start)
        del batches
    return max(speed, key=lambda workers: speed[workers])


def kornia(config: Config, examples: LabelledImages, device: torch.device) -> Callable[[], Tensor]:
    """Batch after batch of kornia."""
    declare_torchvision_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kornia.augmentation as K  # pyright: ignore[reportMissingImports]

    assert config.data.image_size is not None
    transform = torch.nn.Sequential(
        K.RandomCrop(config.data.image_size, padding=4),
        K.RandomHorizontalFlip(),
        K.auto.RandAugment(2, 9),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    ).to(device)
    images = DeviceImages(examples, np.arange(len(examples.labels)), device)
    draws = np.random.default_rng(0)

    def batch() -> Tensor:
        index = draws.integers(len(images), size=config.train.batch_size)
        return transform(images[index].float() / 255)

    return batch
