"""How much of everything the service takes before it says no."""

from dataclasses import dataclass
from typing import Self

from vitlab.errors import ConfigError

TYPES = ("image/png", "image/jpeg", "image/webp")
"""Content types of the pictures that are read."""

JPEG_ALONE = 4
"""Of the pixels of a JPEG, which is decoded at a reduced size, a PNG or WebP may have this part."""


@dataclass(frozen=True)
class Limits:
    """Numbers of a service. Sizes are in bytes, times in seconds."""

    upload: int = 30_000_000
    """Largest picture file, counted while it comes in."""
    pixels: int = 100_000_000
    """Largest JPEG, read off its header before it is decoded."""
    uploads: int = 96_000_000
    """All picture files held at once."""
    requests: int = 96
    """Pictures being received, decoded, waiting or computed at once; the next one is refused."""
    explanations: int = 8
    """Of these, those that ask for a map."""
    batch: int = 32
    """Pictures that enter the model together."""
    decoders: int = 2
    """Processes that decode pictures."""
    decoder_memory: int = 1_000_000_000
    """What a decoder may take for a picture."""
    connections: int = 768
    """Open connections; with more, every request is told to come back."""
    header: int = 16_384
    """Request line and headers."""
    head_seconds: float = 10
    """From a connection to its first complete head, from one request to the next, and for a client
    to take what it is sent."""
    body_seconds: float = 20
    """For a whole body."""
    decode_seconds: float = 5
    """For decoding one picture."""
    answer_seconds: float = 20
    """From a whole body to the answer."""
    explain_seconds: float = 45
    """The same with a map."""
    drain_seconds: float = 6
    """For requests under way when the service is stopped."""
    retry_seconds: int = 1
    """When to come back, as a refusal has it."""

    @classmethod
    def of(cls, upload: int, pixels: int) -> Self:
        """Limits for pictures of so many bytes and pixels, the others enlarged as these need.

        ConfigError for numbers that cannot be.
        """
        problems = [
            f"--max-{name} {value}: give a number from 1 to {most:,}"
            for name, value, most in (("bytes", upload, 10**9), ("pixels", pixels, 65_535**2))
            if not 1 <= value <= most
        ]
        if problems:
            raise ConfigError(problems)
        share = max(1, pixels / cls.pixels)
        return cls(
            upload=upload,
            pixels=pixels,
            uploads=max(cls.uploads, 3 * upload),
            decoder_memory=round(share * cls.decoder_memory),
            decode_seconds=share * cls.decode_seconds,
        )
