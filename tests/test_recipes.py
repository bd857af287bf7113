"""Recipes say what their systems published, run on any data, and have a command each."""

import json
import re
import shlex
from dataclasses import replace
from statistics import fmean

import pytest

from vitlab.cli import parse
from vitlab.config import Config, ViTConfig, fields_of
from vitlab.data import open_dataset
from vitlab.errors import ConfigError
from vitlab.measured import FILE
from vitlab.models.cost import cost
from vitlab.recipes import ALL_RECIPES, RECIPES, command, recipe
from vitlab.training import train

PUBLISHED = {
    "vit-d6-w128": {
        "model.norm_place": "post",
        "model.init_std": 1.0,
        "optim.optimizer": "adam",
        "optim.schedule": "constant",
        "optim.weight_decay": 0,
        "train.batch_size": 64,
        "train.epochs": 50,
        "parameters": 1_205_642,
    },
    "vit-d9-w192": {
        "model.heads": 8,
        "model.attention_dropout": 0.1,
        "model.embed_dropout": 0.1,
        "augment.policy": "randaugment",
        "augment.policy_operations": 2,
        "augment.policy_magnitude": 9,
        "optim.decay": "all",
        "optim.warmup_epochs": 5,
        "optim.final_lr": 0,
        "optim.clip_norm": 0,
        "train.precision": "fp16",
        "parameters": 4_028_170,
    },
    "resnet18-sgd": {
        "optim.optimizer": "sgd",
        "optim.lr": 0.1,
        "optim.momentum": 0.9,
        "optim.nesterov": False,
        "optim.weight_decay": 5e-4,
        "optim.schedule": "plateau",
        "augment.crop_padding": 4,
        "train.epochs": 50,
    },
    "vit-d6-w256": {
        "model.ffn_ratio": 2,
        "model.dropout": 0.2,
        "augment.resized_crop": 0.8,
        "data.validation_fraction": 0.1,
        "optim.step_epochs": (100, 150),
        "optim.step_factors": (0.1, 0.01),
        "train.epochs": 180,
        "parameters": 3_195_146,
    },
    "cnn6": {
        "optim.optimizer": "adam",
        "optim.lr": 3e-4,
        "augment.resized_crop": 0.8,
        "train.epochs": 180,
        "parameters": 5_852_234,
    },
    "vit-tiny": {
        "model.qkv_bias": False,
        "model.attention_dropout": 0.0,
        "augment.policy": "trivialaugment",
        "augment.mixup": 0.2,
        "augment.cutmix": 1.0,
        "augment.erasing": 0.25,
        "augment.label_smoothing": 0.1,
        "optim.decay": "matrices",
        "optim.warmup_epochs": 10,
        "optim.final_lr": 1e-5,
        "optim.clip_norm": 1.0,
        "parameters": 5_356_234,
    },
    "resnet18": {"optim.nesterov": True, "optim.schedule": "cosine", "train.epochs": 100},
}


def resolved(name: str, dataset: str = "cifar10"):
    config = recipe(name)
    return replace(config, data=open_dataset(replace(config.data, dataset=dataset)).config)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_is_the_published_one(name):
    config = resolved(name)
    facts = {**fields_of(config), "parameters": cost(config).parameters}
    expected = PUBLISHED[name]
    assert {fact: facts[fact] for fact in expected} == expected


@pytest.mark.parametrize("name", ALL_RECIPES)
def test_a_recipe_knows_its_name_and_runs_on_any_data(name):
    assert recipe(name).recipe == name
    for dataset in ("cifar100", "digits"):
        assert cost(resolved(name, dataset)).parameters > 0


def test_what_is_offered_was_measured_or_published():
    measured = {one["config"]["recipe"] for one in json.loads(FILE.read_text())}
    assert set(RECIPES) == measured | set(PUBLISHED)
    assert len({make().sha256 for make in ALL_RECIPES.values()}) == len(ALL_RECIPES)


def test_small_models_are_small():
    assert cost(resolved("cpu")).parameters < 500_000
    assert cost(resolved("cpu-plain")).parameters < 800_000
    assert cost(resolved("small")).parameters < 3_000_000
    model = recipe("cpu-plain").model
    assert isinstance(model, ViTConfig)
    assert model.cls_token and model.pool == "cls" and model.patch == "linear"


def test_the_steps_that_resnet18_sgd_mentions_work_without_validation():
    words = " ".join(RECIPES["resnet18-sgd"].__doc__.split())
    options = words.split("`")[1]
    config = recipe("resnet18-sgd").override(parse(["train", "x", *options.split()]).overrides)
    assert config.optim == replace(
        recipe("resnet18-sgd").optim,
        schedule="steps",
        step_epochs=(25.0, 40.0),
        step_factors=(0.5, 0.1),
    )


def test_a_misspelt_recipe_is_corrected():
    with pytest.raises(ConfigError, match="unknown name vit-tyny: did you mean vit-tiny"):
        recipe("vit-tyny")


@pytest.mark.parametrize("name", ALL_RECIPES)
def test_the_command_of_a_config_makes_that_config(name):
    values = {
        "train.seed": 3,
        "model.width": 96,
        "optim.betas": (0.8, 0.99),
        "data.dataset": "/Data/My Images",
    }
    if recipe(name).model.kind == "backbone":  # has no width of its own
        del values["model.width"]
    config = recipe(name).override(values)
    words = shlex.split(command(config))
    args = parse(words[1:])
    assert words[:3] == ["vitlab", "train", name]
    assert recipe(args.recipe).override(args.overrides) == config


def test_a_config_has_a_command_if_it_starts_from_a_recipe():
    assert command(recipe("cpu")) == "vitlab train cpu"
    assert command(Config()) is None


def test_a_run_remembers_the_image_size_that_was_asked_for(tmp_path):
    config = recipe("digits").override(
        {"data.image_size": (4, 4), "train.epochs": 1, "model.depth": 1}
    )
    run = train(config, out=tmp_path, device="cpu", quiet=True)
    assert "--data.image_size 4,4" in run.provenance["command"]
    assert "--data.classes" not in run.provenance["command"]


COST = (
    r"([\d.]+) (seconds|minutes) of\s+process\s+time\s+on (?:one thread of )?an ([A-Z][\w ]+?) with"
)


@pytest.mark.parametrize("one", json.loads(FILE.read_text()), ids=lambda one: one["name"])
def test_the_cost_of_a_measured_recipe_is_the_process_time_that_was_measured(one):
    told = re.search(COST, " ".join((ALL_RECIPES[one["name"]].__doc__ or "").split()))
    assert told, "no cost"
    number, unit, device = told.groups()
    mean = fmean(run["process_seconds"] for run in one["runs"])
    assert float(number) == round(mean / {"seconds": 1, "minutes": 60}[unit])
    for run in one["runs"]:
        assert device in run["device"].replace("(R)", "")
