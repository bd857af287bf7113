"""What parts of a block cost on a CPU: attention in both ways by token count, and dropout."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitlab.bench.measure import interleaved
from vitlab.config import ViTConfig
from vitlab.device import autocast
from vitlab.models.attention import Attention
from vitlab.models.dropout import Dropout
from vitlab.models.position import POSITIONS

TOKENS = (16, 36, 65, 101, 145, 197, 257, 577, 1025)

ALL_TOKENS = 8192
"""Tokens of a batch, whatever an image's are, so that the linear layers cost the same."""


def attention(
    words: list[str], rounds: int, seconds: float, counts: tuple[int, ...] = TOKENS
) -> dict[str, Any]:
    """Milliseconds of an attention layer of DeiT-Tiny's shape by precision and tokens an image.

    Returns:
        precision -> tokens -> {"fused", "explicit": forward and backward; "fused, forward",
        "explicit, forward": inference}
    """
    cfg = ViTConfig(position="none")
    layer = Attention(cfg, (1, 1), "attention")
    position = POSITIONS["none"](cfg, (1, 1))

    def call(way: str, tokens: Tensor, precision: str) -> None:
        layer.backend = way
        with autocast(tokens.device, precision):
            out = layer(tokens, position)
        if torch.is_grad_enabled():
            out.float().sum().backward()

    def forward(way: str, tokens: Tensor, precision: str) -> None:
        with torch.inference_mode():
            call(way, tokens, precision)

    device, found = torch.device("cpu"), {}
    for precision in words:
        found[precision] = {}
        for count in counts:
            tokens = torch.randn(max(1, ALL_TOKENS // count), count, cfg.width, requires_grad=True)
            calls = {way: partial(call, way, tokens, precision) for way in ("fused", "explicit")}
            calls |= {
                f"{way}, forward": partial(forward, way, tokens, precision) for way in tuple(calls)
            }
            timings = interleaved(calls, device=device, rounds=rounds, seconds=seconds)
            found[precision][str(count)] = {n: 1e3 * t.median for n, t in timings.items()}
    return found


def dropout(words: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Nanoseconds a number of dropout, forward and backward, ours and torch's, by precision.

    Returns:
        precision -> {"vitlab", "torch"}
    """
    found = {}
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    for precision in words:
        tokens = torch.randn(ALL_TOKENS, 768, dtype=dtypes[precision], requires_grad=True)
        gradient = torch.ones_like(tokens)
        layers = {"vitlab": Dropout(0.1), "torch": nn.Dropout(0.1)}
        calls = {
            name: lambda layer=layer, tokens=tokens, gradient=gradient: layer(tokens).backward(
                gradient
            )
            for name, layer in layers.items()
        }
        timings = interleaved(calls, device=torch.device("cpu"), rounds=rounds, seconds=seconds)
        found[precision] = {n: 1e9 * t.median / tokens.numel() for n, t in timings.items()}
    return found
