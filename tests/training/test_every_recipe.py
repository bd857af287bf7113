"""Every recipe trains as it stands: a few small steps, cut, resumed, evaluated."""

import numpy as np
import pytest

from vitlab.inference import predict
from vitlab.ledger import open_split
from vitlab.recipes import ALL_RECIPES, recipe
from vitlab.training import resume, train

SMALL = {
    "data.dataset": "cifar10",
    "optim.warmup_epochs": 0.5,
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.evaluate_epochs": 2,
    "train.checkpoint_epochs": 1,
}

LARGE = ("strong-conv", "strong-cnn", "strong-plain", "strong-plain-distilled", "max")
"""Made for a GPU: here with two blocks, as all of theirs are alike, if they have any."""


def trains(name, out, cut, fields, **given):
    """Train a recipe on 20 images, with a power cut after three steps, and evaluate it."""
    values = SMALL | fields
    if recipe(name).train.small_epochs:
        values["train.small_epochs"] = 1
    if name in LARGE and hasattr(recipe(name).model, "depth"):
        values["model.depth"] = 2
    if recipe(name).train.teacher:
        values["train.teacher_epochs"] = 2
    config = recipe(name).override(values)
    with cut(after=3):
        train(config, out=out, name="run", device="cpu", quiet=True, **given)
    run = resume(out / "run", device="cpu", quiet=True, **given)
    assert run.finished["step"] in (4, 6)  # without and with the last, smaller batches
    assert run.config.data.image_size == (32, 32)
    examples, index = open_split(run, "validation", **given)
    logits = predict(run, examples.images[index], device="cpu")
    assert logits.shape == (len(index), 10)
    accuracy = (logits.argmax(1) == examples.labels[index]).mean()
    assert accuracy == pytest.approx(run.finished["validation"]["accuracy"])


@pytest.mark.parametrize("name", ["cpu-plain", "cpu-cnn", "cnn6"])
def test_a_recipe_of_each_kind_of_model_trains_resumes_and_evaluates(name, tmp_path, cut):
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    half = {"data.validation_fraction": 0.5}
    trains(name, tmp_path, cut, half, data=(images, np.arange(40) % 10))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_RECIPES)
def test_a_recipe_trains_on_real_images_resumes_and_evaluates(name, cifar10, tmp_path, cut):
    shares = {"data.validation_fraction": 0.002, "data.train_fraction": 0.0005}
    trains(name, tmp_path, cut, shares, data_root=cifar10)
