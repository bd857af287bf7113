"""Several processes train as one does: same losses, every image counted once, one run."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from vitlab.config import Config, DataConfig, OptimConfig, TrainConfig, ViTConfig, fields_of
from vitlab.models import build_model
from vitlab.recipes import recipe
from vitlab.run import Run
from vitlab.training import resume, train
from vitlab.training import step as step_module
from vitlab.training.distributed import ProcessGroup
from vitlab.training.state import TrainState
from vitlab.training.step import TrainingStep

UNEVEN = {
    "data.train_fraction": 0.2,  # 259 images: six batches of 43, and one of a single image
    "model.depth": 2,
    "optim.optimizer": "sgd",
    "optim.lr": 0.1,
    "optim.warmup_epochs": 0.0,
    "optim.sam": 0.05,
    "train.batch_size": 43,
    "train.epochs": 2,
    "train.accumulate": 2,
    "train.class_weights": "balanced",
    "train.small_size": (4, 4),
    "train.small_epochs": 1,
    "train.log_steps": 1,
}


def torchrun(*arguments: str) -> subprocess.Popen:
    """Start a training in two processes, as a user would."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*words, "-m", "vitlab", "train", "--device", "cpu", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def options(values: dict[str, object]) -> list[str]:
    config = fields_of(recipe("digits").override(values))
    words = [str(config[name]).strip("()").replace(" ", "") for name in values]
    return [f"--{name}={word}" for name, word in zip(values, words, strict=True)]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_every_image_belongs_to_one_process(world):
    for length in (0, 1, 2, 7, 10_001):
        parts = [range(length)[ProcessGroup(rank, world).slice(length)] for rank in range(world)]
        assert [image for part in parts for image in part] == list(range(length))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


class Parallel(torch.nn.Module):
    """DistributedDataParallel as one process sees it, before gradients are brought together."""

    no_sync = staticmethod(nullcontext)
    _set_params_and_buffers_to_ignore_for_model = staticmethod(lambda module, names: None)

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.module(images)


@pytest.mark.parametrize("images", [6, 1], ids=["uneven parts", "two without an image"])
def test_the_mean_gradient_of_all_processes_is_that_of_one(images, monkeypatch):
    monkeypatch.setattr(step_module, "DistributedDataParallel", Parallel)
    config = Config(
        data=DataConfig(image_size=(8, 8), channels=3, classes=10),
        model=ViTConfig(width=16, depth=1, heads=2),
        optim=OptimConfig(clip_norm=0),
        train=TrainConfig(batch_size=6, accumulate=2),
    )
    batch = torch.randn(images, 3, 8, 8), torch.eye(10)[:images]

    def taken(group: ProcessGroup) -> list[torch.Tensor]:
        """The loss of a step and its gradients."""
        torch.manual_seed(0)
        state = TrainState.build(build_model(config), config.optim, (8, 8), "fp32")
        weights = torch.arange(1.0, 11.0)
        step = TrainingStep(state, config, "fp32", group=group, class_weights=weights)
        step.set_scalars(1.0, seed=0)
        loss, _ = step(*batch)
        return [loss, *(parameter.grad for parameter in state.model.parameters())]

    loss, *gradients = taken(ProcessGroup())
    parts = [taken(ProcessGroup(rank, 4)) for rank in range(4)]
    losses, *theirs = (torch.stack(each) for each in zip(*parts, strict=True))
    torch.testing.assert_close(losses.sum(), loss)
    torch.testing.assert_close([each.mean(0) for each in theirs], gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    process = torchrun("digits", *options(UNEVEN), "--out", str(tmp_path), "--name", "two")
    one = train(
        recipe("digits").override(UNEVEN), out=tmp_path, name="one", device="cpu", quiet=True
    )
    printed, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert printed.splitlines() == [str(tmp_path / "two")]
    assert "processes   2" in errors and errors.count("finished") == 1
    two = Run(tmp_path / "two")
    assert two.provenance["processes"] == 2
    assert len(two.metrics) == len(one.metrics) == 14 + 2 * 2
    for ours, theirs in zip(two.metrics, one.metrics, strict=True):
        for key in ("step", "split", "lr", "images"):
            assert ours.get(key) == theirs.get(key)
        for key in {"loss", "accuracy", "grad_norm"} & theirs.keys():
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4)
    assert two.finished["validation"]["images"] == 143
    weights = load_file(one.checkpoint().model)
    for name, tensor in load_file(two.checkpoint().model).items():
        np.testing.assert_allclose(tensor, weights[name], atol=1e-5)


@pytest.mark.slow
def test_two_processes_agree_to_stop_and_one_goes_on(tmp_path):
    path = tmp_path / "two"
    values = {**UNEVEN, "train.epochs": 40, "train.checkpoint_epochs": 0.5}
    process = torchrun("digits", *options(values), "--out", str(tmp_path), "--name", "two")
    while not list(path.glob("checkpoints/step-*")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=60)[1]
    stopped = Run(path).checkpoint().step
    assert f"stopped at step {stopped} of 280" in errors
    run = resume(path, device="cpu", quiet=True)
    assert run.finished["step"] == 280
    assert any("processes was 2 and is 1" in alarm for alarm in run.finished["alarms"])
    steps = [line["step"] for line in run.metrics if line["split"] == "train"]
    assert steps == list(range(1, 281))


@pytest.mark.slow
def test_a_run_held_by_another_is_refused_by_all_processes(tmp_path):
    with Run.lock(tmp_path / "held"):
        process = torchrun("digits", "--out", str(tmp_path), "--name", "held")
        errors = process.communicate(timeout=100)[1]
    assert process.returncode == 1
    assert f"pid {os.getpid()}" in errors
    assert Path(tmp_path / "held" / "config.json").exists() is False
