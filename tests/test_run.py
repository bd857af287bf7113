"""A run directory is read strictly, and a damaged checkpoint is never believed."""

import json
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vitlab.config import Config
from vitlab.errors import RunError
from vitlab.files import sha256, write_json
from vitlab.run import Run, failure_file


@pytest.fixture
def run(tmp_path) -> Run:
    with Run.lock(tmp_path / "run"):
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


def test_of_equally_good_checkpoints_the_earliest_is_best(run):
    for step in (1, 2, 3):
        save(run, step, 0.5)
    assert run.checkpoint("best").step == 1


def rewrite(name, old, new):
    """Damage that replaces some text of a file."""

    def damage(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99),
        lambda folder: (folder / "model.safetensors").write_bytes(b"y" * 100),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        rewrite("manifest.json", "bytes", "bxtes"),
        rewrite("manifest.json", "100", "[1]"),
        rewrite("manifest.json", "}\n", "}"),
        rewrite("manifest.json", "{", "["),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(run, damage):
    save(run, 1)
    save(run, 2)
    damage(run.checkpoints()[-1].path)
    with pytest.warns(UserWarning, match="step-000002 is damaged"):
        assert run.checkpoint().step == 1


def test_a_validation_that_is_no_number_is_never_the_best(run):
    for step, (accuracy, loss) in enumerate([(0.2, 2.0), (0.9, math.nan), (0.3, 1.9), (0.1, 3.0)]):
        judged = {"validation": {"accuracy": accuracy, "loss": loss}}
        state = {"step": step, "judged": judged}
        run.write_checkpoint(step, {"model.safetensors": b"x"}, state)
    assert run.checkpoint("best").step == 2
    assert steps(run) == [2, 3]


def test_a_full_disk_is_an_error_that_names_the_space_needed(run, monkeypatch):
    save(run, 1)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left on device \(0.0 MB needed, .* MB free"):
        save(run, 2)
    with pytest.raises(RunError, match=r"No space left .*--resume"):
        run.append_metrics({"step": 2})
    assert steps(run) == [1] and run.checkpoint().step == 1


def test_what_an_interrupted_writer_left_is_removed(run, tmp_path):
    with pytest.raises(RunError, match="no sound checkpoint"):
        run.checkpoint()
    save(run, 1)
    (run.path / "checkpoints" / ".step-000002.tmp").mkdir()
    (run.path / ".metrics.jsonl.12.tmp").write_text("half")
    run.sweep()
    assert sorted(path.name for path in run.path.rglob(".*")) == [".lock"]
    assert steps(run) == [1]
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".config.json.12.tmp").write_text("half")  # killed before it was a run
    Run.create(tmp_path / "new", Config())
    assert os.listdir(tmp_path / "new") == ["config.json"]


def test_metrics_after_the_checkpoint_are_removed(run):
    for step in (1, 2, 3):
        run.append_metrics({"step": step})
    run.truncate_metrics(2)
    assert run.metrics == [{"step": 1}, {"step": 2}]


WITHOUT_LR = Config().to_dict()
del WITHOUT_LR["optim"]["lr"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (json.dumps({"schema": 99}), "schema 99 is not"),
        (json.dumps({**Config().to_dict(), "modell": {}}), "did you mean model"),
        (json.dumps(WITHOUT_LR), r"optim\.lr is missing"),
    ],
)
def test_a_config_that_cannot_be_read_exactly_is_refused(run, content, complaint):
    (run.path / "config.json").write_text(content)
    with pytest.raises(RunError, match=complaint):
        Run(run.path)


def test_provenance_of_earlier_versions_is_read_under_the_names_of_this_one(run):
    assert not run.has_provenance
    choice = {"word": "bf16", "reason": "asked for"}
    write_json(run.path / "origin.json", {"threads": 1, "precision": choice})
    assert run.has_provenance
    assert run.provenance["precision"] == {"value": "bf16", "reason": "asked for"}
    assert run.provenance["threads"] == 1


def test_the_status_of_a_run_is_its_own_or_what_its_study_wrote(tmp_path):
    path = tmp_path / "study" / "runs" / "trial"
    path.mkdir(parents=True)
    run = Run.create(path, Config())
    assert run.status == ("unfinished", f"go on with `vitlab train --resume {path}`")
    with pytest.raises(RunError, match="is not finished"):
        _ = run.final_numbers
    write_json(failure_file(run.study, run.name), {"status": "diverged", "reason": "a NaN"})
    assert run.status == ("diverged", "a NaN")
    run.finish({"step": 1})
    assert run.status == ("finished", "") and Run.is_finished(path)


def test_runs_without_a_name_that_begin_at_once_get_one_each(tmp_path):
    begun = threading.Barrier(8)

    def begin(_: int) -> str:
        begun.wait()
        with Run.lock_new(tmp_path / "runs" / "digits-seed0") as path:
            begun.wait()
            return Run.create(path, Config()).name

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(begin, range(8)))
    assert sorted(names) == ["digits-seed0", *(f"digits-seed0-{number}" for number in range(2, 9))]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match=r"holds no config\.json"):
        Run(tmp_path)
    with pytest.raises(RunError, match="none is not a run: there is nothing there"):
        Run(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write a run"), Run.lock(tmp_path / "file"):
        pass
    inside = tmp_path / "file" / "run"
    with pytest.raises(RunError, match=r"Not a directory.*VITLAB_RUNS"), Run.lock_new(inside):
        pass


def test_a_training_reads_each_checkpoint_that_it_writes_once(run, monkeypatch):
    read = []
    monkeypatch.setattr("vitlab.run.sha256", lambda path: read.append(path.name) or sha256(path))
    for step in range(5):
        save(run, step, accuracy=0.1 * step)
    assert read.count("model.safetensors") == 5
