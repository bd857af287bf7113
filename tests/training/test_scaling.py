"""Few images get batches and epochs that suit them, unless somebody chose."""

import numpy as np
import pytest

from vitlab.errors import ConfigError
from vitlab.recipes import ALL_RECIPES, recipe
from vitlab.training import SCALED, scale_to_images, train


def steps(config, images):
    """Steps of a training."""
    return config.train.epochs * max(1, images // config.train.batch_size)


@pytest.mark.parametrize("images", [1, 20, 216, 1_000, 5_000])
def test_few_images_are_taken_in_small_batches_and_many_steps(images):
    config = scale_to_images(recipe("cpu"), images)
    assert 32 <= config.train.batch_size <= 256
    assert steps(config, images) >= min(500, 400 * max(1, images // 32))
    share = config.train.epochs / 54
    assert config.optim.warmup_epochs == pytest.approx(2 * share, abs=0.1)
    assert config.train.small_epochs == pytest.approx(31 * share, abs=1)


def test_what_was_given_stays():
    given = recipe("cpu").override({"train.epochs": 10, "train.evaluate_epochs": 2})
    left = [name for name in SCALED if name not in ("train.epochs", "train.evaluate_epochs")]
    config = scale_to_images(given, 216, left)
    assert (config.train.epochs, config.train.evaluate_epochs) == (10, 2)
    assert config.train.batch_size == 32
    assert scale_to_images(given, 216, ()) == given


@pytest.mark.parametrize("name", ALL_RECIPES)
def test_a_recipe_is_what_it_says_on_its_own_images_and_scaled_only_once(name):
    config = recipe(name)
    assert scale_to_images(config, 45_000) == config
    few = scale_to_images(config, 300)
    assert scale_to_images(few, 300) == few


def test_the_memory_in_the_header_is_that_of_the_scaled_batch(tmp_path, capsys):
    images, labels = np.zeros((40, 32, 32, 3), np.uint8), np.arange(40) % 2
    config = recipe("cpu").override({"optim.freeze": "nothing"})  # refused once the header stands
    with pytest.raises(ConfigError, match="is no parameter"):
        train(config, data=(images, labels), out=tmp_path, device="cpu", scaled=SCALED)
    printed = capsys.readouterr().err
    assert "train.batch_size=32, 256 in the recipe" in printed
    assert "32 images at once" in printed and "256 images at once" not in printed


def test_a_pretrained_network_needs_no_more_epochs_for_fewer_images():
    few = scale_to_images(recipe("finetune"), 100).train
    assert few.epochs == recipe("finetune").train.epochs and few.batch_size == 32
