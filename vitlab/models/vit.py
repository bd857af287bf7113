"""The Vision Transformer (Dosovitskiy et al., 2021), one field of ViTConfig per axis.

    images -> patch_embed -> [prefix, patches] + pos_embed -> blocks -> norm -> pool -> head

What the values of an axis mean is in patch.py, position.py, norm.py, ffn.py and pool.py; this file
uses whatever their dictionaries offer. Names of modules follow timm, so that weights travel.

B images  C channels  K classes  T tokens: the prefix, then N patches
prefix: CLS, then the distillation token, then registers, as far as there are any
D width  H heads  d = D / H numbers per head
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vitlab.config import ViTConfig
from vitlab.models.attention import Attention, Trace, attentions
from vitlab.models.dropout import Dropout, DropPath
from vitlab.models.ffn import FFNS
from vitlab.models.init import INITS
from vitlab.models.norm import NORMS
from vitlab.models.patch import PATCHES, pad
from vitlab.models.pool import POOLS
from vitlab.models.position import POSITIONS, Grid, Position


class LayerScale(nn.Module):
    """A learned factor per channel on a branch, small at the start (Touvron et al., 2021)."""

    def __init__(self, cfg: ViTConfig):
        super().__init__()
        self.gamma = nn.Parameter(cfg.layer_scale * torch.ones(cfg.width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        return tokens * self.gamma


class Block(nn.Module, ABC):
    """Two residual branches: attention mixes tokens, the feed-forward network works on each. What a
    branch finds is added to what entered it, so that nothing is lost on the way and gradients reach
    the first block (He et al., 2016).
    """

    def __init__(self, cfg: ViTConfig, grid: Grid, index: int):
        super().__init__()
        rate = cfg.drop_path * index / max(1, cfg.depth - 1)
        self.norm1 = NORMS[cfg.norm](cfg.width, cfg.norm_eps)
        self.attn = Attention(cfg, grid, f"{block_name(index)}.attention")
        self.ls1 = LayerScale(cfg) if cfg.layer_scale else nn.Identity()
        self.norm2 = NORMS[cfg.norm](cfg.width, cfg.norm_eps)
        self.mlp = FFNS[cfg.ffn](cfg)
        self.ls2 = LayerScale(cfg) if cfg.layer_scale else nn.Identity()
        self.drop_path = DropPath(rate)

    @abstractmethod
    def forward(self, tokens: Tensor, position: Position, trace: Trace = None) -> Tensor:
        """Tokens (B, T, D) to tokens (B, T, D)."""


class PreNorm(Block):
    """Normalises what enters each branch, and once at the end. The residual stream itself is never
    touched, so gradients reach the first block undiminished (Xiong et al., 2020).
    """

    def forward(self, tokens: Tensor, position: Position, trace: Trace = None) -> Tensor:
        """Tokens (B, T, D) to tokens (B, T, D)."""
        mixed = self.attn(self.norm1(tokens), position, trace)
        tokens = tokens + self.drop_path(self.ls1(mixed))
        return tokens + self.drop_path(self.ls2(self.mlp(self.norm2(tokens), position.grid)))


class PostNorm(Block):
    """Normalises after each residual sum, as the first Transformer did. Tokens keep one size from
    block to block, but deep models want a warm-up (Vaswani et al., 2017).
    """

    def forward(self, tokens: Tensor, position: Position, trace: Trace = None) -> Tensor:
        """Tokens (B, T, D) to tokens (B, T, D)."""
        mixed = self.attn(tokens, position, trace)
        tokens = self.norm1(tokens + self.drop_path(self.ls1(mixed)))
        return self.norm2(tokens + self.drop_path(self.ls2(self.mlp(tokens, position.grid))))


BLOCKS = {"pre": PreNorm, "post": PostNorm}


def block_name(index: int) -> str:
    """What a trace calls the tokens that leave a block."""
    return f"block{index:02d}"


class ViT(nn.Module):
    """Maps normalised images (B, C, height, width) to logits (B, K)."""

    def __init__(self, cfg: ViTConfig, image_size: tuple[int, int], channels: int, classes: int):
        super().__init__()
        self.cfg = cfg
        grid = cfg.grid(image_size)
        self.patch_embed = PATCHES[cfg.patch](cfg, channels)
        self.cls_token = token(1, cfg) if cfg.cls_token else None
        self.dist_token = token(1, cfg) if cfg.distill_token else None
        self.reg_token = token(cfg.registers, cfg) if cfg.registers else None
        self.pos_embed = POSITIONS[cfg.position](cfg, grid)
        self.pos_drop = Dropout(cfg.embed_dropout)
        block = BLOCKS[cfg.norm_place]
        self.blocks = nn.ModuleList(block(cfg, grid, index) for index in range(cfg.depth))
        # The last post-norm block has just normalised: a final norm would do it twice.
        norm = NORMS[cfg.norm](cfg.width, cfg.norm_eps)
        self.norm = norm if cfg.norm_place == "pre" else nn.Identity()
        self.pool = POOLS[cfg.pool](cfg)
        self.head = nn.Linear(self.pool.width, classes)
        self.head_dist = nn.Linear(cfg.width, classes) if cfg.distill_token else None
        INITS[cfg.init](self, cfg.init_std)

    def forward(self, images: Tensor, trace: Trace = None) -> Tensor:
        """Images (B, C, height, width) to logits (B, K): with two heads, the mean of theirs.

        A dictionary given as `trace` is filled with `patches` (B, T, D), the tokens that enter
        the first block, and for every block `block03` (B, T, D) and `block03.attention`
        (B, H, T, T), rows being queries. Without it attention is fused.
        """
        logits = self.head_logits(images, trace)
        return logits[0] if len(logits) == 1 else (logits[0] + logits[1]) / 2

    def head_logits(self, images: Tensor, trace: Trace = None) -> tuple[Tensor, ...]:
        """Images (B, C, height, width) to the logits (B, K) of each classification head.

        With a distillation token there are two: the first head learns from the labels, the second,
        which reads that token, from a teacher.
        """
        tokens = self.features(images, trace)
        logits = self.head(self.pool(tokens))
        if self.head_dist is None:
            return (logits,)
        return logits, self.head_dist(tokens[:, int(self.cfg.cls_token)])

    def features(self, images: Tensor, trace: Trace = None) -> Tensor:
        """Images (B, C, height, width) to the tokens (B, T, D) that are pooled."""
        if self.cfg.pad_to_patch:
            images = pad(images, self.cfg.patch_size)
        patches = self.patch_embed(images)  # (B, N, D)
        learned = (self.cls_token, self.dist_token, self.reg_token)
        prefix = [each.expand(images.shape[0], -1, -1) for each in learned if each is not None]
        tokens = torch.cat([*prefix, patches], dim=1) if prefix else patches  # (B, T, D)
        tokens = self.pos_drop(self.pos_embed.add(tokens))
        if trace is not None:
            trace["patches"] = tokens
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, self.pos_embed, trace)
            if trace is not None:
                trace[block_name(index)] = tokens
        return self.norm(tokens)

    def readout_weights(self, tokens: Tensor) -> Tensor:
        """How much of each of the tokens (B, T, D) of `features` the heads read: (B, T).

        Rows sum to 1; of two heads, each reads for one half.
        """
        weights = self.pool.readout_weights(tokens)
        if self.head_dist is None:
            return weights
        distilled = torch.zeros_like(weights)
        distilled[:, int(self.cfg.cls_token)] = 1
        return (weights + distilled) / 2

    def resize(self, image_size: tuple[int, int]) -> None:
        """Take images of another (height, width) in pixels from now on."""
        grid = self.cfg.grid(image_size)
        for part in (self.pos_embed, *attentions(self)):
            part.resize(grid)

    def calibrate(self, parts: Iterable[Tensor]) -> None:
        """Compute what is not trained from normalised training images, which are given in parts of
        (B, C, height, width), each made when it is taken.
        """
        self.patch_embed.calibrate(parts)


def token(count: int, cfg: ViTConfig) -> nn.Parameter:
    """Learned tokens (1, count, D), the same for every image."""
    return nn.Parameter(torch.zeros(1, count, cfg.width))
