"""How tokens know where they are: the axis `position`.

A position acts at one of two places: it is added to the tokens once, before the first block,
or it rotates queries and keys in every block. The distillation token and registers have no
place in the image and get none; CLS gets one with `position_on_cls`.

B images  H heads  T tokens = CLS, distillation, registers, patches  N patches = rows * columns
D width  d numbers per head  P positions = N, and one more for CLS if it has one
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import ViTConfig

Grid = tuple[int, int]


class Position(nn.Module):
    """The two places to act at, where nothing happens here, and the change to another grid."""

    def __init__(self, cfg: ViTConfig, grid: Grid):
        super().__init__()
        self.cfg = cfg
        self.grid = grid

    def add(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D) to tokens (B, T, D), before the first block."""
        return tokens

    def rotate(self, vectors: Tensor) -> Tensor:
        """Queries or keys (B, H, T, d) to the same shape, in every block."""
        return vectors

    def resize(self, grid: Grid) -> None:
        """Take another number of rows and columns from now on."""
        self.grid = grid


class NoPosition(Position):
    """Tokens are not told where they are. Without a convolution before it, the model then sees a
    bag of patches: shuffling them changes nothing.
    """


class Learned(Position):
    """Adds a learned vector per place, drawn as N(0, `init_std`). Neighbours have to be discovered
    from the data; another image size resamples the table bicubically (Dosovitskiy et al., 2021).
    """

    def __init__(self, cfg: ViTConfig, grid: Grid):
        super().__init__(cfg, grid)
        places = cfg.position_on_cls + grid[0] * grid[1]
        self.weight = nn.Parameter(torch.zeros(1, places, cfg.width))

    def add(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D) to tokens (B, T, D)."""
        return tokens + spread(self.weight, self.cfg)

    @torch.no_grad()
    def resize(self, grid: Grid) -> None:
        """Resample the patches' vectors; the Parameter stays the same object."""
        if grid == self.grid:
            return
        cls, patches = self.weight.tensor_split([int(self.cfg.position_on_cls)], dim=1)
        self.weight.data = torch.cat([cls, resample(patches, self.grid, grid)], dim=1)  # (1, P, D)
        self.grid = grid


class Fixed(Position, ABC):
    """A position that is computed from the grid, so it is neither trained nor stored."""

    table: Tensor

    def __init__(self, cfg: ViTConfig, grid: Grid):
        super().__init__(cfg, grid)
        self.register_buffer("table", self.compute(grid), persistent=False)

    def resize(self, grid: Grid) -> None:
        """Compute the table anew."""
        self.grid = grid
        self.table = self.compute(grid).to(self.table)

    @abstractmethod
    def compute(self, grid: Grid) -> Tensor:
        """The table of a grid."""


class Sin1d(Fixed):
    """Adds sines and cosines of a token's number in reading order, at wavelengths from 2 pi to
    20,000 pi. Nothing is learned, and rows are invisible to it (Vaswani et al., 2017).
    """

    def add(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D) to tokens (B, T, D)."""
        return tokens + self.table

    def compute(self, grid: Grid) -> Tensor:
        """The table (1, T, D); CLS, if it has a position, is at 0 and the patches start at 1."""
        places = torch.arange(self.cfg.position_on_cls + grid[0] * grid[1])
        return spread(sinusoids(places, self.cfg.width)[None], self.cfg)


class Sin2d(Fixed):
    """Adds sines and cosines of a patch's row in half of the channels and of its column in the
    other half. Patches above one another are as near as patches side by side (Beyer et al., 2022).
    """

    def add(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D) to tokens (B, T, D)."""
        return tokens + self.table

    def compute(self, grid: Grid) -> Tensor:
        """The table (1, T, D); CLS is at row -1 and column -1, outside the image."""
        cls = torch.full((int(self.cfg.position_on_cls), 2), -1)
        rows, columns = torch.cat([cls, places_of(grid)]).unbind(-1)
        half = self.cfg.width // 2
        both = torch.cat([sinusoids(rows, half), sinusoids(columns, half)], dim=-1)  # (P, D)
        return spread(both[None], self.cfg)


class Rope(Fixed):
    """Rotates pairs of numbers in queries and keys by angles that grow with the row, in half of
    the pairs, and with the column, in the other half. What attention sees of two patches is then
    only their offset (Su et al., 2021; on images Heo et al., 2024).
    """

    # A language model's base of 10,000 is made for thousands of places. On grids of 4 to 32 rows
    # it would leave most pairs almost unrotated; 100 is what Heo et al. chose.
    BASE = 100.0

    def rotate(self, vectors: Tensor) -> Tensor:
        """Queries or keys (B, H, T, d) to the same shape; tokens before the patches stay."""
        cosine, sine = self.table
        x, y = vectors.float().chunk(2, dim=-1)  # (B, H, T, d/2) each
        rotated = torch.cat([x * cosine - y * sine, x * sine + y * cosine], dim=-1)
        return rotated.type_as(vectors)  # (B, H, T, d)

    def compute(self, grid: Grid) -> Tensor:
        """Cosines and sines (2, T, d/2) of the angles; tokens before the patches have angle 0."""
        rates = frequencies(self.cfg.head_width // 4, self.BASE)
        angles = (places_of(grid)[..., None] * rates).flatten(1)  # (N, d/2)
        angles = F.pad(angles, (0, 0, self.cfg.prefix, 0))  # (T, d/2)
        return torch.stack([angles.cos(), angles.sin()])


def resample(patches: Tensor, before: Grid, after: Grid) -> Tensor:
    """Vectors of one grid's patches (1, N, D) to those of another grid's, bicubically."""
    image = patches.unflatten(1, before).permute(0, 3, 1, 2)  # (1, D, rows, columns)
    image = F.interpolate(image, after, mode="bicubic", antialias=True)
    return image.flatten(2).transpose(1, 2)  # (1, N, D)


def places_of(grid: Grid) -> Tensor:
    """Row and column (N, 2) of every patch, in reading order."""
    return torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1]))


def frequencies(count: int, base: float) -> Tensor:
    """Radians per step (count,), from 1 falling geometrically towards 1 / base."""
    return base ** -(torch.arange(count) / count)


def sinusoids(places: Tensor, width: int) -> Tensor:
    """Places (P,) to interleaved sines and cosines (P, width)."""
    angles = places[:, None] * frequencies(width // 2, 10_000.0)  # (P, width/2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # (P, width)


def spread(positions: Tensor, cfg: ViTConfig) -> Tensor:
    """Positions (1, P, D) to one row per token (1, T, D), zero for tokens without a position."""
    cls, patches = positions.tensor_split([int(cfg.position_on_cls)], dim=1)
    nowhere = positions.new_zeros(1, cfg.prefix - cfg.position_on_cls, cfg.width)
    return torch.cat([cls, nowhere, patches], dim=1)


POSITIONS = {
    "none": NoPosition,
    "learned": Learned,
    "sin1d": Sin1d,
    "sin2d": Sin2d,
    "rope": Rope,
}
