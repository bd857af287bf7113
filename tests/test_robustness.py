"""The attacks stay within their bound, raise the loss, and can be repeated."""

import numpy as np
import pytest
import torch
from torch import nn

from vitlab.data.corrupt import SEVERITIES, STRENGTHS
from vitlab.inference import TrainedModel
from vitlab.preprocessing import Preprocessing
from vitlab.robustness import ATTACKS, EPSILON, attacked, predictions

N = 110


class Answering(TrainedModel):
    """A module as a trained model, without a run behind it."""

    def __init__(self, module):
        size, mean, std = (8, 8), (0.5,) * 3, (0.25,) * 3
        self.preprocessing = Preprocessing(size, 3, "stretch", mean, std, size)
        self.module, self.device, self.precision = module.eval(), torch.device("cpu"), "fp32"


@pytest.fixture(scope="module")
def images():
    """Images (N, 8, 8, 3) with black and white pixels among them."""
    values = np.random.default_rng(0).integers(-60, 320, (N, 8, 8, 3))
    return values.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model():
    """A linear model of three classes, whose dropout must not act."""
    torch.manual_seed(0)
    return Answering(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 3)))


@pytest.fixture(scope="module")
def pixels(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous() / 255


@pytest.fixture(scope="module")
def labels(model, pixels):
    """The classes that the model finds in the clean images."""
    with torch.no_grad():
        return model.module((pixels - 0.5) / 0.25).argmax(1)


@pytest.mark.parametrize("name", ATTACKS)
def test_no_pixel_moves_further_than_it_may_or_out_of_what_a_pixel_can_be(
    model, pixels, labels, name
):
    moved = attacked(model, pixels, labels, np.arange(N), ATTACKS[name])
    assert (moved - pixels).abs().max() <= EPSILON + 1e-6
    assert moved.min() >= 0 and moved.max() <= 1
    assert not moved.requires_grad


def test_against_a_linear_model_one_step_is_the_sign_of_the_gradient(model, pixels, labels):
    moved = attacked(model, pixels, labels, np.arange(N), ATTACKS["fgsm"])
    logits = model.module((pixels - 0.5) / 0.25)
    slope = (logits.softmax(1) - nn.functional.one_hot(labels, 3)) @ model.module[2].weight
    expected = pixels + EPSILON * slope.sign().view_as(pixels)
    assert torch.allclose(moved, expected.clamp(0, 1), atol=1e-6)


def test_one_step_raises_the_loss_and_ten_raise_it_further(pixels, labels):
    torch.manual_seed(1)
    bent = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.GELU(), nn.Linear(32, 3))
    bent[1].weight.data *= 20  # so that the gradient turns within the bound

    def loss(images):
        with torch.no_grad():
            return nn.functional.cross_entropy(bent((images - 0.5) / 0.25), labels)

    fgsm, pgd = (
        loss(attacked(Answering(bent), pixels, labels, np.arange(N), ATTACKS[name]))
        for name in ("fgsm", "pgd")
    )
    assert loss(pixels) + 0.5 < fgsm < pgd


def test_every_condition_comes_once_and_a_repeat_gives_the_same_classes(model, images, labels):
    places = np.arange(100, 100 + N)
    first = list(predictions(model, images, labels.numpy(), places))
    names = [(condition, severity) for condition, severity, _ in first]
    corruptions = [(kind, severity) for kind in STRENGTHS for severity in SEVERITIES]
    assert names == [("clean", 0), *corruptions, ("fgsm", 0), ("pgd", 0)]
    found = dict(zip(names, (classes for *_, classes in first), strict=True))
    assert np.array_equal(found["clean", 0], labels)
    assert (found["fgsm", 0] == labels.numpy()).mean() < 0.99
    again = list(predictions(model, images, labels.numpy(), places))
    assert all(np.array_equal(one[2], other[2]) for one, other in zip(first, again, strict=True))
