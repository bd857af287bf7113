"""One image, from a file or from bytes, becomes a uint8 array of the asked size and channels.

Training, evaluation and prediction all read images here, so that no two of them can
disagree about what an image is.
"""

import io
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from vitlab.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Fit = Literal["stretch", "pad", "crop"]
"""How an image of another shape comes to a size: distorted, bordered or trimmed."""

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 200_000_000
"""Largest image that is decoded; the header is asked first, so a bomb never unfolds."""

LARGE = 2**24
"""Pixels above which a JPEG is decoded at a half, a quarter or an eighth of its height and width,
but no smaller than DRAFT pixels or twice the asked size: a photo of 50 megapixels takes a tenth of
the time and memory."""
DRAFT = 1024

OPENING = threading.Lock()

ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
    7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
"""EXIF orientation -> what brings an image upright; 5 to 8 lie on their side."""


def decode(
    source: bytes | Path,
    image_size: tuple[int, int],
    channels: int,
    fit: Fit = "stretch",
    max_pixels: int = MAX_PIXELS,
    grey_range: tuple[int, int] | None = None,
) -> np.ndarray:
    """Read one PNG, JPEG or WebP image as uint8 (H, W, C).

    The EXIF orientation is applied, transparency is laid on white, 16 bits are scaled to
    8, colour becomes grey by ITU-R 601 luma, and another size is resampled bicubically
    (antialiased) to `image_size` = (height, width). An image of another shape is stretched; or
    keeps its shape and is padded on two sides with its mean colour; or loses what juts out on
    two sides. Of 16 bits, `grey_range` = (low, high) becomes 0 to 255; None takes all of them.
    Raises DataError with the file's name and the reason if it cannot be read.
    """
    try:
        pixels = _read(source, image_size, max_pixels)
        return convert(pixels, image_size, channels, fit, grey_range)
    except Exception as error:  # Pillow's parsers raise whatever damaged bytes lead them to
        raise _unreadable(source, error) from error


def read(
    source: bytes | Path, image_size: tuple[int, int], max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """The pixels of an image as they are stored, upright and on white, for `convert`.

    Returns:
        uint8 (H, W, 1) or (H, W, 3), or uint16 (H, W, 1) for 16 bits of grey. Only a JPEG of more
        than LARGE pixels depends on `image_size`, which says how small it may be decoded.
    """
    try:
        return _read(source, image_size, max_pixels)
    except Exception as error:
        raise _unreadable(source, error) from error


def header(source: bytes | Path, max_pixels: int = MAX_PIXELS) -> tuple[tuple[int, int], int, int]:
    """The (height, width), channels (1 or 3) and bits (8 or 16) without decoding an image."""
    try:
        with _open(source, max_pixels) as image:
            width, height = image.size
            if _orientation(image) >= 5:
                width, height = height, width
            grey = image.mode[0] in "1LI"
            return (height, width), 1 if grey else 3, 16 if image.mode[0] == "I" else 8
    except Exception as error:
        raise _unreadable(source, error) from error


def convert(
    pixels: np.ndarray,
    image_size: tuple[int, int],
    channels: int,
    fit: Fit = "stretch",
    grey_range: tuple[int, int] | None = None,
) -> np.ndarray:
    """Bring what `read` returns to uint8 of the asked size and channels."""
    from PIL import Image

    if pixels.dtype == np.uint16:
        low, high = grey_range or (0, 65535)
        scaled = (pixels.astype(np.float32) - low) / (high - low)
        pixels = np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)
    height, width = image_size
    if pixels.shape == (height, width, channels):
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = _fitted(image, (width, height), fit)
    return np.array(image).reshape(height, width, channels)


def _read(source: bytes | Path, image_size: tuple[int, int], max_pixels: int) -> np.ndarray:
    from PIL import Image

    with _open(source, max_pixels) as image:
        if image.width * image.height > LARGE:
            side = max(DRAFT, 2 * max(image_size))
            image.draft(None, (side, side))  # only a JPEG can
        image.load()  # what is broken shows here, and not where EXIF is forgiven
        turn = TURNS.get(_orientation(image))
        upright = image.transpose(Image.Transpose[turn]) if turn else image
        if upright.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
            return np.asarray(upright).clip(0, 65535).astype(np.uint16)[..., None]
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright)
        mode = "L" if upright.mode in ("1", "L") else "RGB"
        # Pillow copies even where there is nothing to convert.
        pixels = np.array(upright if upright.mode == mode else upright.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _orientation(image: "Image") -> int:
    """The EXIF orientation, 1 to 8; 1 where the tag is missing, no number or damaged."""
    try:
        value = image.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF is no reason to refuse the picture beside it
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _fitted(image: "Image", size: tuple[int, int], fit: Fit) -> "Image":
    """Bring an image to (width, height) pixels; all three agree where the shape is the same."""
    from PIL import Image, ImageOps, ImageStat

    if fit == "stretch":
        return image.resize(size, Image.Resampling.BICUBIC)
    if fit == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BICUBIC)
    mean = tuple(round(value) for value in ImageStat.Stat(image).mean)
    return ImageOps.pad(image, size, Image.Resampling.BICUBIC, mean)


def _open(source: bytes | Path, max_pixels: int) -> "Image":
    from PIL import Image

    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with OPENING:  # Pillow's own limit, a global, is lower than what telephones take
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    if image.width * image.height > max_pixels:
        image.close()
        raise ValueError(
            f"{image.width} x {image.height} pixels are more than data.max_pixels={max_pixels:,}"
        )
    return image


def _unreadable(source: bytes | Path, error: Exception) -> DataError:
    from PIL import UnidentifiedImageError

    name = f"{len(source)} bytes" if isinstance(source, bytes) else repr(str(source))
    if isinstance(error, UnidentifiedImageError):
        return DataError(f"{name}: not a PNG, JPEG or WebP image")
    return DataError(f"{name}: {error or type(error).__name__}")
