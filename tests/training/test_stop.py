"""A training may end before its last step, says so, and says the same after a crash."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vitlab.cli import main
from vitlab.config import Config, OptimConfig, TrainConfig, ViTConfig
from vitlab.errors import Interrupted
from vitlab.run import Run
from vitlab.training import autotune, fit, preflight, resume, train
from vitlab.training.signals import stop_request

EASY = Config(
    model=ViTConfig(width=16, depth=1, heads=2, cls_token=False, pool="mean"),
    optim=OptimConfig(lr=1e-2, schedule="constant"),
    train=TrainConfig(epochs=30, batch_size=50, log_steps=1),
)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """100 images that are dark or bright."""
    labels = np.arange(100) % 2
    noise = np.random.default_rng(0).integers(0, 100, (100, 8, 8, 1))
    return (noise + 150 * labels[:, None, None, None]).astype(np.uint8), labels


@pytest.fixture(scope="module")
def accurate(data, tmp_path_factory) -> Run:
    """A run that ended at the accuracy it was to reach, its one checkpoint at the end."""
    config = EASY.override({"train.stop_accuracy": 0.9, "train.checkpoint_epochs": 30})
    return train(config, data=data, out=tmp_path_factory.mktemp("runs"), quiet=True)


def test_reaching_the_accuracy_ends_a_run_that_is_then_complete(data, accurate, capsys):
    run, numbers = accurate, accurate.finished
    assert numbers["stopped"]["planned_epochs"] == 30
    assert "reached 0.9" in numbers["stopped"]["reason"]
    assert numbers["validation"]["accuracy"] >= 0.9
    assert numbers["epochs"] == numbers["step"] / 2 < 30
    assert run.checkpoint().step == numbers["step"]
    reached = [line["accuracy"] for line in run.metrics if line["split"] == "validation"]
    assert all(accuracy < 0.9 for accuracy in reached[:-1])
    resume(run.path, data=data)
    assert "already complete" in capsys.readouterr().err


def test_patience_is_counted_in_epochs_since_the_best(data, tmp_path):
    config = EASY.override({"train.stop_patience": 3, "train.evaluate_epochs": 0.5})
    run = train(config, data=data, out=tmp_path, quiet=True)
    assert run.finished["epochs"] == run.finished["best"]["step"] / 2 + 3
    assert "for 3 epochs" in run.finished["stopped"]["reason"]


def test_a_crash_between_the_last_checkpoint_and_the_end_changes_nothing(
    data, accurate, unfinished
):
    again = resume(unfinished(accurate).path, data=data, quiet=True)
    same = ("step", "epochs", "stopped", "validation", "best")
    assert [again.finished[name] for name in same] == [accurate.finished[name] for name in same]
    assert again.metrics == accurate.metrics


def test_a_wish_that_comes_true_at_the_last_step_stopped_nothing(data, tmp_path):
    at_the_end = {"train.epochs": 2, "train.stop_patience": 1e-9, "train.evaluate_epochs": 2}
    run = train(EASY.override(at_the_end), data=data, out=tmp_path, quiet=True)
    assert "stopped" not in run.finished and run.finished["epochs"] == 2


def asked_to_stop(number: int):
    """Stands for what is under way when a signal comes: it must not go on."""

    def busy(*_: object, **__: object) -> None:
        signal.raise_signal(number)
        time.sleep(60)

    return busy


@pytest.mark.parametrize(
    ("module", "name", "number"),
    [
        (fit, "check", signal.SIGINT), (fit, "check", signal.SIGTERM),
        (fit, "check", signal.SIGHUP), (autotune, "noise_step", signal.SIGTERM),
    ],
)  # fmt: skip
def test_a_signal_before_the_first_step_leaves_no_run(
    module, name, number, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(module, name, asked_to_stop(number))
    monkeypatch.setattr(autotune, "REPAID", 0)
    before = signal.getsignal(number)
    words = ["train", "digits", "--device", "cpu", "--out", str(tmp_path / "runs")]
    assert main(words) == 128 + number
    *_, last = capsys.readouterr().err.splitlines()
    assert last == "vitlab: stopped before the first step: no run was begun"
    assert not (tmp_path / "runs").exists()
    assert signal.getsignal(number) is before


def test_a_signal_while_a_run_is_introduced_leaves_one_to_go_on_with(data, tmp_path, monkeypatch):
    short = EASY.override({"train.epochs": 2})
    with monkeypatch.context() as patch:
        patch.setattr(preflight, "estimate_seconds", asked_to_stop(signal.SIGHUP))
        with pytest.raises(Interrupted, match="before a step was taken; go on with") as stopped:
            train(short, data=data, out=tmp_path, name="run", quiet=True)
    assert stopped.value.exit_code == 129
    with monkeypatch.context() as patch:
        patch.setattr(fit, "open_dataset", asked_to_stop(signal.SIGTERM))
        with pytest.raises(Interrupted, match=f"go on with .*--resume {tmp_path}"):
            resume(tmp_path / "run", data=data, quiet=True)
    assert resume(tmp_path / "run", data=data, quiet=True).finished["step"] == 4


def test_under_nohup_a_hang_up_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_request() as stop, stop.immediately("stopped"):
            signal.raise_signal(signal.SIGHUP)
        assert not stop.signal
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


LONG = ["train", "digits", "--train.epochs", "500", "--train.evaluate_epochs", "0.1"]


@pytest.mark.slow
def test_closing_the_terminal_stores_the_state(tmp_path):
    words = [sys.executable, "-m", "vitlab", *LONG, "--device", "cpu", "--out", str(tmp_path)]
    process, terminal = pty.fork()
    if not process:
        os.execve(sys.executable, [*words, "--name", "run"], {**os.environ, "OMP_NUM_THREADS": "1"})
    shown, until = b"", time.monotonic() + 60
    while b"best" not in shown:
        assert time.monotonic() < until, shown
        shown += os.read(terminal, 10_000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    run = Run(tmp_path / "run")
    assert run.checkpoint().step >= run.metrics[-1]["step"] > 0


@pytest.mark.slow
def test_trainings_that_start_at_once_get_a_name_each(tmp_path):
    words = ["train", "digits", "--train.epochs", "1", "--model.depth", "1", "--quiet"]
    command = [sys.executable, "-m", "vitlab", *words, "--device", "cpu", "--out", str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    many = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(4)]
    printed = [process.communicate(timeout=100)[0].strip() for process in many]
    assert [process.returncode for process in many] == [0] * 4
    names = ["digits-seed0", *(f"digits-seed0-{number}" for number in (2, 3, 4))]
    assert sorted(Path(path).name for path in printed) == names
    assert all(Run(path).finished for path in printed)
