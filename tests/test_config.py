"""A config is right when it is made, says everything that is wrong at once, and survives JSON."""

import hashlib
import json
import shlex
from dataclasses import fields
from typing import get_args

import pytest

from vitlab.config import (
    ADDED,
    MODELS,
    SCHEMA,
    CNN6Config,
    Config,
    ResNet18Config,
    ViTConfig,
    field_types,
    fields_of,
    section_types,
)
from vitlab.errors import ConfigError
from vitlab.fields import field_help, text
from vitlab.recipes import ALL_RECIPES, command, recipe, shortened


def problems_of(make, *args, **kwargs) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make(*args, **kwargs)
    return caught.value.problems


def test_everything_wrong_with_an_override_is_reported_at_once():
    problems = problems_of(
        Config().override,
        {
            "model.nrom": "rms",
            "model.norm": "batch",
            "train.epochs": "many",
            "optim.lr": "-1",
            "augment.crop_padding": 1,
            "augment.resized_crop": 0.5,
        },
    )
    assert len(problems) == 5
    message = "\n".join(problems)
    assert "model.nrom: did you mean model.norm?" in message
    assert "model.norm='batch' is not one of layer, rms" in message
    assert "train.epochs='many' is not a whole number" in message
    assert "optim.lr=-1 must be above 0" in message
    assert "two crops" in message


def test_an_error_of_a_config_counts_its_problems_and_exits_with_2():
    with pytest.raises(ConfigError, match="3 problems") as caught:
        ViTConfig(width=-1, depth=0, heads=0)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ALL_RECIPES)
def test_a_config_survives_json_and_text(name):
    config = recipe(name)
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and again.sha256 == config.sha256
    assert type(again.optim.betas) is tuple
    values = {path: text(value) for path, value in fields_of(config).items()}
    assert config.override(values) == config


def test_reading_json_is_strict():
    tree = Config().to_dict()
    del tree["train"]["seed"]
    tree["train"]["speed"] = 1
    tree["modle"] = {}
    message = "\n".join(problems_of(Config.from_dict, tree))
    assert "train.seed is missing" in message
    assert "train.speed: did you mean train.seed?" in message
    assert "modle: did you mean model?" in message


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "a config has sections, data, model"),
        ({"model": {"kind": []}}, "model.kind=[] is not one of vit, hybrid"),
        ({"train": None}, "train=None is no section"),
        ({"recipe": 5}, "recipe=5 is not text"),
        *(({"schema": number}, f"schema {number!r} is not one") for number in (0, SCHEMA + 1, "1")),
    ],
    ids=str,
)
def test_json_of_another_shape_or_schema_is_refused(wrong, message):
    tree = {**Config().to_dict(), **wrong} if isinstance(wrong, dict) else wrong
    assert message in "\n".join(problems_of(Config.from_dict, tree))


def of_schema_1(config: Config) -> dict:
    tree = {**config.to_dict(), "schema": 1}
    for section, name in (path.split(".") for paths in ADDED.values() for path in paths):
        tree[section].pop(name, None)
    return tree


def test_a_config_of_an_earlier_schema_has_what_came_later_switched_off():
    assert Config.from_dict(of_schema_1(Config())) == Config()
    tree = of_schema_1(Config())
    del tree["optim"]["lr"]
    assert problems_of(Config.from_dict, tree) == ["optim.lr is missing"]


def test_a_hash_survives_later_schemas_and_still_sees_every_field():
    tree = of_schema_1(Config())
    first = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
    assert Config().sha256 == first
    assert Config().override({"optim.sam": 0.1}).sha256 != first
    assert Config().override({"optim.lr": 0.1}).sha256 != first
    assert Config(model=ResNet18Config()).sha256 != first


@pytest.mark.parametrize(
    ("path", "typed", "value"),
    [
        ("train.epochs", "5", 5),
        ("optim.lr", "3e-4", 3e-4),
        ("optim.lr", 1, 1.0),
        ("optim.nesterov", "true", True),
        ("model.qkv_bias", "off", False),
        ("data.image_size", "24,32", (24, 32)),
        ("data.image_size", "none", None),
        ("data.channels", "1", 1),
        ("model.patch_convs", "none", None),
        ("optim.betas", [0.8, 0.9], (0.8, 0.9)),
        ("optim.step_epochs", "", ()),
        ("data.dataset", "5", "5"),
        ("model.position", "none", "none"),
    ],
)
def test_text_becomes_the_type_of_its_field(path, typed, value):
    assert fields_of(Config().override({path: typed}))[path] == value


@pytest.mark.parametrize(
    ("path", "typed"),
    [
        ("train.epochs", "5.5"),
        ("train.epochs", True),
        ("optim.lr", "nan"),
        ("optim.lr", "inf"),
        ("optim.nesterov", "perhaps"),
        ("data.image_size", "24"),
        ("data.image_size", "24,x"),
        ("data.channels", "2"),
        ("optim.betas", "0.9"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_its_full_name(path, typed):
    (problem,) = problems_of(Config().override, {path: typed})
    assert problem.startswith(f"{path}=")


def test_another_kind_of_model_starts_from_its_defaults():
    config = Config(model=ViTConfig(depth=3)).override({"model.width": 16, "model.kind": "cnn6"})
    assert config.model == CNN6Config(width=16)
    (problem,) = problems_of(config.override, {"model.depth": 3})
    assert "model.depth" in problem
    assert config.override({"model.depth": 6, "model.kind": "vit"}).model == ViTConfig(depth=6)


def test_durations_that_do_not_fit_into_fewer_epochs_follow_in_proportion():
    short = recipe("cpu").override({"train.epochs": "5"})
    assert (short.train.small_epochs, short.train.small_size) == (2, (24, 24))
    assert short.optim.warmup_epochs == 2  # it fits
    shorter = recipe("cpu").override({"train.epochs": 1})
    assert (shorter.train.small_epochs, shorter.train.small_size) == (0, None)
    assert shorter.optim.warmup_epochs == pytest.approx(2 / 54)
    for config in (short, shorter):
        words = shlex.split(str(command(config)))[3:]
        pairs = zip(words[::2], words[1::2], strict=True)
        again = recipe("cpu").override({name[2:]: value for name, value in pairs})
        assert again == config
    assert shortened(short) == {"train.small_epochs": (31, 2)}
    assert shortened(recipe("cpu")) == {}


def test_a_value_that_was_given_is_never_made_to_fit():
    given = {"train.epochs": 5, "train.small_epochs": 31, "optim.warmup_epochs": 9}
    (problem,) = problems_of(recipe("cpu").override, given)
    assert problem.startswith("train.small_epochs=31 leaves none of epochs=5")
    kept = recipe("cpu").override({"train.epochs": 40, "optim.warmup_epochs": 50})
    assert (kept.train.small_epochs, kept.optim.warmup_epochs) == (31, 50)


SCHEDULED = {"optim.schedule": "plateau", "data.validation_fraction": 0}


@pytest.mark.parametrize(
    ("start", "wrong", "message", "ways_out"),
    [
        ("digits", {"model.heads": 3}, "width=64 is not a multiple of heads=3", []),
        ("digits", {"model.width": 24, "model.position": "rope"}, "width/heads=6 must be", []),
        ("digits", {"model.width": 6, "model.heads": 1, "model.position": "sin2d"}, "sin2d", []),
        ("vit-tiny", {"model.position": "rope"}, "position_on_cls=True has no meaning", []),
        ("digits", {"model.patch_convs": 2}, "has no meaning with patch='linear'", []),
        ("digits", {"model.dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1", []),
        ("digits", {"data.dataset": ""}, "give a known name", [{"data.dataset": "cifar10"}]),
        (
            "cpu",
            {"train.epochs": 5, "train.small_epochs": 9},
            "set fewer than 5, or small_epochs=0 and small_size=none",
            [{"train.small_epochs": 4}, {"train.small_epochs": 0, "train.small_size": "none"}],
        ),
        ("cpu", {"train.small_epochs": 0, "train.small_size": (24, 24)}, "set both", [
            {"train.small_epochs": 3}, {"train.small_size": "none"}
        ]),
        ("digits", {"model.patch": "conv", "model.patch_size": 3}, "a power of two up to 8", [
            {"model.patch_size": size} for size in (1, 2, 4, 8)
        ]),
        ("digits", {"model.patch": "cct", "model.patch_size": 3}, "patch_size is 2, 4 or 8", [
            {"model.patch_size": size} for size in (2, 4, 8)
        ]),
        ("digits", {"model.patch": "whitened", "model.patch_size": 1}, "is 2, 4 or 8", [
            {"model.patch_size": size} for size in (2, 4, 8)
        ]),
        ("digits", {"model.patch": "spt", "model.patch_size": 3}, "2 must divide", [
            {"model.patch_size": 6}
        ]),
        ("digits", {"model.pool": "cls"}, "needs cls_token=True", [{"model.cls_token": "on"}]),
        (
            "digits",
            {"augment.resized_crop": 0.5, "augment.crop_padding": 1},
            "set one of them to 0",
            [{"augment.resized_crop": 0}, {"augment.crop_padding": 0}],
        ),
        ("digits", {"optim.betas": "0.9,1"}, "below 1", [{"optim.betas": "0.9,0.999"}]),
        ("digits", {"optim.schedule": "steps"}, "needs step_epochs and step_factors", [
            {"optim.step_epochs": "3,5", "optim.step_factors": "0.5,0.1"}
        ]),
        ("digits", {"optim.nesterov": "on", "optim.momentum": 0}, "momentum above 0", [
            {"optim.momentum": 0.9}
        ]),
        ("digits", {"train.teacher_epochs": 2}, "needs a teacher", [
            {"train.teacher": "cnn-teacher", "model.distill_token": "on"}
        ]),
        ("digits", {"train.teacher": "cnn-teacher"}, "go together", [
            {"model.distill_token": "on"}, {"train.teacher": "none"}
        ]),
        ("resnet18", {"train.teacher": "cnn-teacher"}, "set train.teacher=none", [
            {"train.teacher": "none"}
        ]),
        (
            "digits",
            {"train.stop_patience": 3, "data.validation_fraction": 0},
            "data.validation_fraction above 0, or train.stop_accuracy=0 and train.stop_patience=0",
            [
                {"data.validation_fraction": 0.1},
                {"train.stop_accuracy": 0, "train.stop_patience": 0},
            ],
        ),
        ("digits", SCHEDULED, "validation_fraction above 0, or use schedule='cosine'", [
            {"data.validation_fraction": 0.1}, {"optim.schedule": "cosine"}
        ]),
        (
            "digits",
            {"data.image_size": (9, 9)},
            "choose another size or set model.pad_to_patch=on",
            [{"data.image_size": (10, 10)}, {"model.pad_to_patch": "on"}],
        ),
        ("cpu", {"model.kind": "cnn6"}, "set train.small_size=none and train.small_epochs=0", [
            {"train.small_size": "none", "train.small_epochs": 0}
        ]),
        ("cnn6", {"data.image_size": (28, 28)}, "8 must divide it", [
            {"data.image_size": (24, 32)}
        ]),
    ],
    ids=str,
)  # fmt: skip
def test_the_way_out_that_an_error_names_is_one(start, wrong, message, ways_out):
    assert message in "\n".join(problems_of(recipe(start).override, wrong))
    for way_out in ways_out:
        recipe(start).override({**wrong, **way_out})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.depth", 1_000_000, "at most 256"),
        ("model.ffn_ratio", 1e13, "at most 1000000000000"),
        ("data.image_size", [10**6, 10**6], "at most 4096"),
        ("train.batch_size", 10**400, "at most 1000000"),
        ("optim.lr", 10**400, "must be finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_experiment_needs_is_refused_by_name_and_limit(path, value, message):
    (problem,) = problems_of(Config().override, {path: value})
    assert problem.startswith(f"{path}=") and message in problem


def test_derived_numbers_follow_an_override():
    model = Config().override({"model.heads": 4, "model.registers": 2}).model
    assert isinstance(model, ViTConfig)
    assert (model.head_width, model.prefix, model.grid((32, 24))) == (48, 3, (8, 6))


def test_every_field_explains_itself():
    for kind in MODELS:
        for section in section_types(kind).values():
            texts = field_help(section)
            assert set(texts) == {field.name for field in fields(section)}
            assert all(texts.values())


def test_a_field_that_kinds_of_model_share_has_the_choices_of_all():
    assert get_args(field_types()["model.kind"]) == tuple(MODELS)
    assert {"xavier", "kaiming"} <= set(get_args(field_types()["model.init"]))


def test_rules_between_fields_are_checked_beside_a_bad_value():
    assert problems_of(ViTConfig, width=0, cls_token=False) == [
        "width=0 must be at least 1 and at most 65536",
        "pool='cls' needs cls_token=True",
    ]
