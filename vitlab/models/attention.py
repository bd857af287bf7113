"""Attention, computed in one of two ways that agree.

    fused     one kernel, which never stores the weights
    explicit  two matrix products with a softmax between them

The fused kernel needs less memory, and wins wherever tokens are many. On a CPU that multiplies
matrices in bf16 its backward pass is slow, so that for some tens of tokens the products win.

B images  T tokens  D width  H heads  d = D / H numbers per head
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import ViTConfig
from vitlab.models.dropout import Dropout
from vitlab.models.norm import NORMS
from vitlab.models.position import Grid, Position

Trace = dict[str, Tensor] | None
"""Intermediates of a forward pass by name, None where nobody wants them."""

EXPLICIT_TOKENS = 260
"""Tokens up to which a CPU may compute attention explicitly: beyond, the weights of a batch take
gigabytes. In fp32 the kernel is level or faster at any count (docs/speed.md); in bf16 the products
are faster up to the 1,025 that were measured (docs/speed-bf16.md), so memory decides."""


class Attention(nn.Module):
    """The query of every token is compared with the keys of all tokens, and their values are mixed,
    most of those that match best. Several heads do so side by side with projections of their own,
    so one block can mix near and far tokens (Vaswani et al., 2017).

    Args:
        grid: rows and columns of patches, behind the tokens of `cfg.prefix`.
        name: what a trace calls the attention weights.
    """

    attn_mask: Tensor | None

    def __init__(self, cfg: ViTConfig, grid: Grid, name: str):
        super().__init__()
        self.name = name
        self.prefix, self.heads, self.head_width = cfg.prefix, cfg.heads, cfg.head_width
        self.backend = "auto"
        self.qkv = nn.Linear(cfg.width, 3 * cfg.width, bias=cfg.qkv_bias)
        norms = [NORMS[cfg.norm](cfg.head_width, cfg.norm_eps) for _ in range(2)]
        self.q_norm, self.k_norm = norms if cfg.qk_norm else (nn.Identity(), nn.Identity())
        self.temperature, attn_mask = None, None
        if cfg.lsa:
            self.temperature = nn.Parameter(torch.full((cfg.heads, 1, 1), cfg.head_width**0.5))
            attn_mask = self.all_but_itself(grid)
        self.register_buffer("attn_mask", attn_mask, persistent=False)
        self.attn_drop = Dropout(cfg.attention_dropout)
        self.proj = nn.Linear(cfg.width, cfg.width)
        self.proj_drop = Dropout(cfg.dropout if cfg.proj_dropout is None else cfg.proj_dropout)

    def forward(self, tokens: Tensor, position: Position, trace: Trace = None) -> Tensor:
        """Tokens (B, T, D) to tokens (B, T, D); `trace` gets the weights (B, H, T, T)."""
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, self.head_width))  # (B, T, 3, H, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
        q, k = position.rotate(self.q_norm(q)), position.rotate(self.k_norm(k))
        scale = self.head_width**-0.5
        if self.temperature is not None:
            q, scale = q / self.temperature, 1.0
        if trace is None and self.fused(q):
            mixed = F.scaled_dot_product_attention(q, k, v, self.attn_mask, scale=scale)
        else:
            scores = q * scale @ k.mT
            if self.attn_mask is not None:
                scores = scores.masked_fill(~self.attn_mask, -torch.inf)
            weights = scores.softmax(dim=-1).to(v.dtype)  # (B, H, T, T)
            if trace is not None:
                trace[self.name] = weights
            mixed = self.attn_drop(weights) @ v
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))  # (B, T, D)

    def fused(self, q: Tensor) -> bool:
        """True where one kernel computes what queries (B, H, T, d) find.

        Weights that are dropped have to be there: their masks are ours, equal on every device.
        """
        if self.training and self.attn_drop.rate:
            return False
        if self.backend != "auto":
            return self.backend == "fused"
        slow = q.device.type == "cpu" and q.dtype == torch.bfloat16
        return not slow or q.shape[-2] > EXPLICIT_TOKENS

    def resize(self, grid: Grid) -> None:
        """Take another number of rows and columns of patches from now on."""
        if self.attn_mask is not None:
            self.attn_mask = self.all_but_itself(grid).to(self.attn_mask.device)

    def all_but_itself(self, grid: Grid) -> Tensor:
        """Which tokens a token may attend to: (T, T), False on the diagonal."""
        return ~torch.eye(self.prefix + math.prod(grid), dtype=torch.bool)


def attentions(model: nn.Module) -> list[Attention]:
    """All attention of a model, in the order of its blocks."""
    return [module for module in model.modules() if isinstance(module, Attention)]


def set_attention_backend(model: nn.Module, backend: str) -> None:
    """Compute all attention of a model `auto`, `fused` or `explicit` from now on."""
    for attention in attentions(model):
        attention.backend = backend
