"""What the tests of studies share: tiny studies of digits, engines that train nothing, and studies
written by hand.
"""

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vitlab.cli import main, parse
from vitlab.config import Config
from vitlab.errors import DivergenceError
from vitlab.figures import style
from vitlab.files import write_json
from vitlab.recipes import recipe
from vitlab.run import Run
from vitlab.study.plan import AGAINST_BASELINE, Arm, Plan, Trial, arm_config

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


FORM = {"data.image_size": (32, 32), "data.channels": 3, "data.classes": 10}
"""What train fills into a config from its images."""


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

    def __init__(self, write_run, score: Callable[[Config], float]):
        super().__init__()
        self.write_run = write_run
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
            self.write_run(path, config.override(FORM), accuracy)
        return 0


class Studies:
    """Writes studies by hand."""

    def __init__(self, write_run):
        self.write_run = write_run

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
                config=arm_config(plan.recipe, plan.overrides, changes).to_dict(),
            )
            plan.add(arm)
            plan.add_probes(arm, probes)
        return plan

    def write(self, folder: Path, accuracies: dict, *, changes=None, runs=None, **more) -> Plan:
        """A study of arms given as name -> accuracies of their seeds, the baseline first.

        A seed whose accuracy is None has no run, one whose accuracy is a status has failed.
        `runs` are options of `finish` by arm.
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

    def finish(
        self, folder: Path, plan: Plan, trial: Trial, accuracy: float, *, answers=None, **more
    ) -> Run:
        """Write the run of a trial; `answers` says which validation image it is right about."""
        config = plan.config(trial).override(FORM)
        run = self.write_run(folder / trial.run, config, accuracy, **more)
        if answers is not None:
            file = run.predictions("validation")
            file.parent.mkdir()
            labels = np.full(len(answers), 3)
            logits = np.eye(10)[np.where(answers, 3, 4)]
            np.savez(file, logits=logits, labels=labels, indices=np.arange(len(answers)))
            source = {"checkpoint_sha256": "c", "index_sha256": "v" * 64}
            run.write_results({"validation": source})
        return run

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


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the pictures, which other tests look at."""
    monkeypatch.setattr("vitlab.study.results.draw", lambda *_: None)
    monkeypatch.setattr("vitlab.compare._draw", lambda *_: [])


@pytest.fixture(scope="session")
def tiny() -> dict[str, object]:
    return TINY


@pytest.fixture(scope="module")
def inline() -> Inline:
    return Inline()


@pytest.fixture(scope="session")
def scored(write_run):
    """Makes an engine that trains nothing, of a function from a config to an accuracy."""
    return functools.partial(Scored, write_run)


@pytest.fixture(scope="session")
def studies(write_run) -> Studies:
    return Studies(write_run)
