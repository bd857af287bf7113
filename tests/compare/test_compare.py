"""Protects comparisons: every number is traceable, and no word claims more than was measured."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from vitlab.cli import main
from vitlab.compare import RunFacts, compare, default_folder
from vitlab.compare.facts import SOURCES, count_spikes
from vitlab.errors import RunError
from vitlab.figures import style
from vitlab.files import write_json
from vitlab.ledger import LEDGER

CNN = {"model.kind": "cnn6"}

HOSTILE = ["<img src=x onerror=alert(1)>", "=cmd|'/C calc'!A0", "\x1b[31mred\u202e/`a`|**b**"]


def files(run):
    found = (path for path in run.path.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def test_every_fact_is_found_again_in_the_file_and_field_that_it_names(runs):
    run = runs.make("one", wrong=range(12), robustness=True)
    facts = RunFacts(run).facts
    names = {name for fields in SOURCES.values() for name in fields}
    read = {name: fact for name, fact in facts.items() if name in names and fact}
    assert len(read) > 25
    for name, fact in read.items():
        value = json.loads((run.path / fact.file).read_text())
        for part in fact.field.split("."):
            value = value[part]
        assert value == fact.value, name
    assert facts["accuracy"].value == pytest.approx(0.9)
    assert facts["accuracy"][1:] == ("results.json", "validation.accuracy")
    assert facts["pgd_accuracy"].value == 0.2
    assert facts["worst_class"].value in ("cat", "dog", "frog")
    assert facts["generalisation_gap"].value == pytest.approx(0.03)
    assert "results.json validation.accuracy" in facts["generalisation_gap"].field
    assert facts["images_seen"].value == 60_000


def test_what_was_never_measured_is_none(runs):
    facts = RunFacts(runs.make("one", evaluated=())).facts
    unknown = [name for name, fact in facts.items() if fact is None]
    assert {"mean_auc", "worst_class", "pgd_accuracy", "inference_ms"} <= set(unknown)
    assert facts["accuracy"][1:] == ("finished.json", "validation.accuracy")
    low, high = facts["accuracy_interval"].value
    assert 0.95 < low < 1 == high


def test_a_result_of_an_earlier_checkpoint_is_left_out(runs):
    run = runs.make("one", wrong=range(60))
    write_json(run.path / "finished.json", {**run.finished, "step": 300})
    facts = RunFacts(run).facts
    assert facts["mean_f1"] is None
    assert facts["accuracy"].file == "finished.json"


def test_a_run_that_was_resumed_on_other_hardware_is_not_bit_reproducible(runs):
    alarm = "resumed at step 5: threads was 1 and is 2: resuming is not bit-exact"
    assert RunFacts(runs.make("one"))["bit_reproducible"] is True
    assert RunFacts(runs.make("two", alarms=[alarm]))["bit_reproducible"] is False


def test_two_trained_models_are_tested_over_images_and_said_to_be_trained_models(runs):
    one, other = runs.make("one", wrong=range(2)), runs.make("other", wrong=range(2, 12))
    (pair,) = compare([other, one])["models"]
    assert (pair["only_run_right"], pair["only_against_right"]) == (10, 2)
    assert pair["p"] == pytest.approx(158 / 4096)
    assert pair["difference"] == pytest.approx(8 / 120)
    assert pair["interval"][0] < 8 / 120 < pair["interval"][1]
    assert pair["verdict"] == "better"
    finding = compare([other, one])["findings"][0]
    assert finding.startswith("The trained model one is better than the trained model other: ")
    assert "not for their recipes" in finding
    found = compare([runs.make("five", wrong=range(5)), runs.make("seven", wrong=range(3, 10))])
    assert found["models"][0]["verdict"] == "no evidence of a difference"
    assert "seven against the trained model five: no evidence" in found["findings"][0]


def test_every_disagreement_is_listed_with_both_predictions(runs):
    one, other = runs.make("one", wrong=[0, 7]), runs.make("other", wrong=[7, 9])
    (pair,) = compare([one, other])["models"]
    assert [found["index"] for found in pair["disagreements"]] == [0, 90]
    first = pair["disagreements"][0]
    assert (first["true"], first["predicted"], first["against_predicted"]) == ("cat", "cat", "dog")
    assert first["confidence"] == pytest.approx(np.exp(3) / (np.exp(3) + 2))
    cat = pair["classes"][0]
    assert (cat["only_run_right"], cat["only_against_right"], cat["images"]) == (1, 1, 40)


@pytest.mark.parametrize(
    ("difference", "reason"),
    [
        ({"split": "6" * 64}, "splits have different images"),
        ({"fingerprint": "e" * 64}, "different data"),
        ({"evaluated": ()}, "`vitlab evaluate"),
    ],
)
def test_models_judged_on_different_images_are_not_tested_against_each_other(
    runs, difference, reason
):
    found = compare([runs.make("one"), runs.make("other", **difference)])
    (pair,) = found["models"]
    assert reason in pair["reason"] and "p" not in pair
    assert reason in found["findings"][0]


def test_a_spike_is_a_leap_above_the_median_of_five_lines():
    calm = [2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4]
    assert count_spikes(calm) == 0
    assert count_spikes([*calm, 2.5, 2.6, 1.4, 1.4, 2.2, 1.3]) == 2
    assert count_spikes([1.0, 9.0, 1.0]) == 0  # too early to tell


def test_recipes_are_compared_over_seeds_unpaired(runs):
    arms = runs.seeds("a", [30, 32, 31]) + runs.seeds("b", [10, 12, 11], changes=CNN)
    found = compare(arms)
    (one,) = found["comparisons"]
    assert one["verdict"] == "better" and not one["paired"]
    assert one["difference"] == pytest.approx(20 / 120)
    assert one["bootstrap_interval"][0] > 0
    assert [len(recipe["runs"]) for recipe in found["recipes"]] == [3, 3]
    sentence = found["findings"][-1]
    assert "unpaired" in sentence and "over seeds" in sentence
    (one,) = compare(arms[:2] + arms[3:5])["comparisons"]
    assert one["difference"] > 0.1
    assert one["verdict"].startswith("no verdict (2 against 2 seeds: at least 3 in each arm")
    again = runs.seeds("c", [31, 33, 30], changes={"optim.lr": 0.005})
    (one,) = compare(arms[:3] + again)["comparisons"]
    assert one["verdict"].startswith("no evidence of a difference (could have seen >=")


def test_seeds_without_a_result_are_counted_and_never_averaged_away(runs):
    good = runs.seeds("a", [30, 32, 31])
    runs.folder = runs.folder / "study" / "runs"
    lost = runs.seeds("b", [10, 12, 11, 10], changes=CNN)
    lost.append(runs.make("b-seed4", seed=4, changes=CNN, finished=False, evaluated=()))
    reason = {"status": "diverged", "reason": "loss is not finite"}
    write_json(runs.folder.parent / "trials" / "b-seed4.json", reason)
    found = compare([*good, *lost])
    arm = found["recipes"][1]
    assert (arm["n"], arm["planned"], arm["failed"]) == (4, 5, 1)
    assert arm["without_result"] == [{"run": "b-seed4", "seed": 4, "status": "diverged"}]
    (one,) = found["comparisons"]
    assert one["verdict"] == "better; 1 of 5 seeds of the arm failed"
    assert not one["same_seeds"]
    assert any("the seeds differ" in words for words in found["findings"])
    assert any("1 of 5 failed" in words for words in found["findings"])
    pending = runs.make("b-seed5", seed=5, changes=CNN, finished=False, evaluated=())
    (one,) = compare([*good, *lost, pending])["comparisons"]
    assert one["verdict"] == "no verdict (1 of 9 runs are still to come)"


def test_a_seed_that_was_trained_twice_counts_once(runs):
    arms = runs.seeds("a", [30, 32, 31])
    again = runs.make("again", seed=1, wrong=range(5))
    found = compare([*arms, again])
    (recipe,) = found["recipes"]
    assert recipe["n"] == 3 and recipe["repeated"] == ["again"]
    assert any("Left out" in words and "again" in words for words in found["findings"])


@pytest.mark.parametrize(
    ("more", "flag"),
    [
        ({"changes": {"train.epochs": 120}}, "train.epochs 120 instead of 60"),
        ({"changes": {"train.epochs": 120}}, "2 x the images seen"),
        ({"changes": {"train.epochs": 120}}, "2 x the multiply-adds of the training"),
        ({"changes": {"train.batch_size": 32}}, "train.batch_size 32 instead of"),
        ({"split": "6" * 64}, "another validation split"),
        ({"changes": {"augment.cutout": 3}}, "augment.cutout 3 instead of"),
    ],
)
def test_unequal_budgets_are_flagged_beside_the_verdict(runs, more, flag):
    found = compare([runs.make("one"), runs.make("other", **more)])
    for words in found["findings"]:
        if "against" in words or " than " in words:
            assert "Not equal budget: " in words and flag in words
    assert flag in " ".join(found["models"][0]["unequal"])


def test_a_run_with_changes_is_not_called_the_recipe(runs):
    changed = {"train.epochs": 3, "train.evaluate_epochs": 2.0}  # of which one has an effect
    pair = runs.make("one"), runs.make("other", base="vit-tiny", changes=changed)
    names = [one["recipe"] for one in compare(pair)["recipes"]]
    assert names == ["digits", "vit-tiny (train.epochs=3)"]


def test_a_change_of_the_model_is_no_unequal_budget(runs):
    found = compare([runs.make("one"), runs.make("other", changes={"model.norm": "rms"})])
    assert found["models"][0]["unequal"] == []
    assert found["models"][0]["changes"] == {"model.norm": ["rms", "layer"]}
    assert found["comparisons"][0]["recipe"] == "digits (model.norm=rms)"


def test_more_tuning_trials_are_flagged(runs):
    plain = runs.make("plain")
    folder = runs.folder / "search"
    runs.folder = folder / "runs"
    tuned = runs.make("01-found-seed0", changes={"optim.lr": 0.005})
    arms = [{"name": name, "baseline": name == "baseline"} for name in ("baseline", "a", "b", "c")]
    trials = [{"arm": "a", "run": "runs/01-found-seed0"}]
    plan = {"design": "search", "arms": arms, "trials": trials, "probes": []}
    write_json(folder / "study.json", plan)
    found = compare([plain, tuned])
    assert "3 known tuning trials instead of 0" in found["comparisons"][0]["unequal"]


def test_the_test_split_counts_only_where_it_was_opened_before(runs):
    one = runs.make("one", evaluated=("validation", "test"))
    other = runs.make("other")
    with pytest.raises(RunError, match=r"never uses it.*vitlab evaluate .*other --split test"):
        compare([one, other], "test")
    both = runs.make("both", evaluated=("validation", "test"), wrong=range(9))
    found = compare([one, both], "test")
    assert found["models"][0]["split"] == "test" and "p" in found["models"][0]
    assert not (runs.folder / LEDGER).exists()


def test_runs_are_named_once_and_name_the_folder(runs):
    one = runs.make("one")
    with pytest.raises(RunError, match="two runs or more"):
        compare([one])
    with pytest.raises(RunError, match="named twice"):
        compare([one, one.path])
    with pytest.raises(RunError, match="is not a run"):
        compare([one, runs.folder / "none"])
    arms = [runs.make(f"a-rather-long-name-of-a-run-number-{k}") for k in range(3)]
    assert default_folder([one, arms[0]]) == runs.folder / f"compare-one-{arms[0].name}"
    assert default_folder(arms).name == f"compare-{arms[0].name}-and-2-more"


def test_comparing_changes_no_run_and_gives_the_same_again(runs):
    arms = [runs.make("one", wrong=range(9)), runs.make("other", wrong=range(4), changes=CNN)]
    before = [files(run) for run in arms]
    assert json.dumps(compare(arms)) == json.dumps(compare(arms))
    assert [files(run) for run in arms] == before


def test_a_comparison_is_a_folder_and_names_do_nothing_in_it(runs, monkeypatch, capsys):
    monkeypatch.setitem(style.STYLE, "savefig.dpi", 30)
    one = runs.make("=1+1 <b>🐿", wrong=range(9), classes=HOSTILE)
    other = runs.make("two\x1b[31m`x`", wrong=range(4, 30), changes=CNN, classes=HOSTILE)
    out = runs.folder / "compared"
    assert main(["compare", str(one.path), str(other.path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "The trained model" in printed and "🐿" in printed
    page = (out / "compare.md").read_text()
    for shown in (printed, page):
        assert "\x1b" not in shown and "\u202e" not in shown
    assert "<b>" not in page.replace("\\<b\\>", "") and "<img" not in page.replace("\\<img", "")
    for table in [out / "compare.csv", *(out / "figures").glob("*.csv")]:
        with open(table, newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not any(cell.startswith("=") or "\x1b" in cell for cell in cells), table
    assert json.loads((out / "compare.json").read_text())["schema"] == 1
    pictures = {"curves", "cost", "classes-1", "disagreements-1"}
    for kind in ("png", "svg"):
        assert {path.stem for path in (out / "figures").glob(f"*.{kind}")} == pictures
    for picture in pictures:
        assert f"figures/{picture}.svg" in page
    assert "`results.json` validation.accuracy" in page
    with open(out / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["accuracy"]) == pytest.approx(1 - 9 / 120)
    assert (runs.folder / "models.csv").exists()


def test_comparing_never_loads_torch(runs):
    one, other = runs.make("one"), runs.make("other", wrong=range(4))
    code = (
        "import sys; from vitlab.compare import compare; from vitlab.compare.index import lines; "
        "import vitlab.figures.comparison; compare(sys.argv[1:3]); lines(sys.argv[3]); "
        "assert 'torch' not in sys.modules"
    )
    words = [str(one.path), str(other.path), str(runs.folder)]
    subprocess.run([sys.executable, "-c", code, *words], check=True)
