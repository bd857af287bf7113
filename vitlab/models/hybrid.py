"""A convolutional stage before the ViT: the model kind `hybrid`.

    images -> stage: stem -> blocks -> patch embedding -> the rest of the ViT

B images  C channels  H x W pixels  S channels of the stage  D width
R, Q rows and columns of the stage: H and W over `stage_size`
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import HybridConfig
from vitlab.models.norm import NORMS
from vitlab.models.patch import PATCHES, STEM, Patch, stem
from vitlab.models.vit import ViT


class Hybrid(ViT):
    """Convolutions first make maps of local features, each place spanning `stage_size` pixels, and
    patches are cut from these instead of from pixels. What is near is then known from the start,
    and attention is left with what is far (Dai et al., 2021).
    """

    @staticmethod
    def embedding(cfg: HybridConfig, channels: int) -> Patch:
        """The stage, then the patch embedding of the config on its maps."""
        return HybridPatch(cfg, channels)


class HybridPatch(Patch):
    """Maps images (B, C, H, W) to tokens (B, N, D) by a stage and a patch embedding behind it."""

    @staticmethod
    def build(cfg: HybridConfig, channels: int) -> nn.Module:
        """The layers by name, so that they can be told apart: `stage` and `patch`."""
        halvings = cfg.stage_size.bit_length() - 1
        strides = [1, *([2] * halvings or [1])]
        widths = [channels, *[STEM] * (len(strides) - 1), cfg.stage_width]
        blocks = [ConvBlock(cfg) for _ in range(cfg.stage_depth)]
        layers = {
            "stage": nn.Sequential(nn.Sequential(*stem(widths, strides)), *blocks),
            "patch": PATCHES[cfg.patch].build(cfg, cfg.stage_width),
        }
        return nn.Sequential(OrderedDict(layers))


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
