"""Features of frozen networks: kept by content, and not dependent on the company of an image."""

import numpy as np
import pytest
import torch

from vitlab.config import ResNet18Config
from vitlab.data import LabelledImages
from vitlab.frozen import Frozen
from vitlab.inference import last_layer
from vitlab.models.convnet import ResNet18


@pytest.fixture
def frozen(tmp_path, monkeypatch) -> Frozen:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch.manual_seed(0)
    model = ResNet18(ResNet18Config(width=4), (16, 16), 3, 5)
    return Frozen(model, (0.5,) * 3, (0.25,) * 3, (16, 16))


@pytest.fixture
def examples() -> LabelledImages:
    images = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), np.uint8)
    images[60:] = images[:10]  # copies
    return LabelledImages(images, np.arange(70) % 5, tuple("abcde"))


def counted(frozen) -> list[int]:
    """How many images the network sees from now on, a batch after another."""
    seen = []
    frozen.model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    return seen


def test_an_image_is_seen_once_whatever_it_is_called_and_whoever_stands_beside_it(frozen, examples):
    seen = counted(frozen)
    whole = frozen.features(examples, np.arange(70), quiet=True)
    batches = len(seen)
    assert sum(seen) <= 64 + 32 and whole.shape == (70, 32)
    assert np.array_equal(whole[60:], whole[:10])
    some = frozen.features(examples, np.array([65, 3, 40]), quiet=True)
    assert np.array_equal(some, whole[[65, 3, 40]]) and len(seen) == batches
    assert frozen.missing(examples, np.arange(70)) == 0
    alone = LabelledImages(examples.images[3:4] // 2, np.zeros(1, int), ("a",))
    beside = LabelledImages(examples.images[[9, 3]] // 2, np.zeros(2, int), ("a",))
    found = frozen.features(alone, np.arange(1), quiet=True)
    with torch.no_grad():
        fresh = Frozen(frozen.model, frozen.mean, frozen.std, (16, 15))  # another cache
        first = fresh.features(alone, np.arange(1), quiet=True)
        assert first.shape == found.shape
    assert np.array_equal(frozen.features(beside, np.array([1]), quiet=True), found)


def test_other_weights_are_another_network_and_another_head_is_not(frozen, examples):
    before = frozen.features(examples, np.arange(5), quiet=True)
    with torch.no_grad():
        last_layer(frozen.model).weight.add_(1)
    again = Frozen(frozen.model, frozen.mean, frozen.std, frozen.size)
    seen = counted(again)
    assert np.array_equal(again.features(examples, np.arange(5), quiet=True), before) and not seen
    with torch.no_grad():
        frozen.model.stages.stem[0].weight.mul_(2)
    other = Frozen(frozen.model, frozen.mean, frozen.std, frozen.size)
    assert not np.allclose(other.features(examples, np.arange(5), quiet=True), before)


def test_what_was_computed_before_an_interruption_is_kept_and_damage_is_made_good(
    frozen, examples, monkeypatch, tmp_path
):
    monkeypatch.setattr("vitlab.frozen.KEPT", 32)
    seen = counted(frozen)

    def stop(*_):
        if len(seen) == 2:
            raise KeyboardInterrupt

    handle = frozen.model.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        frozen.features(examples, np.arange(60), quiet=True)
    handle.remove()
    assert frozen.missing(examples, np.arange(60)) == 60 - 32
    whole = frozen.features(examples, np.arange(60), quiet=True)
    for file in tmp_path.rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(frozen.features(examples, np.arange(60), quiet=True), whole)
