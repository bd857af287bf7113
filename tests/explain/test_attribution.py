"""Maps of what an answer rests on are exact where they can be, and find what decides it."""

import sys

import numpy as np
import pytest
import torch

from vitlab.config import CNN6Config, ResNet18Config, ViTConfig
from vitlab.errors import ConfigError, VitlabError
from vitlab.explain import METHODS, choose, compute_maps
from vitlab.explain.attribution import COVERED, grad_cam, integrated_gradients, occlusion
from vitlab.explain.faithfulness import to_cells

SIDE, PATCH = 16, 4
"""Pixels of a planted image and of its square."""

CLASSES = torch.tensor([0, 1, 2, 3])
IMAGES = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
SMALL = {"width": 16, "depth": 2, "heads": 2, "init_std": 0.5}
CNNS = ("cnn6", "resnet18")
MODELS = {
    "cls": ViTConfig(**SMALL),
    "seqpool": ViTConfig(**SMALL, pool="seqpool", cls_token=False),
    "cnn6": CNN6Config(width=4),
    "resnet18": ResNet18Config(width=4),
}


def test_grad_cam_of_a_network_that_averages_its_last_maps_is_its_class_activation_map(build):
    model, trace = build(MODELS["resnet18"], (32, 32), spread=2.0), {}
    images = torch.randn(4, 3, 32, 32)
    model(images, trace)
    weights = model.head[-1].weight[CLASSES]  # (B, D)
    expected = torch.einsum("bd,bdrc->brc", weights, trace["stage4"]).clamp(min=0) / 16
    found = grad_cam(model, images, CLASSES)
    assert found.any()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_integrated_gradients_sum_to_the_change_of_the_logit(build, kind):
    model = build(MODELS[kind])
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(100)
        change = (model(IMAGES) - model(torch.zeros_like(IMAGES)))[CLASSES, CLASSES]
    maps = integrated_gradients(model, IMAGES, CLASSES)
    assert change.abs().min() > 0.1
    assert ((maps.sum(dim=(1, 2)) - change).abs() <= 0.01 * maps.abs().sum(dim=(1, 2))).all()


def test_integrated_gradients_say_so_where_they_miss(build, monkeypatch):
    monkeypatch.setattr("vitlab.explain.attribution.STEPS", (1,))
    with pytest.warns(
        UserWarning, match="of 4 images are off by more than 1% of what they attribute"
    ):
        integrated_gradients(build(MODELS["cls"], spread=3.0), IMAGES, CLASSES)


def test_occlusion_is_the_mean_fall_of_the_logit_over_the_squares_that_cover_a_pixel(build):
    model = build(MODELS["cls"], spread=2.0)
    side, step = SIDE // COVERED, SIDE // COVERED // 2
    falls, covers = torch.zeros(4, SIDE, SIDE), torch.zeros(SIDE, SIDE)
    with torch.no_grad():
        whole = model(IMAGES)[CLASSES, CLASSES]
        for top in range(0, SIDE - side + 1, step):
            for left in range(0, SIDE - side + 1, step):
                part = (..., slice(top, top + side), slice(left, left + side))
                covered = IMAGES.clone()
                covered[part] = 0
                falls[part] += (whole - model(covered)[CLASSES, CLASSES])[:, None, None]
                covers[part] += 1
    found = occlusion(model, IMAGES, CLASSES)
    torch.testing.assert_close(found, falls / covers, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "name, method, least",
    [
        ("cls", "occlusion", 0.98),
        ("cls", "integrated-gradients", 0.98),
        ("cls", "rollout", 0.9),
        ("mean", "occlusion", 0.98),
        ("mean", "integrated-gradients", 0.98),
        ("mean", "attention", 0.9),
        ("mean", "gradient-rollout", 0.9),
        ("mean", "grad-cam", 0.75),
        ("cnn", "occlusion", 0.98),
        ("cnn", "integrated-gradients", 0.98),
    ],
)
def test_the_square_that_decides_the_class_comes_first(trained, squares, name, method, least):
    # Occlusion and integrated gradients are about the answer itself and must always find what
    # decides it. The others are about parts of the model, and find it where these carry it.
    images, classes, patches = squares
    model = trained(name)
    with torch.no_grad():
        assert (model(images).argmax(dim=1) == classes).all()
    cells = to_cells(compute_maps(method, model, images, classes), SIDE // PATCH)
    first = cells.reshape(len(cells), -1).argmax(axis=1)
    assert (first == patches.numpy()).mean() >= least


@pytest.mark.parametrize("kind", MODELS)
def test_every_method_of_a_model_gives_a_map_of_each_image_alone(build, kind, monkeypatch):
    monkeypatch.setattr("vitlab.explain.methods.BATCH", 3)
    model = build(MODELS[kind])
    of_attention = {"attention", "rollout", "gradient-rollout"}
    assert set(METHODS) - set(choose(model)) == (of_attention if kind in CNNS else set())
    for name in choose(model):
        maps = compute_maps(name, model, IMAGES, CLASSES)
        assert maps.shape[0] == 4 and maps.ndim == 3 and maps.dtype == np.float32
        assert np.isfinite(maps).all()
        alone = compute_maps(name, model, IMAGES[1:2], CLASSES[1:2])
        assert np.allclose(maps[1], alone[0], atol=1e-4, rtol=1e-3)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_methods_that_a_model_does_not_have_are_refused_by_name(build):
    with pytest.raises(ConfigError, match="unknown name roll: did you mean rollout"):
        choose(build(MODELS["cls"]), ["grad-cam", "roll"])
    with pytest.raises(ConfigError, match="CNN6 has no attention: rollout"):
        choose(build(MODELS["cnn6"]), ["rollout"])
    assert choose(build(MODELS["cls"]), ["rollout", "rollout"]) == ["rollout"]


def test_without_captum_its_methods_are_left_out_and_the_way_to_them_is_told(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    model = build(MODELS["cnn6"])
    with pytest.warns(UserWarning, match=r"pip install 'vitlab\[explain\]'"):
        assert choose(model) == ["grad-cam"]
    with pytest.raises(VitlabError, match="occlusion needs captum"):
        occlusion(model, IMAGES, CLASSES)
