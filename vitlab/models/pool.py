"""How tokens become the one vector the head reads: the axis `pool`.

Only CLS and patches are read. Tokens come in the order CLS, distillation, registers, patches.

B images  T tokens  N patches  D width
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import ViTConfig


class Pool(nn.Module, ABC):
    """Maps tokens (B, T, D) to one vector per image (B, `width`)."""

    def __init__(self, cfg: ViTConfig):
        super().__init__()
        self.prefix = cfg.prefix
        self.width = cfg.width

    def patches(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, N, D)."""
        return tokens[:, self.prefix :] if self.prefix else tokens  # a slice of all is a copy

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, `width`)."""

    @abstractmethod
    def readout_weights(self, tokens: Tensor) -> Tensor:
        """How much of each of the tokens (B, T, D) is in the vector: (B, T), rows summing to 1."""


class ClsPool(Pool):
    """Reads the CLS token alone. It has gathered from the patches, in every block, what the label
    needs (Dosovitskiy et al., 2021).
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, D)."""
        return tokens[:, 0]  # (B, D)

    def readout_weights(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, T): nothing but CLS."""
        weights = torch.zeros_like(tokens[..., 0])
        weights[:, 0] = 1
        return weights


class MeanPool(Pool):
    """Averages the patch tokens. Every place of the image has the same say, and no CLS token is
    needed (Beyer et al., 2022).
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, D)."""
        return self.patches(tokens).mean(dim=1)  # (B, D)

    def readout_weights(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, T): as much of every patch."""
        weights = torch.zeros_like(tokens[..., 0])
        weights[:, self.prefix :] = 1 / (tokens.shape[1] - self.prefix)
        return weights


class ClsMeanPool(Pool):
    """Puts the CLS token and the mean of the patch tokens side by side. The head, twice as wide,
    learns how much to trust each (Oquab et al., 2024).
    """

    def __init__(self, cfg: ViTConfig):
        super().__init__(cfg)
        self.width = 2 * cfg.width

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, 2D)."""
        return torch.cat([tokens[:, 0], self.patches(tokens).mean(dim=1)], dim=-1)  # (B, 2D)

    def readout_weights(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, T): half of it CLS, half the patches."""
        weights = torch.zeros_like(tokens[..., 0])
        weights[:, 0] = 1 / 2
        weights[:, self.prefix :] = 1 / 2 / (tokens.shape[1] - self.prefix)
        return weights


class SeqPool(Pool):
    """Scores every patch token with one linear layer and averages them with the softmax of the
    scores. Patches that show the object weigh more than background (Hassani et al., 2021).
    """

    def __init__(self, cfg: ViTConfig):
        super().__init__(cfg)
        self.score = nn.Linear(cfg.width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, D)."""
        patches = self.patches(tokens)
        weights = self.score(patches).softmax(dim=1)  # (B, N, 1)
        return (weights * patches).sum(dim=1)  # (B, D)

    def readout_weights(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, T): the softmax of the patches' scores."""
        weights = self.score(self.patches(tokens)).softmax(dim=1)  # (B, N, 1)
        return F.pad(weights[..., 0], (self.prefix, 0))


POOLS = {"cls": ClsPool, "mean": MeanPool, "cls+mean": ClsMeanPool, "seqpool": SeqPool}
