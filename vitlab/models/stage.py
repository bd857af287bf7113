"""Convolutions on the way to patch tokens: a plain row of them, and the stage of a hybrid.

B images  C channels  H x W pixels  S channels of the stage
R, Q rows and columns of the stage: H and W over `stage_size`
"""

import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import HybridConfig
from vitlab.models.norm import NORMS

STEM = 64
"""Channels between the convolutions of cct, whitened and a hybrid's stem, whatever the width."""


class ConvStage(nn.Sequential):
    """Convolutions first make maps of local features, each place spanning `stage_size` pixels, and
    patches are cut from these instead of from pixels. What is near is then known from the start,
    and attention is left with what is far (Dai et al., 2021).

    Maps images (B, C, H, W) to (B, S, R, Q): a stem that halves them, then `stage_depth` blocks.
    """

    def __init__(self, cfg: HybridConfig, channels: int):
        halvings = cfg.stage_size.bit_length() - 1
        strides = [1, *([2] * halvings or [1])]
        widths = [channels, *[STEM] * (len(strides) - 1), cfg.stage_width]
        blocks = [ConvBlock(cfg) for _ in range(cfg.stage_depth)]
        super().__init__(nn.Sequential(*stem(widths, strides)), *blocks)


class ConvBlock(nn.Module):
    """A residual branch of a 7x7 convolution per channel, a norm and two linear layers with a GELU
    between them: a Transformer's block with a convolution for attention (Liu et al., 2022).
    """

    def __init__(self, cfg: HybridConfig):
        super().__init__()
        width = cfg.stage_width
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = NORMS[cfg.norm](width, cfg.norm_eps)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, S, R, Q) to maps."""
        branch = self.dwconv(maps).permute(0, 2, 3, 1)  # (B, R, Q, S)
        branch = self.fc2(F.gelu(self.fc1(self.norm(branch))))
        return maps + branch.permute(0, 3, 1, 2)


def stem(widths: list[int], strides: list[int]) -> list[nn.Module]:
    """3x3 convolutions from width to width, batch norm and GELU between them."""
    layers = []
    for inputs, outputs, stride in zip(widths[:-2], widths[1:-1], strides[:-1], strict=True):
        convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.GELU()]
    inputs, outputs = widths[-2:]
    return [*layers, nn.Conv2d(inputs, outputs, 3, stride=strides[-1], padding=1)]
