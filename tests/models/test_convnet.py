"""The convolutional controls: their published sizes, their start, their traces, their limits."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vitlab.config import CNN6Config, Config, DataConfig, ResNet18Config
from vitlab.errors import ConfigError
from vitlab.models import build_model

SMALL = {"resnet18": ResNet18Config(width=8), "cnn6": CNN6Config(width=4)}


def network(model, image_size=(32, 32), channels=3):
    torch.manual_seed(0)
    data = DataConfig(image_size=image_size, channels=channels, classes=10)
    return build_model(Config(data=data, model=model))


@pytest.mark.parametrize(
    "published, cfg", [(11_173_962, ResNet18Config()), (5_852_234, CNN6Config())]
)
def test_published_parameter_counts_are_met(published, cfg):
    with torch.device("meta"):
        model = network(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


@pytest.mark.parametrize("kind", SMALL)
def test_twice_the_width_is_twice_the_channels_of_every_convolution(kind):
    narrow, wide = SMALL[kind], type(SMALL[kind])(width=2 * SMALL[kind].width)
    assert channels(network(wide)) == [2 * count for count in channels(network(narrow))]


def channels(model):
    return [m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)]


@pytest.mark.parametrize("kind", SMALL)
def test_torchs_start_leaves_layers_as_they_are_made(kind):
    ours, theirs = network(replace(SMALL[kind], init="torch")), network(SMALL[kind])
    for module in ours.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert 0.8 * bound < module.weight.abs().max() <= bound
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("kind", SMALL)
def test_every_parameter_learns_and_the_first_loss_is_that_of_a_guess(kind):
    model = network(SMALL[kind])
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(model(images), torch.arange(16) % 10)
    assert loss.item() == pytest.approx(math.log(10), abs=0.05)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_trace_names_the_stages():
    images = torch.zeros(2, 1, 32, 48)
    resnet = {"stem": (8, 32, 48), "stage1": (8, 32, 48), "stage2": (16, 16, 24)}
    resnet |= {"stage3": (32, 8, 12), "stage4": (64, 4, 6)}
    cnn6 = {"stage1": (8, 16, 24), "stage2": (16, 8, 12), "stage3": (32, 4, 6)}
    for kind, sizes in (("resnet18", resnet), ("cnn6", cnn6)):
        model, trace = network(SMALL[kind], (32, 48), channels=1).eval(), {}
        assert torch.equal(model(images, trace), model(images))
        assert {name: tuple(maps.shape[1:]) for name, maps in trace.items()} == sizes


def test_resnet_takes_another_size_and_cnn6_says_why_it_cannot():
    resnet, cnn6 = network(SMALL["resnet18"]), network(SMALL["cnn6"])
    resnet.resize((24, 24))
    assert resnet(torch.zeros(2, 3, 24, 24)).shape == (2, 10)
    cnn6.resize((32, 32))
    with pytest.raises(ConfigError, match=r"train\.small_size=\(24, 24\)"):
        cnn6.resize((24, 24))


def test_cnn6_refuses_images_it_cannot_halve_three_times():
    with pytest.raises(ConfigError, match=r"data\.image_size=\(28, 28\): cnn6 halves"):
        network(CNN6Config(), (28, 28))


@pytest.mark.parametrize("kind", SMALL)
def test_controls_compile_without_a_break(kind):
    compiled = torch.compile(network(SMALL[kind]), fullgraph=True, backend="eager")
    assert compiled(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
