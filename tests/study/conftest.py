"""What the tests of studies share: tiny studies of digits, engines that train nothing, and runs as
train leaves them, written by hand.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vitlab.cli import main, parse
from vitlab.config import Config
from vitlab.errors import DivergenceError
from vitlab.figures import style
from vitlab.files import write_json, write_text
from vitlab.recipes import recipe
from vitlab.run import Run
from vitlab.study.plan import AGAINST_BASELINE, Arm, Plan, Trial

TINY = {
    "data.train_fraction": 0.1,
    "data.validation_fraction": 0.2,
    "model.depth": 1,
    "model.width": 16,
    "model.heads": 2,
    "optim.warmup_epochs": 0.0,
    "train.epochs": 1,
}
"""About a hundred images, once, into a model of one block."""


class Done:
    """A trial that was over when it was started."""

    def __init__(self, code: int):
        self.code = code

    def poll(self) -> int:
        return self.code

    def stop(self) -> None: ...

    def kill(self) -> None: ...


class Inline:
    """Runs every trial in this process, which saves the seconds that importing torch takes."""

    def __init__(self):
        self.workers = 1
        self.started: list[str] = []

    def start(self, command: list[str], stem: Path) -> Done:
        """Run the arguments of `python -m vitlab`."""
        self.started.append(stem.name)
        with open(f"{stem}.log", "a") as log, contextlib.redirect_stderr(log):
            return Done(self.run(command[command.index("vitlab") + 1 :]))

    def run(self, arguments: list[str]) -> int:
        """Train, and return the exit code."""
        return main([*arguments, "--quiet"])


class Scored(Inline):
    """Gives every trial an accuracy that follows from its config, and trains nothing."""

    def __init__(self, score: Callable[[Config], float]):
        super().__init__()
        self.score = score

    def run(self, arguments: list[str]) -> int:
        """Write a finished run; none where the score is negative."""
        args = parse(arguments)
        config = recipe(args.recipe).override(args.overrides)
        accuracy = self.score(config)
        if accuracy < 0:
            return DivergenceError.exit_code
        path = Path(args.out) / args.name
        with Run.lock(path):
            write_run(path, config, accuracy)
        return 0


IMAGES = 5_000
FORM = {"data.image_size": (32, 32), "data.channels": 3, "data.classes": 10}


def write_run(
    path: Path, config: Config, accuracy: float, *, cost: float = 1.0, spikes: int = 0,
    until: float = 1.0, answers: np.ndarray | None = None, origin=None,
) -> Run:  # fmt: skip
    """Write a run as train does, four steps an epoch; `until` below 1 breaks off before the end.

    `answers` says which validation image it is right about.
    """
    config = config.override(FORM)
    random = np.random.default_rng(config.train.seed)
    epochs, per_epoch = config.train.epochs, 4
    path.mkdir(parents=True, exist_ok=True)
    run = Run.create(path, config)
    train_images = round(45_000 * config.data.train_fraction)
    data = {
        "fingerprint": "f" * 64,
        "class_names": list("0123456789"),
        "train_images": train_images,
        "validation_images": IMAGES,
        "split_sha256": {"train": f"{train_images}", "validation": "v" * 64},
    }
    run.write_provenance(
        {
            "device": "a processor", "threads": 1, "precision": {"value": "fp32"},
            "determinism": {"value": "on"}, "vitlab": "0.1.0", "commit": None, "torch": "2.13.0",
            "python": "3.11.7", "data": data, **(origin or {}),
        }
    )  # fmt: skip
    lines = []
    for step in range(1, round(epochs * per_epoch * until) + 1):
        epoch = step / per_epoch
        # Approaches its end like a training does, and ends exactly on the accuracy asked for.
        share = (1 - math.exp(-3 * epoch / epochs)) / (1 - math.exp(-3))
        loss = 2.3 - 2 * accuracy * share
        leap = 1.6 if spikes and step % (per_epoch * 4) == 0 else 1.0
        lines.append(
            {"step": step, "epoch": epoch, "split": "train",
             "loss": (loss + 0.3) * leap * random.normal(1, 0.01), "lr": config.optim.lr,
             "grad_norm": float(random.lognormal(0, 0.3)) * leap, "images_per_second": 900.0}
        )  # fmt: skip
        if step % per_epoch == 0:
            for split, gap in (("validation", 0.0), ("train_clean", 0.03)):
                value = 0.1 + (accuracy - 0.1) * share + gap
                lines.append({"step": step, "epoch": epoch, "split": split, "loss": loss - gap,
                              "accuracy": value})  # fmt: skip
    write_text(path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    if until == 1.0:
        run.finish(
            {
                "step": epochs * per_epoch,
                "epochs": epochs,
                "validation": {"loss": 2.3 - 2 * accuracy, "accuracy": accuracy},
                "train_clean": {"loss": 0.2, "accuracy": accuracy + 0.03},
                "parameters": round(500_000 * cost),
                "macs": round(36e6 * cost),
                "images_per_second": 900.0 / cost,
                "clock": {"wall_seconds": 500.0 * cost},
                "peak_memory_bytes": round(1.2e9 * cost),
                "alarms": [],
            }
        )
    if answers is not None:
        file = run.predictions("validation")
        file.parent.mkdir()
        labels = np.full(len(answers), 3)
        logits = np.eye(10)[np.where(answers, 3, 4)]
        np.savez(file, logits=logits, labels=labels, indices=np.arange(len(answers)))
        source = {"step": epochs * per_epoch, "checkpoint_sha256": "c", "index_sha256": "v" * 64}
        run.write_results({"validation": source})
    return run


class Studies:
    """Writes studies by hand."""

    @staticmethod
    def plan(arms: dict, *, seeds=(0, 1, 2, 3, 4), axes=None, probes=(), **more) -> Plan:
        """A plan of arms given as name -> changes, the baseline first."""
        plan = Plan(
            name="a study",
            question="What does it change?",
            recipe="vit-tiny",
            axes={"model.norm": ["layer", "rms"]} if axes is None else axes,
            overrides={"train.epochs": 10},
            rivals=False,
            threads=1,
            **{
                "design": "one-factor",
                "seeds": list(seeds),
                "family": AGAINST_BASELINE,
                "exploratory": False,
                **more,
            },
        )
        for name, changes in arms.items():
            alone = plan.design == "one-factor" and "=" in name
            arm = Arm(
                name=name,
                changes=changes,
                axis=name.split("=")[0] if alone else None,
                baseline=name == "baseline",
                explanation=f"How {name} works. Why it may help.",
            )
            plan.add(arm)
            plan.add_probes(arm, probes)
        return plan

    def write(self, folder: Path, accuracies: dict, *, changes=None, runs=None, **more) -> Plan:
        """A study of arms given as name -> accuracies of their seeds, the baseline first.

        A seed whose accuracy is None has no run, one whose accuracy is a status has failed.
        `runs` are options of `write_run` by arm.
        """
        arms = changes or {name: {"model.norm": "rms"} for name in accuracies}
        arms["baseline"] = {}
        seeds = range(len(next(iter(accuracies.values()))))
        plan = self.plan(arms, **{"seeds": seeds, **more})
        folder.mkdir(parents=True)
        plan.save(folder)
        for trial in plan.trials:
            accuracy = accuracies[trial.arm][trial.seed]
            if isinstance(accuracy, str):
                self.fail(folder, trial, accuracy)
            elif accuracy is not None:
                self.finish(folder, plan, trial, accuracy, **(runs or {}).get(trial.arm, {}))
        return plan

    @staticmethod
    def finish(folder: Path, plan: Plan, trial: Trial, accuracy: float, **more) -> Run:
        """Write the run of a trial."""
        return write_run(folder / trial.run, plan.config(trial), accuracy, **more)

    @staticmethod
    def fail(folder: Path, trial: Trial, status: str, reason: str = "for a | reason") -> None:
        """Leave behind what a study writes of a trial without a result."""
        file = folder / "trials" / f"{trial.name}.json"
        write_json(file, {"status": status, "reason": reason})


@pytest.fixture(scope="package", autouse=True)
def quick():
    """Leave the disk alone, as nothing here is about a power cut, and draw small pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setitem(style.STYLE, "savefig.dpi", 30)
        yield


@pytest.fixture(scope="session")
def tiny() -> dict[str, object]:
    return TINY


@pytest.fixture(scope="module")
def inline() -> Inline:
    return Inline()


@pytest.fixture(scope="session")
def scored() -> type[Scored]:
    return Scored


@pytest.fixture(scope="session")
def studies() -> Studies:
    return Studies()
