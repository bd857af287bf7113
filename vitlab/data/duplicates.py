"""Near-duplicates between two sets of images, or within one: what makes an accuracy look too good.

Two images are as far apart as 1 minus the correlation of their sketches. A sketch is the image
shrunk to 8x8 by area, less its own mean per channel, less the mean sketch of all images, and
whitened over all images: what a set has in common, a blue sky above or the dark rim of an X-ray,
counts little, and what only two images share counts much. Brightness and contrast, JPEG
compression and another resolution move a sketch little; so does a shift by a pixel where there are
hundreds of images to whiten by. A mirror image is another image.

Shapes: N images in all sets, D numbers in a sketch, at most 8 * 8 * C.
"""

import hashlib
import math
from typing import NamedTuple

import numpy as np

from vitlab.data.labelled import Subset
from vitlab.errors import DataError

THRESHOLD = 0.15
"""Largest distance of near-duplicates. 278 test images of CIFAR-10 are as near to a training image
as that, every one of the same class; by eye about one in fifty is a look-alike and no copy. Barz
and Denzler (2020) count 286. Beyond 0.2 look-alikes, planes before a sky most of all, become
common."""

SIDE = 8
"""Height and width of a sketch."""

FLOOR = 0.01
"""Directions that vary less than this share of the widest are not amplified any further, which
keeps noise from deciding and lets a few images be enough."""

BLOCK = 256
"""Images handled at once, or fewer where they are large: bounds the memory."""

NUMBERS = 1 << 24
"""Numbers of images that are shrunk at once."""


class Pair(NamedTuple):
    """Two images that are nearly the same."""

    a: int
    """Place in the first set."""
    b: int
    """Place in the second set."""
    distance: float
    """0 for equal pixels; grows to 1 for images that have nothing in common."""


def near_duplicates(
    images_a: np.ndarray | Subset, images_b: np.ndarray | Subset, threshold: float = THRESHOLD
) -> list[Pair]:
    """Find the images of one set that have a near copy in another.

    Args:
        images_a: uint8 (A, H, W, C), as a rule the training images.
        images_b: uint8 (B, H, W, C), as a rule the held-out images.
        threshold: largest distance of two images that count as copies, 0 to 1.

    Returns:
        One pair for every image of b that has a copy, with its nearest image of a; the nearest
        first. So their number is that of the held-out images concerned, however many copies
        each has.
    """
    if images_a.shape[1:] != images_b.shape[1:]:
        raise DataError(
            f"images of {images_a.shape[1:]} and {images_b.shape[1:]} cannot be compared: "
            "bring them to one size first"
        )
    if not len(images_a) or not len(images_b):
        return []
    equal = {_digest(images_a[place]): place for place in reversed(range(len(images_a)))}
    sketches = _sketches(images_a, images_b)
    a, b = sketches[: len(images_a)], sketches[len(images_a) :]
    pairs = []
    for start in range(0, len(b), BLOCK):
        correlation = b[start : start + BLOCK] @ a.T
        nearest = correlation.argmax(axis=1)
        for place, near in enumerate(nearest.tolist(), start):
            if (twin := equal.get(_digest(images_b[place]))) is not None:
                pairs.append(Pair(twin, place, 0.0))
            elif (distance := float(1 - correlation[place - start, near])) <= threshold:
                pairs.append(Pair(near, place, max(distance, 0.0)))
    return sorted(pairs, key=lambda pair: (pair.distance, pair.b))


def earlier_copies(images: np.ndarray | Subset, threshold: float = THRESHOLD) -> list[Pair]:
    """Find the images of a set that have a near copy before them in it.

    Args:
        images: uint8 (N, H, W, C).
        threshold: largest distance of two images that count as copies, 0 to 1.

    Returns:
        One pair for every such image, b, with the nearest image before it, a; the nearest first.
        Without their second images the set has no near-duplicates.
    """
    if not len(images):
        return []
    sketches, first, pairs = _sketches(images), {}, []
    for start in range(0, len(images), BLOCK):
        own = sketches[start : start + BLOCK]
        correlation = own @ sketches[: start + len(own)].T
        correlation[:, start:][np.triu_indices(len(own))] = -np.inf  # itself, and what comes later
        nearest = correlation.argmax(axis=1)
        for place, near in enumerate(nearest.tolist(), start):
            if (twin := first.setdefault(_digest(images[place]), place)) != place:
                pairs.append(Pair(twin, place, 0.0))
            elif (distance := float(1 - correlation[place - start, near])) <= threshold:
                pairs.append(Pair(near, place, max(distance, 0.0)))
    return sorted(pairs, key=lambda pair: (pair.distance, pair.b))


def duplicates_warning(
    training: np.ndarray | Subset, validation: np.ndarray | Subset
) -> str | None:
    """Say how many validation images have a near copy among the training images, if any has."""
    pairs = near_duplicates(training, validation)
    if not pairs:
        return None
    return (
        f"validation images with a near copy among the training images: {len(pairs):,} of "
        f"{len(validation):,}. The validation accuracy will look better than it is: remove copies, "
        "and keep pictures of one scene in one split"
    )


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def _sketches(*sets: np.ndarray | Subset) -> np.ndarray:
    """Images of some sets as whitened sketches of length 1: float32 (N, D); flat ones are 0."""
    block = max(1, min(BLOCK, NUMBERS // math.prod(sets[0].shape[1:])))
    sketches = np.concatenate(
        [
            _shrink(images[start : start + block])
            for images in sets
            for start in range(0, len(images), block)
        ]
    )
    flat = ~sketches.any(axis=1)
    sketches -= sketches.mean(axis=0)
    variances, directions = np.linalg.eigh(sketches.T @ sketches / len(sketches))
    # Where all images are alike there is no direction to whiten, and nothing to divide by.
    least = max(FLOOR * variances.max(), np.finfo(np.float32).tiny)
    sketches = sketches @ (directions / np.sqrt(np.maximum(variances, least)))
    sketches[flat] = 0
    length = np.linalg.norm(sketches, axis=1, keepdims=True)
    return np.divide(sketches, length, out=sketches, where=length > 0)


def _shrink(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) to the means of a grid of areas, less the mean of each channel: (N, D)."""
    rows, columns = (_edges(side) for side in images.shape[1:3])
    sums = np.add.reduceat(images.astype(np.float32), rows[:-1], axis=1)
    sums = np.add.reduceat(sums, columns[:-1], axis=2)
    means = sums / np.outer(np.diff(rows), np.diff(columns))[:, :, None].astype(np.float32)
    return (means - means.mean(axis=(1, 2), keepdims=True)).reshape(len(images), -1)


def _edges(side: int) -> np.ndarray:
    """Where the areas of a line of pixels begin, and where the last one ends."""
    areas = min(SIDE, side)
    return np.arange(areas + 1) * side // areas
