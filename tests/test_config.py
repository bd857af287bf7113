"""A config is right when it is made, says everything that is wrong at once, and survives JSON."""

import hashlib
import json
from dataclasses import FrozenInstanceError, fields

import pytest

from vitlab.config import (
    ADDED,
    MODELS,
    SCHEMA,
    AugmentConfig,
    CNN6Config,
    Config,
    DataConfig,
    OptimConfig,
    ResNet18Config,
    TrainConfig,
    ViTConfig,
    field_help,
    fields_of,
    hints,
    text,
)
from vitlab.errors import ConfigError
from vitlab.recipes import RECIPES, recipe


def problems_of(make, *args, **kwargs) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make(*args, **kwargs)
    return caught.value.problems


def test_everything_wrong_with_an_override_is_told_at_once():
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
    told = "\n".join(problems)
    assert "model.nrom: did you mean model.norm?" in told
    assert "model.norm='batch' is not one of layer, rms" in told
    assert "train.epochs='many' is not a whole number" in told
    assert "optim.lr=-1.0 must be above 0" in told
    assert "two crops" in told


def test_an_error_of_a_config_exits_with_2():
    with pytest.raises(ConfigError, match="3 problems") as caught:
        ViTConfig(width=-1, depth=0, heads=0)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", RECIPES)
def test_a_config_read_back_from_json_is_the_same(name):
    config = recipe(name)
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.sha256 == config.sha256
    assert type(again.optim.betas) is tuple


def test_reading_json_is_strict():
    tree = Config().to_dict()
    del tree["train"]["seed"]
    tree["train"]["speed"] = 1
    tree["modle"] = {}
    told = "\n".join(problems_of(Config.from_dict, tree))
    assert "train.seed is missing" in told
    assert "train.speed: did you mean train.seed?" in told
    assert "modle: did you mean model?" in told


@pytest.mark.parametrize("tree", [[], 3, {"model": {"kind": []}}, {"train": None}], ids=str)
def test_json_of_another_shape_is_refused(tree):
    if isinstance(tree, dict):
        tree = {**Config().to_dict(), **tree}
    assert problems_of(Config.from_dict, tree)


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


@pytest.mark.parametrize("schema", [None, 0, SCHEMA + 1, "1"])
def test_another_schema_is_refused(schema):
    (problem,) = problems_of(Config.from_dict, {**Config().to_dict(), "schema": schema})
    assert f"schema {schema!r} is not one this version reads" in problem


def test_configs_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        setattr(Config().train, "epochs", 3)  # noqa: B010 - a type checker would see through it


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


@pytest.mark.parametrize("name", RECIPES)
def test_what_text_writes_an_override_reads(name):
    config = recipe(name)
    values = fields_of(config)
    assert config.override({path: text(value) for path, value in values.items()}) == config


def test_a_switch_to_another_kind_of_model_starts_from_its_defaults():
    config = Config(model=ViTConfig(depth=3)).override({"model.kind": "cnn6"})
    assert config.model == CNN6Config()
    (problem,) = problems_of(config.override, {"model.depth": 3})
    assert "model.depth" in problem


def test_the_kind_of_model_may_be_named_after_its_fields():
    vit = Config().override({"model.width": 16, "model.kind": "cnn6"})
    assert vit.model == CNN6Config(width=16)
    back = vit.override({"model.depth": 6, "model.kind": "vit"})
    assert back.model == ViTConfig(depth=6)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"width": 100, "heads": 3}, "width=100 is not a multiple of heads=3"),
        ({"width": 12, "heads": 2, "position": "rope"}, "width/heads=6 must be a multiple of 4"),
        ({"width": 6, "heads": 1, "position": "sin2d"}, "sin2d"),
        ({"position": "rope", "position_on_cls": True}, "position_on_cls=True has no meaning"),
        ({"cls_token": False}, "pool='cls' needs cls_token=True"),
        ({"patch": "conv", "patch_size": 16}, "patch_size=16 cannot be reached by 3 convolutions"),
        ({"patch_convs": 2}, "patch_convs=2 has no meaning with patch='linear'"),
        ({"patch": "cct", "patch_size": 3}, "patch='cct'"),
        ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
    ],
)
def test_an_impossible_vit_is_refused_by_name(fields, told):
    assert any(told in problem for problem in problems_of(ViTConfig, **fields))


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"data": DataConfig(image_size=(30, 32))}, "data.image_size=(30, 32) is not a multiple"),
        (
            {"model": CNN6Config(), "train": TrainConfig(small_size=(24, 24), small_epochs=1)},
            "the linear layers of cnn6 are made for one image size",
        ),
        (
            {
                "data": DataConfig(validation_fraction=0.0),
                "optim": OptimConfig(schedule="plateau"),
            },
            "needs data.validation_fraction above 0",
        ),
    ],
)
def test_sections_that_contradict_each_other_are_refused(sections, told):
    (problem,) = problems_of(Config, **sections)
    assert told in problem


def test_two_sizes_in_one_run_need_both_numbers():
    assert "set both or neither" in problems_of(TrainConfig, small_epochs=3)[0]
    assert "leaves no epoch" in problems_of(
        TrainConfig, epochs=3, small_epochs=3, small_size=(24, 24)
    )[0]  # fmt: skip


def test_derived_numbers_follow_an_override():
    model = Config().override({"model.heads": 4, "model.registers": 2}).model
    assert isinstance(model, ViTConfig)
    assert (model.head_width, model.prefix, model.grid((32, 24))) == (48, 3, (8, 6))


def test_every_field_explains_itself():
    sections = (DataConfig, *MODELS.values(), AugmentConfig, OptimConfig, TrainConfig)
    for section in sections:
        help_of = field_help(section)
        assert set(help_of) == {field.name for field in fields(section)} == set(hints(section))
        assert all(len(words) > 10 for words in help_of.values())


def test_another_experiment_has_another_hash():
    assert Config().sha256 != Config(model=ResNet18Config()).sha256
    assert Config().sha256 == Config().sha256
