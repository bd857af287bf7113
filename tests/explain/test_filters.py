"""First layers and stages, which every model has under names of its own."""

import pytest
import torch

from vitlab.config import CNN6Config, HybridConfig, ResNet18Config, ViTConfig
from vitlab.explain.filters import feature_maps, first_filters

SMALL = {"width": 16, "depth": 2, "heads": 2, "patch_size": 4}
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "config, shape",
    [
        (ViTConfig(**SMALL), (16, 3, 4, 4)),
        (ViTConfig(**SMALL, patch="conv"), (4, 3, 3, 3)),
        (ViTConfig(**SMALL, patch="cct"), (64, 3, 3, 3)),
        (ViTConfig(**SMALL, patch="overlap"), (16, 3, 7, 7)),
        (ViTConfig(**SMALL, patch="spt"), (16, 3, 4, 4)),
        (ViTConfig(**SMALL, patch="whitened"), (24, 3, 2, 2)),
        (HybridConfig(**SMALL), (64, 3, 3, 3)),
        (ResNet18Config(width=4), (4, 3, 3, 3)),
        (CNN6Config(width=4), (4, 3, 3, 3)),
    ],
    ids=lambda value: getattr(value, "patch", getattr(value, "kind", "")),
)
def test_the_first_filters_are_those_that_read_the_image(build, config, shape):
    model = build(config)
    assert first_filters(model).shape == shape
    stages = feature_maps(model, IMAGES)
    first = next(iter(stages.values()))
    assert next(iter(stages)) == "first layer" and first.shape[:2] == (2, shape[0])
    assert all(maps.ndim == 4 and len(maps) == 2 for maps in stages.values())


def test_filters_of_shifted_patches_belong_to_the_copy_that_is_not_shifted(build):
    model = build(ViTConfig(**SMALL, patch="spt"))
    squares = model.patch_embed.proj
    before = squares(IMAGES)
    with torch.no_grad():
        squares.linear.weight.view(16, 5, -1)[:, 0] = 0
    assert not first_filters(model).any()
    assert not torch.allclose(squares(IMAGES), before)


def test_stages_are_maps_of_a_cnn_and_tokens_over_their_patches(build):
    model, trace = build(ViTConfig(**SMALL, registers=2)), {}
    model(IMAGES, trace)
    stages = feature_maps(model, IMAGES)
    assert list(stages) == ["first layer", "patches", "block00", "block01"]
    tokens = trace["block00"][:, 3:]  # (B, N, D)
    torch.testing.assert_close(stages["block00"].flatten(2).mT, tokens)
    stages = feature_maps(build(ResNet18Config(width=4)), IMAGES)
    assert list(stages) == ["first layer", "stem", "stage1", "stage2", "stage3", "stage4"]
    assert stages["stage4"].shape == (2, 32, 2, 2)
