"""Protects what a study says: its numbers, its sentences, and that it says them twice alike."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vitlab.errors import RunError
from vitlab.run import Run
from vitlab.stats import Difference, Sample, holm
from vitlab.study import page
from vitlab.study.plan import ALL_PAIRS, Plan
from vitlab.study.results import StudyRecord, best_arms, summarize, write_summary

BASE = (0.700, 0.702, 0.698, 0.701, 0.699)
UP = (0.721, 0.721, 0.718, 0.720, 0.720)
DOWN = (0.679, 0.682, 0.680, 0.681, 0.678)
LIKE = (0.7015, 0.7015, 0.6985, 0.7005, 0.7005)
THREE = {
    "baseline": BASE, "model.norm=rms": UP, "model.depth=6": DOWN, "model.qk_norm=true": LIKE,
}  # fmt: skip
CHANGES = {
    "model.norm=rms": {"model.norm": "rms"}, "model.depth=6": {"model.depth": 6},
    "model.qk_norm=true": {"model.qk_norm": True},
}  # fmt: skip
AXES = {"model.norm": ["layer", "rms"], "model.depth": [6, 12], "model.qk_norm": [False, True]}
RMS = "model.norm=rms"


@pytest.fixture(scope="module")
def three(tmp_path_factory, studies) -> Path:
    """Three arms of five seeds: one better, one worse, one like the baseline."""
    folder = tmp_path_factory.mktemp("three") / "study"
    studies.write(folder, THREE, changes={"baseline": {}, **CHANGES}, axes=AXES)
    return folder


@pytest.fixture(scope="module")
def summary(three):
    """What `three` says, written."""
    return write_summary(three)


@pytest.fixture
def small(tmp_path, studies):
    """A function: the summary of a study of one arm besides the baseline."""

    def summarized(base=BASE, arm=UP, **more):
        folder = tmp_path / "study"
        shutil.rmtree(folder, ignore_errors=True)
        studies.write(folder, {"baseline": base} | ({RMS: arm} if arm else {}), **more)
        return summarize(StudyRecord(folder))

    return summarized


def arm(summary, name):
    return next(one for one in summary["arms"] if one["name"] == name)


def comparison(summary, name=RMS):
    return next(one for one in summary["comparisons"] if one["arm"] == name)


# Verdicts


def test_arms_are_compared_with_the_baseline_and_corrected_as_one_family(summary):
    found = summary["comparisons"]
    assert [one["verdict"].split(" (could")[0] for one in found] == [
        "better", "worse", "no evidence of a difference",
    ]  # fmt: skip
    assert [one["difference"] for one in found] == pytest.approx([0.02, -0.02, 0.0005])
    samples = {name: Sample(dict(enumerate(values))) for name, values in THREE.items()}
    raw = [Difference(samples[name], samples["baseline"]).p for name in CHANGES]
    assert [one["p"] for one in found] == pytest.approx(raw)
    assert [one["adjusted_p"] for one in found] == pytest.approx(holm(raw))
    assert found[2]["detectable"] > 0.001 and found[2]["seeds_needed"] is None
    accuracy = arm(summary, "baseline")["accuracy"]
    assert accuracy["mean"] == pytest.approx(0.7)
    assert accuracy["std"] == pytest.approx(np.std(BASE, ddof=1))
    assert (accuracy["min"], accuracy["max"]) == (0.698, 0.702)
    assert accuracy["seeds"] == dict(zip("01234", BASE, strict=True))


@pytest.mark.parametrize(("margin", "equal"), [(0.005, True), (0.0005, False)])
def test_arms_are_equal_only_within_a_margin_that_was_fixed_beforehand(small, margin, equal):
    found = small(arm=LIKE, margin=margin)
    assert (comparison(found)["verdict"] == "equal within 0.50 pp") == equal
    assert ("equal within 0.50 pp." in " ".join(page.findings(found))) == equal


def test_a_family_of_all_pairs_compares_every_two_arms(tmp_path, studies):
    changes = {"baseline": {}, **CHANGES}
    studies.write(tmp_path / "s", THREE, changes=changes, axes=AXES, family=ALL_PAIRS)
    found = summarize(StudyRecord(tmp_path / "s"))
    pairs = [(one["arm"], one["against"]) for one in found["comparisons"]]
    assert len(pairs) == 6 and ("model.depth=6", RMS) in pairs
    assert f"`model.depth=6` is **worse** than `{RMS}`: -4.00 pp" in page.markdown(found)


def test_fewer_than_three_seeds_show_numbers_and_say_how_many_are_needed(small):
    found = comparison(small(BASE[:2], UP[:2]))
    assert found["verdict"].startswith("no verdict (2 against 2 seeds: at least 3")
    assert found["difference"] == pytest.approx(0.02) and found["p"] is None
    text = page.markdown(small(BASE[:1], UP[:1]))
    assert "At least 3 seeds in each arm are needed" in text


def test_a_study_under_way_decides_nothing(small):
    found = small(arm=(*UP[:4], None))
    assert comparison(found)["verdict"] == "no verdict (1 of 10 runs are still to come)"
    assert comparison(found)["p"] is None and found["trials"]["pending"] == 1
    assert "9 of 10 runs finished, 1 still to come" in page.markdown(found)
    nothing = small((None,) * 5, (None,) * 5)
    assert "0 of 10 runs finished, 10 still to come" in page.markdown(nothing)
    assert nothing["arms"][0]["accuracy"]["mean"] is None


def test_failed_seeds_are_counted_and_shown(tmp_path, small):
    found = small(arm=(*UP[:2], "diverged", *UP[3:]))
    rms = arm(found, RMS)
    assert (rms["planned"], rms["n"]) == (5, 4)
    assert [failure["status"] for failure in rms["failures"]] == ["diverged"]
    assert comparison(found)["verdict"] == "better; 1 of 5 seeds of the arm failed"
    text = page.markdown(found)
    assert "9 of 10 runs finished, 1 diverged." in text and "for a \\| reason" in text
    assert "| 4 of 5 |" in text and "4: 72.00, 2: diverged |" in text
    assert "But 1 of 5 seeds of the arm failed." in text
    assert best_arms(StudyRecord(tmp_path / "study")) == {}  # who lost a seed is not the best


def test_a_run_that_stopped_before_its_first_step_is_no_obstacle(tmp_path, studies):
    plan = studies.write(tmp_path / "s", {"baseline": BASE[:3], RMS: ("out of memory",) * 3})
    for trial in plan.trials[3:]:
        (tmp_path / "s" / trial.run).mkdir(parents=True)
        Run.create(tmp_path / "s" / trial.run, plan.config(trial))
    found = summarize(StudyRecord(tmp_path / "s"))
    assert comparison(found)["verdict"].startswith("no verdict (0 against 3")
    assert "3 of 6 runs finished, 3 out of memory." in page.markdown(found)


# Budgets


@pytest.fixture
def pair(small):
    """A function: what is unequal when the second of two arms is written otherwise."""

    def unequal(changes=None, **more):
        both = {"baseline": {}, RMS: changes or {}}
        return comparison(small((0.7,), (0.71,), changes=both, runs={RMS: more}))["unequal"]

    return unequal


@pytest.mark.parametrize(
    ("changes", "more", "expected"),
    [
        ({"model.norm": "rms", "augment.erasing": 0.5, "optim.lr": 2e-3}, {}, []),
        ({"data.train_fraction": 0.5}, {},
         ["0.5 x the images seen", "0.5 x the multiply-adds of the training"]),
        ({}, {"origin": {"precision": {"value": "bf16"}}}, ["bf16 instead of fp32"]),
        ({}, {"cost": 1.5},
         ["1.5 x the parameters", "1.5 x the multiply-adds of an image",
          "1.5 x the multiply-adds of the training"]),
        ({}, {"origin": {"threads": 2}}, ["times measured on other hardware"]),
        ({"train.small_size": (16, 16), "train.small_epochs": 5}, {},
         ["0.626 x the multiply-adds of the training"]),
    ],
)  # fmt: skip
def test_an_unequal_budget_is_flagged(pair, changes, more, expected):
    assert pair(changes, **more) == expected


def test_another_model_is_studied_but_its_training_is_not(pair):
    found = pair({"recipe": "resnet18"})
    assert any(words.startswith(("augment.", "optim.")) for words in found)
    assert not any(words.startswith("model.") for words in found)


# The second opinion


def test_stored_predictions_give_a_second_opinion(tmp_path, studies):
    plan = studies.plan({"baseline": {}, RMS: {"model.norm": "rms"}}, seeds=(0, 1))
    (tmp_path / "s").mkdir()
    plan.save(tmp_path / "s")
    random = np.random.default_rng(0)
    for trial in plan.trials:
        right = random.random(400) < (0.7 if trial.arm == "baseline" else 0.8)
        studies.finish(tmp_path / "s", plan, trial, float(right.mean()), answers=right)
    found = comparison(summarize(StudyRecord(tmp_path / "s")))
    low, high = found["bootstrap_interval"]
    assert 0 < low < found["difference"] < high
    Run(tmp_path / "s" / plan.trials[0].run).predictions("validation").unlink()
    assert comparison(summarize(StudyRecord(tmp_path / "s")))["bootstrap_interval"] is None


# Stability


def test_spikes_gradients_and_learning_rates_of_an_arm(tmp_path, studies):
    plan = studies.plan({"baseline": {}}, seeds=(0, 1, 2), probes=(0.5, 1, 3))
    plan.save(tmp_path)
    for trial in plan.trials:
        studies.finish(tmp_path, plan, trial, 0.7, spikes=1)
    for trial, accuracy in zip(plan.probes, (0.4, 0.5, 0.11), strict=True):
        studies.finish(tmp_path, plan, trial, accuracy)
    found = summarize(StudyRecord(tmp_path))["arms"][0]["stability"]
    assert found["loss_spikes"] == 6 and found["largest_gradient_norm"] > 1
    assert found["largest_rate"] == plan.config(plan.probes[1]).optim.lr
    assert list(found["rates"].values()) == [True, True, False]


# Searches, choices and names


def test_a_search_is_ranked_without_p_values(tmp_path, studies):
    changes = {f"optim.lr={lr}": {"optim.lr": lr} for lr in (0.002, 0.004)}
    accuracies = {"baseline": (0.70,), "optim.lr=0.002": (0.72,), "optim.lr=0.004": (0.69,)}
    studies.write(
        tmp_path / "s", accuracies, changes={"baseline": {}, **changes},
        axes={"optim.lr": ["log:1e-4..1e-2"]}, design="search", exploratory=True,
    )  # fmt: skip
    record = StudyRecord(tmp_path / "s")
    found = summarize(record)
    assert [row["arm"] for row in found["ranking"]] == [
        "optim.lr=0.002", "optim.lr=0.001 (baseline)", "optim.lr=0.004"
    ]  # fmt: skip
    assert found["ranking"][0]["over"] == "images"
    low, high = found["ranking"][0]["interval"]
    assert 0.70 < low < 0.72 < high < 0.74  # Wilson's, over the validation images
    assert all(one["p"] is None and one["verdict"] is None for one in found["comparisons"])
    assert "2 known tuning trials instead of 0" in found["arms"][1]["unequal"]
    text = page.markdown(found)
    assert "with new seeds" in text and "adjusted p" not in text
    assert best_arms(record) == {"optim.lr=0.002": {"optim.lr": 2e-3}}


def test_the_best_arm_of_each_axis_is_found_and_the_baseline_left_as_it_is(three, studies):
    record = StudyRecord(three)
    assert best_arms(record) == {
        "model.norm": {"model.norm": "rms"}, "model.qk_norm": {"model.qk_norm": True}
    }  # fmt: skip
    assert [record.value(one, "model.depth") for one in record.on("model.depth")] == ["6", "12"]
    studies.plan({"baseline": {}, RMS: {"model.norm": "rms"}}).save(three.parent)
    with pytest.raises(RunError, match="baseline"):
        best_arms(StudyRecord(three.parent))


@pytest.mark.parametrize(
    ("axes", "arms", "design", "name"),
    [
        ({"model.norm": ["layer", "rms"]}, {RMS: {}}, "one-factor", "model.norm=layer (baseline)"),
        ({"model.norm": ["rms"]}, {RMS: {}}, "one-factor", "model.norm=layer (baseline)"),
        ({"position": ["learned", "sin2d, also on CLS", "none"]}, {"position=none": {}},
         "one-factor", "position=learned (baseline)"),
        ({"position": ["none"]}, {"position=none": {}}, "one-factor", "baseline"),
        (AXES, {RMS: {}}, "one-factor", "baseline"),
        ({"model.norm": ["layer", "rms"], "model.depth": [6]},
         {"model.norm=rms, model.depth=6": {}}, "grid",
         "model.norm=layer, model.depth=6 (baseline)"),
        ({}, {}, "one-factor", "baseline"),
    ],
)  # fmt: skip
def test_the_baseline_is_called_by_the_value_that_sets_it_apart(
    tmp_path, studies, axes, arms, design, name
):
    plan = studies.plan({"baseline": {}, **arms}, axes=axes, design=design)
    plan.refused.append({"name": "position=sin2d, also on CLS", "reason": "no"})
    plan.save(tmp_path)
    assert StudyRecord(tmp_path).arms[0].name == name


# Files


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and "runs" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_everything_is_written_twice_alike_and_the_plan_left_alone(three, summary):
    first = files(three)
    pictures = {f"figures/{name}.{kind}" for name in ("axes", "compute", "curves")
                for kind in ("png", "svg", "csv")}  # fmt: skip
    assert set(first) == pictures | {
        "study.json", "summary.json", "summary.md", "arms.csv", "points.csv"
    }  # fmt: skip
    shutil.rmtree(three / "figures")
    write_summary(three)
    assert files(three) == first


def test_tables_hold_every_arm_and_every_seed(three, summary):
    arms = list(csv.DictReader((three / "arms.csv").read_text().splitlines()))
    assert [row["arm"] for row in arms] == list(THREE)
    assert float(arms[1]["difference"]) == pytest.approx(0.02)
    assert arms[1]["verdict"] == "better" and arms[0]["verdict"] == ""
    assert float(arms[0]["parameters"]) == 500_000 and float(arms[0]["images_seen"]) == 450_000
    points = list(csv.DictReader((three / "points.csv").read_text().splitlines()))
    assert len(points) == 20
    assert {row["accuracy"] for row in points if row["arm"] == "baseline"} == set(map(str, BASE))


def test_the_page_holds_findings_limits_and_everything_that_was_refused(three, summary):
    stored = json.loads((three / "summary.json").read_text())
    assert stored == json.loads(json.dumps(summary, allow_nan=False))
    text = (three / "summary.md").read_text()
    assert f"`{RMS}` is **better** than `baseline`: +2.00 pp (95 % interval over seeds" in text
    noise = summary["noise"]
    assert f"a standard deviation of {100 * noise['std']:.2f} pp" in text
    low, high = noise["std_interval"]
    assert low < noise["std"] < high and f"interval {100 * low:.2f} to {100 * high:.2f} pp" in text
    assert f"must be {100 * noise['detectable']:.2f} pp to be found four times in five" in text
    assert all(f"(figures/{name}.svg)" in text for name in ("axes", "compute", "curves"))
    assert "How model.norm=rms works. Why it may help." in text
    assert f"| validation split | {'v' * 64} |" in text and "refused" not in text
    refused = page.markdown({**summary, "refused": [{"name": "heads=5", "reason": "no multiple"}]})
    assert "`heads=5` was not trained: no multiple." in refused.split("## What this")[0]
    assert "1 arm refused" in refused


def test_a_study_of_seeds_alone_says_how_far_apart_they_end(small):
    text = page.markdown(small(arm=None, axes={}))
    assert "nothing changed but the seed" in text and "Nothing is compared." in text
    assert "a standard deviation of" in text and "## Comparisons" not in text


def test_a_run_without_validation_cannot_be_compared(tmp_path, small):
    small(arm=None)
    run = Run(tmp_path / "study" / "runs" / "00-baseline-seed0")
    run.finish({name: value for name, value in run.final_numbers.items() if name != "validation"})
    with pytest.raises(RunError, match=r"data\.validation_fraction"):
        summarize(StudyRecord(tmp_path / "study"))


RECORDS = Path(__file__).parents[2] / "docs" / "results" / "studies"


@pytest.mark.parametrize("name", sorted(path.name for path in RECORDS.iterdir()))
def test_studies_of_earlier_versions_are_read_and_their_verdicts_found_again(name):
    found = json.loads((RECORDS / name / "summary.json").read_text())
    assert "## Findings" in page.markdown(found)
    assert len(Plan.load(RECORDS / name).trials) == found["trials"]["planned"]
    samples = {
        one["name"]: Sample(
            {int(seed): value for seed, value in one["accuracy"]["seeds"].items()},
            len(one["failures"]),
            one["pending"],
        )
        for one in found["arms"]
    }
    pairs = [Difference(samples[one["arm"]], samples[one["against"]])
             for one in found["comparisons"]]  # fmt: skip
    adjusted = holm([1.0 if one.refusal else one.p for one in pairs])
    for one, pair, p in zip(found["comparisons"], pairs, adjusted, strict=True):
        assert one["difference"] is None or pair.value == pytest.approx(one["difference"])
        assert one["p"] is None or p == pytest.approx(one["adjusted_p"])
