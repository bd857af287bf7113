"""Protects what a study says: its numbers, its words, and that it says them twice alike."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from vitlab.config import Config
from vitlab.errors import RunError
from vitlab.files import write_json, write_text
from vitlab.run import Run
from vitlab.stats import Difference, Sample, holm
from vitlab.study import page
from vitlab.study.define import AGAINST_BASELINE, ALL_PAIRS
from vitlab.study.plan import Arm, Plan, Trial
from vitlab.study.record import StudyRecord, count_spikes
from vitlab.study.summary import best_arms, summarize, write_summary

IMAGES = 5_000
FORM = {"data.image_size": (32, 32), "data.channels": 3, "data.classes": 10}


def planned(arms, *, seeds=(0, 1, 2, 3, 4), axes=None, probes=(), **more):
    """A plan of arms given as name -> changes, the baseline first."""
    plan = Plan(
        name="a study",
        question="What does it change?",
        recipe="vit-tiny",
        axes=axes or {"model.norm": ["layer", "rms"]},
        overrides={},
        rivals=False,
        threads=1,
        **{
            "design": "one-factor",
            "seeds": list(seeds),
            "family": AGAINST_BASELINE,
            "exploratory": False,
            **more,
        },
    )
    for name, changes in arms.items():
        axis = name.split("=")[0] if plan.design == "one-factor" and "=" in name else None
        arm = Arm(
            name=name,
            changes=changes,
            axis=axis,
            baseline=name == "baseline",
            explanation=f"How {name} works. Why it may help.",
        )
        plan.add(arm)
        plan.add_probes(arm, probes)
    return plan


def finished(
    folder: Path, plan: Plan, trial: Trial, accuracy: float, *,
    epochs: int = 10, cost: float = 1.0, spikes: int = 0, overrides=None, until: float = 1.0,
    answers: np.ndarray | None = None, origin=None,
) -> Run:  # fmt: skip
    """Write a run as train does; `until` below 1 breaks off before the end."""
    config = plan.config(trial).override({**FORM, "train.epochs": epochs, **(overrides or {})})
    return written(
        folder / trial.run, config, accuracy, cost=cost, spikes=spikes, until=until,
        answers=answers, origin=origin,
    )  # fmt: skip


def written(
    path: Path, config: Config, accuracy: float, *, cost, spikes, until, answers, origin
) -> Run:
    random = np.random.default_rng(config.train.seed)
    epochs, per_epoch = config.train.epochs, 40
    path.mkdir(parents=True)
    run = Run.create(path, config)
    train_images = round(45_000 * config.data.train_fraction)
    data = {
        "fingerprint": "f" * 64,
        "class_names": list("0123456789"),
        "train_images": train_images,
        "validation_images": IMAGES,
        "split_sha256": {"train": f"{train_images}", "validation": "v" * 64},
    }
    run.write_provenance(
        {
            "device": "a processor", "threads": 1, "precision": {"value": "fp32"},
            "determinism": {"value": "on"}, "vitlab": "0.1.0", "commit": None, "torch": "2.13.0",
            "python": "3.11.7", "data": data, **(origin or {}),
        }
    )  # fmt: skip
    lines = []
    for step in range(10, round(epochs * per_epoch * until) + 1, 10):
        epoch = step / per_epoch
        # Approaches its end like a training does, and ends exactly on the accuracy asked for.
        share = (1 - math.exp(-3 * epoch / epochs)) / (1 - math.exp(-3))
        loss = 2.3 - 2 * accuracy * share
        leap = 1.6 if spikes and step % (per_epoch * 4) == 0 else 1.0
        lines.append(
            {"step": step, "epoch": epoch, "split": "train",
             "loss": (loss + 0.3) * leap * random.normal(1, 0.01), "lr": config.optim.lr,
             "grad_norm": float(random.lognormal(0, 0.3)) * leap, "images_per_second": 900.0}
        )  # fmt: skip
        if step % per_epoch == 0:
            wobble = 0.01 * random.normal() * (1 - share)
            for split, gap in (("validation", 0.0), ("train_clean", 0.03)):
                value = 0.1 + (accuracy - 0.1) * share + gap + wobble
                lines.append({"step": step, "epoch": epoch, "split": split, "loss": loss - gap,
                              "accuracy": value})  # fmt: skip
    write_text(path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    if answers is not None:
        logits = np.eye(10)[np.where(answers, 3, 4)]
        file = run.predictions("validation")
        file.parent.mkdir()
        labels = np.full(len(answers), 3)
        np.savez(file, logits=logits, labels=labels, indices=np.arange(len(answers)))
    if until == 1.0:
        run.finish(
            {
                "step": epochs * per_epoch,
                "epochs": epochs,
                "validation": {"loss": 2.3 - 2 * accuracy, "accuracy": accuracy},
                "train_clean": {"loss": 0.2, "accuracy": accuracy + 0.03},
                "parameters": round(500_000 * cost),
                "macs": round(36e6 * cost),
                "images_per_second": 900.0 / cost,
                "clock": {"wall_seconds": 500.0 * cost},
                "peak_memory_bytes": round(1.2e9 * cost),
                "alarms": [],
            }
        )
    return run


def failed(folder: Path, trial: Trial, status: str, reason: str = "for a reason") -> None:
    """Leave behind what the runner does for a trial without a result."""
    write_json(folder / "trials" / f"{trial.name}.json", {"status": status, "reason": reason})


def study(folder: Path, accuracies, *, changes=None, **more) -> StudyRecord:
    """A finished study of arms given as name -> accuracies of their seeds, the baseline first."""
    arms = changes or {name: {"model.norm": "rms"} for name in accuracies}
    arms["baseline"] = {}
    plan = planned(arms, seeds=range(len(next(iter(accuracies.values())))), **more)
    folder.mkdir()
    plan.save(folder)
    for trial in plan.trials:
        finished(folder, plan, trial, accuracies[trial.arm][trial.seed])
    return StudyRecord(folder)


def arm(summary, name):
    return next(one for one in summary["arms"] if one["name"] == name)


def comparison(summary, name):
    return next(one for one in summary["comparisons"] if one["arm"] == name)


BASE = (0.700, 0.702, 0.698, 0.701, 0.699)
UP = (0.721, 0.721, 0.718, 0.720, 0.720)
DOWN = (0.679, 0.682, 0.680, 0.681, 0.678)
LIKE = (0.7015, 0.7015, 0.6985, 0.7005, 0.7005)
THREE = {
    "baseline": BASE, "model.norm=rms": UP, "model.depth=6": DOWN, "model.qk_norm=true": LIKE,
}  # fmt: skip
CHANGES = {
    "baseline": {}, "model.norm=rms": {"model.norm": "rms"}, "model.depth=6": {"model.depth": 6},
    "model.qk_norm=true": {"model.qk_norm": True},
}  # fmt: skip
AXES = {"model.norm": ["layer", "rms"], "model.depth": [6, 12], "model.qk_norm": [False, True]}


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> StudyRecord:
    """Three arms of five seeds: one better, one worse, one like the baseline."""
    folder = tmp_path_factory.mktemp("three") / "study"
    return study(folder, THREE, changes=dict(CHANGES), axes=AXES)


# Verdicts


def test_arms_are_judged_against_the_baseline_in_the_words_of_the_rules(three):
    summary = summarize(three)
    assert comparison(summary, "model.norm=rms")["verdict"] == "better"
    assert comparison(summary, "model.depth=6")["verdict"] == "worse"
    like = comparison(summary, "model.qk_norm=true")
    words = "no evidence of a difference (could have seen >= "
    assert like["verdict"].startswith(words) and like["detectable"] > 0.001


@pytest.mark.parametrize(("margin", "equal"), [(0.005, True), (0.0005, False)])
def test_arms_are_equal_only_within_a_margin_that_was_fixed_beforehand(tmp_path, margin, equal):
    found = study(tmp_path / "study", {"baseline": BASE, "model.norm=rms": LIKE}, margin=margin)
    verdict = comparison(summarize(found), "model.norm=rms")["verdict"]
    assert (verdict == "equal within 0.50 pp") == equal
    assert verdict.startswith("no evidence") != equal


def test_p_values_are_corrected_within_the_family(three):
    samples = {name: Sample(dict(enumerate(values))) for name, values in THREE.items()}
    raw = [Difference(samples[name], samples["baseline"]).p for name in list(THREE)[1:]]
    found = summarize(three)["comparisons"]
    assert [one["p"] for one in found] == pytest.approx(raw)
    assert [one["adjusted_p"] for one in found] == pytest.approx(holm(raw))


def test_every_number_of_an_arm_is_there(three):
    accuracy = arm(summarize(three), "baseline")["accuracy"]
    assert accuracy["mean"] == pytest.approx(0.7)
    assert accuracy["std"] == pytest.approx(np.std(BASE, ddof=1))
    assert (accuracy["min"], accuracy["max"]) == (0.698, 0.702)
    assert accuracy["seeds"] == dict(zip("01234", BASE, strict=True))


def test_a_family_of_all_pairs_compares_every_two_arms(tmp_path):
    record = study(tmp_path / "s", {**THREE}, changes=dict(CHANGES), axes=AXES, family=ALL_PAIRS)
    pairs = [(one["arm"], one["against"]) for one in summarize(record)["comparisons"]]
    assert len(pairs) == 6 and ("model.depth=6", "model.norm=rms") in pairs
    assert "`model.depth=6` is **worse** than `model.norm=rms`" in page.markdown(summarize(record))


def test_fewer_than_three_seeds_show_numbers_and_say_how_many_are_needed(tmp_path):
    record = study(tmp_path / "s", {"baseline": BASE[:2], "model.norm=rms": UP[:2]})
    found = comparison(summarize(record), "model.norm=rms")
    assert found["verdict"].startswith("no verdict (2 against 2 seeds: at least 3")
    assert found["difference"] == pytest.approx(0.02) and found["p"] is None
    single = study(tmp_path / "t", {"baseline": BASE[:1], "model.norm=rms": UP[:1]})
    assert "At least 3 seeds in each arm are needed" in page.markdown(summarize(single))


def test_a_study_under_way_decides_nothing(tmp_path):
    record = study(tmp_path / "s", {"baseline": BASE, "model.norm=rms": UP})
    shutil.rmtree(tmp_path / "s" / record.plan.trials[-1].run)
    summary = summarize(StudyRecord(tmp_path / "s"))
    found = comparison(summary, "model.norm=rms")
    assert found["verdict"] == "no verdict (1 of 10 runs are still to come)"
    assert found["p"] is None and summary["trials"]["pending"] == 1
    assert "9 of 10 runs finished, 1 still to come" in page.markdown(summary)


def test_a_study_of_which_nothing_ran_is_summarised(tmp_path):
    planned({"baseline": {}, "model.norm=rms": {"model.norm": "rms"}}).save(tmp_path)
    summary = summarize(StudyRecord(tmp_path))
    assert "0 of 10 runs finished, 10 still to come" in page.markdown(summary)
    assert summary["trials"] == {"planned": 10, "finished": 0, "pending": 10}
    assert arm(summary, "baseline")["accuracy"]["mean"] is None


def test_failed_seeds_are_counted_and_shown(tmp_path):
    folder = tmp_path / "s"
    plan = planned({"baseline": {}, "model.norm=rms": {"model.norm": "rms"}})
    folder.mkdir()
    plan.save(folder)
    lost = {2: "diverged"}
    for trial in plan.trials:
        if trial.arm != "baseline" and trial.seed in lost:
            finished(folder, plan, trial, 0.5, until=0.5)
            failed(folder, trial, lost[trial.seed], "loss is nan | at step 200")
        else:
            values = BASE if trial.arm == "baseline" else UP
            finished(folder, plan, trial, values[trial.seed])
    summary = summarize(StudyRecord(folder))
    rms = arm(summary, "model.norm=rms")
    assert (rms["planned"], rms["n"]) == (5, 4)
    assert [failure["status"] for failure in rms["failures"]] == ["diverged"]
    verdict = comparison(summary, "model.norm=rms")["verdict"]
    assert verdict == "better; 1 of 5 seeds of the arm failed"
    text = page.markdown(summary)
    assert "9 of 10 runs finished, 1 diverged." in text
    assert "| 4 of 5 |" in text and "loss is nan \\| at step 200" in text
    assert best_arms(folder) == {}  # an arm that lost a seed is not the best of anything


def test_a_run_that_stopped_before_its_first_step_is_no_obstacle(tmp_path):
    plan = planned({"baseline": {}, "model.norm=rms": {"model.norm": "rms"}}, seeds=(0, 1, 2))
    plan.save(tmp_path)
    for trial in plan.trials:
        if trial.arm == "baseline":
            finished(tmp_path, plan, trial, BASE[trial.seed])
        else:
            (tmp_path / trial.run).mkdir(parents=True)
            Run.create(tmp_path / trial.run, plan.config(trial))
            failed(tmp_path, trial, "out of memory")
    summary = summarize(StudyRecord(tmp_path))
    assert comparison(summary, "model.norm=rms")["verdict"].startswith("no verdict (0 against 3")
    assert "3 of 6 runs finished, 3 out of memory." in page.markdown(summary)


# Budgets


@pytest.fixture
def pair(tmp_path):
    """A function: what is unequal when the second of two arms is written otherwise."""

    def unequal(changes=None, **more):
        folder = tmp_path / "s"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        plan = planned({"baseline": {}, "other": changes or {}}, seeds=(0, 1, 2))
        plan.save(folder)
        for trial in plan.trials:
            settings = more if trial.arm == "other" else {}
            finished(folder, plan, trial, 0.7 + 0.01 * trial.seed, **settings)
        return comparison(summarize(StudyRecord(folder)), "other")["unequal"]

    return unequal


def test_what_an_arm_changes_is_studied_and_not_flagged(pair):
    assert pair({"model.norm": "rms", "augment.erasing": 0.5, "optim.lr": 2e-3}) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"overrides": {"train.batch_size": 64}}, "train.batch_size 64 instead of 128"),
        ({"overrides": {"augment.erasing": 0.9}}, "augment.erasing 0.9 instead of"),
        ({"overrides": {"optim.schedule": "constant"}}, "optim.schedule constant instead of"),
        ({"origin": {"precision": {"value": "bf16"}}}, "bf16 instead of fp32"),
        ({"epochs": 20}, "train.epochs 20 instead of 10"),
        ({"epochs": 20}, "2 x the images seen"),
        ({"overrides": {"data.split_seed": 1}}, "data.split_seed 1 instead of 0"),
        ({"cost": 1.5}, "1.5 x the parameters"),
        ({"cost": 1.5}, "1.5 x the multiply-adds"),
        ({"origin": {"threads": 2}}, "times measured on other hardware"),
    ],
)
def test_an_unequal_budget_is_flagged(pair, more, words):
    assert any(found.startswith(words) for found in pair(**more))


def test_a_budget_that_follows_from_the_change_is_flagged_as_well(pair):
    assert "0.5 x the images seen" in pair({"data.train_fraction": 0.5})


def test_another_model_is_studied_but_its_training_is_not(pair):
    found = pair({"recipe": "resnet18"})
    assert any(words.startswith("augment.") or words.startswith("optim.") for words in found)
    assert not any(words.startswith("model.") for words in found)


# The second opinion


def test_stored_predictions_give_a_second_opinion(tmp_path):
    plan = planned({"baseline": {}, "model.norm=rms": {"model.norm": "rms"}}, seeds=(0, 1, 2))
    plan.save(tmp_path)
    random = np.random.default_rng(0)
    for trial in plan.trials:
        chance = 0.7 if trial.arm == "baseline" else 0.8
        right = random.random(400) < chance
        finished(tmp_path, plan, trial, float(right.mean()), answers=right)
    found = comparison(summarize(StudyRecord(tmp_path)), "model.norm=rms")
    low, high = found["bootstrap_interval"]
    assert low < found["difference"] < high and low > 0
    StudyRecord(tmp_path).arms[0].finished[0].run.predictions("validation").unlink()
    assert (
        comparison(summarize(StudyRecord(tmp_path)), "model.norm=rms")["bootstrap_interval"] is None
    )


# Stability


def test_a_spike_is_a_leap_above_the_median_of_five_lines():
    calm = [2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4]
    assert count_spikes(calm) == 0
    assert count_spikes([*calm, 2.5, 2.6, 1.4, 1.4, 2.2, 1.3]) == 2
    assert count_spikes([1.0, 9.0, 1.0]) == 0  # too early to tell


def test_spikes_gradients_and_learning_rates_of_an_arm(tmp_path):
    plan = planned({"baseline": {}}, seeds=(0, 1, 2), probes=(0.5, 1, 3))
    plan.save(tmp_path)
    for trial in plan.trials:
        finished(tmp_path, plan, trial, 0.7, spikes=1)
    slow, usual, fast = plan.probes
    finished(tmp_path, plan, slow, 0.4)
    finished(tmp_path, plan, usual, 0.5)
    finished(tmp_path, plan, fast, 0.11)
    found = arm(summarize(StudyRecord(tmp_path)), "baseline")["stability"]
    rate = plan.config(usual).optim.lr
    assert found["loss_spikes"] == 6 and found["largest_gradient_norm"] > 1
    assert found["largest_rate"] == rate
    assert list(found["rates"].values()) == [True, True, False]


# Searches and choices


def test_a_search_is_ranked_without_p_values(tmp_path):
    names = {"baseline": (0.70,), "optim.lr=0.002": (0.72,), "optim.lr=0.004": (0.69,)}
    changes = {"baseline": {}, "optim.lr=0.002": {"optim.lr": 2e-3},
               "optim.lr=0.004": {"optim.lr": 4e-3}}  # fmt: skip
    axes = {"optim.lr": ["log:1e-4..1e-2"]}
    record = study(tmp_path / "s", names, changes=changes, axes=axes, design="search",
                   exploratory=True)  # fmt: skip
    summary = summarize(record)
    assert [row["arm"] for row in summary["ranking"]] == [
        "optim.lr=0.002", "baseline", "optim.lr=0.004"
    ]  # fmt: skip
    assert summary["ranking"][0]["over"] == "images"
    low, high = summary["ranking"][0]["interval"]
    assert 0.70 < low < 0.72 < high < 0.74  # Wilson's, over the validation images
    assert all(one["p"] is None and one["verdict"] is None for one in summary["comparisons"])
    text = page.markdown(summary)
    assert "with new seeds" in text and "adjusted p" not in text
    assert best_arms(tmp_path / "s") == {"optim.lr=0.002": {"optim.lr": 2e-3}}


def test_the_best_arm_of_each_axis_is_found_and_the_baseline_left_as_it_is(three):
    assert best_arms(three.folder) == {
        "model.norm": {"model.norm": "rms"}, "model.qk_norm": {"model.qk_norm": True}
    }  # fmt: skip


def test_without_a_finished_baseline_there_is_no_best(tmp_path):
    planned({"baseline": {}, "model.norm=rms": {"model.norm": "rms"}}).save(tmp_path)
    with pytest.raises(RunError, match="baseline"):
        best_arms(tmp_path)


def test_arms_of_an_axis_stand_in_the_order_of_its_words(three):
    words = [three.word(one, "model.depth") for one in three.on("model.depth")]
    assert words == ["6", "12"]


def test_the_baseline_is_called_by_the_word_that_no_arm_has(tmp_path):
    axes = {"position": ["learned", "sin2d, also on CLS", "none"]}
    plan = planned({"baseline": {}, "position=none": {"model.position": "none",
                    "model.position_on_cls": False}}, axes=axes)  # fmt: skip
    plan.refused.append({"name": "position=sin2d, also on CLS", "reason": "no"})
    plan.save(tmp_path)
    record = StudyRecord(tmp_path)
    assert [record.word(one, "position") for one in record.on("position")] == ["learned", "none"]


# Files


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and "runs" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def summary(three):
    """What `three` says, written."""
    return write_summary(three.folder)


def test_a_refused_arm_stands_among_the_findings_and_in_the_count(summary):
    refused = {**summary, "refused": [{"name": "model.heads=5", "reason": "no multiple"}]}
    text = page.markdown(refused)
    assert "`model.heads=5` was not trained: no multiple." in text.split("## What this")[0]
    assert "1 arm refused" in text and "refused" not in page.markdown(summary)


def test_everything_is_written_twice_alike_and_the_plan_left_alone(three, summary):
    first = files(three.folder)
    pictures = {f"figures/{name}.{kind}" for name in ("axes", "compute", "curves")
                for kind in ("png", "svg", "csv")}  # fmt: skip
    assert set(first) == pictures | {
        "study.json", "summary.json", "summary.md", "arms.csv", "points.csv"
    }  # fmt: skip
    assert Plan.load(three.folder) == three.plan
    shutil.rmtree(three.folder / "figures")
    write_summary(three.folder)
    assert files(three.folder) == first


def test_tables_hold_every_arm_and_every_seed(three, summary):
    with open(three.folder / "arms.csv", newline="") as file:
        arms = list(csv.DictReader(file))
    assert [row["arm"] for row in arms] == list(THREE)
    assert float(arms[1]["difference"]) == pytest.approx(0.02)
    assert arms[1]["verdict"] == "better" and arms[0]["verdict"] == ""
    with open(three.folder / "points.csv", newline="") as file:
        points = list(csv.DictReader(file))
    assert len(points) == 20
    assert {row["accuracy"] for row in points if row["arm"] == "baseline"} == set(map(str, BASE))


def test_the_summary_is_strict_json_and_links_its_pictures(three, summary):
    assert json.loads((three.folder / "summary.json").read_text()) == json.loads(
        json.dumps(summary, allow_nan=False)
    )
    text = (three.folder / "summary.md").read_text()
    for name in ("axes", "compute", "curves"):
        assert f"(figures/{name}.svg)" in text
    assert "How model.norm=rms works. Why it may help." in text
    assert f"| validation split | {'v' * 64} |" in text


def test_the_page_says_how_little_a_small_study_can_tell(three):
    noise = summarize(three)["noise"]
    text = page.markdown(summarize(three))
    assert f"a standard deviation of {100 * noise['std']:.2f} pp" in text
    low, high = noise["std_interval"]
    assert low < noise["std"] < high and f"interval {100 * low:.2f} to {100 * high:.2f} pp" in text
    assert f"must be {100 * noise['detectable']:.2f} pp to be found four times in five" in text


def test_a_study_of_seeds_alone_says_how_far_apart_they_end(tmp_path):
    record = study(tmp_path / "s", {"baseline": BASE})
    text = page.markdown(summarize(record))
    assert "nothing changed but the seed" in text and "Nothing is compared." in text
    assert "a standard deviation of" in text and "## Comparisons" not in text


def test_a_run_without_validation_cannot_be_judged(tmp_path):
    record = study(tmp_path / "s", {"baseline": BASE[:3]})
    run = record.arms[0].finished[0].run
    numbers = {name: value for name, value in run.finished.items() if name != "validation"}
    run.finish(numbers)
    with pytest.raises(RunError, match=r"data\.validation_fraction"):
        summarize(StudyRecord(tmp_path / "s"))
