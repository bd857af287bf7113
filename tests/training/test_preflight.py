"""A person is told in plain words what tends to go wrong, before and during a training."""

import math

import numpy as np
import pytest

from vitlab.config import Config
from vitlab.diagnosis import SMALL_BATCH
from vitlab.recipes import ALL_RECIPES, recipe
from vitlab.training import train
from vitlab.training.evaluation import Chance, alarm
from vitlab.training.preflight import problems_of, warnings_for

KNOWN = {"data.image_size": (32, 32), "data.channels": 3, "data.classes": 10}


def remarks(images: int = 45_000, **values: object) -> str:
    fields = {name.replace("__", "."): value for name, value in values.items()}
    return "\n".join(warnings_for(recipe("vit-tiny").override(KNOWN | fields), images))


def test_a_sound_recipe_draws_no_remark():
    assert remarks() == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model__patch_size": 16}, "2 x 2 patches leaves attention nothing to do"),
        ({"optim__lr": 0.1}, "optim.lr=0.1 is outside 0.0001 to 0.004"),
        ({"optim__optimizer": "muon", "optim__muon_lr": 1.0}, "optim.muon_lr=1 is outside"),
        ({"optim__warmup_epochs": 0}, "epochs of warm-up"),
        ({"model__width": 195, "model__position": "learned"}, "odd head width of 65"),
        ({"train__epochs": 5, "optim__warmup_epochs": 10},
         "warmup_epochs=10 leaves none of train.epochs=5"),
        ({"images": 10}, "train.batch_size=128 is more than all 10 images"),
        ({"images": 10, "train__batch_size": 33}, "batch_size=33 is more than all 10 images"),
        ({"train__stop_accuracy": 0.8},
         "misses the low rates at the end of optim.schedule='cosine'"),
        ({"train__stop_patience": 2, "train__evaluate_epochs": 4},
         "train.stop_patience=2 ends before the second validation: train.evaluate_epochs=4"),
    ],
)  # fmt: skip
def test_what_makes_small_transformers_fail_is_named(values, words):
    assert words in remarks(**values)


@pytest.mark.parametrize(
    ("wrong", "images", "ways_out"),
    [
        ({"train.drop_last": True, "train.batch_size": 50}, 30,
         {"set train.batch_size=30 or less": {"train.batch_size": 30},
          "or train.drop_last=off": {"train.drop_last": False}}),
        ({"train.batch_size": 29}, 30,
         {"set train.batch_size=28": {"train.batch_size": 28},
          "set train.drop_last=on": {"train.drop_last": True}}),
        ({"train.batch_size": 6, "train.accumulate": 6}, 60,
         {"set train.batch_size=12": {"train.batch_size": 12},
          "set train.accumulate=1": {"train.accumulate": 1}}),
        ({"optim.layer_decay": 0.9}, 60, {"set optim.layer_decay=1": {"optim.layer_decay": 1}}),
        ({"optim.freeze": "stem"}, 60, {"choose from stages, head": {"optim.freeze": "stages"}}),
        ({"optim.freeze": "stages,head"}, 60,
         {"leaves nothing to train: name fewer": {"optim.freeze": "stages"}}),
    ],
    ids=str,
)  # fmt: skip
def test_the_way_out_that_a_refusal_names_is_one(wrong, images, ways_out):
    small = {**KNOWN, "data.image_size": (8, 8), "model.width": 8}
    config = recipe("resnet18").override({**small, **wrong})
    (told,) = problems_of(config, images, 1)
    for words, way_out in ways_out.items():
        assert words in told
        assert not list(problems_of(config.override(way_out), images, 1))
    assert ("drop_last=on" in told) == ("set train.drop_last=on" in ways_out)


def test_few_images_without_augmentation_are_named():
    off = {"augment__policy": "none", "augment__mixup": 0, "augment__cutmix": 0}
    assert "learn them by heart" in remarks(images=1_000, **off)
    assert "learn them by heart" not in remarks(images=1_000)
    assert "learn them by heart" not in remarks(images=45_000, **off)


def test_the_smallest_batch_that_is_scaled_to_draws_no_remark():
    assert remarks(images=10, train__batch_size=SMALL_BATCH) == ""


def test_recipes_give_no_remark_on_their_learning_rate():
    for name in ALL_RECIPES:
        config = recipe(name).override(KNOWN | {"train.small_size": None, "train.small_epochs": 0})
        assert not any("known to train" in remark for remark in warnings_for(config, 45_000)), name


def test_a_training_at_chance_or_diverging_is_called_that():
    config = Config().override(KNOWN)
    chance = Chance.of(config, np.arange(10))
    assert "stuck at chance" in (alarm(config, 50, 2.3, 0.11, chance) or "")
    assert "diverging" in (alarm(config, 50, 9.0, 0.2, chance) or "")
    assert alarm(config, 50, 1.5, 0.5, chance) is None
    assert alarm(config, 1, 2.3, 0.1, chance) is None


def test_chance_of_several_labels_is_how_frequent_they_are():
    config = Config().override(KNOWN | {"data.task": "multilabel", "data.classes": 4})
    chance = Chance.of(config, np.tile([1, 1, 1, 0], (8, 1)))
    assert "stuck at chance: 80.0%" in (alarm(config, 50, 2.5, 0.8, chance) or "")
    assert alarm(config, 50, 2.5, 0.9, chance) is None
    assert "diverging" in (alarm(config, 50, 9 * 4 * math.log(2), 0.9, chance) or "")


def test_the_header_says_what_was_chosen_and_why(tmp_path, capsys):
    labels = np.arange(200) % 4
    images = np.random.default_rng(0).integers(0, 255, (200, 8, 8, 3), dtype=np.uint8)
    config = recipe("digits").override(
        {"train.epochs": 3, "train.precision": "fp16", "optim.lr": 0.5, "optim.warmup_epochs": 0,
         "model.depth": 1}
    )  # fmt: skip
    images[100:] = images[:100]
    run = train(config, data=(images, labels), out=tmp_path, device="cpu")
    printed = capsys.readouterr().err
    for words in (
        "precision   fp32 (",
        "compilation off (",
        "determinism on (",
        "180 training and 20 validation images, 4 classes",
        f"{run.finished['parameters']:,} parameters",
        "multiply-adds per image",
        "9: 3 epochs of 3 batches of 64",
        "time        about",
        "optim.lr=0.5 is outside",
        "train.precision is fp32 (fp16 was asked for",
        "validation images with a near copy among the training images",
    ):
        assert words in printed, words
    assert run.finished["alarms"] and run.finished["alarms"][0].split(":")[0] in printed
