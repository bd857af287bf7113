"""Pictures of strangers, decoded in a worker whose memory ends before the machine's does."""

import io
import resource
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image

from vitlab.data.images import FORMATS, Fit, decode
from vitlab.errors import DataError
from vitlab.serve.limits import JPEG_ALONE


class Form(NamedTuple):
    """What a picture becomes, and how many pixels its file may have."""

    image_size: tuple[int, int]
    channels: int
    fit: Fit
    grey_range: tuple[int, int] | None
    max_pixels: int


def limit_memory(size: int) -> None:
    """Let this process take so many more bytes (W05)."""
    PIL.Image.init()  # loaded before the limit bites
    PIL.Image.MAX_IMAGE_PIXELS = None  # ours are asked first
    if sys.platform == "linux":  # others refuse it
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + size, used + size))


def decode_picture(file: bytes, form: Form) -> np.ndarray:
    """A picture's file to uint8 (H, W, C); DataError says what is wrong with it."""
    most = pixels_allowed(file, form.max_pixels)
    try:
        return decode(file, form.image_size, form.channels, form.fit, most, form.grey_range)
    except DataError as error:
        raise DataError(reason(error)) from None


def pixels_allowed(file: bytes, most: int) -> int:
    """Pixels that a file may have, fewer where it has to be decoded in full.

    DataError if its header tells of more.
    """
    try:
        with PIL.Image.open(io.BytesIO(file), formats=FORMATS) as image:
            (width, height), jpeg = image.size, image.format in ("JPEG", "MPO")
    except Exception:  # `decode` says what is wrong
        return most
    if not jpeg:
        most //= JPEG_ALONE
    if width * height > most:
        kind = "" if jpeg else " of a PNG or WebP"
        raise DataError(
            f"{width} x {height} pixels are more than {most:,}{kind}: send a smaller one, or start "
            "the service with a larger --max-pixels"
        )
    return most


def reason(error: DataError) -> str:
    """Why a picture cannot be read, without what is only of use to programmers."""
    if isinstance(error.__cause__, MemoryError):
        return "it takes too much memory to decode"
    words = str(error).partition(": ")[2]
    readable = 0 < len(words) < 200 and words.isprintable() and "<" not in words
    return words if readable else "it is damaged"
