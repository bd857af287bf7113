"""The convolutional stage before a ViT: what it is made of, what it sees, what it refuses."""

import pytest
import torch

from vitlab.config import Config, DataConfig, HybridConfig
from vitlab.errors import ConfigError
from vitlab.models import build_model
from vitlab.models.stage import ConvBlock

SMALL = {"width": 16, "depth": 1, "heads": 2, "stage_width": 8, "stage_depth": 1}


def hybrid(image_size=(32, 32), **fields):
    torch.manual_seed(0)
    data = DataConfig(image_size=image_size, channels=3, classes=10)
    return build_model(Config(data=data, model=HybridConfig(**{**SMALL, **fields})))


@pytest.mark.parametrize(
    "stage_size, patch_size", [(1, 4), (2, 2), (2, 4), (2, 6), (4, 4), (4, 8), (8, 8)]
)
@pytest.mark.parametrize("patch", ["linear", "overlap"])
def test_a_token_spans_patch_size_pixels_whatever_the_stage(stage_size, patch_size, patch):
    model = hybrid((24, 48), stage_size=stage_size, patch_size=patch_size, patch=patch)
    stage = model.patch_embed.proj.stage(torch.zeros(1, 3, 24, 48))
    assert stage.shape == (1, 8, 24 // stage_size, 48 // stage_size)
    tokens = model.patch_embed(torch.zeros(1, 3, 24, 48))
    assert tokens.shape == (1, (24 // patch_size) * (48 // patch_size), 16)
    assert model(torch.zeros(1, 3, 24, 48)).shape == (1, 10)


def test_a_block_adds_a_branch_that_sees_seven_by_seven_places():
    block = ConvBlock(HybridConfig(**SMALL))
    maps = torch.randn(1, 8, 11, 11, generator=torch.Generator().manual_seed(0))
    other = maps.clone()
    other[0, 0, 5, 5] += 1
    changed = (block(other) - block(maps))[0].abs().amax(0) > 0
    assert changed[2:9, 2:9].all() and changed.sum() == 49
    torch.nn.init.zeros_(block.fc2.weight)
    torch.nn.init.zeros_(block.fc2.bias)
    assert torch.equal(block(maps), maps)


def test_a_stage_of_half_size_and_a_wide_vit_behind_it_have_the_weights_expected():
    with torch.device("meta"):
        model = hybrid(
            stage_width=192, stage_depth=4, width=512, depth=10, heads=8, ffn="dwconv", pool="mean"
        )
    stem = (3 * 9 * 64 + 2 * 64) + (64 * 9 * 192 + 192)
    block = (49 + 1) * 192 + 2 * 192 + (192 * 768 + 768) + (768 * 192 + 192)
    count = sum(weight.numel() for weight in model.patch_embed.parameters())
    assert count == stem + 4 * block + (192 * 4 * 512 + 512)
    assert 32e6 < sum(weight.numel() for weight in model.parameters()) < 34e6


def test_impossible_stages_are_refused_by_name():
    with pytest.raises(ConfigError, match="patch_size=6 is not a multiple of stage_size=4"):
        HybridConfig(patch_size=6, stage_size=4)
    with pytest.raises(ConfigError, match="stage_size=3: the stage halves"):
        HybridConfig(patch_size=6, stage_size=3)
    with pytest.raises(ConfigError, match="stage_size=0"):
        HybridConfig(stage_size=0)
    with pytest.raises(ConfigError, match="patch='whitened' whitens pixels"):
        HybridConfig(patch="whitened")
    with pytest.raises(ConfigError, match="patch_size is 4, 8 or 16, not 2"):
        HybridConfig(patch="cct", patch_size=2)


def test_a_hybrid_is_resized_traced_and_started_like_a_vit():
    model = hybrid().eval()
    model.calibrate([torch.zeros(2, 3, 32, 32)])
    model.resize((16, 24))
    images, trace = torch.randn(2, 3, 16, 24), {}
    torch.testing.assert_close(model(images, trace), model(images), atol=1e-4, rtol=0)
    assert trace["block00.attention"].shape == (2, 2, 25, 25)
