"""Attention is the same whichever backend computes it, and the backend is the one that was set."""

import pytest
import torch

from vitlab.config import ViTConfig
from vitlab.models.attention import EXPLICIT_TOKENS, Attention, set_attention_backend
from vitlab.models.position import POSITIONS


def layer(**fields) -> Attention:
    torch.manual_seed(0)
    return Attention(ViTConfig(width=32, heads=4, **fields), (4, 4), "block00.attention")


def attend(module: Attention, tokens: torch.Tensor, trace=None) -> torch.Tensor:
    cfg = ViTConfig(width=32, heads=4, position="none")
    return module(tokens, POSITIONS["none"](cfg, (1, 1)), trace)


@pytest.mark.parametrize("fields", [{}, {"qk_norm": True}, {"lsa": True}], ids=str)
def test_both_backends_agree_forward_and_backward(fields):
    tokens = torch.randn(3, 17, 32)
    found = {}
    for way in ("fused", "explicit"):
        module = layer(**fields)
        set_attention_backend(module, way)
        out = attend(module, tokens)
        out.square().sum().backward()
        found[way] = [out, *(p.grad for p in module.parameters() if p.grad is not None)]
    torch.testing.assert_close(found["fused"], found["explicit"], atol=1e-4, rtol=1e-4)


def test_a_traced_pass_equals_an_untraced_one_whatever_the_way():
    tokens, trace = torch.randn(3, 17, 32), {}
    module = layer().eval()
    with torch.no_grad():
        traced = attend(module, tokens, trace)
        for way in ("auto", "fused", "explicit"):
            set_attention_backend(module, way)
            torch.testing.assert_close(attend(module, tokens), traced, atol=1e-4, rtol=0)
    torch.testing.assert_close(trace["block00.attention"].sum(-1), torch.ones(3, 4, 17))


def test_a_cpu_takes_products_only_in_bf16_and_for_few_tokens():
    few, many = torch.zeros(1, 4, 65, 8), torch.zeros(1, 4, EXPLICIT_TOKENS + 1, 8)
    module = layer().eval()
    assert module.fused(few) and module.fused(many)
    assert not module.fused(few.bfloat16()) and module.fused(many.bfloat16())
    assert module.fused(few.bfloat16().to("meta"))  # any other device
    set_attention_backend(module, "explicit")
    assert not module.fused(few)
    set_attention_backend(module, "fused")
    assert module.fused(few.bfloat16())


def test_weights_are_dropped_while_it_trains_whatever_the_way():
    tokens = torch.randn(3, 17, 32)
    module = layer(attention_dropout=0.5)
    set_attention_backend(module, "fused")
    assert not torch.equal(attend(module, tokens), attend(module, tokens))
    module.eval()
    assert torch.equal(attend(module, tokens), attend(module, tokens))


def test_locality_attention_is_softmax_over_a_temperature_without_the_diagonal():
    module, tokens, trace = layer(lsa=True), torch.randn(3, 17, 32), {}
    assert torch.equal(module.temperature, torch.full((4, 1, 1), 8**0.5))
    torch.nn.init.uniform_(module.temperature, 0.5, 2.0)
    parts = module.qkv(tokens).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in parts)
    scores = (q @ k.mT / module.temperature).exp() * (1 - torch.eye(17))
    weights = scores / scores.sum(-1, keepdim=True)
    expected = module.proj((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attend(module, tokens), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(attend(module, tokens, trace), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(trace["block00.attention"], weights)
    module.resize((2, 3))
    assert attend(module, tokens[:, :7]).shape == (3, 7, 32)
    assert "attn_mask" not in module.state_dict()
