"""Training: what an interruption, a second process or a bad number may and may not do."""

import hashlib
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import vitlab
from vitlab.config import AugmentConfig, Config, DataConfig, OptimConfig, TrainConfig, ViTConfig
from vitlab.errors import ConfigError, DataError, DivergenceError, RunError
from vitlab.run import Run
from vitlab.training import overfit_one_batch, resume, train

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
        epochs=6, batch_size=100, accumulate=2, class_weights="balanced", small_size=(4, 4),
        small_epochs=2, checkpoint_epochs=0.4, evaluate_epochs=2, log_steps=5,
    ),
)  # fmt: skip
"""Everything that has a state or draws a random number, switched on at once."""

BF16 = RICH.override({"train.precision": "bf16", "model.attention_dropout": 0.1})


def fingerprint(run: Run) -> str:
    """sha256 over names, types, shapes and bytes of weights, average and moments at the end."""
    digest = hashlib.sha256()
    checkpoint = run.checkpoint()
    for file in (checkpoint.model, checkpoint.average, checkpoint.optimizer):
        for name, tensor in sorted(load_file(file).items()):
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """300 images of three classes that differ by where they are bright."""
    draws = np.random.default_rng(0)
    labels = np.arange(300) % 3
    images = draws.integers(0, 120, (300, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[label * 2 : label * 2 + 3] += 130
    return images.astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory) -> Run:
    """The uninterrupted run that others are compared with."""
    return train(RICH, data=data, out=tmp_path_factory.mktemp("runs"), quiet=True)


@pytest.fixture(scope="module")
def straight_bf16(data, tmp_path_factory) -> Run:
    """The same, computed in bf16 and with explicit attention, some of its weights dropped."""
    return train(BF16, data=data, out=tmp_path_factory.mktemp("runs"), quiet=True)


def test_a_run_leaves_everything_behind(straight):
    assert straight.finished is not None
    assert straight.finished["step"] == 18
    assert straight.finished["train_clean"]["loss"] < math.log(3)
    clock = straight.finished["clock"]
    assert clock["process_seconds"] > 0
    assert 0 < clock["preparation_seconds"] < clock["wall_seconds"] - clock["step_seconds"]
    assert clock["capture_seconds"] == 0
    assert straight.config.data.classes == 3
    assert straight.provenance["data"]["class_names"] == ["0", "1", "2"]
    steps = [record["step"] for record in straight.metrics if record["split"] == "train"]
    assert steps == [5, 10, 15, 18]


def test_equal_config_and_seed_give_equal_weights(data, straight, straight_bf16, tmp_path):
    again = train(RICH, data=data, out=tmp_path, quiet=True)
    assert fingerprint(again) == fingerprint(straight)
    half = train(BF16, data=data, out=tmp_path, quiet=True)
    assert fingerprint(half) == fingerprint(straight_bf16) != fingerprint(straight)
    other = train(RICH.override({"train.seed": 1}), data=data, out=tmp_path, quiet=True)
    assert fingerprint(other) != fingerprint(straight)


def test_cadence_of_logs_validations_and_checkpoints_changes_no_weight(data, straight, tmp_path):
    cadence = {"train.log_steps": 1, "train.evaluate_epochs": 0.3, "train.checkpoint_epochs": 3.0}
    run = train(RICH.override(cadence), data=data, out=tmp_path, quiet=True)
    assert fingerprint(run) == fingerprint(straight)


class Cut(BaseException):
    """Stands for a power cut: nothing catches it."""


@pytest.mark.parametrize(
    ("reference", "cut"),
    [
        *(("straight", cut) for cut in (1, 5, 6, 7, 12, 17)),
        *(("straight_bf16", c) for c in (5, 12)),
    ],
)
def test_a_run_cut_after_any_step_resumes_to_the_same_weights(
    data, tmp_path, monkeypatch, request, reference, cut
):
    straight = request.getfixturevalue(reference)
    from vitlab.training.session import Session

    take_step = Session.take_step

    def take_step_until_cut(self, *arguments, **options):
        if self.state.step == cut:
            raise Cut
        return take_step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "take_step", take_step_until_cut)
        with pytest.raises(Cut):
            train(straight.config, data=data, out=tmp_path, name="cut", quiet=True)
    run = resume(tmp_path / "cut", data=data, quiet=True)
    assert fingerprint(run) == fingerprint(straight)
    ours = [(record["step"], record["split"]) for record in run.metrics]
    assert ours == [(record["step"], record["split"]) for record in straight.metrics]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_cnn_resumes_to_the_same_weights(data, tmp_path, optimizer):
    config = RICH.override(
        {
            "model.kind": "cnn6", "model.width": 2, "optim.optimizer": optimizer,
            "optim.layer_decay": 1.0, "optim.freeze": "stages.stage3", "train.small_size": None,
            "train.small_epochs": 0,
        }
    )  # fmt: skip
    run = train(config, data=data, out=tmp_path, quiet=True)
    expected = fingerprint(run)
    (run.path / "finished.json").unlink()
    shutil.rmtree(run.checkpoint().path)
    assert fingerprint(resume(run.path, data=data, quiet=True)) == expected


def test_plateau_is_judged_every_epoch_whatever_the_cadence(data, tmp_path):
    config = RICH.override(
        {
            "optim.optimizer": "sgd", "optim.lr": 0.1, "optim.schedule": "plateau",
            "optim.plateau_patience": 0, "train.epochs": 8, "optim.warmup_epochs": 0,
        }
    )  # fmt: skip
    often = train(config, data=data, out=tmp_path, quiet=True)
    seldom = train(
        config.override({"train.evaluate_epochs": 8}), data=data, out=tmp_path, quiet=True
    )
    assert fingerprint(often) == fingerprint(seldom)
    assert often.checkpoint().state["plateau"] == seldom.checkpoint().state["plateau"]


def test_a_finished_run_is_left_untouched(straight, data):
    before = {path: path.stat().st_mtime_ns for path in straight.path.rglob("*") if path.is_file()}
    resume(straight.path, data=data, quiet=True)
    after = {path: path.stat().st_mtime_ns for path in straight.path.rglob("*") if path.is_file()}
    assert before == after


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    data, straight, tmp_path, monkeypatch
):
    run = train(RICH, data=data, out=tmp_path, quiet=True)
    (run.path / "finished.json").unlink()
    newest = run.checkpoints()[-1]
    newest.model.write_bytes(newest.model.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=rf"{newest.path.name} is damaged .*model.safetensors"):
        resumed = resume(run.path, data=data, quiet=True)
    assert fingerprint(resumed) == fingerprint(straight)


def test_a_resumption_on_another_machine_is_warned_about_and_remembered(data, tmp_path, capsys):
    run = train(RICH.override({"train.epochs": 3}), data=data, out=tmp_path, quiet=True)
    (run.path / "finished.json").unlink()
    run.write_provenance({**run.provenance, "threads": 99})
    resume(run.path, data=data)
    assert "threads was 99" in capsys.readouterr().err
    clock, before = run.finished["clock"], run.checkpoints()[0].state["clock"]
    assert clock["preparation_seconds"] > before["preparation"] > 0
    assert any("not bit-exact" in alarm for alarm in run.finished["alarms"])


def test_other_data_is_refused_on_resume(data, tmp_path):
    run = train(RICH.override({"train.epochs": 3}), data=data, out=tmp_path, quiet=True)
    (run.path / "finished.json").unlink()
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


def test_a_batch_larger_than_the_data_trains_or_says_why_not(data, tmp_path):
    config = RICH.override({"train.batch_size": 1000, "train.epochs": 3})
    assert train(config, data=data, out=tmp_path, quiet=True).finished["step"] == 3
    with pytest.raises(ConfigError, match="drop_last"):
        train(config.override({"train.drop_last": True}), data=data, out=tmp_path, quiet=True)


def test_training_without_validation_has_no_best(data, tmp_path):
    config = RICH.override({"data.validation_fraction": 0.0, "train.epochs": 3})
    run = train(config, data=data, out=tmp_path, quiet=True)
    assert "validation" not in run.finished and run.finished["best"] == {}
    assert run.checkpoint("best").step == run.finished["step"]


def test_training_leaves_the_callers_random_numbers_alone(data, tmp_path):
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(RICH.override({"train.epochs": 3}), data=data, out=tmp_path, quiet=True)
    assert torch.equal(torch.rand(3), expected)


def test_one_batch_can_be_learned_by_a_sound_setup_only(data):
    assert overfit_one_batch(RICH, data=data, quiet=True)["learned"]
    frozen = RICH.override({"optim.optimizer": "adamw", "optim.lr": 1e-12})
    assert not overfit_one_batch(frozen, data=data, quiet=True, steps=20)["learned"]


def test_predict_gives_the_logits_of_the_final_model(data, straight):
    images, labels = data
    logits = vitlab.predict(straight, images)
    assert logits.shape == (300, 3) and logits.dtype == np.float32
    assert (logits.argmax(1) == labels).mean() > 1 / 3
    single = vitlab.predict(straight, images[0])
    np.testing.assert_allclose(single[0], logits[0], atol=1e-5)
    with pytest.raises(DataError, match="give uint8 of 0 to 255"):
        vitlab.predict(straight, images.astype(np.float32))


# From here on a real process is signalled; tests/faults kills them.

EIGHT_SECONDS = [
    "digits", "--train.epochs", "4", "--train.checkpoint-epochs", "0.25", "--model.dropout", "0.1",
    "--augment.mixup", "0.2", "--optim.average-decay", "0.99", "--optim.optimizer", "muon",
    "--optim.sam", "0.05", "--optim.layer-decay", "0.8", "--optim.freeze", "blocks.0",
    "--train.accumulate", "2", "--train.class-weights", "balanced",
]  # fmt: skip


def vitlab_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "vitlab", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def start(*arguments: str | Path) -> subprocess.Popen:
    return subprocess.Popen(
        vitlab_command(*arguments), env=environment(), stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def live(tmp_path):
    """A training that is under way, and its run's path."""
    process = start(
        "train", *EIGHT_SECONDS, "--train.epochs", "500", "--out", tmp_path, "--name", "r"
    )
    deadline = time.time() + 60
    while not list((tmp_path / "r").glob("checkpoints/step-*")):
        assert process.poll() is None and time.time() < deadline, process.communicate()[1]
        time.sleep(0.05)
    yield process, tmp_path / "r"
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(live, number):
    process, path = live
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert f"--resume {path}" in errors
    stopped = int(errors.split("stopped at step ")[1].split()[0].replace(",", ""))
    assert Run(path).checkpoint().step == stopped


def test_a_second_process_is_refused_with_the_holders_pid(live):
    process, path = live
    for arguments in (["--resume", path], [*EIGHT_SECONDS, "--out", path.parent, "--name", "r"]):
        second = start("train", *arguments)
        _, errors = second.communicate(timeout=30)
        assert second.returncode == 1
        assert f"pid {process.pid}" in errors
    assert process.poll() is None
    assert math.isfinite(Run(path).metrics[-1]["step"])
