"""Every recipe trains on real CIFAR-10 as it stands: a few small steps, cut, resumed, evaluated."""

import pytest

from vitlab.inference import predict
from vitlab.ledger import open_split
from vitlab.recipes import ALL_RECIPES, recipe
from vitlab.training import resume, train

SMALL = {
    "data.dataset": "cifar10",
    "data.validation_fraction": 0.002,  # 100 images
    "data.train_fraction": 0.0005,  # 20 images, rounded down per class
    "optim.warmup_epochs": 0.5,
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.evaluate_epochs": 2,
    "train.checkpoint_epochs": 1,
}

LARGE = ("strong-conv", "strong-cnn", "strong-plain", "strong-plain-distilled", "max")
"""Made for a GPU: here with two blocks, as all of theirs are alike, if they have any."""

QUICK = ("cpu-plain", "cpu-cnn", "cnn6")
"""One of each kind of model, and of those the smallest; the others are slow."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in ALL_RECIPES],
)
def test_a_recipe_trains_on_real_images_resumes_and_evaluates(name, cifar10, tmp_path, cut):
    values = {**SMALL}
    if recipe(name).train.small_epochs:
        values["train.small_epochs"] = 1
    if name in LARGE and hasattr(recipe(name).model, "depth"):
        values["model.depth"] = 2
    if recipe(name).train.teacher:
        values["train.teacher_epochs"] = 2
    config = recipe(name).override(values)
    with cut(after=3):
        train(config, out=tmp_path, name="run", device="cpu", data_root=cifar10, quiet=True)
    run = resume(tmp_path / "run", device="cpu", data_root=cifar10, quiet=True)
    assert run.finished["step"] in (4, 6)  # without and with the last, smaller batches
    assert run.config.data.image_size == (32, 32)
    examples, index = open_split(run, "validation", data_root=cifar10)
    logits = predict(run, examples.images[index], device="cpu")
    assert logits.shape == (100, 10)
    accuracy = (logits.argmax(1) == examples.labels[index]).mean()
    assert accuracy == pytest.approx(run.finished["validation"]["accuracy"])
