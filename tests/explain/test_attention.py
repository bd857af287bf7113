"""Attention: which tokens the head reads, how layers are joined, where maps lie in the image."""

import pytest
import torch

from vitlab.config import CNN6Config, ViTConfig
from vitlab.errors import VitlabError
from vitlab.explain.attention import (
    attention,
    distances,
    every_head,
    gradient_rollout,
    mean_distance,
    position_similarity,
    read_out,
    roll_out,
    rollout,
    trace_attention,
)

IMAGES = torch.linspace(-2, 2, 2 * 3 * 16 * 16).sin().view(2, 3, 16, 16)
CLASSES = torch.tensor([0, 3])
POOLS = {
    "cls": {},
    "mean": {"cls_token": False},
    "cls+mean": {"registers": 2},
    "seqpool": {"cls_token": False, "registers": 1},
}


@pytest.fixture
def vit(build):
    """What makes a small ViT with pronounced weights."""

    def make(image_size=(16, 16), **fields):
        small = {"width": 16, "depth": 2, "heads": 2, "init_std": 0.5}
        return build(ViTConfig(**{**small, **fields}), image_size, spread=3.0)

    return make


@pytest.mark.parametrize("pool", POOLS)
def test_rows_of_attention_and_readout_weights_sum_to_one(vit, pool):
    model = vit(pool=pool, **POOLS[pool])
    seen = trace_attention(model, IMAGES)
    assert len(seen.layers) == 2
    for weights in seen.layers:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    torch.testing.assert_close(seen.readout_weights.sum(-1), torch.ones(2))
    torch.testing.assert_close(
        roll_out(seen.layers).sum(-1), torch.ones(seen.readout_weights.shape)
    )
    torch.testing.assert_close(seen.logits, model(IMAGES), atol=1e-4, rtol=0)


@pytest.mark.parametrize("pool", POOLS)
def test_readout_weights_say_what_the_head_reads(vit, pool):
    model = vit(pool=pool, **POOLS[pool])
    tokens = model.features(IMAGES)
    pooled = read_out(model.readout_weights(tokens), tokens)
    vector = model.pool(tokens)
    parts = vector.chunk(2, dim=-1) if pool == "cls+mean" else (vector,)
    torch.testing.assert_close(pooled, sum(parts) / len(parts))


def test_a_distillation_token_is_one_half_of_what_the_heads_read(vit):
    model = vit(distill_token=True)
    shares = model.readout_weights(model.features(IMAGES))
    assert shares[:, :2].tolist() == [[0.5, 0.5]] * 2 and not shares[:, 2:].any()


def test_the_map_of_a_cls_model_is_the_row_of_cls(vit):
    model, trace = vit(registers=2), {}
    model(IMAGES, trace)
    row = trace["block01.attention"].mean(dim=1)[:, 0, 3:].unflatten(1, (4, 4))
    torch.testing.assert_close(attention(model, IMAGES, CLASSES), row)
    torch.testing.assert_close(every_head(model, IMAGES)[:, 1].mean(dim=1), row)


def test_the_map_of_a_pooled_model_weighs_rows_as_the_pool_does(vit):
    model, trace = vit(pool="seqpool", cls_token=False), {}
    model(IMAGES, trace)
    weights = model.pool.score(model.norm(trace["block01"])).softmax(dim=1)  # (B, N, 1)
    rows = (weights * trace["block01.attention"].mean(dim=1)).sum(dim=1).unflatten(1, (4, 4))
    torch.testing.assert_close(attention(model, IMAGES, CLASSES), rows)


def test_rollout_of_uniform_attention_is_uniform():
    even = torch.full((1, 3, 17, 17), 1 / 17)
    joined = roll_out((even,) * 4)[0]
    others = joined[~torch.eye(17, dtype=torch.bool)]
    torch.testing.assert_close(others, torch.full_like(others, (1 - 0.5**4) / 17))


def test_rollout_joins_layers_first_to_last():
    one, two = torch.rand(2, 1, 2, 3, 3).softmax(dim=-1)
    own = torch.eye(3)
    expected = (two.mean(1) / 2 + own / 2) @ (one.mean(1) / 2 + own / 2)
    torch.testing.assert_close(roll_out((one, two)), expected)


def test_gradient_rollout_of_one_layer_is_helpful_attention(vit):
    model, trace = vit(depth=1), {}
    score = model(IMAGES, trace)[[0, 1], CLASSES].sum()
    weights = trace["block00.attention"]
    (gradient,) = torch.autograd.grad(score, weights)
    helpful = (weights * gradient).clamp(min=0).mean(dim=1)[:, 0, 1:].unflatten(1, (4, 4))
    found = gradient_rollout(model, IMAGES, CLASSES)
    torch.testing.assert_close(found, helpful)
    assert not torch.allclose(found, gradient_rollout(model, IMAGES, CLASSES.flip(0)))
    assert not found.requires_grad and model.head.weight.grad is None


@pytest.mark.parametrize("method", [attention, rollout, gradient_rollout])
def test_maps_cover_what_the_model_was_shown_whatever_stands_before_the_patches(vit, method):
    model = vit((8, 16), registers=3, distill_token=True)
    assert method(model, torch.randn(2, 3, 8, 16), CLASSES).shape == (2, 2, 4)


def test_patches_beyond_the_border_are_cut(vit):
    model = vit((10, 14), pad_to_patch=True)
    map = attention(model, torch.randn(1, 3, 10, 14), CLASSES[:1])
    assert map.shape == (1, 10, 14)
    assert (map[0, :4, :4] == map[0, 0, 0]).all() and (map[0, 8:, 12:] == map[0, -1, -1]).all()


def test_attention_to_all_alike_reaches_as_far_as_the_mean_of_distances(vit):
    model = vit()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.zero_()
    even = distances(model, torch.device("cpu")).mean()
    torch.testing.assert_close(mean_distance(model, IMAGES), even.expand(2, 2))


def test_distances_are_in_pixels(vit):
    between = distances(vit((8, 16)), torch.device("cpu"))
    assert between[0].tolist() == pytest.approx([0, 4, 8, 12, 4, 32**0.5, 80**0.5, 160**0.5])


def test_rotated_positions_are_as_similar_as_their_offsets(vit):
    similarity = position_similarity(vit(position="rope"))
    torch.testing.assert_close(similarity[0, 0, :3, :3], similarity[1, 1, 1:, 1:])
    torch.testing.assert_close(similarity[2, 3, 2, 3], torch.tensor(1.0))


@pytest.mark.parametrize("position", ["learned", "sin1d", "sin2d"])
def test_added_positions_are_compared_as_they_are_added(vit, position):
    model = vit(position=position, position_on_cls=True, registers=1)
    tokens = torch.zeros(1, 18, 16)
    first, last = model.pos_embed.add(tokens)[0, [2, 17]]
    expected = torch.cosine_similarity(first, last, dim=0)
    torch.testing.assert_close(position_similarity(model)[0, 0, 3, 3], expected)


def test_patches_without_positions_have_no_similarity_of_positions(vit):
    assert position_similarity(vit(position="none")) is None


def test_a_cnn_has_no_attention(build):
    with pytest.raises(VitlabError, match="CNN6 has no attention"):
        rollout(build(CNN6Config(width=4)), IMAGES, CLASSES)
