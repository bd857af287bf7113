"""How an image becomes patch tokens: the axis `patch`.

Every choice ends in the same map of one token per square of P x P pixels, read row by row; they
differ in the layers of `proj` alone. P is `cfg.patch_step`: in a hybrid, squares are cut from the
maps of a convolutional stage instead of from the image.

B images  C channels  H x W pixels  D width  N tokens = rows * columns
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import HybridConfig, ViTConfig
from vitlab.models.norm import NORMS
from vitlab.models.stage import STEM, ConvStage, stem


class Patch(nn.Module, ABC):
    """Maps images (B, C, H, W) to tokens (B, N, D)."""

    def __init__(self, cfg: ViTConfig, channels: int):
        super().__init__()
        if isinstance(cfg, HybridConfig):
            parts = {
                "stage": ConvStage(cfg, channels),
                "patch": self.build(cfg, cfg.stage_width),
            }
            self.proj = nn.Sequential(OrderedDict(parts))
        else:
            self.proj = self.build(cfg, channels)
        self.norm = NORMS[cfg.norm](cfg.width, cfg.norm_eps) if cfg.embed_norm else nn.Identity()

    @staticmethod
    @abstractmethod
    def build(cfg: ViTConfig, channels: int) -> nn.Module:
        """The layers that map (B, C, H, W) to (B, D, rows, columns)."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to tokens (B, N, D)."""
        grid = self.proj(images)  # (B, D, rows, columns)
        return self.norm(grid.flatten(2).transpose(1, 2))  # (B, N, D)

    def calibrate(self, parts: Iterable[Tensor]) -> None:
        """Compute from training images, parts of (B, C, H, W), before step 0, what is not trained.

        Here nothing: no part is taken, so that none is made.
        """


class LinearPatch(Patch):
    """Cuts the image into squares and maps the pixels of each to a token with one linear layer. A
    convolution whose kernel is its stride is that very map (Dosovitskiy et al., 2021).
    """

    @staticmethod
    def build(cfg: ViTConfig, channels: int) -> nn.Module:
        """One convolution that steps from square to square."""
        return nn.Conv2d(channels, cfg.width, cfg.patch_step, stride=cfg.patch_step)


class OverlapPatch(Patch):
    """One linear layer on squares almost twice as wide as their distance, so that neighbours
    share pixels. An edge on the border of two patches is seen whole (Wang et al., 2022).
    """

    @staticmethod
    def build(cfg: ViTConfig, channels: int) -> nn.Module:
        """One convolution padded so that the grid stays that of `linear`."""
        reach = cfg.patch_step - 1
        return nn.Conv2d(channels, cfg.width, 2 * reach + 1, stride=cfg.patch_step, padding=reach)


class ConvPatch(Patch):
    """One to three 3x3 convolutions, with batch norm and GELU between them, halve the image until
    a token spans a patch. Local features come cheap and training gets steadier (Xiao et al., 2021).
    """

    @staticmethod
    def build(cfg: ViTConfig, channels: int) -> nn.Module:
        """Convolutions that double the channels up to the width, those of stride 2 last."""
        halvings = cfg.patch_step.bit_length() - 1
        widths = [cfg.width // 2**step for step in reversed(range(cfg.convs))]
        strides = [1] * (cfg.convs - halvings) + [2] * halvings
        return nn.Sequential(*stem([channels, *widths], strides))


class CctPatch(Patch):
    """The tokenizer of the Compact Convolutional Transformer: a 3x3 convolution, ReLU and
    max-pooling, once per halving. Pooling overlaps, so no patch has a hard border
    (Hassani et al., 2021).
    """

    @staticmethod
    def build(cfg: ViTConfig, channels: int) -> nn.Module:
        """As many convolutions as halvings, the last one making tokens."""
        halvings = cfg.patch_step.bit_length() - 1
        layers = []
        for inputs, outputs in pairwise([channels, *[STEM] * (halvings - 1), cfg.width]):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            layers += [convolution, nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
        return nn.Sequential(*layers)


class ShiftedPatch(Patch):
    """Puts four copies of the image, shifted diagonally by half a patch, behind it as channels,
    cuts squares, normalises each and maps it with one linear layer. A token then sees half a patch
    beyond each of its borders (Lee et al., 2021).
    """

    @staticmethod
    def build(cfg: ViTConfig, channels: int) -> nn.Module:
        """Shift, cut, normalise, map."""
        return ShiftedSquares(cfg, channels)


class ShiftedSquares(nn.Module):
    """Maps images (B, C, H, W) to (B, D, rows, columns) by squares of five shifted copies."""

    def __init__(self, cfg: ViTConfig, channels: int):
        super().__init__()
        self.size = cfg.patch_step
        numbers = 5 * channels * self.size**2
        self.norm = NORMS[cfg.norm](numbers, cfg.norm_eps)
        self.linear = nn.Linear(numbers, cfg.width)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, D, rows, columns); what is shifted in from outside is 0."""
        height, width = images.shape[2:]
        half = self.size // 2
        wide = F.pad(images, (half, half, half, half))
        shifted = [
            wide[:, :, top : top + height, left : left + width]
            for top in (0, 2 * half)
            for left in (0, 2 * half)
        ]
        squares = F.pixel_unshuffle(torch.cat([images, *shifted], dim=1), self.size)
        tokens = self.linear(self.norm(squares.permute(0, 2, 3, 1)))  # (B, rows, columns, D)
        return tokens.permute(0, 3, 1, 2)


class WhitenedPatch(Patch):
    """Starts with frozen 2x2 filters that decorrelate the pixels of the training images, each in
    both signs, then learns 3x3 convolutions. The first layer needs no training, so that short
    runs go further (Page, 2019; Jordan, 2024).
    """

    @staticmethod
    def build(cfg: ViTConfig, channels: int) -> nn.Module:
        """Whitening at stride 2, a convolution at that size, then one per further halving."""
        halvings = cfg.patch_step.bit_length() - 2
        strides = [2] * halvings or [1]
        widths = [8 * channels, *[STEM] * len(strides), cfg.width]
        return nn.Sequential(Whitening(channels), nn.GELU(), *stem(widths, [1, *strides]))

    def calibrate(self, parts: Iterable[Tensor]) -> None:
        """Compute the filters from normalised training images, parts of (B, C, H, W)."""
        whitening = self.proj.get_submodule("0")
        assert isinstance(whitening, Whitening)
        whitening.calibrate(parts)


class Whitening(nn.Module):
    """Fixed 2x2 filters of stride 2 and their negatives: (B, C, H, W) to (B, 8C, H/2, W/2).

    Until `calibrate` has seen images, the filters pass the four pixels on as they are.
    """

    weight: Tensor
    EPSILON = 5e-4

    def __init__(self, channels: int):
        super().__init__()
        pixels = torch.eye(4 * channels).view(-1, channels, 2, 2)
        self.register_buffer("weight", torch.cat([pixels, -pixels]))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, 8C, H/2, W/2)."""
        return F.conv2d(images, self.weight, stride=2)

    @torch.no_grad()
    def calibrate(self, parts: Iterable[Tensor]) -> None:
        """Take the principal axes of the images' 2x2 squares, scaled to unit variance.

        What varies within the parts and what varies between them adds up to the whole.
        """
        found = []
        for images in parts:
            squares = F.unfold(images, 2, stride=2).transpose(0, 1).flatten(1)  # (4C, squares)
            moments = squares.mean(dim=1).cpu().double(), squares.cov().cpu().double()
            found.append((squares.shape[1], *moments))
        whole = sum(count for count, _, _ in found)
        middle = sum(count / whole * mean for count, mean, _ in found)
        covariance = sum(
            (count - 1) / (whole - 1) * within
            + count / (whole - 1) * torch.outer(mean - middle, mean - middle)
            for count, mean, within in found
        )
        assert isinstance(covariance, Tensor), "there are images"
        variances, axes = torch.linalg.eigh(covariance)
        filters = (axes / (variances + self.EPSILON).sqrt()).T.view(-1, *self.weight.shape[1:])
        self.weight.copy_(torch.cat([filters, -filters]))


def pad(images: Tensor, size: int) -> Tensor:
    """Border images on the right and below with 0, the mean colour, to a multiple of `size`."""
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % size, 0, -height % size))


PATCHES = {
    "linear": LinearPatch,
    "conv": ConvPatch,
    "cct": CctPatch,
    "overlap": OverlapPatch,
    "spt": ShiftedPatch,
    "whitened": WhitenedPatch,
}
