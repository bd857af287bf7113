"""Protects results: what is judged, what is stored, and that the test split is counted."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import vitlab
from vitlab import evaluate as module
from vitlab.data import Examples, load_test, load_train, train_validation
from vitlab.errors import DataError, RunError
from vitlab.evaluate import LEDGER, evaluate, record_opening
from vitlab.files import Lock, write_json
from vitlab.run import Run

DRAW = module._draw
SMALL = {
    "model.width": 16,
    "model.depth": 1,
    "model.heads": 2,
    "optim.warmup_epochs": 1,
    "train.epochs": 2,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on the digits."""
    config = vitlab.recipe("digits").override(SMALL)
    out = tmp_path_factory.mktemp("trained")
    return vitlab.train(config, out=out, name="tiny", device="cpu", quiet=True)


@pytest.fixture(scope="module")
def trained_on_arrays(tmp_path_factory):
    """A finished run on arrays in memory, and the arrays: dark zeros, bright ones."""
    draw = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = draw.integers(0, 100, (80, 8, 8, 1), np.uint8) + 100 * labels[:, None, None, None]
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
        for picture in module.PICTURES:
            (run.figures / f"{name}-{picture}.png").touch()

    monkeypatch.setattr(module, "_draw", touch)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the finished run, free to be written."""
    shutil.copytree(trained.path, tmp_path / "runs" / "tiny")
    return Run(tmp_path / "runs" / "tiny")


def ledger(run):
    file = run.path.parent / LEDGER
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def files(run):
    """Every file of a run with its content and time."""
    found = (path for path in run.path.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def forbid(monkeypatch, *names):
    def refuse(*args, **kwargs):
        raise AssertionError("the images were opened again")

    for name in names:
        monkeypatch.setattr(module, name, refuse)


def add_checkpoint(run, accuracy):
    """Store the last weights once more, a step later, with another validation accuracy."""
    last = run.checkpoint()
    contents = {path.name: path.read_bytes() for path in last.path.glob("*.safetensors")}
    state = {**last.state, "judged": {"validation": {"accuracy": accuracy, "loss": 1.0}}}
    run.write_checkpoint(last.step + 1, contents, state)


def test_validation_repeats_the_judgement_that_training_ended_with(run):
    result = evaluate(run)
    assert result["accuracy"] == pytest.approx(run.finished["validation"]["accuracy"])
    assert result["loss"] == pytest.approx(run.finished["validation"]["loss"], rel=1e-4)
    assert result["step"] == run.finished["step"]
    assert result["index_sha256"] == run.origin["data"]["split_sha256"]["validation"]
    assert run.results == {"validation": result}
    assert evaluate(str(run.path)) == result
    assert ledger(run) == []


def test_logits_labels_and_indices_are_kept(run):
    result = evaluate(run)
    examples = load_train(run.config.data)
    with np.load(run.predictions("validation"), allow_pickle=False) as kept:
        expected = train_validation(examples.labels, run.config.data)[1]
        assert np.array_equal(kept["indices"], expected)
        assert np.array_equal(kept["labels"], examples.labels[expected])
        assert kept["logits"].shape == (len(expected), 10) and kept["logits"].dtype == np.float32
        share = (kept["logits"].argmax(1) == kept["labels"]).mean()
        assert share == pytest.approx(result["accuracy"])
        logits = vitlab.predict(run, examples.images[expected], device="cpu")
        assert np.allclose(kept["logits"], logits, atol=1e-5)


def test_a_repeat_computes_nothing_and_changes_no_byte(run, monkeypatch):
    first = [evaluate(run), evaluate(run, "test")]
    before = files(run)
    forbid(monkeypatch, "load_train", "load_test", "open_model")
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


def test_two_evaluations_of_equal_checkpoints_leave_equal_bytes(run, trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "elsewhere" / "tiny")
    other = Run(tmp_path / "elsewhere" / "tiny")
    evaluate(run)
    evaluate(other)
    assert (run.path / "results.json").read_bytes() == (other.path / "results.json").read_bytes()
    assert (
        run.predictions("validation").read_bytes() == other.predictions("validation").read_bytes()
    )


def test_every_opening_of_the_test_split_is_a_line_beside_the_runs(run, trained):
    result = evaluate(run, "test")
    assert result["images"] == len(load_test(run.config.data).labels)
    (line,) = ledger(run)
    assert line.pop("time").endswith("Z")
    assert line == {
        "run": "tiny",
        "config_sha256": run.config.sha256,
        "checkpoint_sha256": run.checkpoint().sha256,
        "split": "test",
    }
    neighbour = run.path.parent / "neighbour"
    shutil.copytree(trained.path, neighbour)
    assert [result["test_openings"], evaluate(neighbour, "test")["test_openings"]] == [1, 2]
    assert [line["run"] for line in ledger(run)] == ["tiny", "neighbour"]
    assert run.results["test"]["test_openings"] == 1


def test_results_of_the_best_checkpoint_are_labelled_and_count_as_an_opening(run):
    step = run.checkpoint().step
    add_checkpoint(run, accuracy=0.0)
    last = evaluate(run, "test")
    best = evaluate(run, "test", checkpoint="best")
    assert (last["step"], best["step"]) == (step + 1, step)
    assert run.results == {"test": last, "best": {"test": best}}
    assert best["test_openings"] == 2 and len(ledger(run)) == 2
    assert run.predictions("best-test").exists()


def test_the_best_checkpoint_does_not_open_the_test_split_again_where_it_is_the_last(run):
    add_checkpoint(run, accuracy=1.0)
    last = evaluate(run, "test")
    assert evaluate(run, "test", checkpoint="best") == last
    assert run.results == {"test": last, "best": {"test": last}}
    assert len(ledger(run)) == 1
    assert run.predictions("best-test").read_bytes() == run.predictions("test").read_bytes()


def test_the_test_split_is_closed_to_an_unfinished_run(run):
    (run.path / "finished.json").unlink()
    with pytest.raises(RunError, match=r"not finished.*vitlab train --resume"):
        evaluate(run, "test")
    assert ledger(run) == [] and run.results == {}
    with Run.claim(run.path):  # as a training in progress does
        assert evaluate(run)["accuracy"] > 0


def test_a_test_split_that_cannot_be_read_is_no_opening(run, monkeypatch):
    def fail(*args):
        raise DataError("no such file")

    monkeypatch.setattr(module, "load_test", fail)
    with pytest.raises(DataError, match="no such file"):
        evaluate(run, "test")
    assert ledger(run) == [] and run.results == {}


def test_openings_at_the_same_moment_are_all_counted(run):
    checkpoint = run.checkpoint()
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: record_opening(run, checkpoint), range(24)))
    assert sorted(counts) == list(range(1, 25))
    assert len(ledger(run)) == 24


def test_a_ledger_line_cut_short_by_a_crash_still_counts(run):
    file = run.path.parent / LEDGER
    file.write_text('{"time": "2026-')
    assert evaluate(run, "test")["test_openings"] == 2
    assert json.loads(file.read_text().splitlines()[1])["run"] == "tiny"


def test_pictures_lie_in_the_run_with_their_numbers(run, monkeypatch):
    monkeypatch.setattr(module, "_draw", DRAW)
    evaluate(run, "test")
    stems = ["curves", *(f"test-{picture}" for picture in module.PICTURES)]
    expected = {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg", "csv")}
    assert {path.name for path in run.figures.iterdir()} == expected


def test_deleted_pictures_return_without_another_opening(run, monkeypatch):
    result = evaluate(run, "test")
    shutil.rmtree(run.figures)
    forbid(monkeypatch, "load_test", "open_model")
    assert evaluate(run, "test") == result
    assert (run.figures / "test-roc.png").exists()
    assert len(ledger(run)) == 1


def test_other_training_images_are_refused(run):
    examples = load_train(run.config.data)
    images = examples.images.copy()
    images[0, 0, 0] ^= 1
    with pytest.raises(DataError, match=r"not the images .*\(fingerprint .*--data-root"):
        evaluate(run, data=Examples(images, examples.labels, examples.class_names))
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
    strange = Examples(np.zeros(shape, np.uint8), np.array([0, 1, 0, 1]), names)
    with pytest.raises(DataError, match=problem):
        evaluate(run, "test", data=strange)
    assert ledger(run) == []


def test_a_run_without_validation_split_says_so(run):
    config = replace(run.config, data=replace(run.config.data, validation_fraction=0.0))
    write_json(run.path / "config.json", config.to_dict())
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
