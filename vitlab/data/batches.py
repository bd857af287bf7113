"""Training batches: `batch(step)` is a pure function of data, config, seed and step.

Nothing is streamed and nothing is shuffled in place, so resuming needs a step number and
no loader state, and two arms of a study with one seed see the same images. The whole data
set lies on the device as uint8; a set too large for that stays where it is, which is a file for
images that were decoded, and is gathered batch by batch.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitlab.config import Config
from vitlab.data.augment import RngKey, augment
from vitlab.data.labelled import LabelledImages, Subset
from vitlab.data.labels import places_by_class
from vitlab.data.limits import RESIDENT, host_memory
from vitlab.data.sampling import balanced_order, weighted_order
from vitlab.device import to_device

ORDER = 100
"""Number of the order among what rng from a seed, beside the techniques of augment.py."""

BLOCK_STEPS, BLOCK_BYTES = 16, 1 << 28
"""Steps whose batches are made at once on a GPU, fewer where their images would take more bytes."""

RESIDENT_SHARE = 0.25
"""Share of a device's memory that images may take before they stay where they are: on a CPU, which
reads them as fast from there, no more than RESIDENT either."""

COPIED = 1 << 26
"""Bytes of images that are gathered at once: a set is never there a third time."""


class DeviceImages:
    """uint8 images (N, C, H, W) and labels (N,) or (N, K) of a set, by index onto a device.

    Labels are on the host as well. Weights (N,), where there are any, say how often an image is
    shown, and stay there.
    """

    def __init__(self, examples: LabelledImages, index: np.ndarray, device: torch.device):
        self._host = Subset(examples.images, index)
        self.device = device
        self.host_labels = examples.labels[index]
        self.labels = torch.from_numpy(self.host_labels).to(device)
        self.weights = None if examples.weights is None else examples.weights[index]
        room = RESIDENT_SHARE * memory(device)
        if device.type == "cpu":
            room = min(room, RESIDENT)
        resident = math.prod(self._host.shape) < room
        self._resident = self._fetch(np.arange(len(index))) if resident else None

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, index: np.ndarray | slice) -> Tensor:
        """Images (B, C, H, W) uint8 on the device."""
        if self._resident is None:
            return self._fetch(np.arange(len(self))[index])
        if isinstance(index, slice):
            return self._resident[index]
        return self._resident[to_device(index, self.device)]

    def _fetch(self, index: np.ndarray) -> Tensor:
        height, width, channels = self._host.shape[1:]
        shape = (len(index), channels, height, width)
        images = torch.empty(shape, dtype=torch.uint8, device=self.device)
        count = max(1, COPIED // (height * width * channels))
        for start in range(0, len(index), count):
            part = to_device(self._host[index[start : start + count]], self.device)
            images[start : start + count] = part.permute(0, 3, 1, 2)
        return images


def memory(device: torch.device) -> int:
    """Bytes of memory of a GPU, or else those that this process may have of the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return host_memory()


def block_steps(config: Config, device: torch.device) -> int:
    """Steps whose batches are made at once: one on a CPU, where more would gain nothing."""
    if device.type == "cpu":
        return 1
    data = config.data
    assert data.image_size and data.channels
    batch = 4 * math.prod(data.image_size) * data.channels * config.train.batch_size
    return max(1, min(BLOCK_STEPS, BLOCK_BYTES // batch))


class Batches:
    """The steps of a training.

    Args:
        images: the training images.
        config: a resolved config.
        mean, std: statistics of the training images per channel, in 0..1.
    """

    def __init__(
        self, images: DeviceImages, config: Config, mean: tuple[float, ...], std: tuple[float, ...]
    ):
        self.images = images
        self.config = config
        self.mean, self.std = mean, std
        rounding = math.floor if config.train.drop_last else math.ceil
        self.steps_per_epoch = rounding(len(images) / config.train.batch_size)
        self.steps = self.steps_per_epoch * config.train.epochs
        labels = images.host_labels
        self._by_class = places_by_class(labels)
        self._weights = images.weights
        if self._weights is not None and config.train.sampler == "balanced":
            self._weights = self._weights / np.bincount(labels, self._weights)[labels]
        # The epoch at hand is asked for at each of its steps.
        self._order = lru_cache(maxsize=1)(self._draw_order)
        self.block = block_steps(config, images.device)
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    def size(self, step: int) -> tuple[int, int]:
        """Height and width in pixels at a step."""
        train, data = self.config.train, self.config.data
        small = step < train.small_epochs * self.steps_per_epoch
        size = train.small_size if small else data.image_size
        assert size is not None
        return size

    def index(self, step: int) -> np.ndarray:
        """Places of a step's images in the training set, (B,) int64."""
        epoch, place = divmod(step, self.steps_per_epoch)
        width = self.config.train.batch_size
        return self._order(epoch)[place * width : (place + 1) * width]

    def _draw_order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.config.train.seed, epoch, ORDER])
        if self._weights is not None:
            return weighted_order(self._weights, rng)
        if self.config.train.sampler == "balanced":
            return balanced_order(self._by_class, rng)
        return rng.permutation(len(self.images))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Augmented normalised images (B, C, H, W) and soft targets (B, K) of a step."""
        if step not in self._made:
            # Blocks begin at multiples of their length, so that a resumed run makes the same.
            first = step - step % self.block
            block = range(first, first + self.block)
            steps = [one for one in block if self.size(one) == self.size(step)]
            self._made = {}  # its memory serves again
            self._made = dict(zip(steps, self._make(steps), strict=True))
        return self._made[step]

    def _make(self, steps: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of steps of one image size."""
        keys = [
            RngKey(
                seed=self.config.train.seed,
                step=step,
                epoch=step // self.steps_per_epoch,
                index=self.index(step),
                size=len(self.images),
            )
            for step in steps
        ]
        index = np.concatenate([key.index for key in keys])
        assert self.config.data.classes is not None
        images, targets = augment(
            self.images[index],
            self.images.labels[to_device(index, self.images.device)],
            self.config.augment,
            keys,
            mean=self.mean,
            std=self.std,
            classes=self.config.data.classes,
        )
        counts = [len(key.index) for key in keys]
        images = resize(images, self.size(steps[0]))
        return zip(images.split(counts), targets.split(counts), strict=True)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring float images (B, C, H, W) to another height and width, smoothly."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
