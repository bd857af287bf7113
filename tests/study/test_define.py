"""Definitions of studies: what a file or a command line asks for, and what is wrong with it."""

import functools
import shlex
from pathlib import Path

import pytest

from vitlab.errors import ConfigError
from vitlab.recipes import command, recipe
from vitlab.study.define import Range, from_options, read, ready
from vitlab.study.plan import Plan, arm_config, probe
from vitlab.study.prepare import prepare
from vitlab.training.optim import lr_schedule

STUDY = """
question = "Does anything matter?"
recipe = "vit-tiny"
rates = [1, 3]

[common]
train.epochs = 20
"optim.warmup_epochs" = 2

[vary]
model.norm = ["layer", "rms"]
model.heads = [3, 5]

[vary.position.rope]
model.position = "rope"
model.position_on_cls = false
explanation = "It turns."

[explain]
model.norm = "It scales."
"""


@functools.cache
def shipped(name: str) -> Plan:
    """The plan of a study that ships."""
    return prepare(read(name), threads=1)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "matter.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def matter(tmp_path_factory) -> Plan:
    """The plan of STUDY."""
    path = tmp_path_factory.mktemp("matter") / "matter.toml"
    path.write_text(STUDY)
    return prepare(read(str(path)), threads=1)


def test_a_file_becomes_arms_around_its_baseline_each_with_every_seed(matter):
    assert matter.name == "matter"
    assert [arm.name for arm in matter.arms] == ["baseline", "model.norm=rms", "position=rope"]
    baseline, rms, rope = matter.arms
    assert (baseline.baseline, baseline.axis, rms.axis) == (True, None, "model.norm")
    assert rope.changes == {"model.position": "rope", "model.position_on_cls": False}
    assert (rms.explanation, rope.explanation) == ("It scales.", "It turns.")
    assert matter.axes == {"model.norm": ["layer", "rms"], "model.heads": [3, 5],
                           "position": ["rope"]}  # fmt: skip
    assert matter.config(matter.trials[-1]).train.epochs == 20
    assert baseline.parameters > rope.parameters > 5e6 and baseline.macs > 3e8
    assert [(trial.arm, trial.seed) for trial in matter.trials] == [
        (arm.name, seed) for arm in matter.arms for seed in range(5)
    ]
    assert len({trial.run for trial in matter.all}) == len(matter.all) == 3 * (5 + 2)
    assert {matter.config(trial).train.seed for trial in matter.trials} == {0, 1, 2, 3, 4}
    (refused,) = matter.refused
    assert refused["name"] == "model.heads=5"
    assert "width=192 is not a multiple of heads=5" in refused["reason"]


def test_an_arm_of_another_kind_goes_without_the_common_fields_that_it_does_not_have(tmp_path):
    file = tmp_path / "sizes.toml"
    file.write_text(
        """
question = "Which model needs fewer images?"
recipe = "cpu-plain"
design = "grid"
seeds = 1
[common]
model.depth = 2
train.epochs = 4
train.small_epochs = 1
[vary]
data.train_fraction = [1.0, 0.1]
[vary.network]
vit = { recipe = "cpu-plain" }
resnet = { recipe = "cpu-cnn" }
"""
    )
    plan = prepare(read(str(file)), threads=1)
    assert not plan.refused and len(plan.arms) == 4
    network = plan.arms[-1]
    assert network.explanation.endswith("It has no model.depth.")
    assert network.config["model"]["kind"] == "resnet18" and network.config["train"]["epochs"] == 4
    assert plan.arms[0].config["model"]["depth"] == 2
    with pytest.raises(ConfigError, match=r"model\.stage_depth"):
        prepare(read(str(file), common={"model": {"stage_depth": 2}}), threads=1)


def test_a_grid_has_every_combination_and_its_baseline_once():
    grid = ["model.norm=layer,rms", "model.depth=12,6,4"]
    plan = prepare(from_options(grid, "vit-tiny", design="grid", seeds=1), threads=1)
    assert [arm.name for arm in plan.arms][:3] == [
        "baseline", "model.norm=layer, model.depth=6", "model.norm=layer, model.depth=4",
    ]  # fmt: skip
    assert len(plan.arms) == 6
    assert plan.arms[-1].changes == {"model.norm": "rms", "model.depth": 4}


def test_an_arm_may_take_another_recipe():
    plan = shipped("best-combinations")
    resnet = plan.arm("combination=ResNet-18")
    assert arm_config(plan.recipe, plan.overrides, resnet.changes).model.kind == "resnet18"
    assert resnet.parameters == 11_173_962


def test_a_probe_is_a_tenth_as_long_at_a_multiple_of_the_rate(matter):
    short = matter.config(matter.probes[1])
    assert (short.train.epochs, short.optim.lr) == (2, pytest.approx(3e-3))
    whole = matter.config(matter.trials[0])
    shape = [lr_schedule(whole.optim, step, 100, 2000) for step in range(0, 2000, 100)]
    shorter = [lr_schedule(short.optim, step, 100, 200) for step in range(0, 200, 10)]
    assert shorter == pytest.approx(shape, abs=0.05)
    assert probe(recipe("cpu"), 1.0).train.small_epochs == 3


@pytest.mark.parametrize(
    ("wrong", "line", "problem"),
    [
        (("model.norm", "model.nrom"), 11, "did you mean model.norm?"),
        (('"rms"', '"rmss"'), 11, "model.norm='rmss' is not one of layer, rms"),
        (("train.epochs", "epoch"), 7, "did you mean train.epochs?"),
        (("recipe", "recpie"), 3, "did you mean recipe?"),
        (("vit-tiny", "vit-tniy"), 3, "did you mean vit-tiny?"),
        (('position = "rope"', 'positoin = "rope"'), 15, "did you mean model.position?"),
        (("[1, 3]", "3"), 4, "rates=3 is not list"),
        (("rates = [1, 3]", "margin = 50.0"), 4, "margin=50.0 is a difference of accuracies"),
        (('["layer", "rms"]', '"1..3"'), 11, "a range needs a field that is a number"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_line(file, wrong, line, problem):
    file.write_text(STUDY.replace(*wrong, 1))
    with pytest.raises(ConfigError, match=rf"matter\.toml:{line}: .*") as error:
        read(str(file))
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("vary", "problem"),
    [
        (["model.nrom=layer,rms"], "did you mean model.norm?"),
        (["learnig_rate=1e-3"], "unknown name learnig_rate"),
        (["model.norm"], "write FIELD=VALUE,VALUE"),
        (["optim.betas=0.9,0.98"], "they need a file"),
        (["optim.lr=1e-4..1e-2"], "a range needs --design search"),
        (["optim.lr=log:0..1"], "begins above 0"),
        (["model.norm=layer"], "every value is what the recipe has already"),
        (["model.heads=5"], "width=192 is not a multiple of heads=5"),
    ],
)
def test_a_mistake_on_a_command_line_is_refused(vary, problem):
    with pytest.raises(ConfigError) as error:
        prepare(from_options(vary, "vit-tiny"), threads=1)
    assert problem in str(error.value)


def test_a_search_needs_something_to_search():
    with pytest.raises(ConfigError, match="nothing varies"):
        prepare(from_options([], "vit-tiny", design="search", trials=3), threads=1)


def test_nothing_but_seeds_is_a_study_of_one_arm():
    plan = prepare(from_options([], "vit-tiny", seeds=10), threads=1)
    assert [arm.name for arm in plan.arms] == ["baseline"]
    assert plan.seeds == list(range(10)) and plan.name == "vit-tiny-seeds"
    assert "seed alone" in plan.question


def test_ranges_read_what_they_print():
    for words in ("1..8", "0..0.3", "log:0.0001..0.01"):
        assert str(Range.read(words)) == words
    assert Range.read("rms") is None and Range.read("..") is None


def test_a_study_needs_images_to_compare_by():
    fields = {"data.validation_fraction": "0"}
    study = from_options(["model.norm=rms"], "digits").with_overrides(fields)
    with pytest.raises(ConfigError, match="nothing to compare by"):
        prepare(study, threads=1)


@pytest.mark.parametrize("name", ready())
def test_every_study_that_ships_can_be_planned_with_its_cost(name):
    plan = shipped(name)
    assert not plan.refused
    assert len(plan.seeds) >= 3
    for arm in plan.arms:
        assert arm.parameters > 1e5 and arm.macs > 1e6
        assert arm.baseline or arm.explanation
    configs = [plan.config(trial) for trial in plan.all]
    assert len({config.sha256 for config in configs}) == plan.size
    for config in configs[:: len(plan.seeds)]:
        words = shlex.split(command(config) or "")
        fields = {name[2:]: value for name, value in zip(words[3::2], words[4::2], strict=True)}
        assert recipe(words[2]).override(fields) == config


def test_the_studies_that_ship_ask_what_is_known_to_matter():
    asked = {
        "patch-size": {"model.patch_size": [2, 4, 8]},
        "width": {"model.width": [96, 192, 256, 384]},
        "depth": {"model.depth": [4, 6, 7, 8, 9, 12]},
        "heads": {"model.heads": [1, 3, 4, 8, 12, 96]},
        "registers": {"model.registers": [0, 1, 4, 8]},
        "learning-rate": {"optim.lr": [5e-4, 1e-3, 3e-3]},
    }
    for name, axes in asked.items():
        assert shipped(name).axes == axes
    assert len(shipped("positions").arms) == 8
    assert len(shipped("data-size").arms) == 21
    assert len(shipped("cpu-small").all) <= 30


def test_a_study_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "study.toml").write_bytes(b"question = \xff")
    with pytest.raises(ConfigError, match=r"study\.toml"):
        read(str(tmp_path / "study.toml"))
