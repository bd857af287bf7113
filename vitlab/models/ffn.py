"""What a block does to its tokens after attention: the axis `ffn`.

B images  T tokens = those of the prefix, then patches row by row  D width  F hidden width
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import ViTConfig
from vitlab.models.dropout import Dropout
from vitlab.models.position import Grid


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, the same for every token. The hidden layer is
    `ffn_ratio` times as wide as the token (Dosovitskiy et al., 2021).
    """

    def __init__(self, cfg: ViTConfig):
        super().__init__()
        hidden = round(cfg.ffn_ratio * cfg.width)
        self.fc1 = nn.Linear(cfg.width, hidden)
        self.fc2 = nn.Linear(hidden, cfg.width)
        self.drop = Dropout(cfg.dropout)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        hidden = self.drop(F.gelu(self.fc1(tokens)))  # (B, T, F)
        return self.drop(self.fc2(hidden))  # (B, T, D)


class SwiGLU(nn.Module):
    """One linear layer makes gates and values, SiLU(gate) * value passes on to the second. The
    hidden layer is 2/3 as wide, so that three matrices weigh what GELU's two do (Shazeer, 2020).
    """

    def __init__(self, cfg: ViTConfig):
        super().__init__()
        hidden = max(8, 8 * round(cfg.ffn_ratio * cfg.width * 2 / 3 / 8))
        self.fc1 = nn.Linear(cfg.width, 2 * hidden)
        self.fc2 = nn.Linear(hidden, cfg.width)
        self.drop = Dropout(cfg.dropout)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        gate, value = self.fc1(tokens).chunk(2, dim=-1)  # (B, T, F) each
        hidden = self.drop(F.silu(gate) * value)
        return self.drop(self.fc2(hidden))  # (B, T, D)


class DepthwiseMlp(Mlp):
    """Between the first linear layer and the GELU, a 3x3 convolution mixes each hidden channel with
    the same channel of the eight patches around. Tokens without a place pass it by
    (Wang et al., 2022).
    """

    def __init__(self, cfg: ViTConfig):
        super().__init__(cfg)
        self.prefix = cfg.prefix
        hidden = self.fc1.out_features
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(B, T, D) to (B, T, D), the patches lying on `grid`."""
        hidden = self.fc1(tokens)  # (B, T, F)
        # To cut off nothing and put it back on would cost three copies.
        patches = hidden[:, self.prefix :] if self.prefix else hidden
        maps = patches.unflatten(1, grid).permute(0, 3, 1, 2)  # (B, F, rows, columns)
        patches = self.dwconv(maps).flatten(2).transpose(1, 2)
        hidden = torch.cat([hidden[:, : self.prefix], patches], dim=1) if self.prefix else patches
        hidden = self.drop(F.gelu(hidden))
        return self.drop(self.fc2(hidden))  # (B, T, D)


FFNS = {"gelu": Mlp, "swiglu": SwiGLU, "dwconv": DepthwiseMlp}
