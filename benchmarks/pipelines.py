"""The augmentation that libraries have in common, as torchvision's and kornia's users write it.

Every pipeline crops with 4 pixels of padding, flips, applies RandAugment with 2 operations of
magnitude 9, and normalises. torchvision works on one PIL image after another in the workers of a
DataLoader; kornia on batches, where all images of a batch get the same operation.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitlab.bench.batches import MEAN, STD
from vitlab.bench.measure import synchronize
from vitlab.data import LabelledImages
from vitlab.data.batches import DeviceImages
from vitlab.export.timm import declare_torchvision_operators

declare_torchvision_operators()

WORKERS = (0, 1, 2, 4, 8, 16)


class Pictures(Dataset):
    """PIL images through torchvision's transforms, one by one."""

    def __init__(self, examples: LabelledImages):
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


def loader(examples: LabelledImages, size: int, workers: int) -> Iterator[Tensor]:
    """Epoch after epoch of a DataLoader as its documentation advises."""
    batches = DataLoader(
        Pictures(examples),
        batch_size=size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )
    while True:
        yield from batches


def torchvision(
    examples: LabelledImages, size: int, device: torch.device
) -> tuple[Callable[[], Tensor], int]:
    """Batches of torchvision, at the worker count, up to the number of cores, that is fastest."""
    rates = {}
    for workers in (count for count in WORKERS if count <= (os.cpu_count() or 1)):
        batches = loader(examples, size, workers)
        next(batches)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < 2:
            next(batches).to(device, non_blocking=True)
            count += 1
        synchronize(device)
        rates[workers] = count / (time.perf_counter() - start)
        del batches
    best = max(rates, key=lambda workers: rates[workers])
    fastest = loader(examples, size, best)
    return lambda: next(fastest).to(device, non_blocking=True), best


def kornia(examples: LabelledImages, size: int, device: torch.device) -> Callable[[], Tensor]:
    """Batches of kornia."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kornia.augmentation as K  # pyright: ignore[reportMissingImports]

    transform = torch.nn.Sequential(
        K.RandomCrop(examples.images.shape[1:3], padding=4),
        K.RandomHorizontalFlip(),
        K.auto.RandAugment(2, 9),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    ).to(device)
    images = DeviceImages(examples, np.arange(len(examples.labels)), device)
    rng = np.random.default_rng(0)

    def batch() -> Tensor:
        index = rng.integers(len(images), size=size)
        return transform(images[index].float() / 255)

    return batch
