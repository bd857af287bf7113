"""The optimiser moves what it should, by the amount the schedule says."""

import math

import pytest
import torch
from torch import nn

from vitlab.config import Config, DataConfig, OptimConfig, ViTConfig
from vitlab.models import build_model
from vitlab.recipes import recipe
from vitlab.training.optim import (
    Muon,
    build_optimizers,
    freeze,
    lr_schedule,
    matrices,
    orthogonalize,
)
from vitlab.training.state import Plateau, TrainState

TINY = Config(
    data=DataConfig(image_size=(8, 8), channels=3, classes=10),
    model=ViTConfig(width=16, depth=2, heads=2, registers=1),
)


def moved(model: nn.Module, config: OptimConfig) -> dict[str, tuple[str, dict]]:
    """The optimizer and the group of each parameter that is moved, by its name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (type(optimizer).__name__, group)
        for optimizer in build_optimizers(model, config)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_matrices_decay_and_vectors_tokens_and_tables_do_not():
    model = build_model(TINY)
    found = moved(model, OptimConfig(weight_decay=0.05))
    decay = {name: group["weight_decay"] for name, (_, group) in found.items()}
    still = {name for name in decay if decay[name] == 0}
    assert decay["blocks.0.attn.qkv.weight"] == 0.05
    assert {"cls_token", "reg_token", "norm.weight", "head.bias"} <= still
    assert any(name.startswith("pos_embed") for name in still)
    everything = moved(model, OptimConfig(weight_decay=0.05, decay="all"))
    assert everything.keys() == dict(model.named_parameters()).keys()
    assert {group["weight_decay"] for _, group in everything.values()} == {0.05}


def test_muon_moves_hidden_matrices_and_adamw_the_rest():
    model = build_model(TINY)
    found = moved(model, OptimConfig(optimizer="muon"))
    assert found.keys() == dict(model.named_parameters()).keys()
    assert {name for name, (optimizer, _) in found.items() if optimizer == "Muon"} == {
        f"blocks.{block}.{leaf}.weight"
        for block in (0, 1)
        for leaf in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_layers_decay_from_the_head_to_the_patches(optimizer):
    model = build_model(TINY)
    config = OptimConfig(optimizer=optimizer, lr=1e-3, muon_lr=1e-2, layer_decay=0.5)
    layers = {"blocks.0": 0.25, "blocks.1": 0.5, "norm": 1, "head": 1}
    for name, (kind, group) in moved(model, config).items():
        first = next((part for part in layers if name.startswith(f"{part}.")), "embeddings")
        peak = layers.get(first, 0.125) * (1e-2 if kind == "Muon" else 1e-3)
        assert group["peak"] == pytest.approx(peak), name


def test_what_is_frozen_belongs_to_no_optimizer_and_a_name_ends_at_a_dot():
    model = build_model(TINY.override({"model.depth": 12}))
    freeze(model, ("blocks.1", "cls_token"))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert "cls_token" in frozen and "blocks.1.mlp.fc1.bias" in frozen
    assert not any(name.startswith("blocks.11") for name in frozen)
    found = moved(model, OptimConfig(optimizer="muon"))
    assert found.keys() == dict(model.named_parameters()).keys() - frozen


@pytest.mark.parametrize("patch", ["linear", "spt"])
def test_muon_leaves_what_reads_pixels_to_adamw(patch):
    model = build_model(TINY.override({"model.patch": patch}))
    found = moved(model, OptimConfig(optimizer="muon"))
    first = next(n for n, p in model.patch_embed.named_parameters() if p.ndim > 1)
    assert found[f"patch_embed.{first}"][0] == "AdamW"


@pytest.mark.parametrize(("patch", "convs"), [("conv", 1), ("spt", None)])
def test_muon_moves_the_blocks_of_a_convolutional_stage_and_what_cuts_its_maps(patch, convs):
    config = recipe("max").override(
        {"data.image_size": (32, 32), "data.channels": 3, "data.classes": 10}
        | {"model.patch": patch, "model.patch_convs": convs}
        | {"model.stage_depth": 1, "model.depth": 1}
    )
    found = moved(build_model(config), config.optim)
    stage = {
        name.removeprefix("patch_embed.proj."): optimizer
        for name, (optimizer, group) in found.items()
        if name.startswith("patch_embed.proj.") and group["weight_decay"]
    }
    cuts = "patch.0.weight" if patch == "conv" else "patch.linear.weight"
    assert stage == {
        "stage.0.0.weight": "AdamW",  # reads pixels
        "stage.0.3.weight": "Muon",
        "stage.1.dwconv.weight": "AdamW",  # a filter per channel is no matrix
        "stage.1.fc1.weight": "Muon",
        "stage.1.fc2.weight": "Muon",
        cuts: "Muon",
    }


def test_orthogonalize_brings_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((4, 32, 16), (4, 16, 32), (1, 24, 24)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
        assert values.max() < 1.3
        assert values.median() > 0.6


def test_muon_treats_equal_shapes_together_as_it_would_one_by_one():
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(8, 8)) for _ in range(3)]
    alone = [nn.Parameter(weight.detach().clone()) for weight in weights]
    for weight, single in zip(weights, alone, strict=True):
        weight.grad = torch.randn(8, 8)
        single.grad = weight.grad.clone()
    group = {"lr": torch.tensor(0.1), "fused_qkv": False}
    settings = {"momentum": 0.9, "weight_decay": 0.1}
    Muon([{**group, "params": weights}], **settings).step()
    for single in alone:
        Muon([{**group, "params": [single]}], **settings).step()
    for weight, single in zip(weights, alone, strict=True):
        torch.testing.assert_close(weight, single)


def test_a_fused_query_key_value_weight_is_three_matrices():
    weight = torch.arange(24.0).view(6, 4)
    assert matrices(weight, fused_qkv=True).shape == (3, 2, 4)
    torch.testing.assert_close(matrices(weight, fused_qkv=True)[1], weight[2:4])
    assert matrices(torch.zeros(5, 4, 3, 3), fused_qkv=False).shape == (1, 5, 36)


def test_warm_up_grows_linearly_and_cosine_ends_at_the_floor():
    config = OptimConfig(lr=1e-3, final_lr=1e-5, warmup_epochs=2, schedule="cosine")
    rates = [lr_schedule(config, step, 10, 100) for step in range(100)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rates[60] == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi / 2)) / 2)
    assert 0.01 < rates[-1] < 0.012
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_steps_change_the_rate_at_their_epochs():
    config = OptimConfig(
        optimizer="sgd", lr=0.1, schedule="steps", step_epochs=(25, 40), step_factors=(0.5, 0.1)
    )
    got = [config.lr * lr_schedule(config, epoch * 7, 7, 350) for epoch in (0, 24, 25, 39, 40, 49)]
    assert got == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.01, 0.01])


def test_plateau_follows_pytorch():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=3)
    ours, config = Plateau(), OptimConfig(schedule="plateau", plateau_factor=0.1)
    generator = torch.Generator().manual_seed(0)
    for loss in torch.rand(30, generator=generator).add(0.5).tolist():
        theirs.step(loss)
        ours.update(loss, patience=3)
        scale = lr_schedule(config, 99, 10, 100, ours.reductions)
        assert scale == pytest.approx(optimizer.param_groups[0]["lr"])


def test_linear_holds_its_peak_before_it_falls():
    config = OptimConfig(schedule="linear", warmup_epochs=1, hold_epochs=3)
    rates = [lr_schedule(config, step, 10, 100) for step in range(100)]
    assert rates[9:41] == [1.0] * 32
    assert rates[70] == pytest.approx(0.5)


def test_the_average_forgets_its_first_steps_faster():
    model = nn.Linear(1, 1, bias=False)
    config = OptimConfig(average_decay=0.999)
    state = TrainState.build(model, config, (1, 1), "fp32")
    for step, moved in ((1, 1 - 2 / 11), (100_000, 0.001)):
        state.step = step
        with torch.no_grad():
            model.weight.fill_(1)
            next(state.final_model.parameters()).fill_(0)
        state.set_lr(1.0)
        state.update_average()
        assert next(state.final_model.parameters()).item() == pytest.approx(moved, rel=1e-3)
