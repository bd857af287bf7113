"""Training images and labels, changed at random: batched tensor code on any device.

Randomness is addressed, never streamed. Every technique draws its own numbers from the seed,
the step and its own number, on the CPU and with numpy. So equal keys give equal batches, on a CPU
as on a GPU; switching one technique on changes nothing that another draws; and torch's global
generator stays where it was. Only the drawn numbers travel to the device, where the pixels are
changed without waiting for it.

The images of several batches may be changed at once, each by its own batch's numbers: launching a
thousand small operations takes a GPU longer than running them.

Shapes: B images in a batch, N in all batches, C channels, H rows, W columns, K classes.
"""

import enum
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitlab.config import AugmentConfig
from vitlab.data.operations import OPERATIONS, STRENGTHS, apply, magnitudes
from vitlab.device import to_device


@enum.unique
class Technique(enum.IntEnum):
    """What draws random numbers here. A number is part of every result: never give it away.

    They start at 1, because numpy reads [seed, step] and [seed, step, 0] as the same address.
    """

    CROP = 1
    RESIZED_CROP = 2
    FLIP = 3
    POLICY = 4
    ERASING = 5
    CUTOUT = 6
    MIX = 7


@dataclass(frozen=True)
class RngKey:
    """The address of all random numbers of one batch."""

    seed: int
    """The training seed."""
    step: int
    """Steps since the start of the run."""
    epoch: int
    """Passes over the training images completed so far."""
    index: np.ndarray
    """Place in the training set of each image of the batch: int64 (B,)."""
    size: int
    """Number of training images."""

    def rng(self, technique: Technique) -> np.random.Generator:
        """The random numbers of one technique for this batch."""
        return np.random.default_rng([self.seed, self.step, technique])


class BatchRng:
    """The random numbers of one technique for the images of several batches, one after another.

    Args:
        rngs: one generator for each batch.
        counts: images of each batch.
    """

    def __init__(self, rngs: Sequence[np.random.Generator], counts: Sequence[int]):
        self.batches = list(zip(rngs, counts, strict=True))

    @classmethod
    def of(cls, keys: Sequence[RngKey], technique: Technique) -> "BatchRng":
        """The random numbers of a technique for the batches of some keys."""
        return cls([key.rng(technique) for key in keys], [len(key.index) for key in keys])

    def _draw(
        self, draw: Callable[[np.random.Generator, int], np.ndarray], axis: int = 0
    ) -> np.ndarray:
        """Draw for each batch by draw(rng, B), and join what comes along the axis of images."""
        return np.concatenate([draw(rng, count) for rng, count in self.batches], axis)

    def integers(self, high: int, rows: int | None = None) -> np.ndarray:
        """From 0 to below `high`: int64 (N,), or (rows, N)."""
        if rows is None:
            return self._draw(lambda rng, count: rng.integers(high, size=count))
        return self._draw(lambda rng, count: rng.integers(high, size=(rows, count)), axis=1)

    def random(self) -> np.ndarray:
        """From 0 to below 1, one per image: float64 (N,)."""
        return self._draw(lambda rng, count: rng.random(count))

    def uniform(self, low: float, high: float, each: tuple[int, ...] = ()) -> np.ndarray:
        """From `low` to below `high`, a shape of them per image: float64 (N, *each)."""
        return self._draw(lambda rng, count: rng.uniform(low, high, (count, *each)))

    def noise(self, chosen: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """From N(0, 1), a shape of them per chosen image (N,) bool: float32 (chosen, *shape)."""
        # Millions of numbers for a block of large batches, so that every core draws some.
        ends = np.cumsum([count for _, count in self.batches])
        counts = [int(part.sum()) for part in np.split(chosen, ends[:-1])]
        with ThreadPoolExecutor() as pool:
            drawn = pool.map(
                lambda batch, count: batch[0].standard_normal((count, *shape), np.float32),
                self.batches,
                counts,
            )
            return np.concatenate(list(drawn))


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Map uint8 images (B, C, H, W) to float32: (pixel / 255 - mean) / std, per channel."""
    scale, shift = _line(tuple(mean), tuple(std), images.device)
    return torch.addcmul(shift, images.float(), scale)


@lru_cache(maxsize=8)
def _line(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Tensor:
    """Scale and shift of `normalize`, (2, C, 1, 1): the same at every step."""
    line = np.stack([1 / (255 * np.array(std)), -np.array(mean) / np.array(std)])
    with torch.inference_mode(False):  # whoever comes later may want gradients
        return to_device(line.astype(np.float32), device)[:, :, None, None]


def augment(
    images: Tensor,
    labels: Tensor,
    config: AugmentConfig,
    keys: Sequence[RngKey],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    classes: int,
) -> tuple[Tensor, Tensor]:
    """Map uint8 images (N, C, H, W) and labels, (N,) or (N, K), to float32 images and targets.

    Targets are (N, K). With everything off this is `normalize` and one-hot or multi-hot labels.
    The arguments stay unchanged.

    Args:
        keys: one for each of the batches that the images are, one after another.
    """
    rng = partial(BatchRng.of, keys)

    if config.crop_padding:
        images = crop(images, config.crop_padding, config.crop_fill, rng(Technique.CROP))
    if config.resized_crop:
        images = resized_crop(images, config.resized_crop, rng(Technique.RESIZED_CROP))
    if config.flip != "none":
        images = flip(images, np.concatenate([_flipped(config.flip, key) for key in keys]))
    if config.policy != "none":
        images = _policy(images, config, rng(Technique.POLICY))
    images = normalize(images, mean, std)
    if config.erasing:
        images = erase(images, config.erasing, config.erasing_fill, rng(Technique.ERASING))
    if config.cutout:
        images = cutout(images, config.cutout, rng(Technique.CUTOUT))
    if config.mixes:
        return mix(images, labels, config, rng(Technique.MIX), classes)
    return images, targets(labels, labels, 1.0, config.label_smoothing, classes)


def targets(
    labels: Tensor,
    partner_labels: Tensor,
    lam: float | np.ndarray,
    smoothing: float,
    classes: int,
) -> Tensor:
    """Map the labels (N,) of images and of what is mixed into them to targets (N, K).

    An image's own label weighs `lam`, one number or (N,), its partner's 1 - `lam`; then a fraction
    `smoothing` is spread evenly over all classes. Rows sum to 1. Of multi-hot labels (N, K) each is
    a question of its own, whose fraction is spread over its two answers. Mixing and smoothing meet
    here and nowhere else, so the loss must not smooth again.
    """
    each = torch.arange(classes, device=labels.device)
    answers = 2 if labels.ndim == 2 else classes
    own, partner = (
        (one if one.ndim == 2 else one[:, None] == each).float() for one in (labels, partner_labels)
    )  # (N, K)
    fractions = np.empty((2, len(labels)), np.float32)
    fractions[0], fractions[1] = lam, 1 - np.asarray(lam)
    weights = to_device(fractions, labels.device)[:, :, None]  # (2, N, 1)
    mixed = weights[0] * own + weights[1] * partner
    return (1 - smoothing) * mixed + smoothing / answers


def crop(images: Tensor, padding: int, fill: str, rng: BatchRng) -> Tensor:
    """Pad all four sides with `fill` (zero or reflect) and cut the size back out at random."""
    N, C, H, W = images.shape
    corners = rng.integers(2 * padding + 1, rows=2)
    top, left = to_device(corners[:, :, None], images.device)
    rows = top + torch.arange(H, device=images.device)  # (N, H)
    columns = left + torch.arange(W, device=images.device)  # (N, W)
    if fill == "zero":
        images = F.pad(images, (padding,) * 4)
    else:
        rows, columns = _reflect(rows - padding, H), _reflect(columns - padding, W)
    pixels = rows[:, :, None] * images.shape[3] + columns[:, None, :]  # (N, H, W)
    pixels = pixels.view(N, 1, H * W).expand(-1, C, -1)
    return images.flatten(2).gather(2, pixels).view(N, C, H, W)


def _reflect(places: Tensor, side: int) -> Tensor:
    """Fold places outside 0..side-1 back in, without repeating the border pixel."""
    period = max(2 * (side - 1), 1)
    places = places % period
    return torch.minimum(places, period - places)


def resized_crop(images: Tensor, least_area: float, rng: BatchRng) -> Tensor:
    """Cut out `least_area`, a fraction, to all of the area and bring it back to size, bilinearly.

    The ratio of width to height is 0.9 to 1.1 times the image's own, as far as the cut fits.
    """
    _, _, H, W = images.shape
    area = rng.uniform(least_area, 1)
    widest = np.log(np.minimum(1.1, 1 / area))
    narrowest = np.log(np.maximum(0.9, area))
    ratio = np.exp(narrowest + rng.random() * (widest - narrowest))
    rows = _resampling(H, np.sqrt(area / ratio), rng.random(), images.device)
    columns = _resampling(W, np.sqrt(area * ratio), rng.random(), images.device)
    resized = rows[:, None] @ images.float() @ columns[:, None].mT
    return resized.round_().to(torch.uint8)


def _resampling(side: int, scale: np.ndarray, place: np.ndarray, device: torch.device) -> Tensor:
    """Matrices (N, side, side) that stretch a part of a line over the whole line."""
    length = np.clip(np.round(side * scale), 1, side)[:, None]
    start = np.floor(place[:, None] * (side - length + 1))
    # Pixel i of the result looks at this place; outside the cut, at the cut's last pixel.
    place = start - 0.5 + (np.arange(side) + 0.5) * length / side
    place = np.clip(place, start, start + length - 1).astype(np.float32)
    distance = to_device(place, device)[:, :, None] - torch.arange(side, device=device)
    return (1 - distance.abs()).clamp_(min=0)


def flip(images: Tensor, flipped: np.ndarray) -> Tensor:
    """Mirror left and right the images whose entry in `flipped` (N,) is true."""
    chosen = to_device(flipped, images.device).view(-1, 1, 1, 1)
    return torch.where(chosen, images.flip(3), images)


def _flipped(kind: str, key: RngKey) -> np.ndarray:
    """Which images of the batch are mirrored: bool (B,).

    Alternating: a coin per training image, thrown once, decides the even epochs, and the odd
    epochs show the other side, so two epochs always show both (Jordan, 2024).
    """
    if kind == "random":
        return key.rng(Technique.FLIP).integers(2, size=len(key.index), dtype=bool)
    return _coins(key.seed, key.size)[key.index] ^ bool(key.epoch % 2)


@lru_cache(maxsize=2)
def _coins(seed: int, size: int) -> np.ndarray:
    """A coin per training image: bool (N,)."""
    first = np.random.default_rng([seed, 0, Technique.FLIP])
    return first.integers(2, size=size, dtype=bool)


def _policy(images: Tensor, config: AugmentConfig, rng: BatchRng) -> Tensor:
    """Apply operations drawn per image: several of one strength, or one of any strength."""
    _, _, H, W = images.shape
    trivial = config.policy == "trivialaugment"
    rounds = 1 if trivial else config.policy_operations

    choice = rng.integers(len(OPERATIONS), rounds)  # (rounds, N), as the two below
    direction = rng.integers(2, rounds)
    strength = rng.integers(STRENGTHS, rounds) if trivial else config.policy_magnitude
    magnitude = magnitudes(config.policy, H, W)[choice, direction, strength]
    for operation, amount in zip(choice, magnitude, strict=True):
        images = apply(images, operation, amount)
    return images


def erase(images: Tensor, probability: float, fill: str, rng: BatchRng) -> Tensor:
    """Overwrite a rectangle of some normalised images (Zhong, 2020).

    `noise` fills it with N(0, 1), `zero` with 0, the mean colour.

    It covers 2 to 33 % of the area, with a ratio of height to width of 0.3 to 3.3. Ten are
    drawn per image and the first that fits is used; where none fits, the image stays.
    """
    N, _, H, W = images.shape
    chosen = rng.random() < probability
    area = rng.uniform(0.02, 0.33, (10,)) * H * W
    ratio = np.exp(rng.uniform(math.log(0.3), math.log(3.3), (10,)))
    height, width = np.round(np.sqrt(area * ratio)), np.round(np.sqrt(area / ratio))
    fits = (height > 0) & (height <= H) & (width > 0) & (width <= W)
    first = np.arange(N), fits.argmax(axis=1)
    height, width = height[first], width[first]
    top = np.floor(rng.random() * (H - height + 1))
    left = np.floor(rng.random() * (W - width + 1))
    chosen &= fits[first]
    places = np.flatnonzero(chosen)
    where = to_device(places, images.device)
    part = images[where]
    box = _inside(part, top[places], left[places], height[places], width[places])
    if fill == "zero":
        return images.index_copy(0, where, part.masked_fill(box, 0))
    noise = to_device(rng.noise(chosen, part.shape[1:]), images.device)
    return images.index_copy(0, where, torch.where(box, noise, part))


def cutout(images: Tensor, side: int, rng: BatchRng) -> Tensor:
    """Set a square of normalised images to 0, the mean colour (DeVries, 2017).

    Its centre is any pixel, so the square may hang over the border.
    """
    N, _, H, W = images.shape
    top = rng.integers(H) - side // 2
    left = rng.integers(W) - side // 2
    sides = np.full(N, side)
    return images.masked_fill(_inside(images, top, left, sides, sides), 0)


def _inside(
    images: Tensor, top: np.ndarray, left: np.ndarray, height: np.ndarray, width: np.ndarray
) -> Tensor:
    """True inside one rectangle per image: bool (N, 1, H, W), from four arrays (N,)."""
    edges = np.stack([top, top + height, left, left + width]).astype(np.int64)
    top_edge, bottom_edge, left_edge, right_edge = to_device(edges, images.device)[:, :, None]
    row = torch.arange(images.shape[2], device=images.device)
    column = torch.arange(images.shape[3], device=images.device)
    rows = (top_edge <= row) & (row < bottom_edge)  # (N, H)
    columns = (left_edge <= column) & (column < right_edge)  # (N, W)
    return rows[:, None, :, None] & columns[:, None, None, :]


def mix(
    images: Tensor, labels: Tensor, config: AugmentConfig, rng: BatchRng, classes: int
) -> tuple[Tensor, Tensor]:
    """Mix each image with another of its batch, by MixUp (Zhang, 2018) or CutMix (Yun, 2019).

    The ratio comes from a Beta distribution, once per batch; CutMix's is then corrected to
    the pixels that were really replaced.
    """
    N, _, H, W = images.shape
    partner, own = np.empty(N, np.int64), np.empty(N)
    faded = np.zeros(N, np.float32)
    edges = np.zeros((4, N))
    end = 0
    for generator, count in rng.batches:
        batch, end = slice(end, end + count), end + count
        partner[batch] = batch.start + generator.permutation(count)
        y, x = generator.integers(H), generator.integers(W)
        coin = generator.random() < 0.5
        cuts = config.cutmix > 0 and (config.mixup == 0 or coin)
        alpha = config.cutmix if cuts else config.mixup
        lam = generator.beta(alpha, alpha)
        if cuts:
            height, width = int(H * math.sqrt(1 - lam)), int(W * math.sqrt(1 - lam))
            top, left = max(0, y - height // 2), max(0, x - width // 2)
            bottom, right = min(H, y - height // 2 + height), min(W, x - width // 2 + width)
            lam = 1 - (bottom - top) * (right - left) / (H * W)
            edges[:, batch] = np.array([[top, left, bottom - top, right - left]]).T
        else:
            faded[batch] = 1 - lam
        own[batch] = lam
    others = images[where := to_device(partner, images.device)]
    if faded.any():
        weight = to_device(faded, images.device).view(-1, 1, 1, 1)
        mixed = images.lerp(others, weight)
    else:
        mixed = images
    if edges.any():
        mixed = torch.where(_inside(images, *edges), others, mixed)
    return mixed, targets(labels, labels[where], own, config.label_smoothing, classes)
