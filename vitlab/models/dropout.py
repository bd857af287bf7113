"""Dropout whose masks are a function of a seed, cheap to draw, and equal on every device.

A mask of R x C numbers needs R + C random words, not R x C: mask[r, c] compares the product
row[r] * column[c] modulo 2^32 of two random odd words with a threshold. The numbers of one row
are independent of each other, as are those of one column; two rows differ by a random factor, so
they depend on each other only as far as x and a x modulo 2^32 do. Drawing a float a number, as
torch does, takes a third of a ViT's step on a CPU (docs/speed.md).

The words are hashes of integers, so equal keys give equal masks on a CPU as on a GPU.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitlab.device import fill

WORDS = 1 << 32

# Steele et al., Fast splittable pseudorandom number generators, 2014: SplitMix64. Its constants are
# written as the signed numbers that int64 holds.
GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
MIX1 = 0xBF58476D1CE4E5B9 - (1 << 64)
MIX2 = 0x94D049BB133111EB - (1 << 64)


INTEGERS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}
"""Integers as wide as each type of numbers."""


def bits(number: float, dtype: torch.dtype) -> int:
    """A number of a type, read as an integer of the same width."""
    return int(torch.tensor(number, dtype=dtype, device="cpu").view(INTEGERS[dtype]))


def mix(z: Tensor) -> Tensor:
    """Hash int64 numbers: neighbours become unrelated."""
    # int64 shifts bring copies of the sign along; the masks take them off again.
    z = (z ^ (z >> 30) & (1 << 34) - 1) * MIX1
    return (z ^ (z >> 27) & (1 << 37) - 1) * MIX2


def random_words(key: Tensor, count: int) -> Tensor:
    """Random odd words of an int64 key (): int32 (count,)."""
    index = torch.arange(count, device=key.device)
    # Not key + index * GAMMA, as in the paper: torch.compile overflows at an index times that.
    return (mix((key ^ index) * GAMMA) >> 32).to(torch.int32) | 1


def threshold(rate: float) -> int:
    """The int32 below which a word is kept; words are odd, so an even one is met exactly."""
    return 2 * round((1 - rate) * WORDS / 2) - WORDS // 2


class Dropout(nn.Module):
    """Zeroes numbers at random while a model is trained, and scales up the rest
    (Srivastava et al., 2014).

    The probability to keep a number is 1 - rate to the nearest 2^-31, exactly `keep`.
    """

    key: Tensor

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.keep = threshold(rate) / WORDS + 0.5
        scale = 1 / self.keep if self.keep else 0.0
        self.scale = {dtype: bits(scale, dtype) for dtype in INTEGERS}
        self.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        if not (self.training and self.rate):
            return tokens
        return tokens * self.mask(tokens)

    @torch.no_grad()
    def mask(self, tokens: Tensor) -> Tensor:
        """What to multiply (..., C) by: 0 or 1 / keep, of its type; the next call gives another."""
        rows, columns = tokens.shape[:-1], tokens.shape[-1]
        words = random_words(self.key, rows.numel() + columns)
        self.key += MIX1
        product = words[:-columns].view(*rows, 1) * words[-columns:]
        # A 1 in place of each word that keeps its number, then the bits of 1 / keep in place of
        # each 1: to make booleans and then numbers of them takes a CPU three times as long.
        kept = product.lt_(threshold(self.rate)).to(INTEGERS[tokens.dtype])
        return kept.mul_(self.scale[tokens.dtype]).view(tokens.dtype)


class DropPath(Dropout):
    """Leaves a branch out for some images and scales it up for the rest (Huang et al., 2016)."""

    def mask(self, tokens: Tensor) -> Tensor:
        """What to multiply (B, T, D) by: (B, 1, 1), 0 or 1 / keep."""
        return super().mask(tokens[:, :1, :1])


def seed_masks(layers: Sequence[Dropout], seed: int) -> None:
    """Let the masks of a model's next forward passes be a function of a seed below 2^64.

    Args:
        layers: the model's `dropouts`.
    """
    signed = torch.tensor((seed + (1 << 63)) % (1 << 64) - (1 << 63))
    keys = mix((mix(signed * GAMMA) ^ torch.arange(len(layers))) * GAMMA)
    fill([layer.key for layer in layers], keys.numpy())


def dropouts(model: nn.Module) -> list[Dropout]:
    """The dropouts of a model that are on, in the order of its modules."""
    return [m for m in model.modules() if isinstance(m, Dropout) and m.rate]
