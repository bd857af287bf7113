"""Pretrained networks as bodies: small ones are really loaded, in the form of the large."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ResNetConfig,
    ResNetModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)

from vitlab.config import BackboneConfig, Config, DataConfig
from vitlab.errors import DataError
from vitlab.frozen import open_backbone
from vitlab.models import build_model
from vitlab.models.cost import cost
from vitlab.pretrained.backbones import facts, package_file, read_backbone, resolve
from vitlab.training.optim import layer_numbers

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
CPU = torch.device("cpu")

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
         "patch_size": 4, "intermediate_size": 8}  # fmt: skip
HUB = {
    "vit": (ViTModel, ViTConfig(**SMALL)),
    "dinov2": (Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**SMALL)),
    "clip": (CLIPVisionModel, CLIPVisionConfig(**SMALL)),
    "siglip": (SiglipVisionModel, SiglipVisionConfig(**SMALL)),
    "swin": (SwinModel, SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1],
                                   num_heads=[1, 2], window_size=2)),
    "convnext": (ConvNextModel, ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2)),
    "resnet": (ResNetModel, ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1],
                                         layer_type="basic")),
}  # fmt: skip


def save(kind, folder):
    """A small model of a kind in a folder, as the Hub has them."""
    make, config = HUB[kind]
    torch.manual_seed(0)
    model = make(config).eval()
    model.save_pretrained(folder)
    settings = {"size": {"height": 16, "width": 16}, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return model


def images(side, channels=3):
    return np.random.default_rng(0).integers(0, 256, (6, side, side, channels), np.uint8)


def features(name, pictures):
    """Features of images (N, H, W, C) by a backbone, past the cache."""
    frozen = open_backbone(name, pictures.shape[-1], CPU)
    shape = {"mean": frozen.mean, "std": frozen.std, "size": pictures.shape[1:3]}
    values = (pictures / 255 - shape["mean"]) / shape["std"]
    with torch.no_grad():
        pixels = torch.from_numpy(values.astype(np.float32)).permute(0, 3, 1, 2)
        return frozen.model.features(pixels).numpy()


def expected(model, pictures):
    """What the transformers library itself says of images of the model's size."""
    values = ((pictures / 255 - MEAN) / STD).astype(np.float32)
    with torch.no_grad():
        found = model(pixel_values=torch.from_numpy(values).permute(0, 3, 1, 2))
    last = found.last_hidden_state
    if last.ndim == 4:
        return last.mean(dim=(2, 3))
    kind = model.config.model_type
    if kind == "swin":
        return last.mean(dim=1)
    patches = last[:, -16:].mean(dim=1)
    pooled = found.pooler_output if "clip" in kind or "siglip" in kind else last[:, 0]
    return torch.cat((pooled, patches), dim=1)


@pytest.mark.parametrize("kind", HUB)
def test_a_model_of_the_hub_gives_the_features_that_transformers_gives(kind, tmp_path):
    model = save(kind, tmp_path)
    found = features(str(tmp_path), images(16))
    np.testing.assert_allclose(found, expected(model, images(16)).numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["dinov2", "swin", "convnext"])
def test_its_architecture_travels_in_the_config_so_that_the_folder_may_go(kind, tmp_path):
    model = save(kind, tmp_path / "gone")
    data = DataConfig(image_size=(16, 16), channels=3, classes=4)
    config = Config(data=data, model=BackboneConfig(name=str(tmp_path / "gone")))
    resolved = Config.from_dict(json.loads(json.dumps(resolve(config).to_dict())))
    weights = read_backbone(config.model.name)
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    again = build_model(resolved)
    again.load_state_dict(weights, strict=False)
    pixels = torch.randn(2, 3, 16, 16)
    trace = {}
    with torch.no_grad():
        assert again.eval()(pixels, trace).shape == (2, 4)
        last = model(pixel_values=pixels).last_hidden_state
    assert trace["maps"].shape[:2] == (2, last.shape[1 if last.ndim == 4 else 2])
    assert cost(resolved).macs > 0
    depths = set(layer_numbers(again).values())
    assert depths == set(range(len(again.blocks) + 2)), "every block has a depth of its own"


def test_efficientnet_gives_the_logits_of_its_reference():
    reference = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    pixels = torch.randn(2, 3, 224, 224)
    theirs = reference.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(package_file(), weights_only=True))
    ours = open_backbone("efficientnet-lite0", 3, CPU).model
    with torch.no_grad():
        maps, _ = ours.body(pixels)
        logits = theirs._fc(maps.mean(dim=(2, 3)))
        np.testing.assert_allclose(logits, theirs(pixels), atol=1e-4)


def test_grey_images_of_another_size_are_brought_to_the_models_own(tmp_path):
    save("vit", tmp_path)
    grey = images(10, channels=1)
    coloured = features(str(tmp_path), grey.repeat(3, axis=3))
    mean = open_backbone(str(tmp_path), 1, CPU).mean
    assert mean == pytest.approx((0.5,))  # one for the three colours that it is shown as
    assert features(str(tmp_path), grey).shape == coloured.shape


def test_batch_norms_keep_the_statistics_that_they_came_with():
    model = open_backbone("efficientnet-lite0", 3, CPU).model.train()
    before = model.body.bn1.running_mean.clone()
    model(torch.randn(2, 3, 64, 64))
    assert torch.equal(model.body.bn1.running_mean, before) and model.dropout.training


def test_what_is_no_backbone_is_refused_with_the_ways_out(tmp_path):
    with pytest.raises(
        DataError, match=r"no backbone .*efficientnet-lite0, which needs no network"
    ):
        open_backbone(str(tmp_path), 3, CPU)
    save("vit", tmp_path)
    model = HUB["vit"][0](HUB["vit"][1])
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")  # may run code when it is read
    with pytest.raises(DataError, match="no backbone"):
        open_backbone(str(tmp_path), 3, CPU)


def test_size_and_licence_are_known_before_anything_is_opened(tmp_path):
    found = facts("efficientnet-lite0")
    assert (found.license, round(found.megabytes), found.here) == ("apache-2.0", 19, True)
    save("vit", tmp_path)
    assert facts(str(tmp_path)).here and facts(str(tmp_path)).megabytes > 0
