"""The 14 operations of RandAugment and TrivialAugmentWide, on batches of uint8 images.

Each maps images (B, C, H, W) and one magnitude per image to images of the same shape, on any
device. They follow Pillow's arithmetic: nearest neighbour, black outside, fractions cut off.
Magnitudes stay on the host as numpy arrays (B,), so geometry is worked out in double
precision and no pixel is moved before its place is known exactly.

Shapes: B images in the batch, C channels (1 or 3), H rows, W columns.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vitlab.device import to_device

STRENGTHS = 31
"""How many magnitudes an operation has, from the weakest to the strongest."""


def apply(images: Tensor, choice: np.ndarray, magnitude: np.ndarray) -> Tensor:
    """Change each image by the operation whose place in OPERATIONS is in `choice` (B,)."""
    changed = images.clone()
    for number, operation in enumerate(OPERATIONS.values()):
        chosen = np.flatnonzero(choice == number)
        if chosen.size:
            places = to_device(chosen, images.device)
            changed[places] = operation(images[places], magnitude[chosen])
    return changed


def magnitudes(policy: str, height: int, width: int) -> np.ndarray:
    """Published magnitudes of `randaugment` (Cubuk, 2020) or `trivialaugment` (Müller, 2021).

    float64 (14, 2, 31): operation, direction, strength, in the operation's own unit; the second
    direction is the negative where there is one. RandAugment's shifts grow with the image, to
    150 pixels of 331; TrivialAugmentWide's go to 32 pixels on any image.
    """
    wide = policy == "trivialaugment"

    def up_to(strongest: float) -> np.ndarray:
        return np.linspace(0, strongest, STRENGTHS)

    shear = up_to(0.99 if wide else 0.3)
    enhance = up_to(0.99 if wide else 0.9)
    signed = {
        "shear_x": shear,
        "shear_y": shear,
        "translate_x": up_to(32 if wide else width * 150 / 331),
        "translate_y": up_to(32 if wide else height * 150 / 331),
        "rotate": up_to(135 if wide else 30),
        "brightness": enhance,
        "color": enhance,
        "contrast": enhance,
        "sharpness": enhance,
    }
    unsigned = {
        "posterize": 8 - np.round(up_to(6 if wide else 4)),
        "solarize": 255 - up_to(255),
    }
    table = np.zeros((len(OPERATIONS), 2, STRENGTHS))
    for row, name in zip(table, OPERATIONS, strict=True):
        if name in signed:
            row[:] = signed[name], -signed[name]
        elif name in unsigned:
            row[:] = unsigned[name]
    return table


def identity(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Leave the images as they are."""
    return images


def shear_x(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Move each row by `magnitude` pixels per row, the top staying in place."""
    return _affine(images, [1, magnitude, 0, 0, 1, 0])


def shear_y(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Move each column by `magnitude` pixels per column, the left staying in place."""
    return _affine(images, [1, 0, 0, magnitude, 1, 0])


def translate_x(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Move to the right by whole pixels, towards zero."""
    return _affine(images, [1, 0, -np.trunc(magnitude), 0, 1, 0])


def translate_y(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Move down by whole pixels, towards zero."""
    return _affine(images, [1, 0, 0, 0, 1, -np.trunc(magnitude)])


def rotate(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Turn counter-clockwise by degrees, around the centre."""
    x, y = images.shape[3] / 2, images.shape[2] / 2
    cos, sin = np.cos(np.radians(magnitude)), np.sin(np.radians(magnitude))
    return _affine(images, [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y])


def _affine(images: Tensor, matrix: Sequence[float | np.ndarray]) -> Tensor:
    """Fill pixel (x, y) from (a x + b y + c, d x + e y + f), each entry a number or (B,)."""
    B, C, H, W = images.shape
    a, b, c, d, e, f = (np.broadcast_to(entry, B) for entry in matrix)
    # Pixels have their centre at a half. Fixed-point numbers with 16 binary places, as in
    # Pillow, make rounding the same on every device.
    entries = np.stack([a, b, c + a / 2 + b / 2, d, e, f + d / 2 + e / 2])
    entries = np.floor(entries * 2**16 + 0.5).astype(np.int64)
    a, b, c, d, e, f = to_device(entries, images.device)[:, :, None, None]
    x = torch.arange(W, device=images.device)
    y = torch.arange(H, device=images.device)[:, None]
    column, row = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16  # (B, H, W)
    inside = (column >= 0) & (column < W) & (row >= 0) & (row < H)
    pixels = (row * W + column).where(inside, 0).view(B, 1, H * W).expand(-1, C, -1)
    moved = images.flatten(2).gather(2, pixels).view(B, C, H, W)
    return moved * inside[:, None]


def brightness(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Brighten; -1 is black."""
    return _enhance(images, torch.zeros_like(images), magnitude)


def color(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Saturate; -1 is grey."""
    return _enhance(images, _grey(images), magnitude)


def contrast(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Spread around the mean brightness; -1 is flat."""
    grey = _grey(images)
    total, count = grey.sum((2, 3), keepdim=True), grey[0].numel()
    return _enhance(images, (2 * total + count) // (2 * count), magnitude)


def sharpness(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Sharpen; -1 is smooth. The outermost pixels stay."""
    pixels = images.to(torch.int16)
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * pixels[:, :, 1:-1, 1:-1]
    smooth = images.float()
    smooth[:, :, 1:-1, 1:-1] = (total / 13).round()
    return _enhance(images, smooth, magnitude)


def _grey(images: Tensor) -> Tensor:
    """Brightness (B, 1, H, W) as whole numbers, by the weights of ITU-R 601."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16


def _enhance(images: Tensor, plain: Tensor, magnitude: np.ndarray) -> Tensor:
    """Go away from the plain image (magnitude above 0) or towards it (below)."""
    factor = to_device((1 + magnitude).astype(np.float32), images.device).view(-1, 1, 1, 1)
    plain = plain.float()
    return (plain + factor * (images - plain)).clamp_(0, 255).to(torch.uint8)


def posterize(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Keep the `magnitude` highest bits of each pixel."""
    mask = (256 - 2 ** (8 - magnitude)).astype(np.uint8)
    return images & to_device(mask, images.device).view(-1, 1, 1, 1)


def solarize(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Invert the pixels from the value `magnitude` on."""
    threshold = to_device(magnitude.astype(np.float32), images.device).view(-1, 1, 1, 1)
    return torch.where(images < threshold, images, 255 - images)


def autocontrast(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Stretch each channel so that it goes from 0 to 255."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = (high - low).int()
    stretched = (images - low).int() * 255 // span.clamp(min=1)
    return torch.where(span > 0, stretched.to(torch.uint8), images)


def equalize(images: Tensor, magnitude: np.ndarray) -> Tensor:
    """Spread each channel's values so that all become about equally frequent."""
    pixels = images.flatten(2).long()  # (B, C, H * W)
    counts = pixels.new_zeros(*images.shape[:2], 256)
    counts.scatter_add_(2, pixels, torch.ones_like(pixels))
    brightest = counts.gather(2, pixels.amax(2, keepdim=True))
    step = (pixels.shape[2] - brightest) // 255  # (B, C, 1)
    darker = counts.cumsum(2) - counts
    spread = ((step // 2 + darker) // step.clamp(min=1)).clamp(max=255)
    equal = spread.gather(2, pixels).view_as(images).to(torch.uint8)
    return torch.where(step[..., None] > 0, equal, images)


OPERATIONS: dict[str, Callable[[Tensor, np.ndarray], Tensor]] = {
    "identity": identity,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
    "rotate": rotate,
    "brightness": brightness,
    "color": color,
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
}
