"""Every value of every axis: it is there, it changes the model, and it does what it says."""

import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import get_args

import pytest
import tiny
import torch
import torch.nn.functional as F
from tiny import IMAGES

from vitlab.config import Ffn, HybridConfig, Norm, Patch, Pool, Position, ViTConfig
from vitlab.errors import ConfigError
from vitlab.fields import hints
from vitlab.models import AXES, SWITCHES, describe_parts
from vitlab.models.ffn import FFNS
from vitlab.models.norm import NORMS
from vitlab.models.patch import PATCHES
from vitlab.models.pool import POOLS
from vitlab.models.position import POSITIONS

SMALL = {"width": 16, "depth": 1, "heads": 2, "pool": "mean"}
vit = partial(tiny.vit, **SMALL)


# The vocabulary


def test_dictionaries_hold_exactly_the_values_of_the_config():
    words = {"patch": Patch, "position": Position, "norm": Norm, "ffn": Ffn, "pool": Pool}
    words["norm_place"] = hints(ViTConfig)["norm_place"]
    assert set(words) == set(AXES)
    for axis, literal in words.items():
        assert tuple(AXES[axis]) == get_args(literal)


def test_every_value_is_described_and_a_switch_only_where_it_is_on():
    for axis in AXES:
        texts = {describe_parts(ViTConfig(**{**SMALL, axis: value}))[axis] for value in AXES[axis]}
        assert len(texts) == len(AXES[axis]) and all(text.endswith(".") for text in texts)
    assert not set(SWITCHES) & set(describe_parts(ViTConfig(**SMALL)))
    everything = HybridConfig(**SMALL, **{name: CHANGES[name] for name in SWITCHES})
    assert list(describe_parts(everything)) == ["kind", *AXES, *SWITCHES]


CHANGES = {
    "patch": "conv", "patch_size": 8, "patch_convs": 2, "pad_to_patch": True, "embed_norm": True,
    "width": 24, "depth": 2, "heads": 4, "position": "sin2d", "position_on_cls": True,
    "init_std": 0.5, "init": "torch", "norm": "rms", "norm_eps": 0.1, "norm_place": "post",
    "ffn": "swiglu", "ffn_ratio": 2.0, "qkv_bias": False, "qk_norm": True, "lsa": True,
    "cls_token": False, "distill_token": True, "registers": 2, "pool": "seqpool",
    "dropout": 0.2, "proj_dropout": 0.2, "attention_dropout": 0.2, "embed_dropout": 0.2,
    "drop_path": 0.5, "layer_scale": 0.1,
}  # fmt: skip
HYBRID_CHANGES = {"stage_width": 12, "stage_depth": 2, "stage_size": 4}


def test_the_changes_name_every_field():
    assert {"kind", *CHANGES} == set(hints(ViTConfig))
    assert {"kind", *CHANGES, *HYBRID_CHANGES} == set(hints(HybridConfig))


@pytest.mark.parametrize("field", [*CHANGES, *HYBRID_CHANGES])
def test_every_field_changes_names_shapes_or_output(field):
    common = {
        "patch_convs": {"patch": "conv"},
        "drop_path": {"depth": 2},
        "pad_to_patch": {"image_size": (15, 14)},
    }.get(field, {"kind": "hybrid"} if field in HYBRID_CHANGES else {})
    changed = look(vit(**common, **{field: (CHANGES | HYBRID_CHANGES)[field]}))
    try:
        unchanged = look(vit(**common))
    except ConfigError as error:
        unchanged = str(error)
    assert changed != unchanged


@pytest.mark.parametrize("axis", AXES)
def test_no_two_words_of_an_axis_are_the_same(axis):
    seen = [look(vit(**{"init_std": 1.0, axis: word})) for word in AXES[axis]]
    assert all(one != other for one, other in itertools.combinations(seen, 2))


def look(model):
    """What can be told apart from outside: names, shapes and the output of a training step."""
    torch.manual_seed(1)
    names = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return names, model.train()(IMAGES).tolist()


# All pairs

WORDS = {
    **AXES,
    "kind": ("vit", "hybrid"),
    "registers": (0, 2),
    "qk_norm": (False, True),
    "lsa": (False, True),
    "layer_scale": (0.0, 0.1),
    "cls_token": (False, True),
    "distill_token": (False, True),
}


def possible(words: dict) -> bool:
    """False for words that exclude each other."""
    try:
        tiny.config(**SMALL | words)
    except ConfigError as error:
        assert "needs cls_token=True" in str(error) or "whitens pixels" in str(error)
        return False
    return True


def all_pairs() -> Iterator[dict]:
    """Some models, a word for each axis, in which every possible pair of words stands together."""
    words = [(axis, word) for axis in WORDS for word in WORDS[axis]]

    def pairs(chosen: dict) -> set:
        return set(itertools.combinations((one for one in words if one in chosen.items()), 2))

    missing = {
        (one, other)
        for one, other in itertools.combinations(words, 2)
        if one[0] != other[0] and possible(dict([one, other]))
    }
    while missing:
        chosen = dict(min(missing, key=str))
        for axis in WORDS.keys() - chosen:
            ways = ({**chosen, axis: word} for word in WORDS[axis])
            chosen = max(filter(possible, ways), key=lambda way: len(pairs(way) & missing))
        missing -= pairs(chosen)
        yield chosen


def test_every_pair_of_words_runs_forward_and_backward_and_traced_alike():
    for words in all_pairs():
        model = vit(**{"depth": 2, "init_std": 1.0, **words})
        logits = model(IMAGES)
        F.cross_entropy(logits, torch.tensor([0, 1])).backward()
        assert logits.shape == (2, 5)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{words}: {name} gets no gradient"
            assert parameter.grad.isfinite().all(), f"{words}: {name}"
        model.eval()
        difference = (model(IMAGES, {}) - model(IMAGES)).abs().max()
        assert difference < 1e-4, words


# Patches


@pytest.mark.parametrize(
    "patch, patch_size",
    [(word, size) for word in PATCHES for size in (2, 4, 8)]
    + [("linear", 1), ("linear", 3), ("overlap", 1), ("overlap", 3), ("conv", 1), ("spt", 6)],
)
def test_every_patch_embedding_yields_one_token_per_patch(patch, patch_size):
    cfg = ViTConfig(patch=patch, patch_size=patch_size, **SMALL)
    tokens = PATCHES[patch](cfg, 1)(torch.zeros(2, 1, 24, 48))
    assert tokens.shape == (2, math.prod(cfg.grid((24, 48))), 16)


def test_linear_patches_are_cut_squares_times_a_matrix():
    embed = vit().patch_embed
    squares = IMAGES.view(2, 3, 4, 4, 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(2, 16, 48)
    by_hand = squares @ embed.proj.weight.view(16, 48).T + embed.proj.bias
    torch.testing.assert_close(embed(IMAGES), by_hand, atol=1e-5, rtol=0)


def test_shifted_patches_are_those_of_five_copies_normalised_and_mapped():
    module = vit(patch="spt").patch_embed.proj
    torch.nn.init.normal_(module.norm.weight)
    torch.nn.init.normal_(module.norm.bias)
    wide = F.pad(IMAGES, (2, 2, 2, 2))
    shifts = [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]
    copies = [wide[:, :, down : down + 16, right : right + 16] for down, right in shifts]
    pixels = F.unfold(torch.cat(copies, dim=1), 4, stride=4).mT  # a row of numbers per patch
    expected = F.linear(module.norm(pixels), module.linear.weight, module.linear.bias)
    torch.testing.assert_close(module(IMAGES).flatten(2).mT, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind, patch", [*(("vit", word) for word in PATCHES), ("hybrid", "conv")])
def test_padding_to_the_patch_borders_images_right_and_below_with_the_mean_colour(kind, patch):
    model = vit((13, 14), kind=kind, patch=patch, pad_to_patch=True, init_std=1.0).eval()
    whole = vit((16, 16), kind=kind, patch=patch, init_std=1.0).eval()
    whole.load_state_dict(model.state_dict())
    bordered = torch.zeros(2, 3, 16, 16)
    bordered[:, :, :13, :14] = IMAGES[:, :, :13, :14]
    torch.testing.assert_close(model(IMAGES[:, :, :13, :14]), whole(bordered))
    fitting = vit((16, 16), kind=kind, patch=patch, pad_to_patch=True, init_std=1.0).eval()
    fitting.load_state_dict(model.state_dict())
    assert torch.equal(fitting(IMAGES), whole(IMAGES))  # nothing to border
    model.resize((9, 5))
    assert model(IMAGES[:, :, :9, :5]).shape == (2, 5)
    assert model.pos_embed.grid == (3, 2)


@pytest.mark.parametrize("patch", PATCHES)
def test_all_patches_but_linear_ones_see_across_their_border(patch):
    embed = vit(patch=patch, patch_size=4).patch_embed.eval()
    beside = IMAGES.clone()
    beside[:, :, :4, 3] += 3  # the last column of pixels of the first patch
    with torch.no_grad():
        same = torch.allclose(embed(IMAGES)[:, 1], embed(beside)[:, 1])
    assert same == (patch == "linear")


def test_convolutions_double_their_channels_and_halve_the_image_last():
    proj = vit(patch="conv", patch_size=4).patch_embed.proj
    layers = [(m.out_channels, m.stride[0]) for m in proj if isinstance(m, torch.nn.Conv2d)]
    assert layers == [(4, 1), (8, 2), (16, 2)]


def test_embed_norm_gives_patch_tokens_unit_size():
    tokens = vit(embed_norm=True).patch_embed(100 * IMAGES)
    torch.testing.assert_close(tokens.std(-1, correction=0), torch.ones(2, 16))


def test_whitening_filters_decorrelate_the_images_they_were_made_of():
    mixed = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = 2 * F.avg_pool2d(mixed, 3, stride=1, padding=1) + mixed.mean(1, keepdim=True)
    model = vit(patch="whitened")
    model.calibrate([images])
    maps = model.patch_embed.proj[0](images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(maps[:12].cov(), torch.eye(12), atol=0.02, rtol=0)
    torch.testing.assert_close(maps[12:], -maps[:12])


def test_whitening_filters_do_not_depend_on_the_parts_that_images_come_in():
    images = torch.randn(60, 3, 16, 16) + torch.randn(60, 3, 1, 1)
    filters = []
    for parts in ([images], images.split(7)):
        model = vit(patch="whitened")
        model.calibrate(parts)
        filters.append(model.patch_embed.proj[0].weight[:12].flatten(1))
    # An axis has no sign of its own.
    cosines = F.cosine_similarity(*filters)
    torch.testing.assert_close(cosines.abs(), torch.ones(12), atol=1e-4, rtol=0)
    torch.testing.assert_close(filters[0].norm(dim=1), filters[1].norm(dim=1), atol=0, rtol=1e-3)


def test_whitening_filters_are_stored_but_not_trained():
    model, copy, plain = vit(patch="whitened"), vit(patch="whitened", seed=1), vit()
    before, unchanged = model(IMAGES), plain(IMAGES)
    model.calibrate([IMAGES])
    plain.calibrate([IMAGES])
    assert not torch.equal(model(IMAGES), before) and torch.equal(plain(IMAGES), unchanged)
    copy.load_state_dict(model.state_dict())
    torch.testing.assert_close(copy(IMAGES), model(IMAGES))
    assert "patch_embed.proj.0.weight" not in dict(model.named_parameters())


# Positions


def position(word, grid=(4, 3), **fields):
    return POSITIONS[word](ViTConfig(position=word, width=16, heads=2, **fields), grid)


@pytest.mark.parametrize("word", ["learned", "sin1d", "sin2d"])
@pytest.mark.parametrize("on_cls", [False, True])
def test_only_patches_get_a_position_and_cls_when_asked(word, on_cls):
    place = position(word, position_on_cls=on_cls, distill_token=True, registers=2)
    for parameter in place.parameters():
        torch.nn.init.normal_(parameter)
    added = place.add(torch.zeros(1, 4 + 12, 16))[0]
    assert added[0].any() == on_cls
    assert not added[1:4].any()
    assert added[4:].any(dim=1).all()


def test_sin1d_counts_cls_as_place_zero():
    alone, counted = (
        position("sin1d", position_on_cls=on_cls).add(torch.zeros(1, 13, 16))[0]
        for on_cls in (False, True)
    )
    zero = torch.tensor([0.0, 1.0]).repeat(8)  # sin 0, cos 0
    torch.testing.assert_close(alone[1], zero)
    torch.testing.assert_close(counted[0], zero)
    torch.testing.assert_close(alone[2:], counted[1:-1])


def test_sin2d_says_the_row_in_one_half_the_column_in_the_other_and_cls_is_one_step_before():
    tokens = position("sin2d", position_on_cls=True).add(torch.zeros(1, 13, 16))[0]
    rows, columns = tokens[1:].view(4, 3, 16).chunk(2, -1)
    torch.testing.assert_close(rows, rows[:, :1].expand_as(rows))
    torch.testing.assert_close(columns, columns[:1].expand_as(columns))
    torch.testing.assert_close(rows[:3, 0], columns[0])
    torch.testing.assert_close(tokens[0, :2], torch.tensor([math.sin(-1), math.cos(-1)]))
    torch.testing.assert_close(tokens[0, :8], tokens[0, 8:])


def test_rope_scores_depend_on_offsets_only():
    rope = position("rope", grid=(5, 6), cls_token=False, pool="mean")
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    queries, keys = (rope.rotate(each.expand(1, 1, 30, 8))[0, 0] for each in (q, k))
    scores = (queries @ keys.T).view(5, 6, 5, 6)
    torch.testing.assert_close(scores[1:, 2:, 1:, 2:], scores[:-1, :-2, :-1, :-2])
    assert scores[0, 0].std() > 0.1


def test_rope_leaves_cls_and_registers_unturned_and_keeps_lengths():
    rope = position("rope", registers=2)
    heads = torch.randn(1, 2, 15, 8, generator=torch.Generator().manual_seed(0))
    turned = rope.rotate(heads)
    assert torch.equal(turned[:, :, :3], heads[:, :, :3])
    assert not torch.allclose(turned[:, :, 4:], heads[:, :, 4:])
    torch.testing.assert_close(turned.norm(dim=-1), heads.norm(dim=-1))


@pytest.mark.parametrize("word", POSITIONS)
@pytest.mark.parametrize("ffn", ["gelu", "dwconv"])
def test_a_resized_model_is_one_built_for_that_size(word, ffn):
    assert bool(position(word).state_dict()) == (word == "learned")  # the others are computed
    small, large = (vit(size, position=word, ffn=ffn) for size in ((16, 16), (24, 32)))
    small.resize((24, 32))
    shapes = {name: value.shape for name, value in large.state_dict().items()}
    assert {name: value.shape for name, value in small.state_dict().items()} == shapes
    small.load_state_dict(large.state_dict())
    images = torch.linspace(-1, 1, 3 * 24 * 32).view(1, 3, 24, 32)
    torch.testing.assert_close(small(images), large(images))


def test_learned_positions_are_resampled_smoothly_and_stay_the_same_parameter():
    place = position("learned", grid=(4, 6), position_on_cls=True)
    before = place.weight
    with torch.no_grad():
        place.weight.copy_(torch.cat([torch.full((1, 1, 16), 7.0), ramp((4, 6))], dim=1))
    place.resize((8, 12))
    assert place.weight is before and place.weight.requires_grad
    assert torch.equal(place.weight[:, :1], torch.full((1, 1, 16), 7.0))
    inner = (place.weight[:, 1:] - ramp((8, 12))).view(8, 12, 16)[2:-2, 2:-2]
    assert inner.abs().max() < 0.02
    place.resize((4, 6))
    assert (place.weight[:, 1:] - ramp((4, 6))).abs().max() < 0.05


def ramp(grid):
    """Vectors that change evenly from the left and top of the image to its right and bottom."""
    down = (torch.arange(grid[0]) + 0.5) / grid[0]
    across = (torch.arange(grid[1]) + 0.5) / grid[1]
    return (down[:, None] + across).view(1, -1, 1).expand(1, -1, 16)


def test_without_position_the_order_of_patches_does_not_matter():
    model = vit(position="none", depth=2)
    cut = IMAGES.view(2, 3, 4, 4, 4, 4).permute(2, 4, 0, 1, 3, 5).flatten(0, 1)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    shuffled = cut[order].unflatten(0, (4, 4)).permute(2, 3, 0, 4, 1, 5).reshape(2, 3, 16, 16)
    torch.testing.assert_close(model(shuffled), model(IMAGES), atol=1e-5, rtol=0)
    tokens = model.features(IMAGES)[:, 1:]
    torch.testing.assert_close(model.features(shuffled)[:, 1:], tokens[:, order], atol=1e-5, rtol=0)
    assert not torch.allclose(vit(init_std=1.0)(shuffled), vit(init_std=1.0)(IMAGES), atol=1e-3)


# Norms, feed-forward networks and pools


def test_norms_do_what_their_papers_say():
    tokens = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0)) * 5 + 1
    layer, rms = NORMS["layer"](16, 1e-6)(tokens), NORMS["rms"](16, 1e-6)(tokens)
    torch.testing.assert_close(layer, F.layer_norm(tokens, (16,), eps=1e-6))
    torch.testing.assert_close(rms, F.rms_norm(tokens, (16,), eps=1e-6))


def test_rms_norm_survives_half_precision():
    tokens = torch.full((1, 1, 16), 1000.0, dtype=torch.float16)  # its square is infinite in fp16
    torch.testing.assert_close(NORMS["rms"](16, 1e-6)(tokens).float(), torch.ones(1, 1, 16))


@pytest.mark.parametrize(
    "width, ratio", [(96, 4.0), (128, 4.0), (192, 4.0), (256, 2.0), (384, 4.0)]
)
def test_swiglu_weighs_what_gelu_does(width, ratio):
    gelu, swiglu = (
        sum(p.numel() for p in ffn(ViTConfig(width=width, heads=1, ffn_ratio=ratio)).parameters())
        for ffn in (FFNS["gelu"], FFNS["swiglu"])
    )
    assert abs(swiglu / gelu - 1) < 0.01


def test_swiglu_multiplies_values_by_activated_gates():
    ffn = FFNS["swiglu"](ViTConfig(width=12, heads=1, ffn_ratio=2.0))
    tokens = torch.randn(1, 2, 12, generator=torch.Generator().manual_seed(0))
    gate, value = ffn.fc1(tokens)[..., :16], ffn.fc1(tokens)[..., 16:]
    torch.testing.assert_close(ffn(tokens, (1, 1)), ffn.fc2(gate * gate.sigmoid() * value))


def test_depthwise_ffn_mixes_each_channel_with_its_eight_neighbours_and_passes_the_prefix_by():
    torch.manual_seed(0)
    ffn = FFNS["dwconv"](ViTConfig(width=4, heads=1, ffn_ratio=1.5, registers=1))
    tokens = torch.randn(1, 2 + 3 * 2, 4)
    prefix, patches = ffn.fc1(tokens)[0].tensor_split([2])
    maps = F.pad(patches.T.view(6, 3, 2), (1, 1, 1, 1))
    squares = maps.unfold(1, 3, 1).unfold(2, 3, 1)  # (6, rows, columns, 3, 3)
    mixed = (squares * ffn.dwconv.weight[:, :, None]).sum((3, 4)).flatten(1).T + ffn.dwconv.bias
    expected = ffn.fc2(F.gelu(torch.cat([prefix, mixed])))
    torch.testing.assert_close(ffn(tokens, (3, 2))[0], expected)


def test_pools_read_cls_and_patches_but_no_other_token():
    tokens = torch.randn(2, 1 + 3 + 4, 8, generator=torch.Generator().manual_seed(0))
    cls, patches = tokens[:, 0], tokens[:, 4:]
    cfg = ViTConfig(width=8, heads=1, distill_token=True, registers=2)
    pools = {word: pool(cfg) for word, pool in POOLS.items()}
    torch.nn.init.zeros_(pools["seqpool"].score.weight)
    mean = patches.mean(1)  # seqpool has equal scores
    expected = {"cls": cls, "mean": mean, "cls+mean": torch.cat([cls, mean], -1), "seqpool": mean}
    for word, pool in pools.items():
        torch.testing.assert_close(pool(tokens), expected[word])
        assert pool.width == expected[word].shape[-1]


def test_seqpool_prefers_the_patches_it_scores_high():
    pool = POOLS["seqpool"](ViTConfig(width=8, heads=1))
    torch.nn.init.constant_(pool.score.weight, 10.0)
    tokens = torch.zeros(1, 5, 8)
    tokens[:, 3] = 1.0
    torch.testing.assert_close(pool(tokens), torch.ones(1, 8))
