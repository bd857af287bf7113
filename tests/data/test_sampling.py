"""Classes of unequal size: weighed, shown equally often, and the same after a resume."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitlab.config import AugmentConfig, Config, DataConfig, TrainConfig, ViTConfig
from vitlab.data import batches, from_arrays
from vitlab.data.batches import Batches, DeviceImages
from vitlab.data.sampling import class_weights, weighted_order

EXAMPLES = from_arrays(
    np.random.default_rng(1).integers(0, 256, (100, 8, 8, 1), np.uint8),
    np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [70, 25, 5])),
)
LABELS = EXAMPLES.labels
CONFIG = Config(
    data=DataConfig(image_size=(8, 8), channels=1, classes=3),
    model=ViTConfig(patch_size=4),
    train=TrainConfig(epochs=4, batch_size=16, sampler="balanced", seed=3),
)


def steps_of(config=CONFIG, weights=None):
    examples = replace(EXAMPLES, weights=weights)
    images = DeviceImages(examples, np.arange(100), torch.device("cpu"))
    return Batches(images, config, (0.5,), (0.25,))


def epoch(steps, number):
    per_epoch = steps.steps_per_epoch
    return np.concatenate([steps.index(number * per_epoch + place) for place in range(per_epoch)])


def test_class_weights_are_one_given_or_give_every_class_the_same_say():
    assert class_weights(LABELS, 3, "none").tolist() == [1, 1, 1]
    assert class_weights(LABELS, 3, (1.0, 2.0, 8.0)).tolist() == [1, 2, 8]
    weights = class_weights(LABELS, 3, "balanced")
    assert weights.dtype == np.float32
    assert np.allclose(weights * np.bincount(LABELS), 100 / 3)
    assert weights[LABELS].mean() == pytest.approx(1)
    # A class without training images leaves the balance of the others.
    assert class_weights(LABELS, 5, "balanced").tolist() == [*weights.tolist(), 1, 1]


def test_a_balanced_epoch_shows_every_class_equally_often_and_is_no_longer_than_another():
    shown = epoch(steps_of(), 0)
    assert sorted(np.bincount(LABELS[shown])) == [33, 33, 34]
    times = np.bincount(shown, minlength=100)
    assert times[LABELS == 0].max() == 1  # of the large class every image at most once
    for label in (1, 2):  # of the small ones every image before one comes again
        assert np.ptp(times[np.equal(LABELS, label)]) <= 1


def test_a_shuffled_epoch_shows_every_image_once():
    plain = steps_of(CONFIG.override({"train.sampler": "shuffle"}))
    assert np.array_equal(np.sort(epoch(plain, 1)), np.arange(100))


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_before():
    first, again = steps_of(), steps_of()
    whole = [first.index(step) for step in range(first.steps)]
    assert np.array_equal(again.index(9), whole[9])  # asked out of the blue, as after a resume
    assert not np.array_equal(epoch(first, 0), epoch(first, 1))
    other = steps_of(CONFIG.override({"train.seed": 4}))
    assert not np.array_equal(epoch(other, 0), epoch(first, 0))


@pytest.mark.parametrize("limit", ["RESIDENT", "RESIDENT_SHARE"])
def test_images_too_many_for_the_memory_are_gathered_to_the_same_batches(monkeypatch, limit):
    whole = steps_of()
    monkeypatch.setattr(batches, limit, 0)
    gathered = steps_of()
    assert np.shares_memory(gathered.images._host._images, EXAMPLES.images)
    assert whole.images._resident is not None and gathered.images._resident is None
    for images, again in zip(whole.batch(2), gathered.batch(2), strict=True):
        assert torch.equal(images, again)
    for some in (slice(3, 9), np.array([7, 2])):
        assert torch.equal(whole.images[some], gathered.images[some])


@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(crop_padding=2, flip="alternating", cutout=4, label_smoothing=0.1),
        AugmentConfig(resized_crop=0.5, flip="random", policy="randaugment", erasing=0.5),
        AugmentConfig(policy="trivialaugment", mixup=0.8, cutmix=1.0, label_smoothing=0.1),
        AugmentConfig(mixup=0.4),
        AugmentConfig(cutmix=1.0),
    ],
)
def test_batches_made_in_a_block_are_those_made_one_by_one(augment):
    # 7 batches an epoch, the last of 4 images; the second epoch begins at another size.
    config = replace(
        CONFIG, augment=augment, train=replace(CONFIG.train, small_size=(4, 4), small_epochs=1)
    )
    alone, blocks, resumed = steps_of(config), steps_of(config), steps_of(config)
    blocks.block = resumed.block = 5
    for step in range(15):
        made = [one.batch(step) for one in (alone, blocks)]
        made += [resumed.batch(step)] if step >= 8 else []  # begins in the middle of a block
        for images, targets in made[1:]:
            assert torch.equal(images, made[0][0]) and torch.equal(targets, made[0][1])
    assert made[0][0].shape[-1] == 8 and alone.batch(0)[0].shape[-1] == 4


def test_a_weighted_epoch_shows_images_as_often_as_they_weigh_and_is_no_longer_than_another():
    weights = np.random.default_rng(0).permutation(np.repeat([0.25, 1, 5], [40, 50, 10]))
    steps = steps_of(CONFIG.override({"train.sampler": "shuffle", "train.epochs": 500}), weights)
    times = np.array([np.bincount(epoch(steps, number), minlength=100) for number in range(500)])
    expected = weights / weights.mean()
    assert (times.sum(axis=1) == 100).all()
    assert (abs(times - expected) < 1).all()
    assert abs(times.mean(axis=0) - expected).max() < 0.1
    assert not np.array_equal(epoch(steps, 0), epoch(steps, 1))


def test_equal_weights_show_every_image_once():
    for scale in (1.0, 0.1, 1e-30):
        shown = weighted_order(np.full(100, scale), np.random.default_rng(5))
        assert np.array_equal(np.sort(shown), np.arange(100))


def test_a_balanced_sampler_shows_classes_equally_often_and_within_them_by_weight():
    weights = np.where(np.arange(100) % 2, 3.0, 1.0)
    steps = steps_of(CONFIG.override({"train.epochs": 200}), weights)
    times = sum(np.bincount(epoch(steps, number), minlength=100) for number in range(200)) / 200
    shown = [times[np.equal(LABELS, label)].sum() for label in range(3)]
    assert np.allclose(shown, 100 / 3, atol=0.3)
    large = times[LABELS == 0], weights[LABELS == 0]
    assert large[0][large[1] == 3].mean() / large[0][large[1] == 1].mean() == pytest.approx(3, 0.2)


def test_weights_belong_to_the_fingerprint_for_they_change_what_is_learned():
    choices = None, np.ones(100), np.arange(1.0, 101)
    prints = {replace(EXAMPLES, weights=weights).fingerprint for weights in choices}
    assert len(prints) == 3 and EXAMPLES.fingerprint in prints
