"""Training: what an interruption, a second process or a bad number may and may not do."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from vitlab.cli import main
from vitlab.config import AugmentConfig, Config, DataConfig, OptimConfig, TrainConfig, ViTConfig
from vitlab.errors import ConfigError, DataError, DivergenceError, Interrupted, RunError
from vitlab.run import FINISHED, Run
from vitlab.training import fit, overfit_one_batch, resume, train
from vitlab.training.step import TrainingStep

RICH = Config(
    recipe="custom",
    data=DataConfig(dataset="digits"),
    model=ViTConfig(
        patch="whitened", patch_size=2, width=16, depth=2, heads=2, dropout=0.1, drop_path=0.1
    ),
    augment=AugmentConfig(
        crop_padding=1, flip="alternating", policy="trivialaugment", erasing=0.25, mixup=0.2,
        cutmix=1.0, label_smoothing=0.1,
    ),
    optim=OptimConfig(
        optimizer="muon", lr=1e-3, muon_lr=0.05, warmup_epochs=1, clip_norm=1.0,
        average_decay=0.99, layer_decay=0.9, freeze=("blocks.0.norm1",), sam=0.02,
    ),
    train=TrainConfig(
        epochs=4, batch_size=100, accumulate=2, class_weights="balanced", small_size=(4, 4),
        small_epochs=1, checkpoint_epochs=0.4, evaluate_epochs=2, log_steps=5,
    ),
)  # fmt: skip
"""Everything that has a state or draws a random number, switched on at once: 12 steps."""

BF16 = RICH.override({"train.precision": "bf16", "model.attention_dropout": 0.1})


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory) -> Run:
    """The uninterrupted run that others are compared with."""
    return train(RICH, data=data, out=tmp_path_factory.mktemp("runs"), quiet=True)


@pytest.fixture(scope="module")
def straight_bf16(data, tmp_path_factory) -> Run:
    """The same, computed in bf16 and with explicit attention, some of its weights dropped."""
    return train(BF16, data=data, out=tmp_path_factory.mktemp("runs"), quiet=True)


def numbers(run: Run) -> list[dict]:
    """The lines of a run's metrics without their speeds."""
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in run.metrics]


def test_a_run_leaves_everything_behind(straight):
    assert straight.finished is not None and "stopped" not in straight.finished
    assert straight.finished["step"] == 12 and straight.finished["epochs"] == 4
    assert straight.finished["train_clean"]["loss"] < math.log(3)
    assert straight.finished["train_clean"]["images"] == 270
    assert straight.finished["validation"]["images"] == 30
    clock = straight.finished["clock"]
    assert clock["process_seconds"] > 0
    assert 0 < clock["preparation_seconds"] < clock["wall_seconds"] - clock["step_seconds"]
    assert clock["capture_seconds"] == 0
    assert straight.config.data.classes == 3
    assert straight.provenance["data"]["class_names"] == ["0", "1", "2"]
    steps = [record["step"] for record in straight.metrics if record["split"] == "train"]
    assert steps == [5, 10, 12]


def test_config_and_seed_alone_decide_the_weights(
    data, straight, straight_bf16, tmp_path, fingerprint
):
    cadence = {"train.log_steps": 1, "train.evaluate_epochs": 0.3, "train.checkpoint_epochs": 3.0}
    callers = torch.get_rng_state()
    again = train(RICH.override(cadence), data=data, out=tmp_path, quiet=True)
    assert fingerprint(again) == fingerprint(straight) != fingerprint(straight_bf16)
    other = train(RICH.override({"train.seed": 1}), data=data, out=tmp_path, quiet=True)
    assert fingerprint(other) != fingerprint(straight)
    assert torch.equal(torch.get_rng_state(), callers)


@pytest.mark.parametrize(
    ("reference", "step"),
    [("straight", 1), ("straight", 3), ("straight", 4), ("straight", 11), ("straight_bf16", 8)],
)
def test_a_run_cut_after_any_step_resumes_to_the_same_weights(
    data, tmp_path, fingerprint, cut, request, reference, step
):
    straight = request.getfixturevalue(reference)
    with cut(after=step):
        train(straight.config, data=data, out=tmp_path, name="cut", quiet=True)
    run = resume(tmp_path / "cut", data=data, quiet=True)
    assert fingerprint(run) == fingerprint(straight)
    assert numbers(run) == numbers(straight)
    for name in ("validation", "train_clean", "best"):
        assert run.finished[name] == straight.finished[name]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_cnn_resumes_to_the_same_weights(data, tmp_path, fingerprint, optimizer):
    config = RICH.override(
        {
            "model.kind": "cnn6", "model.width": 2, "optim.optimizer": optimizer,
            "optim.layer_decay": 1.0, "optim.freeze": "stages.stage3", "train.small_size": None,
            "train.small_epochs": 0, "train.epochs": 2,
        }
    )  # fmt: skip
    run = train(config, data=data, out=tmp_path, quiet=True)
    expected = fingerprint(run)
    (run.path / FINISHED).unlink()
    shutil.rmtree(run.checkpoint().path)
    assert fingerprint(resume(run.path, data=data, quiet=True)) == expected


def test_plateau_sees_every_epoch_whatever_the_cadence(data, small, tmp_path, fingerprint):
    config = small.override(
        {
            "optim.optimizer": "sgd", "optim.lr": 0.5, "optim.schedule": "plateau",
            "optim.plateau_patience": 0, "optim.warmup_epochs": 0, "train.epochs": 8,
        }
    )  # fmt: skip
    often = train(config, data=data, out=tmp_path, quiet=True)
    seldom = config.override({"train.evaluate_epochs": 8})
    seldom = train(seldom, data=data, out=tmp_path, quiet=True)
    assert fingerprint(often) == fingerprint(seldom)
    plateau = often.checkpoint().state["plateau"]
    assert plateau == seldom.checkpoint().state["plateau"] and plateau["reductions"] > 0


def test_a_finished_run_is_left_untouched(straight, data):
    before = {path: path.stat().st_mtime_ns for path in straight.path.rglob("*") if path.is_file()}
    resume(straight.path, data=data, quiet=True)
    after = {path: path.stat().st_mtime_ns for path in straight.path.rglob("*") if path.is_file()}
    assert before == after


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    data, straight, unfinished, fingerprint
):
    run = unfinished(straight)
    newest = run.checkpoints()[-1]
    newest.model.write_bytes(newest.model.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=rf"{newest.path.name} is damaged .*model.safetensors"):
        resumed = resume(run.path, data=data, quiet=True)
    assert fingerprint(resumed) == fingerprint(straight)


def test_a_resumption_on_another_machine_is_warned_about_and_remembered(
    data, straight_bf16, unfinished, monkeypatch, capsys
):
    run = unfinished(straight_bf16)
    run.write_provenance({**run.provenance, "threads": 99})
    monkeypatch.setattr(fit, "multiplies_bf16", lambda device: False)
    resume(run.path, data=data)
    said = capsys.readouterr().err
    assert "threads was 99" in said and "bf16, which is slow here" in said
    clock, before = run.finished["clock"], run.checkpoints()[0].state["clock"]
    assert clock["preparation_seconds"] > before["preparation"] > 0
    assert any("not bit-exact" in alarm for alarm in run.finished["alarms"])


def test_other_data_is_refused_on_resume(data, small_run, unfinished):
    run = unfinished(small_run)
    images, labels = data
    with pytest.raises(DataError, match=r"not the images that .* 300 of 300 are gone"):
        resume(run.path, data=(255 - images, labels), quiet=True)
    with pytest.raises(DataError, match="hand them in as data="):
        resume(run.path, quiet=True)


def test_a_loss_that_is_not_finite_stops_before_the_update(data, tmp_path):
    config = RICH.override(
        {
            "optim.optimizer": "sgd", "optim.lr": 1e30, "optim.schedule": "constant",
            "optim.warmup_epochs": 0, "optim.clip_norm": 0,
        }
    )  # fmt: skip
    with pytest.raises(DivergenceError) as stopped:
        train(config, data=data, out=tmp_path, name="wild", quiet=True)
    message = str(stopped.value)
    assert "step 1 " in message and "learning rate 1e+30" in message and "gradient norm" in message
    assert message.count("\n- ") == 3
    for checkpoint in Run(tmp_path / "wild").checkpoints():
        assert all(np.isfinite(tensor).all() for tensor in load_file(checkpoint.model).values())


def test_a_taken_name_is_not_overwritten_and_a_path_is_no_name(data, straight):
    with pytest.raises(RunError, match="not empty"):
        train(RICH, data=data, out=straight.path.parent, name=straight.name, quiet=True)
    with pytest.raises(ValueError, match="no folder name"):
        train(RICH, data=data, out=straight.path.parent, name="../x", quiet=True)


def test_a_batch_larger_than_the_data_trains_or_says_why_not(data, small, tmp_path):
    config = small.override({"train.batch_size": 1000})
    assert train(config, data=data, out=tmp_path, quiet=True).finished["step"] == 1
    with pytest.raises(ConfigError, match="drop_last"):
        train(config.override({"train.drop_last": True}), data=data, out=tmp_path, quiet=True)


def test_training_without_validation_has_no_best(data, small, tmp_path):
    config = small.override({"data.validation_fraction": 0.0})
    run = train(config, data=data, out=tmp_path, quiet=True)
    assert "validation" not in run.finished and run.finished["best"] == {}
    assert run.checkpoint("best").step == run.finished["step"]


def test_one_batch_can_be_learned_by_a_sound_setup_only(data, small):
    sound = small.override({"optim.lr": 1e-2, "train.batch_size": 50})
    assert overfit_one_batch(sound, data=data, quiet=True)["learned"]
    frozen = sound.override({"optim.lr": 1e-12})
    assert not overfit_one_batch(frozen, data=data, quiet=True, steps=10)["learned"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(
    data, small, tmp_path, monkeypatch, number
):
    take = TrainingStep.__call__

    def take_when_signalled(self, *batch):
        signal.raise_signal(number)
        return take(self, *batch)

    monkeypatch.setattr(TrainingStep, "__call__", take_when_signalled)
    with pytest.raises(Interrupted, match=f"stopped at step 1 .*--resume {tmp_path}") as stopped:
        train(small, data=data, out=tmp_path, name="r", quiet=True)
    assert stopped.value.exit_code == 128 + number
    assert Run(tmp_path / "r").checkpoint().step == 1


LONG = [
    "train", "digits", "--train.epochs", "500", "--train.checkpoint-epochs", "0.25",
    "--model.depth", "1", "--name", "r",
]  # fmt: skip


def test_a_live_process_keeps_others_away_and_is_stopped_by_a_signal(tmp_path, capsys):
    """Here a real process is signalled; tests/faults kills them."""
    words, path = [*LONG, "--out", str(tmp_path)], tmp_path / "r"
    process = subprocess.Popen(
        [sys.executable, "-m", "vitlab", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.time() + 300
        while not list(path.glob("checkpoints/step-*")):
            assert process.poll() is None, process.stderr.read()
            assert time.time() < deadline
            time.sleep(0.05)
        for second in (["train", "--resume", str(path)], words):
            assert main(second) == 1
            assert f"pid {process.pid}" in capsys.readouterr().err
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert f"--resume {path}" in errors
    stopped = int(errors.split("stopped at step ")[1].split()[0].replace(",", ""))
    assert Run(path).checkpoint().step == stopped
