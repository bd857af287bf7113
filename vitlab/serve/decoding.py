"""A program that decodes pictures and can do little else.

    python -m vitlab.serve.decoding HEIGHT WIDTH CHANNELS FIT PIXELS MEMORY SECONDS LOW HIGH

A picture's file comes in, its pixels uint8 (H, W, C) go out. Memory, processor time and files are
limited, so that a picture made to do harm ends this process and nothing else.
"""

import io
import math
import resource
import sys
from typing import Any, get_args

import PIL.Image

from vitlab.data.images import FORMATS, Fit, decode
from vitlab.errors import DataError
from vitlab.serve.child import Message, attend
from vitlab.serve.limits import JPEG_ALONE


def main(words: list[str]) -> None:
    """Decode what comes in, as the arguments have it."""
    numbers = map(int, (*words[:3], *words[4:]))
    height, width, channels, pixels, memory, seconds, low, high = numbers
    fit = next(word for word in get_args(Fit) if word == words[3])

    def answer(head: dict[str, Any], body: bytes) -> Message:
        allow(seconds)
        try:
            image = decode(body, (height, width), channels, fit, most(body, pixels), (low, high))
        except DataError as error:
            raise DataError(reason(error)) from error
        return {}, image.tobytes()

    PIL.Image.init()  # loaded before the limits bite
    PIL.Image.MAX_IMAGE_PIXELS = None  # ours are asked first
    limit(memory)
    attend(answer, {"decodes": True})


def limit(memory: int) -> None:
    """Take from this process what decoding does not need."""
    if sys.platform == "linux":  # others refuse it
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def allow(seconds: int) -> None:
    """Grant so much more processor time; the kernel ends the process after that."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = math.ceil(used.ru_utime + used.ru_stime)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, most))


def most(file: bytes, pixels: int) -> int:
    """Pixels that a picture's file may have, fewer where it has to be decoded in full.

    DataError if its header tells of more.
    """
    try:
        with PIL.Image.open(io.BytesIO(file), formats=FORMATS) as image:
            (width, height), jpeg = image.size, image.format in ("JPEG", "MPO")
    except Exception:  # `decode` says what is wrong
        return pixels
    if not jpeg:
        pixels //= JPEG_ALONE
    if width * height > pixels:
        kind = "" if jpeg else " of a PNG or WebP"
        raise DataError(
            f"{len(file)} bytes: {width} x {height} pixels are more than {pixels:,}{kind}: send a "
            "smaller one, or start the service with a larger --max-pixels"
        )
    return pixels


def reason(error: DataError) -> str:
    """Why a picture cannot be read, without what is only of use to programmers."""
    if isinstance(error.__cause__, MemoryError):
        return "it takes too much memory to decode"
    words = str(error).partition(": ")[2]
    told = 0 < len(words) < 200 and words.isprintable() and "<" not in words
    return words if told else "it is damaged"


if __name__ == "__main__":
    main(sys.argv[1:])
