"""The count of parameters and multiply-adds is that of torch's counter, and that by hand."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vitlab.config import (
    CNN6Config,
    Config,
    DataConfig,
    HybridConfig,
    ResNet18Config,
    TrainConfig,
    ViTConfig,
)
from vitlab.errors import ConfigError, VitlabError
from vitlab.models import AXES, build_model
from vitlab.models.cost import activation_bytes, cost, summary, training_macs

CIFAR = DataConfig(image_size=(32, 32), channels=3, classes=10)
SMALL = {"width": 24, "depth": 2, "heads": 2, "registers": 1, "layer_scale": 0.1}
MODELS = {
    **{
        f"{axis}={word}": ViTConfig(**{**SMALL, axis: word})
        for axis in ("patch", "position", "ffn", "pool")
        for word in AXES[axis]
    },
    "no tokens": ViTConfig(**{**SMALL, "registers": 0}, cls_token=False, pool="mean"),
    "post": ViTConfig(**SMALL, norm_place="post", qk_norm=True, embed_norm=True),
    "patch 8": ViTConfig(**SMALL, patch="whitened", patch_size=8),
    "padded": ViTConfig(**SMALL, patch_size=7, pad_to_patch=True, ffn="dwconv"),
    "lsa": ViTConfig(**SMALL, lsa=True),
    "distilled": ViTConfig(**SMALL, distill_token=True),
    "hybrid": HybridConfig(**SMALL, stage_width=12, patch="conv", ffn="dwconv", embed_norm=True),
    "resnet18": ResNet18Config(width=8),
    "cnn6": CNN6Config(width=4),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_count_is_that_of_torchs_counter(name):
    data = DataConfig(image_size=(16, 32), channels=1, classes=7)
    train = TrainConfig(teacher="resnet18" if name == "distilled" else None)
    config = Config(data=data, model=MODELS[name], train=train)
    model = build_model(config).eval()
    counter = FlopCounterMode(display=False)
    # Fused attention on a CPU is counted as nothing by torch 2.13 (pytorch#195460).
    with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(torch.zeros(1, 1, 16, 32))
    counted = cost(config)
    assert 2 * counted.macs == counter.get_total_flops()
    assert counted.parameters == sum(parameter.numel() for parameter in model.parameters())
    rows = [(row.parameters, row.macs) for row in summary(config)]
    for parts in (rows, counted.components.values()):
        assert tuple(map(sum, zip(*parts, strict=True))) == (counted.parameters, counted.macs)


def test_components_of_a_vit_follow_the_formulas():
    tokens, width, depth = 65, 192, 12
    components = cost(Config(data=CIFAR, model=ViTConfig(registers=0))).components
    assert {name: macs for name, (_, macs) in components.items()} == {
        "tokens": 0,
        "patch_embed": 64 * 48 * width,
        "pos_embed": 0,
        "norms": 0,
        "attn": depth * (4 * tokens * width**2 + 2 * tokens**2 * width),
        "mlp": depth * 8 * tokens * width**2,
        "head": 10 * width,
    }
    assert components["tokens"] == (192, 0)
    assert components["pos_embed"] == (64 * 192, 0)
    assert components["norms"] == (25 * 2 * 192, 0)


def test_components_of_a_hybrid_tell_its_stage_apart():
    hybrid = HybridConfig(stage_width=48, stage_depth=3, ffn="dwconv")
    config = Config(data=CIFAR, model=hybrid)
    components = cost(config).components
    stem = 32 * 32 * 3 * 9 * 64 + 16 * 16 * 64 * 9 * 48
    assert components["stage"][1] == stem + 3 * 16 * 16 * (49 * 48 + 8 * 48**2)
    assert components["patch_embed"] == ((48 * 4 + 1) * 192, 64 * 48 * 4 * 192)
    assert components["mlp"][1] == 12 * (8 * 65 * 192**2 + 64 * 9 * 768)
    rows = [row.name for row in summary(config)]
    assert rows[1:5] == [f"patch_embed.proj.stage.{name}" for name in ("0.0", "0.1", "0.3", "1")]


def test_both_heads_of_a_distilled_model_are_counted():
    config = Config(data=CIFAR, model=MODELS["distilled"], train=TrainConfig(teacher="resnet18"))
    components = cost(config).components
    assert components["head"] == (2 * (24 + 1) * 10, 2 * 24 * 10)
    assert components["tokens"] == (3 * 24, 0)


def test_components_of_a_convnet_are_its_stages():
    counted = cost(Config(data=CIFAR, model=ResNet18Config()))
    assert list(counted.components) == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert counted.components["stem"] == (3 * 9 * 64 + 2 * 64, 32 * 32 * 3 * 9 * 64)
    assert counted.macs == 555_422_720


def test_the_summary_reproduces_the_published_table():
    vit = ViTConfig(width=256, depth=6, heads=8, ffn_ratio=2.0, position_on_cls=True)
    rows = summary(Config(data=CIFAR, model=vit))
    assert sum(row.megabytes for row in rows) == pytest.approx(12.781, abs=5e-4)
    table = {row.name: (row.type, row.input, row.output) for row in rows}
    assert table["cls_token"] == ("Parameter", (), (1, 256))
    assert table["patch_embed"] == ("LinearPatch", (3, 32, 32), (64, 256))
    assert table["pos_embed"] == ("Learned", (), (65, 256))
    assert table["blocks.5.attn"] == ("Attention", (65, 256), (65, 256))
    assert table["head"] == ("Linear", (256,), (10,))


def test_the_summary_of_a_convnet_lists_its_layers():
    rows = summary(Config(data=CIFAR, model=CNN6Config()))
    assert sum(row.megabytes for row in rows) == pytest.approx(23.409, abs=5e-4)
    widths = [row.output[0] for row in rows if row.type == "Conv2d"]
    assert widths == [32, 64, 128, 128, 256, 256]


def test_counting_draws_no_random_numbers_and_wants_a_resolved_config():
    state = torch.get_rng_state()
    cost(Config(data=CIFAR))
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ConfigError, match="image_size"):
        cost(Config())


def test_a_training_costs_what_its_images_cost_at_their_size():
    train = TrainConfig(epochs=3, small_size=(16, 16), small_epochs=2)
    config = Config(data=CIFAR, model=ViTConfig(**SMALL), train=train)
    small = cost(config.override({"data.image_size": (16, 16)})).macs
    assert training_macs(config, 3, 100) == 3 * 100 * (2 * small + cost(config).macs)
    assert training_macs(config, 1, 100) == 3 * 100 * small
    twice = config.override({"optim.sam": 0.05})
    assert training_macs(twice, 3, 100) == 2 * training_macs(config, 3, 100)


@pytest.mark.parametrize(
    "model",
    [
        ViTConfig(width=65_536, heads=1, depth=256),
        ViTConfig(width=65_536, heads=1, depth=1, patch_size=4_096, pad_to_patch=True),
        HybridConfig(stage_width=65_536, stage_depth=256),
        ResNet18Config(width=65_536),
        CNN6Config(width=65_536),
    ],
    ids=lambda model: model.kind,
)
def test_a_model_that_is_larger_than_the_memory_is_refused_before_it_is_made(model):
    with pytest.raises(VitlabError, match=r"model\.width=.*take [\d,]+ GB, and this machine has"):
        build_model(Config(data=CIFAR, model=model))


def test_the_memory_of_a_model_is_that_of_its_tensors():
    linear = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1), torch.nn.ReLU()
    )
    plane = 4 * 5 * 10 * 10  # bytes of five maps, one for each image
    assert activation_bytes(linear, (5, 3, 10, 10)) == (8 + 8) * plane
    # The second ReLU keeps its output, and nothing needs what entered it.
    kept = activation_bytes(linear, (5, 3, 10, 10), gradients=True)
    assert (8 + 2) * plane <= kept <= (8 + 8 + 2 + 2) * plane
