"""`vitlab reproduce --smoke`: does every row work on this device, how fast, and how long in all?

A few images of the row's data set are trained on, evaluated and resumed by the row's own model,
augmentation and optimiser; then its real step is timed. It is what one runs first on a GPU that
is lent by the minute.
"""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from vitlab.bench.measure import matrix_peak, synchronize
from vitlab.config import Config, DataConfig
from vitlab.data import LabelledImages, open_dataset
from vitlab.device import DTYPES, choose_device, deterministic
from vitlab.evaluate import evaluate
from vitlab.models.cost import cost
from vitlab.run import Run
from vitlab.training import evaluation, resume, train
from vitlab.training.cuda_graph import CUDAGraphStep
from vitlab.training.provenance import peak_memory, reset_peak_memory
from vitlab.training.setup import TrainingSetup
from vitlab.training.step import TrainingStep

VALIDATED = 200
"""Images that are validated."""

BATCHES = 2.5
"""Batches of an epoch of the short training: the last one is smaller than the others."""

TIMED = 48
"""Steps that are timed at each image size: three blocks of batches."""

SECONDS = 2.0
"""Time after which no further step is timed."""


def smoke_test(config: Config, path: Path, device: str, data_root: str | None) -> dict[str, Any]:
    """Train, evaluate and resume a row on a few images, then time its step; leave nothing behind.

    Returns:
        {"status": "works", "precision", "compilation", "alarms", "resumed": largest difference
        of a weight, "eager_seconds", "step_seconds": with and "replay_seconds": without making
        batches, "share_of_peak", "memory_bytes", "images": to train on, "seconds": of the whole
        training, estimated}
    """
    where = choose_device(device)
    config = replace(config, data=open_dataset(config.data, root=data_root).config)
    whole = replace(config.data, validation_fraction=0.0, train_fraction=1.0)
    examples = read(whole, data_root)
    try:
        tried = short_training(config, examples, path, device)
        with deterministic(config.train.deterministic):
            return {"status": "works", **tried, **timed(config, examples, where, path)}
    finally:
        shutil.rmtree(path, ignore_errors=True)


@lru_cache(maxsize=2)
def read(data: DataConfig, data_root: str | None) -> LabelledImages:
    """Training images, read once for all rows that share them."""
    return open_dataset(data, root=data_root).examples


def short_training(
    config: Config, examples: LabelledImages, path: Path, device: str
) -> dict[str, Any]:
    """Two short epochs, an evaluation, and the second epoch once more, resumed."""
    some = np.sort(np.random.default_rng(0).permutation(len(examples.labels)))
    some = some[: int(BATCHES * config.train.batch_size) + VALIDATED]
    few = replace(examples, images=examples.images[some], labels=examples.labels[some],
                  known_keys=None, weights=None)  # fmt: skip
    short = config.override(
        {
            "data.validation_fraction": VALIDATED / len(some),
            "data.train_fraction": 1.0,
            "train.epochs": 2,
            "train.small_epochs": 1 if config.train.small_size else 0,
            "train.evaluate_epochs": 1.0,
            "train.checkpoint_epochs": 1.0,
            "train.log_steps": 1,
            "optim.warmup_epochs": 0.0,
            "optim.hold_epochs": 0.0,
            **({"train.teacher_epochs": 2} if config.train.teacher else {}),
        }
    )
    run = train(short, data=few, out=path, name="run", device=device, quiet=True)
    evaluate(run, data=few, device=device, pictures=False, quiet=True)
    whole = load_file(run.checkpoint().model)
    origin, alarms = run.provenance, run.final_numbers["alarms"]
    shutil.rmtree(run.checkpoints()[-1].path)
    run.finished_file.unlink()
    again = load_file(resume(run.path, data=few, device=device, quiet=True).checkpoint().model)
    return {
        "precision": origin["precision"]["value"],
        "compilation": origin["compilation"]["value"],
        "alarms": alarms,
        "resumed": max(float((whole[n].double() - again[n].double()).abs().max()) for n in whole),
    }


def timed(
    config: Config, examples: LabelledImages, device: torch.device, path: Path
) -> dict[str, Any]:
    """Time the row's own step, evaluation and checkpoint, and add up what all of them take."""
    begun = time.perf_counter()
    reset_peak_memory(device)
    setup = TrainingSetup.build(config, open_dataset(config.data, examples), device, initial=False)
    step, batches, train = setup.build_step(), setup.batches, config.train
    seconds, last = time.perf_counter() - begun, {}
    small = train.small_epochs * batches.steps_per_epoch
    for first, steps in ((0, small), (small, batches.steps - small)):
        if steps:
            step.resize(batches.size(first))
            step.set_scalars(1e-3, seed=0)
            step(*batches.batch(first))  # captures
            last = step_seconds(setup, step, first)
            seconds += steps * last["step_seconds"]
    seconds += setup.state.clock.capture
    with Run.lock(path / "checkpoint"):
        run = Run.create(path / "checkpoint", config)
    for act, epochs in (
        (lambda: evaluation.evaluate(setup), train.evaluate_epochs),
        (lambda: setup.state.save(run), train.checkpoint_epochs),
    ):
        begun = time.perf_counter()
        act()
        seconds += (time.perf_counter() - begun) * math.ceil(train.epochs / epochs)
    flops = 6 * cost(config).macs * train.batch_size * (2 if config.optim.sam else 1)
    peak = matrix_peak(device, DTYPES[setup.settings.precision.value])
    return {
        **last,
        "share_of_peak": flops / last["replay_seconds"] / peak,
        "memory_bytes": peak_memory(device),
        "images": len(setup.images),
        "seconds": seconds,
    }


def step_seconds(setup: TrainingSetup, step: TrainingStep, first: int) -> dict[str, float]:
    """Seconds of a step from step `first` on: plain, with its batches, and without."""
    batch = setup.batches.batch(first)

    def take(images: Tensor, targets: Tensor) -> None:
        step.set_scalars(1e-3, seed=0)
        step(images, targets)

    def per_step(once: Callable[[int], None]) -> float:
        synchronize(setup.device)
        begun, count = time.perf_counter(), 0
        for count in range(1, TIMED + 1):
            once(first + count)
            if time.perf_counter() - begun > SECONDS:
                break
        synchronize(setup.device)
        return (time.perf_counter() - begun) / count

    replay = per_step(lambda _: take(*batch))
    whole = per_step(lambda number: take(*setup.batches.batch(number)))
    eager = replay
    if isinstance(step, CUDAGraphStep) and step.enabled:
        step.enabled = False
        eager = per_step(lambda _: take(*batch))
        step.enabled = True
    return {"eager_seconds": eager, "replay_seconds": replay, "step_seconds": whole}
