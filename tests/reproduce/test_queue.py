"""The queue finishes what it can in its time, goes on exactly, and touches nothing finished."""

import json
import signal
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vitlab.errors import ConfigError, VitlabError
from vitlab.recipes import recipe
from vitlab.reproduce import queue
from vitlab.reproduce.queue import hold, judge, reproduce
from vitlab.reproduce.records import RECORDS, kept
from vitlab.reproduce.rows import ROWS, row_config
from vitlab.run import Run

ROOT = Path(__file__).parents[2]
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


def test_a_queue_out_of_time_goes_on_with_the_same_command_and_packs_what_is_small(tmp_path):
    settings = {"overrides": QUICK, "out": tmp_path / "runs", "say": lambda line: None}
    none = reproduce(["digits"], seeds=(0, 1), minutes=0.0, **settings)
    assert [line["status"] for line in none] == ["waiting", "waiting"]
    (line,) = reproduce(["digits"], pack=tmp_path / "small.tar.gz", **settings)
    run = Run(tmp_path / "runs" / "digits-seed0")
    assert (line["status"], line["accuracy"]) == ("finished", run.results["test"]["accuracy"])
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()}
    reproduce(["digits"], **settings)
    assert before == {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()}
    with tarfile.open(tmp_path / "small.tar.gz") as archive:
        names = archive.getnames()
    assert {"queue.json", "digits-seed0/results.json", "digits-seed0/metrics.jsonl"} <= set(names)
    assert not any(name.endswith(".safetensors") for name in names)


def test_a_published_figure_is_reached_within_a_point_and_a_half():
    line = {"status": "finished", "accuracy": 0.8530}
    assert judge("vit-tiny", line)["verdict"] == "reached"
    missed = judge("vit-tiny", {"status": "finished", "accuracy": 0.80})
    assert missed["verdict"] == "not reached: 6.70 points below"
    assert judge("digits", line) == {}


def test_a_run_is_held_to_what_its_config_reached_before():
    config = kept(ROOT / RECORDS)[-1].config.override({"train.seed": 7})
    assert config.recipe == "digits"
    assert hold(config, 0.985)["as_expected"]
    assert not hold(config, 0.80)["as_expected"]
    assert hold(config.override({"model.depth": 3}), 0.985) == {}


def test_a_row_that_breaks_costs_no_other_row_and_no_line(tmp_path, monkeypatch):
    def broken(config, *, name, **_):
        if name == "digits-seed0":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        raise VitlabError("no room")

    monkeypatch.setattr(queue, "train", broken)
    said = []
    lines = reproduce(["digits", "cpu"], out=tmp_path, pack=tmp_path / "p.tar.gz", say=said.append)
    assert [line["status"] for line in lines] == ["failed", "failed"]
    assert "Traceback" in lines[0]["reason"] and "illegal memory access" in said[0]
    assert lines[1]["reason"] == "no room"
    assert json.loads((tmp_path / "queue.json").read_text()) == lines
    assert (tmp_path / "p.tar.gz").exists()


def test_the_time_is_up_for_whatever_begins_afterwards_too(monkeypatch):
    monkeypatch.setattr(queue, "REMINDER_SECONDS", 0.02)
    heard = []
    with queue.time_box(0) as time_is_up:
        before = signal.signal(signal.SIGTERM, lambda *_: heard.append(time_is_up()))
        while len(heard) < 3:
            time.sleep(0.01)
        signal.signal(signal.SIGTERM, before)
    assert all(heard)
