"""The ViT as a whole: its size, names, start, attention, blocks and what it shows of itself."""

import math
from functools import partial

import pytest
import tiny
import torch
import torch.nn.functional as F
from tiny import IMAGES

from vitlab.config import Config, DataConfig, HybridConfig, ViTConfig
from vitlab.errors import ConfigError
from vitlab.models import build_model
from vitlab.models.position import NoPosition
from vitlab.models.stage import ConvBlock
from vitlab.models.vit import BLOCKS, DropPath

TORCH_NAMES = {
    "attn.qkv.": "self_attn.in_proj_",
    "attn.proj.": "self_attn.out_proj.",
    "mlp.fc1.": "linear1.",
    "mlp.fc2.": "linear2.",
    "norm1.": "norm1.",
    "norm2.": "norm2.",
}
"""Parts of a block, and what torch's encoder layer calls them."""

vit = partial(tiny.vit, classes=10)


@pytest.mark.parametrize(
    "published, fields",
    [
        (1_205_642, {"width": 128, "depth": 6, "heads": 8, "norm_place": "post"}),
        (4_028_170, {"width": 192, "depth": 9, "heads": 8}),
        (3_195_146, {"width": 256, "depth": 6, "heads": 8, "ffn_ratio": 2.0}),
        (5_362_762, {"width": 192, "depth": 12, "heads": 3}),
        (5_356_234, {"width": 192, "depth": 12, "heads": 3, "qkv_bias": False, "embed_norm": True}),
    ],
)
def test_published_parameter_counts_are_met(published, fields):
    with torch.device("meta"):
        model = vit((32, 32), position_on_cls=True, **fields)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


def test_names_follow_timm():
    switches = {"qk_norm": True, "lsa": True, "embed_norm": True, "distill_token": True}
    model = vit(depth=1, registers=2, layer_scale=0.1, ffn="dwconv", **switches)
    names = {name.rsplit(".", 1)[0] if "token" not in name else name for name in model.state_dict()}
    block = "norm1 attn attn.qkv attn.q_norm attn.k_norm attn.proj ls1 norm2 mlp.fc1 mlp.dwconv"
    outside = "patch_embed.proj patch_embed.norm cls_token dist_token reg_token pos_embed norm head"
    blocks = {f"blocks.0.{part}" for part in [*block.split(), "mlp.fc2", "ls2"]}
    assert names == {*blocks, *outside.split(), "head_dist"}


def test_a_model_needs_to_know_its_images():
    with pytest.raises(ConfigError, match=r"data\.image_size"):
        build_model(Config(data=DataConfig(image_size=(32, 32), channels=3)))


@pytest.mark.parametrize("image_size, channels", [((8, 24), 1), ((24, 8), 3), ((4, 4), 1)])
def test_images_may_be_grey_and_of_any_shape(image_size, channels):
    for position in ("learned", "sin2d", "rope"):
        model = vit(image_size, channels, position=position)
        assert model(torch.zeros(3, channels, *image_size)).shape == (3, 10)


# The start


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"norm_place": "post", "init_std": 1.0},
        {"patch": "whitened", "pool": "seqpool", "position": "rope"},
        {"pool": "cls+mean", "norm": "rms", "ffn": "swiglu"},
        {"patch": "spt", "ffn": "dwconv", "lsa": True, "distill_token": True},
        {"kind": "hybrid", "patch": "conv"},
        {"init": "trunc_normal"},
    ],
)
def test_the_first_loss_is_that_of_a_guess(fields):
    model = vit(width=128, depth=3, heads=4, **fields)
    images = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(model(images), torch.arange(64) % 10)
    assert loss.item() == pytest.approx(math.log(10), abs=0.05)


def test_queries_keys_and_values_start_as_three_square_matrices():
    model = vit(width=64)
    xavier = math.sqrt(6 / (64 + 64))
    for matrix in model.blocks[0].attn.qkv.weight.chunk(3):
        assert 0.95 * xavier < matrix.abs().max() <= xavier


def test_init_std_is_the_spread_of_tokens_and_learned_positions():
    model = vit(width=256, registers=8, init_std=0.3)
    for vectors in (model.cls_token, model.reg_token, model.pos_embed.weight):
        assert vectors.std().item() == pytest.approx(0.3, rel=0.2)


def test_torchs_start_is_that_of_its_own_encoder():
    layer = torch.nn.TransformerEncoderLayer(64, 2, 128, activation="gelu", batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    model = vit(width=64, depth=3, heads=2, ffn_ratio=2, norm_place="post", init="torch_encoder")
    theirs = dict(encoder.layers[1].named_parameters())
    first, second = (dict(model.blocks[place].named_parameters()) for place in (0, 1))
    assert len(first) == len(theirs) == 2 * len(TORCH_NAMES)
    for ours, name in TORCH_NAMES.items():
        for kind in ("weight", "bias"):
            mine, other = second[f"{ours}{kind}"].detach(), theirs[f"{name}{kind}"].detach()
            torch.testing.assert_close(mine.std(), other.std(), rtol=0.2, atol=1e-6)
            torch.testing.assert_close(mine.abs().max(), other.abs().max(), rtol=0.1, atol=1e-6)
            assert torch.equal(mine, first[f"{ours}{kind}"])  # clones, as theirs are
    plain = vit(width=64, depth=2, heads=2, init="torch")
    weights = [block.mlp.fc1.weight for block in plain.blocks]
    assert not torch.equal(*weights)
    assert plain.head.weight.abs().max().item() == pytest.approx(1 / math.sqrt(64), rel=0.05)


def test_a_truncated_normal_start_has_one_spread_for_all_layers():
    model = vit(width=128, depth=2, heads=2, init="trunc_normal")
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert not module.bias.any()
    assert model.pos_embed.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_biases_start_at_zero_and_norms_at_one():
    for name, parameter in vit(qk_norm=True).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name


GOLDEN = [
    ({"pool": "cls+mean", "position": "sin2d", "registers": 1, "qk_norm": True},
     [[-0.08457, 0.03886, 0.09215, -0.01325], [0.0571, -0.01622, -0.10015, 0.00189]]),
    ({"patch": "whitened", "position": "rope", "norm": "rms", "ffn": "swiglu", "pool": "seqpool"},
     [[-0.04864, -0.00809, -0.00499, 0.05639], [0.06213, 0.07441, -0.06006, -0.08741]]),
    ({"patch": "cct", "norm_place": "post", "layer_scale": 0.5},
     [[-0.07782, -0.00081, 0.00091, -0.05163], [-0.05522, 0.05311, -0.04104, -0.03267]]),
    ({"patch": "spt", "lsa": True, "ffn": "dwconv", "distill_token": True},
     [[-0.03316, -0.03312, -0.02332, 0.03384], [-0.02869, 0.00209, -0.02491, 0.00797]]),
    ({"kind": "hybrid", "stage_depth": 2, "ffn": "dwconv", "registers": 1},
     [[0.01733, 0.01017, 0.02091, 0.0135], [-0.00755, -0.0162, -0.0113, -0.07005]]),
]  # fmt: skip


@pytest.mark.parametrize("fields, logits", GOLDEN)
def test_a_seed_gives_the_logits_it_always_gave(fields, logits):
    model = vit(classes=4, **fields).eval()
    torch.testing.assert_close(model(IMAGES), torch.tensor(logits), atol=1e-4, rtol=0)


# Attention and blocks


@pytest.mark.parametrize("norm_place", BLOCKS)
def test_a_block_is_torchs_encoder_layer(norm_place):
    torch.manual_seed(0)
    cfg = ViTConfig(width=32, depth=1, heads=4, norm_place=norm_place)
    ours = BLOCKS[norm_place](cfg, (2, 3), 0)
    theirs = torch.nn.TransformerEncoderLayer(
        32, 4, 128, 0.0, "gelu", 1e-6, batch_first=True, norm_first=norm_place == "pre"
    )
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights, ends = theirs.state_dict(), ("weight", "bias")
    ours.load_state_dict(
        {new + end: weights[old + end] for new, old in TORCH_NAMES.items() for end in ends}
    )
    tokens = torch.randn(2, 7, 32)
    mine = ours(tokens, NoPosition(cfg, (2, 3)), None)
    torch.testing.assert_close(mine, theirs(tokens), atol=1e-5, rtol=1e-5)


def test_a_trace_shows_tokens_and_attention():
    model, trace = vit(position="rope", qk_norm=True, registers=2, init_std=1.0).eval(), {}
    model(IMAGES, trace)
    tokens, attention = (2, 19, 16), (2, 2, 19, 19)
    assert {name: tuple(value.shape) for name, value in trace.items()} == {
        "patches": tokens,
        "block00.attention": attention,
        "block00": tokens,
        "block01.attention": attention,
        "block01": tokens,
    }
    torch.testing.assert_close(trace["block01.attention"].sum(-1), torch.ones(2, 2, 19))
    torch.testing.assert_close(model.head(model.norm(trace["block01"])[:, 0]), model(IMAGES))


def test_post_norm_ends_without_a_second_norm():
    features = vit(norm_place="post").features(IMAGES)
    torch.testing.assert_close(features.std(-1, correction=0), torch.ones(2, 17))
    assert not any(name.startswith("norm.") for name in vit(norm_place="post").state_dict())


# Distillation


@pytest.mark.parametrize("fields", [{}, {"cls_token": False, "pool": "mean"}])
def test_a_distilled_model_answers_with_the_mean_of_its_two_heads(fields):
    model = vit(distill_token=True, registers=1, **fields)
    labels, teacher = model.head_logits(IMAGES)
    torch.testing.assert_close(model(IMAGES), (labels + teacher) / 2)
    tokens = model.features(IMAGES)
    assert tokens.shape[1] == model.cfg.prefix + 16
    torch.testing.assert_close(labels, model.head(model.pool(tokens)))
    torch.testing.assert_close(teacher, model.head_dist(tokens[:, model.cfg.prefix - 2]))
    (logits,) = vit().head_logits(IMAGES)
    assert torch.equal(logits, vit()(IMAGES))


def test_cls_comes_first_then_the_distillation_token_then_registers_then_patches():
    model = vit(distill_token=True, registers=2, position="none")
    trace = {}
    model(IMAGES, trace)
    tokens = [model.cls_token, model.dist_token, model.reg_token, model.patch_embed(IMAGES)[:1]]
    torch.testing.assert_close(trace["patches"][:1], torch.cat(tokens, dim=1))


def test_a_teacher_moves_its_own_head_and_the_blocks_but_not_the_head_of_labels():
    model = vit(distill_token=True)
    model.head_logits(IMAGES)[1].square().sum().backward()
    assert model.head.weight.grad is None
    assert model.head_dist.weight.grad.any() and model.dist_token.grad.any()
    assert model.blocks[0].attn.qkv.weight.grad.any()


# The stage of a hybrid


@pytest.mark.parametrize("stage_size, patch_size", [(1, 4), (2, 2), (2, 6), (4, 8), (8, 8)])
@pytest.mark.parametrize("patch", ["linear", "overlap"])
def test_a_token_spans_patch_size_pixels_whatever_the_stage(stage_size, patch_size, patch):
    sizes = {"stage_size": stage_size, "patch_size": patch_size, "patch": patch}
    model = vit((24, 48), kind="hybrid", **sizes)
    images = torch.zeros(1, 3, 24, 48)
    stage = model.patch_embed.proj.stage(images)
    assert stage.shape == (1, 8, 24 // stage_size, 48 // stage_size)
    tokens = model.patch_embed(images)
    assert tokens.shape == (1, (24 // patch_size) * (48 // patch_size), 16)
    assert model(images).shape == (1, 10)


def test_a_block_of_the_stage_adds_a_branch_that_sees_seven_by_seven_places():
    block = ConvBlock(HybridConfig(stage_width=8))
    maps = torch.randn(1, 8, 11, 11, generator=torch.Generator().manual_seed(0))
    other = maps.clone()
    other[0, 0, 5, 5] += 1
    changed = (block(other) - block(maps))[0].abs().amax(0) > 0
    assert changed[2:9, 2:9].all() and changed.sum() == 49
    torch.nn.init.zeros_(block.fc2.weight)
    torch.nn.init.zeros_(block.fc2.bias)
    assert torch.equal(block(maps), maps)


@pytest.mark.parametrize(
    "fields, problem",
    [
        ({"patch_size": 6, "stage_size": 4}, "patch_size=6 is not a multiple of stage_size=4"),
        ({"patch_size": 6, "stage_size": 3}, "stage_size=3: the stage halves"),
        ({"stage_size": 0}, "stage_size=0"),
        ({"patch": "whitened"}, "patch='whitened' whitens pixels"),
        ({"patch": "cct", "patch_size": 2}, "patch_size is 4, 8 or 16, not 2"),
        ({"patch": "spt", "patch_size": 2}, "4 must divide patch_size=2"),
    ],
)
def test_impossible_stages_are_refused_by_name(fields, problem):
    with pytest.raises(ConfigError, match=problem):
        HybridConfig(**fields)


def test_a_hybrid_is_resized_and_calibrated_like_a_vit():
    model, trace = vit((32, 32), kind="hybrid").eval(), {}
    model.calibrate([torch.zeros(2, 3, 32, 32)])
    model.resize((16, 24))
    model(torch.randn(2, 3, 16, 24), trace)
    assert trace["block00.attention"].shape == (2, 2, 25, 25)


# What only happens in training


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    dropped = DropPath(0.25)(torch.ones(4000, 2, 3))
    assert ((dropped == dropped[:, :1, :1]).all(dim=(1, 2))).all()
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)


def test_drop_path_grows_linearly_from_nothing_at_the_first_block():
    blocks = vit(depth=4, drop_path=0.3).blocks
    keeps = [block.drop_path.keep for block in blocks]
    assert keeps == pytest.approx([1, 0.9, 0.8, 0.7])


@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "embed_dropout", "drop_path"])
def test_random_parts_are_silent_in_evaluation(name):
    model = vit(**{name: 0.5})
    assert not torch.equal(model(IMAGES), model(IMAGES))
    assert torch.equal(model.eval()(IMAGES), vit().eval()(IMAGES))


def test_layer_scale_starts_branches_small():
    model = vit(layer_scale=1e-6)
    trace = {}
    model(IMAGES, trace)
    torch.testing.assert_close(trace["block01"], trace["patches"], atol=1e-4, rtol=0)


# Machines


def test_half_precision_agrees_with_full():
    fields = {"position": "rope", "norm": "rms", "qk_norm": True, "lsa": True, "patch": "spt"}
    model = vit(ffn="dwconv", init_std=1.0, **fields).eval()
    with torch.autocast("cpu", torch.bfloat16):
        half = model(IMAGES)
    torch.testing.assert_close(half.float(), model(IMAGES), atol=0.02, rtol=0)


RARE = {"patch": "spt", "lsa": True, "ffn": "dwconv", "pad_to_patch": True, "distill_token": True}


@pytest.mark.parametrize(
    "fields", [{"patch": "whitened", "position": "rope"}, RARE | {"kind": "hybrid"}]
)
def test_the_model_is_one_graph_for_any_batch_size(fields):
    model = vit(registers=1, drop_path=0.1, **fields).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (IMAGES,), dynamic_shapes=({0: batch},)).module()
    three = torch.cat([IMAGES, IMAGES[:1] * 2])
    torch.testing.assert_close(program(three), model(three), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fields", [RARE | {"norm_place": "post"}, {"kind": "hybrid"}])
def test_training_compiles_without_a_break(fields):
    model = vit(drop_path=0.2, dropout=0.1, layer_scale=0.1, **fields)
    compiled = torch.compile(model.head_logits, fullgraph=True, backend="eager")
    sum(logits.sum() for logits in compiled(IMAGES)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
