"""How tokens are normalised: the axis `norm`.

A norm maps (..., D) to (..., D), D being the last dimension: the width of the residual
stream, or the numbers per head where queries and keys are normalised.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Takes the mean off every token and divides by its standard deviation, then applies a
    learned scale and shift. Tokens keep one size however deep the network is (Ba et al., 2016).
    """

    def __init__(self, width: int, eps: float):
        super().__init__(width, eps=eps)


class RMSNorm(nn.Module):
    """Divides every token by its root mean square and applies a learned scale. It leaves out
    LayerNorm's mean and shift, which costs less and seldom matters (Zhang & Sennrich, 2019).
    """

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) to (..., D); squares are summed in fp32, where half precision would overflow."""
        return F.rms_norm(tokens.float(), self.weight.shape, self.weight, self.eps)


NORMS = {"layer": LayerNorm, "rms": RMSNorm}
