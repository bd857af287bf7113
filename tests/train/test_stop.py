"""A training may end before its last step, says so, and says the same after a crash."""

import json
import shutil

import numpy as np
import pytest

from vitlab.config import Config, OptimConfig, TrainConfig, ViTConfig
from vitlab.run import Run
from vitlab.train import resume, train

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


def test_reaching_the_accuracy_ends_a_run_that_is_then_complete(data, tmp_path, capsys):
    config = EASY.override({"train.stop_accuracy": 0.9})
    run = train(config, data=data, out=tmp_path, quiet=True)
    numbers = run.finished
    assert numbers["stopped"]["planned_epochs"] == 30
    assert "reached 0.9" in numbers["stopped"]["reason"]
    assert numbers["validation"]["accuracy"] >= 0.9
    assert numbers["epochs"] == numbers["step"] / 2 < 30
    assert run.checkpoint().step == numbers["step"]
    judged = [line["accuracy"] for line in run.metrics if line["split"] == "validation"]
    assert all(accuracy < 0.9 for accuracy in judged[:-1])
    resume(run.path, data=data)
    assert "already complete" in capsys.readouterr().err


def test_patience_is_counted_in_epochs_since_the_best(data, tmp_path):
    config = EASY.override({"train.stop_patience": 3, "train.evaluate_epochs": 0.5})
    run = train(config, data=data, out=tmp_path, quiet=True)
    assert run.finished["epochs"] == run.finished["best"]["step"] / 2 + 3
    assert "for 3 epochs" in run.finished["stopped"]["reason"]


def test_a_crash_between_the_last_checkpoint_and_the_end_changes_nothing(data, tmp_path):
    config = EASY.override({"train.stop_accuracy": 0.9, "train.checkpoint_epochs": 30})
    run = train(config, data=data, out=tmp_path, quiet=True)
    crashed = Run(shutil.copytree(run.path, tmp_path / "crashed"))
    (crashed.path / "finished.json").unlink()
    again = resume(crashed.path, data=data, quiet=True)
    same = ("step", "epochs", "stopped", "validation", "best")
    assert [again.finished[name] for name in same] == [run.finished[name] for name in same]
    assert again.metrics == run.metrics


def test_a_run_without_such_wishes_takes_all_its_steps(data, tmp_path):
    run = train(EASY.override({"train.epochs": 5}), data=data, out=tmp_path, quiet=True)
    assert "stopped" not in json.loads((run.path / "finished.json").read_text())
    assert run.finished["epochs"] == 5
    at_the_end = {"train.epochs": 5, "train.stop_patience": 1e-9, "train.evaluate_epochs": 5}
    run = train(EASY.override(at_the_end), data=data, out=tmp_path, quiet=True)
    assert "stopped" not in run.finished
