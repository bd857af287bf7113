"""Images made worse on purpose: six common corruptions at five severities.

    uint8 images (N, H, W, C) -> uint8 images (N, H, W, C)

Kinds and strengths are those that Hendrycks and Dietterich (2019) chose for images of 32x32
pixels. Fractions and grey values mean the same at any size; the width of the blur grows with the
image. The noise is drawn here, addressed by image and severity, so an image is corrupted alike
whatever stands beside it, but not as in the files that the paper published.
"""

import io

import numpy as np

from vitlab.errors import VitlabError

STRENGTHS = {
    "noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation; white is 1
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # standard deviation in pixels, where the height is 32
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # what is left of the distance from the mean colour
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),  # added to the largest channel; white is 1
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),  # sides of the image in between
    "jpeg": (80, 65, 58, 50, 40),  # quality
}
"""Strengths of each corruption at severities 1 to 5."""

SEVERITIES = range(1, 6)

NOISE = 1
"""Number of the noise among what is drawn for an image; see augment.Technique."""


def corrupt(images: np.ndarray, kind: str, severity: int, places: np.ndarray) -> np.ndarray:
    """Corrupt images in one way.

    Args:
        images: uint8 (N, H, W, C) with 1 or 3 channels.
        kind: a key of STRENGTHS.
        severity: 1 to 5.
        places: number of each image in its data set, (N,): the address of its noise.

    Returns:
        Images of the same shape and type.
    """
    if kind not in STRENGTHS or severity not in SEVERITIES:
        raise VitlabError(
            f"corruption {kind!r} of severity {severity}: choose from "
            f"{', '.join(STRENGTHS)} and 1 to 5"
        )
    strength = STRENGTHS[kind][severity - 1]
    match kind:
        case "noise":
            rngs = [np.random.default_rng([int(place), severity, NOISE]) for place in places]
            noise = np.array([rng.standard_normal(images[0].shape) for rng in rngs])
            return _to_bytes(images / 255 + strength * noise.reshape(images.shape))
        case "blur":
            return _blur(images, strength)
        case "contrast":
            mean = images.mean(axis=(1, 2), keepdims=True)  # (N, 1, 1, C)
            return _to_bytes((mean + strength * (images - mean)) / 255)
        case "brightness":
            return _brighten(images, strength)
        case "pixelate":
            return np.array([_pixelate(image, strength) for image in images])
        case _:
            return np.array([_jpeg(image, int(strength)) for image in images])


def _blur(images: np.ndarray, pixels: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    sigma = pixels * images.shape[1] / 32
    return _to_bytes(gaussian_filter(images / 255, sigma, axes=(1, 2), mode="nearest"))


def _brighten(images: np.ndarray, amount: float) -> np.ndarray:
    """Raise the value of hue, saturation, value; black has no hue and becomes grey."""
    pixels = images / 255
    value = pixels.max(axis=3, keepdims=True)
    brighter = np.minimum(value + amount, 1)
    return _to_bytes(np.where(value > 0, pixels * brighter / np.maximum(value, 1e-9), brighter))


def _pixelate(image: np.ndarray, scale: float) -> np.ndarray:
    from PIL import Image

    height, width = image.shape[:2]
    picture = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
    coarse = (max(int(width * scale), 1), max(int(height * scale), 1))
    picture = picture.resize(coarse, Image.Resampling.BOX)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX)).reshape(image.shape)


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    from PIL import Image

    file = io.BytesIO()
    picture = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
    picture.save(file, "JPEG", quality=quality)
    with Image.open(file) as stored:
        return np.asarray(stored).reshape(image.shape)


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Fractions, clipped to 0..1, as uint8."""
    return np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
