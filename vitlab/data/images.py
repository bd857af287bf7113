"""One image, from a file or from bytes, becomes a uint8 array of the asked size and channels.

Training, evaluation and prediction all read images here, so that no two of them can
disagree about what an image is.
"""

import io
import warnings
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
MAX_PIXELS = 50_000_000
"""Largest image that is decoded; the header is asked first, so a bomb never unfolds."""

ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 lay the image on its side


def decode(
    source: bytes | Path,
    image_size: tuple[int, int],
    channels: int,
    fit: Fit = "stretch",
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Read one PNG, JPEG or WebP image as uint8 (H, W, C).

    The EXIF orientation is applied, transparency is laid on white, 16 bits are scaled to
    8, colour becomes grey by ITU-R 601 luma, and another size is resampled bicubically
    (antialiased) to `image_size` = (height, width). An image of another shape is stretched; or
    keeps its shape and is padded on two sides with its mean colour; or loses what juts out on
    two sides. Raises DataError with the file's name and the reason if it cannot be read.
    """
    from PIL import ImageOps

    try:
        with _open(source, max_pixels) as image:
            return _conform(ImageOps.exif_transpose(image), image_size, channels, fit)
    except Exception as error:  # Pillow's parsers raise whatever damaged bytes lead them to
        raise _unreadable(source, error) from error


def header(source: bytes | Path) -> tuple[tuple[int, int], int]:
    """Tell the (height, width) and the channels, 1 or 3, of an image without resampling it."""
    try:
        with _open(source) as image:
            width, height = image.size
            if image.getexif().get(ORIENTATION, 1) >= 5:
                width, height = height, width
            return (height, width), 1 if image.mode[0] in "1LI" else 3
    except Exception as error:
        raise _unreadable(source, error) from error


def convert(
    pixels: np.ndarray, image_size: tuple[int, int], channels: int, fit: Fit = "stretch"
) -> np.ndarray:
    """Bring a decoded image, uint8 (H, W, 1) or (H, W, 3), to the asked size and channels."""
    from PIL import Image

    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return _conform(picture, image_size, channels, fit)


def _conform(image: "Image", image_size: tuple[int, int], channels: int, fit: Fit) -> np.ndarray:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    height, width = image_size
    if image.size != (width, height):
        image = _fitted(image, (width, height), fit)
    return np.array(image).reshape(height, width, channels)


def _fitted(image: "Image", size: tuple[int, int], fit: Fit) -> "Image":
    """Bring an image to (width, height) pixels; all three agree where the shape is the same."""
    from PIL import Image, ImageOps, ImageStat

    if fit == "stretch":
        return image.resize(size, Image.Resampling.BICUBIC)
    if fit == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BICUBIC)
    mean = tuple(round(value) for value in ImageStat.Stat(image).mean)
    return ImageOps.pad(image, size, Image.Resampling.BICUBIC, mean)


def _open(source: bytes | Path, max_pixels: int = MAX_PIXELS) -> "Image":
    from PIL import Image

    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(file, formats=FORMATS)
    if image.width * image.height > max_pixels:
        image.close()
        raise ValueError(f"{image.width} x {image.height} pixels are more than {max_pixels:,}")
    return image


def _unreadable(source: bytes | Path, error: Exception) -> DataError:
    from PIL import UnidentifiedImageError

    name = f"{len(source)} bytes" if isinstance(source, bytes) else repr(str(source))
    if isinstance(error, UnidentifiedImageError):
        return DataError(f"{name}: not a PNG, JPEG or WebP image")
    return DataError(f"{name}: {error or type(error).__name__}")
