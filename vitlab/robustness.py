"""What a model makes of corrupted images, and of images attacked against it.

    B, N images   C channels   H rows   W columns

Corruptions are those of data/corrupt.py. The attacks move every pixel by at most EPSILON, white
being 1, knowing the model and the true class, and stay inside what a pixel can be.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitlab.data.corrupt import SEVERITIES, STRENGTHS, corrupt
from vitlab.formatting import count
from vitlab.inference import TrainedModel, at_once
from vitlab.preprocessing import to_tensor
from vitlab.progress import tracked

EPSILON = 2 / 255

BATCH = 100
"""Images attacked at once, or fewer: not as many as classified, because gradients need memory."""

START = 2
"""Number of an attack's start among what is drawn for an image; see data.corrupt.NOISE."""


class Attack(NamedTuple):
    """Steps along the sign of the loss's gradient, each of a length in pixel values of 0..1."""

    steps: int
    length: float
    random_start: bool


ATTACKS = {
    "fgsm": Attack(steps=1, length=EPSILON, random_start=False),
    "pgd": Attack(steps=10, length=EPSILON / 4, random_start=True),
}
"""One step from the image (Goodfellow et al., 2015), ten from near it (Madry et al., 2018)."""


def predictions(
    model: TrainedModel,
    images: np.ndarray,
    labels: np.ndarray,
    places: np.ndarray,
    *,
    quiet: bool = False,
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Classify images as they are, corrupted and attacked.

    Args:
        images: uint8 (N, H, W, C).
        labels: (N,), which the attacks know.
        places: number of each image in its data set, (N,): the address of its random numbers.
        quiet: show no progress.

    Yields:
        Condition, severity (0 where there is but one) and predicted classes (N,): first "clean",
        then every corruption at severities 1 to 5, then every attack.
    """

    def classes(pixels: Tensor) -> np.ndarray:
        return model(pixels).argmax(1).cpu().numpy()

    def tensor(images: np.ndarray) -> Tensor:
        return to_tensor(images).to(model.device)

    yield "clean", 0, classes(tensor(images))
    corruptions = list(itertools.product(STRENGTHS, SEVERITIES))
    for kind, severity in tracked(corruptions, "corruptions", quiet=quiet):
        yield kind, severity, classes(tensor(corrupt(images, kind, severity, places)))
    clean, true = tensor(images) / 255, torch.from_numpy(labels).to(model.device)
    for name, attack in ATTACKS.items():
        yield name, 0, classes(255 * attacked(model, clean, true, places, attack, quiet=quiet))


def attacked(
    model: TrainedModel,
    images: Tensor,
    labels: Tensor,
    places: np.ndarray,
    attack: Attack,
    *,
    quiet: bool = False,
) -> Tensor:
    """Move images (N, C, H, W) of values 0..1 to where the model errs most, EPSILON at most."""
    start = images
    if attack.random_start:
        rngs = [np.random.default_rng([int(place), START]) for place in places]
        moves = [rng.uniform(-EPSILON, EPSILON, images[0].shape) for rng in rngs]
        start = images + torch.from_numpy(np.array(moves, np.float32)).to(images.device)
    shape = (images.shape[1], *model.preprocessing.input_size)
    size = at_once(model.module, shape, BATCH, gradients=True)
    parts = list(zip(images.split(size), start.split(size), labels.split(size), strict=True))
    words = f"attack of {count(attack.steps, 'step')}"
    return torch.cat([_ascend(model, *part, attack) for part in tracked(parts, words, quiet=quiet)])


def _ascend(
    model: TrainedModel, images: Tensor, start: Tensor, labels: Tensor, attack: Attack
) -> Tensor:
    """Follow the sign of the loss's gradient from `start`, within EPSILON of the images."""
    low, high = (images - EPSILON).clamp(min=0), (images + EPSILON).clamp(max=1)
    pixels = start.clamp(low, high)
    for _ in range(attack.steps):
        pixels = pixels.detach().requires_grad_()
        logits = model.module(model.preprocessing(255 * pixels))
        loss = F.cross_entropy(logits.float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, pixels)
        pixels = (pixels + attack.length * gradient.sign()).clamp(low, high)
    return pixels.detach()
