"""C: numbers that are none, memory that is not there, data sets that are too small."""

import json
import math
import resource
from functools import partial
from pathlib import Path

import numpy as np
from harness import case
from safetensors.numpy import load_file
from trial import TINY, TRAIN, Vitlab, equal, finish, start, whole

from vitlab.run import Run
from vitlab.training import fit
from vitlab.training.setup import TrainingSetup
from vitlab.training.step import TrainingStep

WILD = ("--optim.warmup-epochs", "0", "--optim.clip-norm", "0", "--optim.schedule", "constant")


@case("C01", "a learning rate of 1e6, from the start and from the middle", short=0.5)
def diverged(folder: Path, scale: float) -> str:
    told = []
    for place in (0, 9, 18)[: max(1, round(3 * scale))]:
        name = f"run-{place}"
        before = partial(raise_rate, place) if place else None
        rate = ("--optim.lr", "2e-3" if place else "1e6", "--optim.optimizer", "sgd")
        process = start(folder, name, (*TRAIN, *WILD, *rate), before=before)
        words = ("at step", "learning rate", "gradient norm", "last good checkpoint", "- lower")
        error = process.refuse(*words, code=3)
        run = Run(folder / name)
        kept = run.checkpoints()
        assert bool(kept) == bool(place)
        assert (str(kept[-1].path) if kept else "none yet") in error
        for checkpoint in kept:
            assert checkpoint.damage is None
            assert all(np.isfinite(each).all() for each in load_file(checkpoint.model).values())
        assert run.finished is None
        told.append(error.split("at step ")[1].split()[0])
    return f"stopped at step {', '.join(told)} with exit code 3; what was kept is finite"


def raise_rate(place: int) -> None:
    """From a step on, take steps at 1e9 times the learning rate."""
    set_scalars = TrainingStep.set_scalars

    def set_wild_scalars(self: TrainingStep, lr_scale: float, seed: int) -> None:
        set_scalars(self, lr_scale * 1e9 if self.state.step >= place else lr_scale, seed)

    TrainingStep.set_scalars = set_wild_scalars  # type: ignore[method-assign]


@case("C03", "a validation that is not a number, then a better one")
def not_a_number(folder: Path, scale: float) -> str:
    process = start(folder, "run", before=partial(evaluate_nan, 18))
    process.succeed()
    run = Run(folder / "run")
    judged = {line["step"]: line for line in run.metrics if line["split"] == "validation"}
    assert math.isnan(judged[18]["loss"]) and judged[18]["accuracy"] == 0.99
    assert run.finished and run.finished["best"]["step"] != 18
    assert run.checkpoint("best").step == run.finished["best"]["step"]
    Vitlab("evaluate", run.path, "--device", "cpu", folder=folder).succeed()
    assert 18 not in [checkpoint.step for checkpoint in run.checkpoints() if checkpoint.step < 24]
    curves = (run.figures / "curves.csv").read_text()
    assert "nan" in curves.lower(), curves
    return (
        f"step 18 is never best (step {run.finished['best']['step']} is), and its curve shows nan"
    )


def evaluate_nan(step: int) -> None:
    """Let the validation of a step come to no number, at an accuracy above all others."""
    evaluate = fit.evaluate

    def evaluate_nan(setup: TrainingSetup) -> dict[str, dict[str, float]]:
        numbers = evaluate(setup)
        if setup.state.step == step:
            numbers["validation"] |= {"loss": math.nan, "accuracy": 0.99}
        return numbers

    fit.evaluate = evaluate_nan


@case("C04", "memory that runs out in train, evaluate, explain and a trial of a study")
def no_memory(folder: Path, scale: float) -> str:
    reference = whole(folder)
    tight = partial(limit_memory, 300)
    huge = ("--model.ffn-ratio", "100000", "--train.batch-size", "300")
    start(folder, "huge", (*TRAIN, *huge), before=tight).refuse(
        "out of memory", "a step of 300 images", "Choose a smaller model", code=2
    )
    verbs = ["train"]
    process = start(folder, "later", before=partial(run_out_at, 13))
    process.refuse("out of memory", "train.batch_size=60", code=1)
    assert Run(folder / "later").checkpoint().step == 12
    equal(finish(folder, "later"), reference)
    if scale == 1:
        Vitlab(
            "evaluate", reference.path, "--device", "cpu", folder=folder, before=partial(starve, 1)
        ).refuse("out of memory", "images", "MB", code=1)
        Vitlab(
            "explain", reference.path, "--device", "cpu", folder=folder, before=partial(starve, 1)
        ).refuse("out of memory", code=1)
        verbs += ["evaluate", "explain", "study"]
        vary = ("--recipe", "digits", "--vary", "model.ffn_ratio=4,1e12,2", "--seeds", "1")
        words = ("study", *vary, *TINY[1:-2], "--device", "cpu", "--yes", "--out", folder / "study")
        said = Vitlab(*words, folder=folder).refuse("out of memory", code=4)
        assert "1 of 3" in said or "1 of 4" in said, said
    return f"{', '.join(verbs)}: a hint with numbers, checkpoints intact, the next trial runs"


def limit_memory(megabytes: int) -> None:
    """Let this process take so much more address space and no more."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (megabytes << 20),) * 2)


def run_out_at(step: int) -> None:
    """Let a step ask for more memory than there is."""
    import torch

    take_step = TrainingStep.__call__

    def take_huge_step(self: TrainingStep, *batch: torch.Tensor) -> torch.Tensor:
        if self.state.step == step:
            limit_memory(64)
            torch.ones(1 << 27)
        return take_step(self, *batch)

    TrainingStep.__call__ = take_huge_step  # type: ignore[method-assign]


def starve(megabytes: int) -> None:
    """Let a model that classifies ask for more memory than there is."""
    from vitlab.models.vit import ViT

    def forward(*_: object) -> None:
        import torch

        limit_memory(megabytes)
        torch.ones(1 << 27)

    ViT.forward = forward  # type: ignore[method-assign]


SIZES = {
    "a set smaller than a batch": ("--train.batch-size", "5000"),
    "batches of one image": ("--data.train-fraction", "0.02", "--train.batch-size", "1"),
    "a last batch of one image": ("--train.batch-size", "23"),
    "no validation images": ("--data.validation-fraction", "0"),
    "drop_last with no whole batch": ("--train.batch-size", "5000", "--train.drop-last", "on"),
    "no epochs": ("--train.epochs", "0"),
    "one image of each class": ("--data.train-fraction", "1e-9"),
    "more parts than images": ("--train.accumulate", "4", "--train.batch-size", "2"),
}
"""Odd sizes, and whether they are expected to work is not said: only that they work or say why."""


@case("C05", "odd sizes of sets and batches")
def odd_sizes(folder: Path, scale: float) -> str:
    works = 0
    chosen = list(SIZES.items())[: max(3, round(len(SIZES) * scale))]
    for place, (_, words) in enumerate(chosen):
        mixed = ("--augment.mixup", "0.5", "--train.epochs", "1")
        process = start(folder, f"run-{place}", (*TINY, *mixed, *words))
        if process.wait() == 0:
            lines = json.dumps(Run(folder / f"run-{place}").metrics)
            assert "NaN" not in lines and "Infinity" not in lines, lines
            works += 1
        else:
            process.refuse()
            assert not Run.exists(folder / f"run-{place}"), "refused, and left a run behind"
    return f"{works} of {len(chosen)} work, {len(chosen) - works} say in one error why not"
