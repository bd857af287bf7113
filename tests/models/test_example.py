"""The example in one file is the plain ViT of the package: equal names, equal logits."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model, save_file, save_model
from tiny import IMAGES, vit

FILE = Path(__file__).parents[2] / "examples" / "vit.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_vit", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_fits_on_a_few_screens_and_does_without_the_package():
    source = FILE.read_text()
    assert len(source.splitlines()) <= 200
    assert "import vitlab" not in source and "from vitlab" not in source


def test_weights_are_interchangeable_and_logits_equal(example, tmp_path):
    torch.manual_seed(0)
    theirs = example.ViT(16, channels=3, classes=5, patch_size=4, width=16, depth=2, heads=2).eval()
    ours = vit(position_on_cls=True, init_std=1.0).eval()
    assert not torch.allclose(theirs(IMAGES), ours(IMAGES), atol=1e-3)

    save_file(ours.state_dict(), tmp_path / "ours.safetensors")
    load_model(theirs, tmp_path / "ours.safetensors")
    torch.testing.assert_close(theirs(IMAGES), ours(IMAGES), atol=1e-6, rtol=0)

    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_model(theirs, str(tmp_path / "theirs.safetensors"))
    load_model(ours, tmp_path / "theirs.safetensors")
    torch.testing.assert_close(theirs(IMAGES), ours(IMAGES), atol=1e-6, rtol=0)


def test_some_steps_lower_the_loss(example):
    torch.manual_seed(0)
    images, _, labels, _ = (torch.tensor(each) for each in example.load(None))
    images = (images[:256].float() / 8 - 1).permute(0, 3, 1, 2)
    model = example.ViT(8, channels=1, classes=10, patch_size=2, width=32, depth=2)
    losses = list(example.train(model, images, labels[:256], epochs=8))
    assert losses[-1] < losses[0] - 0.1
