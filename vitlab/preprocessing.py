"""From pictures of any kind to what enters a model, as its training saw them.

files, bytes, arrays -> uint8 images (N, H, W, C) -> normalised tensors (N, C, height, width)

H, W height and width of the run's images   C channels
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitlab.data.arrays import check_images
from vitlab.data.augment import normalize
from vitlab.data.batches import resize
from vitlab.data.images import MAX_PIXELS, Fit, convert, decode
from vitlab.errors import DataError, RunError
from vitlab.run import Checkpoint, Run

Picture = str | os.PathLike[str] | bytes | np.ndarray
Pictures = Picture | Sequence[Picture]
"""A picture's file or its bytes; images uint8 (N, H, W, C) or a single (H, W, C); or a sequence."""


def preprocess(
    images: Tensor, mean: Sequence[float], std: Sequence[float], size: tuple[int, int]
) -> Tensor:
    """From every number of a pixel the mean of its channel over the training images is taken, and
    what is left is divided by the standard deviation. Numbers of one size around 0 are what
    gradient descent learns from fastest (LeCun et al., 1998).

    Maps uint8 images (N, C, H, W) to what enters a model, of `size`.
    """
    return resize(normalize(images, mean, std), size)


def to_tensor(images: np.ndarray) -> Tensor:
    """Images (N, H, W, C) as torch wants them, (N, C, H, W), in memory as training has them.

    The last bits of a convolution depend on that order, which is why grey images are copied too.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return tensor.clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class Preprocessing:
    """What a model needs done to a picture before it can answer."""

    image_size: tuple[int, int]
    """Height and width in pixels that every picture is brought to."""
    channels: int
    """1 for grey, 3 for colour."""
    fit: Fit
    """How a picture of another shape comes to `image_size`."""
    mean: tuple[float, ...]
    """Mean per channel of the training images, in 0..1."""
    std: tuple[float, ...]
    """Standard deviation per channel of the training images, in 0..1."""
    input_size: tuple[int, int]
    """Height and width of what enters the model: `image_size`, but for a run of small images that
    was left before its last epochs."""
    grey_range: tuple[int, int] | None = None
    """The values of 16-bit pictures that become 0 and 255; None for all there are."""
    max_pixels: int = MAX_PIXELS
    """Most pixels that a picture file may have."""

    @classmethod
    def of(cls, run: Run, checkpoint: Checkpoint) -> "Preprocessing":
        """What the model of a run's checkpoint needs."""
        config, statistics = run.config.data, run.provenance["data"]
        assert config.image_size and config.channels, "a run's config is resolved"
        grey_range = statistics.get("grey_range")
        return cls(
            image_size=config.image_size,
            channels=config.channels,
            fit=config.fit,
            mean=tuple(statistics["mean"]),
            std=tuple(statistics["std"]),
            input_size=checkpoint.image_size,
            grey_range=(grey_range[0], grey_range[1]) if grey_range else None,
            max_pixels=config.max_pixels,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Read what an export stored, its fields among others; RunError if they make no sense."""
        known = {field.name for field in fields(cls)}
        made: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in known
        }
        try:
            found = cls(**made)
            sound = len(found.mean) == len(found.std) == found.channels
        except TypeError as error:
            raise RunError(f"not the description of a vitlab model: {error}") from error
        if not sound:
            raise RunError("not the description of a vitlab model: its lengths disagree")
        return found

    def read(self, picture: str | os.PathLike[str] | bytes) -> np.ndarray:
        """Read a picture of any size as uint8 (H, W, C); DataError says why it cannot be read."""
        source = picture if isinstance(picture, bytes) else Path(picture)
        form = self.fit, self.max_pixels, self.grey_range
        return decode(source, self.image_size, self.channels, *form)

    def images(self, pictures: Pictures) -> np.ndarray:
        """Bring pictures to uint8 (N, H, W, C) of the model's size and channels.

        Raises DataError for what cannot be read, and for arrays that are no such images.
        """
        if isinstance(pictures, str | os.PathLike | bytes):
            return self.read(pictures)[None]
        if not hasattr(pictures, "__array__"):
            if not len(pictures):
                raise DataError("there are no pictures")
            return np.concatenate([self.images(picture) for picture in pictures])
        array = np.asarray(pictures)
        if array.ndim == 3 and array.shape[-1] == self.channels:
            array = array[None]
        images = check_images(array)
        if images.shape[-1] != self.channels:
            raise DataError(
                f"images of shape {array.shape} do not fit: expected uint8 (N, H, W, "
                f"{self.channels})"
            )
        if images.shape[1:3] == self.image_size:
            return images
        form = self.image_size, self.channels, self.fit
        return np.stack([convert(image, *form) for image in images])

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (N, C, H, W) to what enters the model, (N, C, height, width)."""
        return preprocess(images, self.mean, self.std, self.input_size)
