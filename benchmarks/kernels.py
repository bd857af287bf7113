"""What parts of a block cost on a CPU: attention in both ways by token count, and dropout."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitlab.bench.measure import interleaved
from vitlab.config import ViTConfig
from vitlab.device import DTYPES, autocast
from vitlab.models.attention import Attention
from vitlab.models.dropout import Dropout
from vitlab.models.position import POSITIONS

CPU = torch.device("cpu")

TOKENS = (16, 36, 65, 101, 145, 197, 257, 577, 1025)

ALL_TOKENS = 8192
"""Tokens of a batch, whatever an image's are, so that the linear layers cost the same."""


def attention(
    precisions: list[str], rounds: int, seconds: float, counts: tuple[int, ...] = TOKENS
) -> dict[str, Any]:
    """Milliseconds of an attention layer of DeiT-Tiny's shape by precision and tokens an image.

    Returns:
        precision -> tokens -> {"fused", "explicit": forward and backward; "fused, forward",
        "explicit, forward": inference}
    """
    config = ViTConfig(position="none")
    layer = Attention(config, (1, 1), "attention")
    position = POSITIONS["none"](config, (1, 1))

    def call(backend: str, precision: str, tokens: Tensor, backward: bool) -> None:
        layer.backend = backend
        with autocast(CPU, precision), torch.inference_mode(not backward):
            out = layer(tokens, position)
        if backward:
            out.float().sum().backward()

    found: dict[str, Any] = {}
    for precision in precisions:
        found[precision] = {}
        for count in counts:
            shape = max(1, ALL_TOKENS // count), count, config.width
            tokens = torch.randn(shape, requires_grad=True)
            calls = {
                f"{backend}{suffix}": partial(call, backend, precision, tokens, backward)
                for suffix, backward in (("", True), (", forward", False))
                for backend in ("fused", "explicit")
            }
            timings = interleaved(calls, device=CPU, rounds=rounds, seconds=seconds)
            found[precision][str(count)] = {n: 1e3 * t.median for n, t in timings.items()}
    return found


def dropout(precisions: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Nanoseconds a number of dropout, forward and backward, ours and torch's, by precision.

    Returns:
        precision -> {"vitlab", "torch"}
    """

    def call(layer: nn.Module, tokens: Tensor, gradient: Tensor) -> None:
        layer(tokens).backward(gradient)

    found = {}
    for precision in precisions:
        tokens = torch.randn(ALL_TOKENS, 768, dtype=DTYPES[precision], requires_grad=True)
        layers = {"vitlab": Dropout(0.1), "torch": nn.Dropout(0.1)}
        ones = torch.ones_like(tokens)
        calls = {name: partial(call, layer, tokens, ones) for name, layer in layers.items()}
        timings = interleaved(calls, device=CPU, rounds=rounds, seconds=seconds)
        found[precision] = {n: 1e9 * t.median / tokens.numel() for n, t in timings.items()}
    return found
