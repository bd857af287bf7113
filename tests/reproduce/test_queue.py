"""The queue finishes what it can in its time, goes on exactly, and touches nothing finished."""

import json
import os
import signal
import tarfile
import threading
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import ClassVar

import pytest

from vitlab.errors import ConfigError
from vitlab.recipes import recipe
from vitlab.reproduce import queue, worker
from vitlab.reproduce.queue import beside_source, reproduce, smoke
from vitlab.reproduce.rows import ROWS, row_config
from vitlab.reproduce.worker import as_expected, attempt, train_row
from vitlab.run import Run

RECORD = Run(Path(__file__).parents[2] / "docs/results/digits-seed0")
QUICK = {"train.epochs": 2, "model.depth": 1, "model.width": 16, "train.checkpoint_epochs": 1.0}


def test_every_row_is_a_sound_config_that_trains_as_its_source_did():
    for name in ROWS:
        config = row_config(name)
        whole = name.removesuffix("-practice") not in ("vit-d6-w256", "cnn6")
        assert (config.data.validation_fraction == 0) == whole, name


def test_practice_changes_how_a_vit_is_trained_and_neither_the_vit_nor_its_epochs():
    for name in ("vit-tiny-whole", "vit-d9-w192-whole", "vit-d6-w256", "vit-d6-w128-sin1d"):
        ours, theirs = row_config(f"{name}-practice"), row_config(name)
        assert (ours.model, ours.data) == (theirs.model, theirs.data)
        assert ours.train.epochs == theirs.train.epochs
        assert ours.optim == replace(recipe("strong-plain").optim, warmup_epochs=5)
    assert "resnet18-whole-practice" not in ROWS


def test_an_unknown_row_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ConfigError, match="did you mean digits"):
        reproduce(["digits", "digit"], out=tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_queue_out_of_time_goes_on_with_the_same_command_and_packs_what_is_small(tmp_path):
    settings = {"overrides": QUICK, "out": tmp_path / "runs", "say": lambda line: None}
    none = reproduce(["digits"], seeds=(0, 1), minutes=0.0, **settings)
    assert [line["status"] for line in none] == ["waiting", "waiting"]
    (line,) = reproduce(["digits"], pack=tmp_path / "small.tar.gz", **settings)
    run = Run(tmp_path / "runs" / "digits-seed0")
    assert (line["status"], line["accuracy"]) == ("finished", run.results["test"]["accuracy"])
    assert json.loads((tmp_path / "runs/queue.json").read_text()) == [line]

    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()}
    reproduce(["digits"], **settings)
    assert before == {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()}

    with tarfile.open(tmp_path / "small.tar.gz") as archive:
        archive.extractall(tmp_path / "carried", filter="data")
    carried = Run(tmp_path / "carried" / "digits-seed0")
    assert not carried.checkpoints() and not carried.figures.exists()
    assert carried.results == run.results and carried.metrics == run.metrics


def test_a_row_is_tried_before_it_is_trained_and_leaves_only_what_was_found(tmp_path):
    said, data = [], tmp_path / "data" / "cifar10"
    data.mkdir(parents=True)
    (data / "train-00000-of-00001.parquet").write_bytes(b"broken")
    folder = tmp_path / "runs"
    where = {"out": folder, "data_root": str(data.parent)}
    lines = smoke(["digits", "cpu"], overrides=QUICK, say=said.append, minutes=5, **where)
    works, fails = lines
    assert works["status"] == "works" and fails["status"] == "failed"
    assert works["resumed"] == 0 and works["alarms"] == []
    assert 0 < works["share_of_peak"] < 1 and works["seconds"] > works["step_seconds"] > 0
    assert said[0].startswith("digits ") and "ms a step" in said[0]
    assert [path.name for path in folder.iterdir()] == ["smoke.json"]
    assert json.loads((folder / "smoke.json").read_text()) == lines


def test_a_worker_says_why_a_row_failed_with_the_place_where_a_library_broke(tmp_path):
    def broken(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    failed = attempt(broken, None, tmp_path)
    assert failed["status"] == "failed"
    assert "illegal memory access" in failed["reason"] and "Traceback" in failed["reason"]
    (tmp_path / "config.json").write_text("{")
    damaged = attempt(train_row, None, tmp_path, "cpu", None)
    assert damaged["status"] == "failed"
    assert "is not JSON" in damaged["reason"] and "Traceback" not in damaged["reason"]


def test_a_row_is_compared_with_what_its_config_reached_before(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "train", lambda config, **_: RECORD)
    monkeypatch.setattr(worker, "evaluate", lambda run, split, **_: {"accuracy": 0.985})
    line = train_row(row_config("digits"), tmp_path / "run", "cpu", None)
    assert line["status"] == "finished" and line["as_expected"]
    another_seed = RECORD.config.override({"train.seed": 7})
    assert not as_expected(another_seed, 0.80)["as_expected"]
    assert as_expected(another_seed.override({"model.depth": 3}), 0.985) == {}


class Scripted:
    """A worker that answers what a test wrote down, in the order in which rows are given out."""

    script: ClassVar[list] = []
    given: ClassVar[list] = []
    made: ClassVar[list] = []

    def __init__(self, device, threads=None):
        self.connection, self.theirs = Pipe()
        self.closed = False
        self.made.append(self)

    def give(self, task, config, path, data_root):
        self.given.append((self, path.name))
        answer = self.script.pop(0)
        if answer is None:
            self.stop()
        elif answer != "busy":
            self.theirs.send(answer)

    answer = worker.Worker.answer

    def ended(self):
        return "its process ended with signal 11"

    def stop(self):
        self.theirs.close()

    kill = stop

    def close(self):
        self.closed = True


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setattr(queue, "Worker", Scripted)
    monkeypatch.setattr(queue, "mark_shared", lambda path: None)
    for name in ("script", "given", "made"):
        monkeypatch.setattr(Scripted, name, [])
    return Scripted


FINE = {"status": "finished", "accuracy": 0.5, "seconds": 10.0}


def test_a_worker_that_crashes_costs_its_row_and_the_others_go_to_a_new_one(scripted, tmp_path):
    scripted.script += [FINE, None, {"status": "failed", "reason": "no room"}, FINE]
    names = ["digits", "cpu", "cpu-cnn", "cpu-plain"]
    lines = reproduce(names, out=tmp_path, pack=tmp_path / "p.tar.gz", say=lambda line: None)
    assert [line["status"] for line in lines] == ["finished", "failed", "failed", "finished"]
    assert "ended with signal 11" in lines[1]["reason"] and lines[2]["reason"] == "no room"
    workers = [worker for worker, _ in scripted.given]
    assert workers[0] is workers[1] and len(set(workers)) == 3
    assert all(worker.closed for worker in scripted.made)
    assert json.loads((tmp_path / "queue.json").read_text()) == lines
    assert (tmp_path / "p.tar.gz").exists()


def test_in_a_given_time_rows_come_by_value_per_second_and_only_those_that_will_be_complete(
    scripted, tmp_path
):
    seconds = {"vit-d6-w128-sin1d": 80, "cnn6": 30, "vit-tiny-whole": 250, "digits": 1}
    # `vit-tiny-whole` was timed on half of its images.
    images = {
        "vit-tiny-whole": 25_000,
        "vit-d6-w128-sin1d": 50_000,
        "cnn6": 45_000,
        "digits": 1_294,
    }
    tried = [{"row": row, "seconds": t, "images": images[row]} for row, t in seconds.items()]
    (tmp_path / "smoke.json").write_text(json.dumps(tried))
    scripted.script += [FINE] * 9
    lines = reproduce(
        ["vit-tiny-whole", "vit-d6-w128-sin1d", "cnn6", "digits"],
        seeds=(0, 1), minutes=5, out=tmp_path, say=lambda line: None,
    )  # fmt: skip
    # One run of `digits` took ten times its estimate, so that its second seed comes last.
    assert [name for _, name in scripted.given] == [
        "digits-seed0", "cnn6-seed0", "cnn6-seed1", "vit-d6-w128-sin1d-seed0",
        "vit-d6-w128-sin1d-seed1", "digits-seed1",
    ]  # fmt: skip
    late = [line for line in lines if line["status"] == "waiting"]
    assert [line["row"] for line in late] == ["vit-tiny-whole"] * 2
    assert late[0]["reason"] == "takes about 8 min"


def test_rows_side_by_side_say_that_they_shared_their_time(scripted, tmp_path):
    scripted.script += [FINE, "busy", FINE]
    said = []
    lines = reproduce(["digits", "cpu", "cpu-cnn"], out=tmp_path, workers=2, say=said.append,
                      minutes=0.02)  # fmt: skip
    assert [line["status"] for line in lines] == ["finished", "stopped", "finished"]
    assert lines[0]["shared"] and lines[2]["shared"]
    assert "shared" in said[0]


def test_a_signal_stops_the_queue_and_every_row_is_accounted_for(scripted, tmp_path):
    scripted.script += [FINE, "busy"]
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    lines = reproduce(["digits", "cpu", "cpu-cnn"], out=tmp_path, say=lambda line: None)
    assert [line["status"] for line in lines] == ["finished", "stopped", "waiting"]


def test_a_published_figure_is_reached_within_a_point_and_a_half():
    assert beside_source("vit-tiny", 0.8530)["verdict"] == "reached"
    assert beside_source("vit-tiny", 0.80)["verdict"] == "not reached: 6.70 points below"
    assert beside_source("digits", 0.8530) == {}
