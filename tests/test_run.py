"""A run directory is read strictly, and a damaged checkpoint is never believed."""

import json
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vitlab.config import Config
from vitlab.errors import RunError
from vitlab.files import sha256
from vitlab.run import Run


@pytest.fixture
def run(tmp_path) -> Run:
    with Run.claim(tmp_path / "run"):
        return Run.create(tmp_path / "run", Config())


def save(run: Run, step: int, accuracy: float | None = None) -> None:
    judged = {} if accuracy is None else {"validation": {"accuracy": accuracy}}
    run.write_checkpoint(step, {"model.safetensors": b"x" * 100}, {"step": step, "judged": judged})


def steps(run: Run) -> list[int]:
    return [checkpoint.step for checkpoint in run.checkpoints()]


def test_two_newest_and_the_best_are_kept(run):
    for step, accuracy in enumerate([0.1, 0.9, 0.2, None, 0.3, None]):
        save(run, step, accuracy)
    assert steps(run) == [1, 4, 5]
    assert run.checkpoint("best").step == 1
    assert run.checkpoint("last").step == 5


def test_the_earliest_of_equally_good_checkpoints_is_best(run):
    for step in (1, 2, 3):
        save(run, step, 0.5)
    assert run.checkpoint("best").step == 1


@pytest.mark.parametrize("damage", ["empty", "one byte", "changed", "no manifest", "file gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(run, damage):
    save(run, 1)
    save(run, 2)
    newest = run.checkpoints()[-1]
    match damage:
        case "empty":
            newest.model.write_bytes(b"")
        case "one byte":
            newest.model.write_bytes(b"x" * 99)
        case "changed":
            newest.model.write_bytes(b"y" * 100)
        case "no manifest":
            (newest.path / "manifest.json").unlink()
        case "file gone":
            newest.model.unlink()
    with pytest.warns(UserWarning, match="step-000002 is damaged"):
        assert run.checkpoint().step == 1


@pytest.mark.parametrize("old, new", [("bytes", "bxtes"), ("100", "[1]"), ("}\n", "}"), ("{", "[")])
def test_a_manifest_that_is_not_as_it_was_written_is_damage(run, old, new):
    save(run, 1)
    save(run, 2)
    manifest = run.checkpoints()[-1].path / "manifest.json"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))
    with pytest.warns(UserWarning, match="step-000002 is damaged"):
        assert run.checkpoint().step == 1


def test_a_validation_that_is_no_number_is_never_the_best(run):
    for step, (accuracy, loss) in enumerate([(0.2, 2.0), (0.9, math.nan), (0.3, 1.9), (0.1, 3.0)]):
        judged = {"validation": {"accuracy": accuracy, "loss": loss}}
        state = {"step": step, "judged": judged}
        run.write_checkpoint(step, {"model.safetensors": b"x"}, state)
    assert run.checkpoint("best").step == 2
    assert steps(run) == [2, 3]


def test_a_disk_that_takes_no_more_is_told_with_what_is_needed(run, monkeypatch):
    save(run, 1)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left on device \(0.0 MB needed, .* MB free"):
        save(run, 2)
    with pytest.raises(RunError, match=r"No space left .*--resume"):
        run.append_metrics({"step": 2})
    assert steps(run) == [1] and run.checkpoint().step == 1


def test_a_run_without_sound_checkpoint_says_so(run):
    with pytest.raises(RunError, match="no sound checkpoint"):
        run.checkpoint()


def test_what_an_interrupted_writer_left_is_swept_away(run):
    save(run, 1)
    (run.path / "checkpoints" / ".step-000002.tmp").mkdir()
    (run.path / ".metrics.jsonl.12.tmp").write_text("half")
    run.sweep()
    assert sorted(path.name for path in run.path.rglob(".*")) == [".lock"]
    assert steps(run) == [1]


def test_what_was_killed_before_it_was_a_run_leaves_nothing_behind(tmp_path):
    (tmp_path / ".config.json.12.tmp").write_text("half")
    run = Run.create(tmp_path, Config())
    assert [path.name for path in run.path.iterdir()] == ["config.json"]


def test_metrics_after_the_checkpoint_are_forgotten(run):
    for step in (1, 2, 3):
        run.append_metrics({"step": step})
    run.truncate_metrics(2)
    assert run.metrics == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (json.dumps({"schema": 99}), "schema 99 is not"),
        (json.dumps({**Config().to_dict(), "modell": {}}), "did you mean model"),
    ],
)
def test_a_config_that_cannot_be_read_exactly_is_refused(run, content, complaint):
    (run.path / "config.json").write_text(content)
    with pytest.raises(RunError, match=complaint):
        Run(run.path)


def test_a_missing_field_is_refused(run):
    tree = Config().to_dict()
    del tree["optim"]["lr"]
    (run.path / "config.json").write_text(json.dumps(tree))
    with pytest.raises(RunError, match=r"optim\.lr is missing"):
        Run(run.path)


def test_runs_without_a_name_that_begin_at_once_get_one_each(tmp_path):
    begun = threading.Barrier(8)

    def claim(_: int) -> str:
        begun.wait()
        with Run.claim_free(tmp_path / "runs" / "digits-seed0") as path:
            begun.wait()
            return Run.create(path, Config()).name

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(claim, range(8)))
    assert sorted(names) == ["digits-seed0", *(f"digits-seed0-{number}" for number in range(2, 9))]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match=r"holds no config\.json"):
        Run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write a run"), Run.claim(tmp_path / "file"):
        pass
    inside = tmp_path / "file" / "run"
    with pytest.raises(RunError, match=r"Not a directory.*VITLAB_RUNS"), Run.claim_free(inside):
        pass


def test_a_training_reads_each_checkpoint_that_it_writes_once(run, monkeypatch):
    read = []
    monkeypatch.setattr("vitlab.run.sha256", lambda path: read.append(path.name) or sha256(path))
    for step in range(5):
        save(run, step, accuracy=0.1 * step)
    assert read.count("model.safetensors") == 5
