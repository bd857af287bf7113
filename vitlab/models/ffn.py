"""What a block does to each token on its own: the axis `ffn`.

B images  T tokens  D width  F hidden width
"""

import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import ViTConfig


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, the same for every token. The hidden layer is
    `ffn_ratio` times as wide as the token (Dosovitskiy et al., 2021).
    """

    def __init__(self, cfg: ViTConfig):
        super().__init__()
        hidden = round(cfg.ffn_ratio * cfg.width)
        self.fc1 = nn.Linear(cfg.width, hidden)
        self.fc2 = nn.Linear(hidden, cfg.width)
        self.drop = nn.Dropout(cfg.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
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
        self.drop = nn.Dropout(cfg.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        gate, value = self.fc1(tokens).chunk(2, dim=-1)  # (B, T, F) each
        hidden = self.drop(F.silu(gate) * value)
        return self.drop(self.fc2(hidden))  # (B, T, D)


FFNS = {"gelu": Mlp, "swiglu": SwiGLU}
