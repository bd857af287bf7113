"""What is evaluated, what is stored, and that every opening of the test split is counted."""

import csv
import json
import re
import shutil

import numpy as np
import pytest

import vitlab
from vitlab import evaluate as module
from vitlab import pretrained
from vitlab.data import LabelledImages, index_sha256, load_test, open_dataset
from vitlab.errors import DataError, RunError, VitlabError
from vitlab.evaluate import evaluate, evaluate_robustness
from vitlab.figures import style
from vitlab.files import Lock
from vitlab.ledger import LEDGER
from vitlab.run import TRAINED, Run

DRAW = module.draw
SMALL = {
    "model.width": 16,
    "model.depth": 1,
    "model.heads": 2,
    "optim.warmup_epochs": 1,
    "train.epochs": 2,
}


@pytest.fixture(scope="module")
def trained_on_arrays(tmp_path_factory):
    """A finished run on arrays in memory, and the arrays: dark zeros, bright ones."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = rng.integers(0, 100, (80, 8, 8, 1), np.uint8) + 100 * labels[:, None, None, None]
    images = images.astype(np.uint8)
    config = vitlab.recipe("digits").override(SMALL)
    out = tmp_path_factory.mktemp("arrays")
    run = vitlab.train(
        config, data=(images, labels), out=out, name="tiny", device="cpu", quiet=True
    )
    return run, images, labels


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Leave empty files for pictures; tests of pictures put DRAW back."""

    def touch(run, name, result):
        run.figures.mkdir(exist_ok=True)
        for picture in (*module.PICTURES, *module.GALLERIES):
            (run.figures / f"{name}-{picture}.png").touch()

    monkeypatch.setattr(module, "draw", touch)


@pytest.fixture
def run(digits_run):
    return digits_run


def ledger(run):
    file = run.path.parent / LEDGER
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def files(run):
    """Every file of a run with its content and time."""
    found = (path for path in run.path.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.fixture
def no_images(monkeypatch):
    """What forbids to open images or a model from now on."""

    def refuse(*args, **kwargs):
        raise AssertionError("the images were opened again")

    def forbid():
        for name in ("open_split", "TrainedModel"):
            monkeypatch.setattr(module, name, refuse)

    return forbid


def add_checkpoint(run, accuracy):
    """Store the last weights once more, a step later, with another validation accuracy."""
    last = run.checkpoint()
    contents = {path.name: path.read_bytes() for path in last.path.glob("*.safetensors")}
    state = {**last.state, "judged": {"validation": {"accuracy": accuracy, "loss": 1.0}}}
    run.write_checkpoint(last.step + 1, contents, state)


def test_validation_repeats_what_training_ended_with_and_keeps_its_logits(run):
    result = evaluate(run)
    assert result["accuracy"] == pytest.approx(run.finished["validation"]["accuracy"])
    assert result["loss"] == pytest.approx(run.finished["validation"]["loss"], rel=1e-4)
    assert result["step"] == run.finished["step"]
    assert result["index_sha256"] == run.provenance["data"]["split_sha256"]["validation"]
    assert run.results == {"validation": result}
    assert evaluate(str(run.path)) == result
    assert ledger(run) == []
    examples, expected = open_dataset(run.config.data).examples, run.split.index[1]
    with np.load(run.predictions("validation"), allow_pickle=False) as kept:
        assert np.array_equal(kept["indices"], expected)
        assert np.array_equal(kept["labels"], examples.labels[expected])
        logits = vitlab.predict(run, examples.images[expected], device="cpu")
        assert np.array_equal(kept["logits"], logits)


def test_a_repeat_computes_nothing_and_changes_no_byte(run, no_images):
    first = [evaluate(run), evaluate(run, "test")]
    before = files(run)
    no_images()
    assert [evaluate(run), evaluate(run, "test")] == first
    assert files(run) == before
    assert len(ledger(run)) == 1


def test_a_new_checkpoint_is_evaluated_anew(run):
    before = evaluate(run)
    add_checkpoint(run, accuracy=0.0)
    after = evaluate(run)
    assert after["step"] == before["step"] + 1
    assert after["checkpoint_sha256"] != before["checkpoint_sha256"]
    assert run.results["validation"] == after


def test_two_evaluations_of_equal_checkpoints_leave_equal_bytes(run, tmp_path):
    other = Run(shutil.copytree(run.path, tmp_path / "elsewhere" / "tiny"))
    evaluate(run)
    evaluate(other)
    assert (run.path / "results.json").read_bytes() == (other.path / "results.json").read_bytes()
    assert (
        run.predictions("validation").read_bytes() == other.predictions("validation").read_bytes()
    )


def test_every_opening_of_the_test_split_is_a_line_beside_the_runs(run):
    neighbour = shutil.copytree(run.path, run.path.parent / "neighbour")
    result = evaluate(run, "test")
    assert result["images"] == len(load_test(open_dataset(run.config.data)).labels)
    (line,) = ledger(run)
    assert line.pop("time").endswith("Z")
    assert line == {
        "run": "tiny",
        "config_sha256": run.config.sha256,
        "checkpoint_sha256": run.checkpoint().sha256,
        "split": "test",
        "fingerprint": result["data_fingerprint"],
    }
    assert [result["test_openings"], evaluate(neighbour, "test")["test_openings"]] == [1, 2]
    assert [line["run"] for line in ledger(run)] == ["tiny", "neighbour"]
    assert run.results["test"]["test_openings"] == 1


def test_results_of_the_best_checkpoint_are_labelled_and_count_as_an_opening(run):
    step = run.checkpoint().step
    add_checkpoint(run, accuracy=0.0)
    last = evaluate(run, "test")
    best = evaluate(run, "test", checkpoint="best")
    assert (last["step"], best["step"]) == (step + 1, step)
    assert (run.results["test"], run.results["best"]["test"]) == (last, best)
    assert best["test_openings"] == 2 and len(ledger(run)) == 2
    assert run.predictions("best-test").exists()


def test_the_best_checkpoint_does_not_open_the_test_split_again_where_it_is_the_last(run):
    add_checkpoint(run, accuracy=1.0)
    last = evaluate(run, "test")
    assert evaluate(run, "test", checkpoint="best") == last
    assert run.results["best"]["test"] == run.results["test"] == last
    assert len(ledger(run)) == 1
    assert run.predictions("best-test").read_bytes() == run.predictions("test").read_bytes()


def test_the_test_split_is_closed_to_an_unfinished_run(run):
    (run.path / "finished.json").unlink()
    with pytest.raises(RunError, match=r"not finished.*vitlab train --resume"):
        evaluate(run, "test")
    assert ledger(run) == [] and run.results == {}
    with Run.lock(run.path):  # as a training in progress does
        assert evaluate(run)["accuracy"] > 0


def test_a_test_split_that_cannot_be_read_is_no_opening(run, monkeypatch):
    def fail(*args):
        raise DataError("no such file")

    monkeypatch.setattr("vitlab.ledger.load_test", fail)
    with pytest.raises(DataError, match="no such file"):
        evaluate(run, "test")
    assert ledger(run) == [] and run.results == {}


def test_a_ledger_line_cut_short_by_a_crash_still_counts(run):
    file = run.path.parent / LEDGER
    file.write_text('{"time": "2026-')
    assert evaluate(run, "test")["test_openings"] == 2
    assert json.loads(file.read_text().splitlines()[1])["run"] == "tiny"


def test_deleted_pictures_return_from_what_was_kept_beside_their_numbers(
    run, monkeypatch, no_images
):
    result = evaluate(run, "test")
    shutil.rmtree(run.figures)
    monkeypatch.setattr(module, "draw", DRAW)
    monkeypatch.setitem(style.STYLE, "savefig.dpi", 30)
    no_images()
    assert evaluate(run, "test") == result and len(ledger(run)) == 1
    stems = ["curves", *(f"test-{name}" for name in (*module.PICTURES, *module.GALLERIES))]
    expected = {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg", "csv")}
    assert {path.name for path in run.figures.iterdir()} == expected
    with open(run.figures / "test-confident-mistakes.csv", newline="") as file:
        shown = list(csv.DictReader(file))
    assert all(one["true"] != one["predicted"] for one in shown)
    confidences = [float(one["confidence"]) for one in shown]
    assert confidences == sorted(confidences, reverse=True)
    with np.load(run.predictions("test-gallery"), allow_pickle=False) as kept:
        images = load_test(open_dataset(run.config.data)).images[kept["places"]]
        assert np.array_equal(kept["images"], images)
        assert {int(one["index"]) for one in shown} <= set(kept["places"].tolist())


def test_other_training_images_are_refused(run):
    examples = open_dataset(run.config.data).examples
    images = examples.images.copy()
    images[0, 0, 0] ^= 1
    with pytest.raises(
        DataError, match=r"not the images .*: 1 of .* are gone and 1 are new.*--data-root"
    ):
        evaluate(run, data=LabelledImages(images, examples.labels, examples.class_names))
    assert run.results == {}


def test_a_second_writer_is_refused(run):
    with Lock(run.path / ".evaluate.lock"), pytest.raises(RunError, match="being written by pid"):
        evaluate(run)


def test_a_run_on_arrays_is_evaluated_on_the_arrays_it_is_given(trained_on_arrays, tmp_path):
    trained, images, labels = trained_on_arrays
    run = Run(shutil.copytree(trained.path, tmp_path / "tiny"))
    with pytest.raises(DataError, match="hand them in as data="):
        evaluate(run)
    result = evaluate(run, data=(images, labels))
    assert result["accuracy"] == pytest.approx(run.finished["validation"]["accuracy"])
    # Test images of a single class know their place among the run's classes.
    dark = labels == 0
    with pytest.warns(UserWarning, match="36 of 40 test images are copies of images that"):
        test = evaluate(run, "test", data=(images[dark], labels[dark]))
    assert test["images"] == 40 and test["absent_classes"] == ["1"]
    assert test["mean_auc"] is None


@pytest.mark.parametrize(
    ("shape", "names", "problem"),
    [
        ((4, 8, 8, 3), ("0", "1"), r"\(8, 8, 3\), but .* takes \(8, 8, 1\)"),
        ((4, 8, 8, 1), ("1", "0"), "classes 1, 0, but .* knows 0, 1"),
    ],
)
def test_test_images_of_another_kind_are_refused_unopened(
    trained_on_arrays, tmp_path, shape, names, problem
):
    run = Run(shutil.copytree(trained_on_arrays[0].path, tmp_path / "tiny"))
    strange = LabelledImages(np.zeros(shape, np.uint8), np.array([0, 1, 0, 1]), names)
    with pytest.raises(DataError, match=problem):
        evaluate(run, "test", data=strange)
    assert ledger(run) == []


def test_a_run_without_validation_split_says_so(run):
    run.write_split(run.split._replace(part=np.full_like(run.split.part, TRAINED)))
    with pytest.raises(RunError, match="no validation split"):
        evaluate(run.path)


def test_weights_that_overflow_are_an_error_and_no_result(run):
    from safetensors.numpy import load_file, save

    weights = load_file(run.checkpoint().model)
    broken = {name: np.full_like(value, np.nan) for name, value in weights.items()}
    last = run.checkpoint()
    run.write_checkpoint(last.step + 1, {"model.safetensors": save(broken)}, last.state)
    with pytest.raises(vitlab.errors.VitlabError, match="not finite"):
        evaluate(run)
    assert run.results == {}


def test_a_result_holds_the_record_of_the_training_and_the_temperature_of_validation(run):
    test, validation, finished = evaluate(run, "test"), run.results["validation"], run.finished
    assert validation["seconds_per_epoch"] == finished["seconds_per_epoch"]
    assert validation["train_accuracy"] == finished["train_clean"]["accuracy"]
    gap = finished["train_clean"]["accuracy"] - validation["accuracy"]
    assert validation["generalisation_gap"] == pytest.approx(gap)
    lines = [line for line in run.metrics if line["split"] == "validation"]
    for row in validation["epochs_to_accuracy"]:
        reached = [line["epoch"] for line in lines if line["accuracy"] >= row["accuracy"]]
        assert row["validation"] == (reached[0] if reached else None)
    assert test["temperature"] == validation["temperature"] > 0
    assert validation["scaled_loss"] < validation["loss"]
    assert test["scaled_loss"] != validation["scaled_loss"]
    with open(run.path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["result"], row["class"], row["metric"]): row["value"] for row in rows}
    assert float(found["test", "", "accuracy"]) == test["accuracy"]
    assert float(found["test", "7", "f1"]) == test["per_class"][7]["f1"]
    assert float(found["test", "", "accuracy_low"]) == test["accuracy_interval"][0]
    assert ("validation", "", "calibration_error") in found


def test_a_result_of_an_earlier_version_is_completed_without_another_opening(run, no_images):
    result = evaluate(run, "test")
    old = {name: value for name, value in result.items() if "scaled" not in name}
    old = {name: old[name] for name in old if name not in ("temperature", "train_accuracy")}
    run.write_results({"test": old})
    shutil.rmtree(run.figures)
    for file in (run.predictions("test-gallery"), run.predictions("validation")):
        file.unlink()
    no_images()
    again = evaluate(run, "test")
    assert again["accuracy"] == result["accuracy"] and again["test_openings"] == 1
    assert again["temperature"] is None and again["scaled_loss"] is None
    assert len(ledger(run)) == 1


def test_robustness_has_a_result_pictures_and_predictions_of_its_own(run, no_images):
    plain = evaluate(run)
    result = evaluate_robustness(run)
    assert run.results == {"validation": plain, "validation-robustness": result}
    clean, *others = result["conditions"]
    assert clean["accuracy"] == plain["accuracy"]  # the split is smaller than 2,000 images
    assert len(others) == 6 * 5 + 2
    low, high = clean["accuracy_interval"]
    assert low < clean["accuracy"] < high
    with np.load(run.predictions("validation-robustness"), allow_pickle=False) as kept:
        shares = (kept["predicted"] == kept["labels"]).mean(axis=1)
        assert index_sha256(kept["indices"]) == result["index_sha256"]
    assert np.allclose(shares, [one["accuracy"] for one in result["conditions"]])
    kinds = {path.suffix for path in run.figures.glob("validation-robustness.*")}
    assert kinds == {".png", ".svg", ".csv"}
    before = files(run)
    no_images()
    assert evaluate_robustness(run) == result
    assert files(run) == before


def test_robustness_on_test_images_is_an_opening_of_images_drawn_alike(run, monkeypatch):
    monkeypatch.setattr(module, "ROBUSTNESS_IMAGES", 20)
    drawn = []

    def note(model, images, labels, places, quiet):
        drawn.append(places)
        yield from (("clean", 0, labels), ("blur", 1, labels))

    monkeypatch.setattr(module, "predictions", note)
    first = evaluate_robustness(run, "test")
    assert evaluate_robustness(run, "test", checkpoint="best") == first
    add_checkpoint(run, accuracy=0.0)
    second = evaluate_robustness(run, "test")
    assert [first["test_openings"], second["test_openings"], len(ledger(run))] == [1, 2, 2]
    assert np.array_equal(*drawn) and len(np.unique(drawn[0])) == 20


def test_running_out_of_memory_is_an_error_with_numbers(run, monkeypatch):
    def greedy(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")

    monkeypatch.setattr("vitlab.inference.compute_logits", greedy)
    with pytest.raises(VitlabError, match=r"out of memory on cpu while evaluating 143 images.*MB"):
        evaluate(run, device="cpu")
    assert run.results == {}


@pytest.mark.parametrize("name", ["predictions", ".evaluate.lock"])
def test_a_folder_that_cannot_be_written_is_one_clear_error(run, name):
    # A file where a folder is needed, or the reverse, refuses even an administrator.
    place = run.path / name
    place.mkdir() if name.startswith(".") else place.touch()
    with pytest.raises(RunError, match=rf"cannot write results into .*{re.escape(name)}"):
        evaluate(run)
    assert run.results == {}


def test_a_shipped_model_is_evaluated_as_a_copy_among_the_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("VITLAB_RUNS", str(tmp_path / "runs"))
    strange = np.zeros((20, 32, 32, 3), np.uint8), np.arange(20) % 10
    for named in ("cpu-plain", pretrained.shipped("cpu-plain")):
        with pytest.raises(DataError, match=re.escape(str(tmp_path / "runs" / "cpu-plain"))):
            evaluate(named, data=strange)
