"""Features of pretrained models: small ones are really loaded, in the form of the large."""

import json

import numpy as np
import pytest
import torch
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

from vitlab.backbone import backbone_features
from vitlab.errors import DataError

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def save(model, folder, size):
    torch.manual_seed(0)
    model.save_pretrained(folder)
    settings = {"size": size, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return model.eval()


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = ViTModel(ViTConfig(**sizes, intermediate_size=8, image_size=16, patch_size=8))
    return save(model, folder, {"height": 16, "width": 16}), str(folder)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1]}
    model = ResNetModel(ResNetConfig(**sizes, layer_type="basic"))
    return save(model, folder, {"shortest_edge": 32}), str(folder)


def pixels(images):
    """Images (N, H, W, 3) as the settings above want them."""
    values = (images / 255 - MEAN) / STD
    return torch.from_numpy(values.astype(np.float32)).permute(0, 3, 1, 2)


def images(side, channels=3):
    return np.random.default_rng(0).integers(0, 256, (60, side, side, channels), np.uint8)


def test_a_vit_gives_its_cls_token_and_a_resnet_the_mean_of_its_maps(vit, resnet):
    for (model, folder), side in ((vit, 16), (resnet, 32)):
        found = backbone_features(folder, images(side), torch.device("cpu"))
        with torch.no_grad():
            last = model(pixel_values=pixels(images(side))).last_hidden_state
        expected = last.mean(dim=(2, 3)) if last.ndim == 4 else last[:, 0]
        assert found == pytest.approx(expected.numpy(), abs=1e-5)


def test_grey_images_of_another_size_are_brought_to_the_models_own(vit):
    grey = images(10, channels=1)
    found = backbone_features(vit[1], grey, torch.device("cpu"))
    coloured = backbone_features(vit[1], grey.repeat(3, axis=3), torch.device("cpu"))
    assert (found == coloured).all()


def test_a_folder_without_a_model_and_weights_that_could_run_code_are_refused(vit, tmp_path):
    with pytest.raises(DataError, match=r"no backbone .*preprocessor_config.json"):
        backbone_features(str(tmp_path), images(8), torch.device("cpu"))
    model, _ = vit
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    settings = {"size": 16, "image_mean": MEAN, "image_std": STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="no backbone"):
        backbone_features(str(tmp_path), images(8), torch.device("cpu"))
