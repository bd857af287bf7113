"""The plan of a study, as it lies on disk.

    study.json            the plan: arms, seeds, trials; written before anything runs
    runs/                 one run directory per trial
    trials/NAME.json      why a trial has no result
    trials/NAME.log       what a trial printed
    search.journal        what a guided search has tried
    summary.*  figures/   owned by the summary

Only a guided search ever adds to study.json: an arm is written down before it is trained. A
trial is finished when its run says so, whatever any other file says.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vitlab.config import MODELS, Config
from vitlab.errors import RunError
from vitlab.fields import hints, text
from vitlab.files import write_json
from vitlab.recipes import recipe
from vitlab.run import STUDY

SCHEMA = 1
"""Number of the study.json layout."""

Design = Literal["one-factor", "grid", "search"]
Status = Literal[
    "planned", "interrupted", "finished", "failed", "diverged", "out of memory", "killed"
]

AGAINST_BASELINE, ALL_PAIRS = "arms against the baseline", "all pairs"
"""Families of comparisons, of which a study declares one before it runs."""

PROBE_SHARE = 0.1
"""Share of the epochs that a probe of a learning rate takes."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One variation of the recipe, with what it costs: per image and, in seconds, per trial."""

    name: str
    changes: dict[str, Any]
    axis: str | None = None
    baseline: bool = False
    explanation: str = ""
    parameters: int = 0
    macs: int = 0
    seconds: float | None = None
    config: dict[str, Any] | None = None
    """What it trains, whatever becomes of the recipe; absent from plans of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An arm and a seed. A probe trains for a tenth of the epochs, at `rate` times the rate."""

    arm: str
    seed: int
    run: str
    rate: float | None = None

    @property
    def name(self) -> str:
        """Name of its run."""
        return Path(self.run).name


@dataclass(kw_only=True)
class Plan:
    """What study.json holds.

    `axes` maps an axis to its values, `overrides` holds for every arm, and `refused` are the
    arms that no config can be. `threads` is the number of CPU threads of every trial.
    """

    schema: int = SCHEMA
    name: str
    question: str
    recipe: str
    design: Design
    seeds: list[int]
    axes: dict[str, list[Any]]
    overrides: dict[str, Any]
    family: str
    exploratory: bool
    rivals: bool
    threads: int
    arms: list[Arm] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    probes: list[Trial] = field(default_factory=list)
    budget: int = 0
    margin: float | None = None

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read a study's plan; RunError where there is none."""
        file = folder / STUDY
        try:
            tree = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{folder} is not a study: it holds no {STUDY}") from None
        except ValueError as error:
            raise RunError(
                f"{file} is not JSON ({error}): remove it, and the same command plans the study "
                "again and finds its trials"
            ) from error
        if tree["schema"] != SCHEMA:
            raise RunError(f"{file} has schema {tree['schema']}; this version reads {SCHEMA}")
        tree["arms"] = [Arm(**arm) for arm in tree["arms"]]
        for kind in ("trials", "probes"):
            tree[kind] = [Trial(**trial) for trial in tree[kind]]
        return cls(**tree)

    def save(self, folder: Path) -> None:
        """Write the plan."""
        write_json(folder / STUDY, dataclasses.asdict(self))

    @property
    def question_asked(self) -> tuple[Any, ...]:
        """What must be equal for a plan to be the same: not its estimates, nor a search's finds."""
        arms = [] if self.design == "search" else [(arm.name, arm.changes) for arm in self.arms]
        asked = (self.recipe, self.overrides, self.design, self.axes, self.seeds, self.budget)
        return *asked, self.threads, arms, self.probes if arms else []

    @property
    def all(self) -> list[Trial]:
        """Trials and probes, in the order in which they run."""
        return self.trials + self.probes

    @property
    def size(self) -> int:
        """Number of trials and probes, those included that a search has not thought of yet."""
        return len(self.probes) + max(len(self.trials), (self.budget + 1) * len(self.seeds))

    def arm(self, name: str) -> Arm:
        """The arm of a name."""
        return next(arm for arm in self.arms if arm.name == name)

    def add(self, arm: Arm) -> list[Trial]:
        """Plan an arm with every seed; return its trials."""
        stem = f"{len(self.arms):02d}-{slug(arm.name)}"
        self.arms.append(arm)
        added = [
            Trial(arm=arm.name, seed=seed, run=f"runs/{stem}-seed{seed}") for seed in self.seeds
        ]
        self.trials += added
        return added

    def add_probes(self, arm: Arm, rates: tuple[float, ...]) -> None:
        """Plan short trials of an arm at multiples of its learning rate."""
        stem = f"{self.arms.index(arm):02d}-{slug(arm.name)}"
        for rate in rates:
            run = f"runs/{stem}-rate{rate:g}"
            self.probes.append(Trial(arm=arm.name, seed=self.seeds[0], run=run, rate=rate))

    def config(self, trial: Trial) -> Config:
        """The config that a trial trains."""
        config = self.arm_config(self.arm(trial.arm)).override({"train.seed": trial.seed})
        return config if trial.rate is None else probe(config, trial.rate)

    def arm_config(self, arm: Arm) -> Config:
        """The config of an arm, as it was when the arm was planned."""
        if arm.config is not None:
            return Config.from_dict(arm.config)
        return arm_config(self.recipe, self.overrides, arm.changes)

    @property
    def total_seconds(self) -> float:
        """The estimate of all trials together; those it has none for are left out."""
        seconds = [self.seconds(trial) or 0.0 for trial in self.all]
        return sum(seconds) * self.size / len(seconds)

    def seconds(self, trial: Trial) -> float | None:
        """The estimate of a trial's time, or None where none could be made."""
        seconds = self.arm(trial.arm).seconds
        return seconds if seconds is None or trial.rate is None else seconds * PROBE_SHARE


def arm_config(base: str, overrides: dict[str, Any], changes: dict[str, Any]) -> Config:
    """The config of an arm; among its changes, `recipe` replaces the recipe itself.

    What an arm of another kind of model does not have is left out: see `left_out`.
    """
    fields = {**overrides, **changes}
    for path in left_out(base, overrides, changes):
        del fields[path]
    return recipe(fields.pop("recipe", base)).override(fields)


def left_out(base: str, overrides: dict[str, Any], changes: dict[str, Any]) -> list[str]:
    """Fields that hold for every arm, but which an arm's kind of model does not have.

    The baseline's kind has all of them, or they are mistakes.
    """
    fields = {**overrides, **changes}
    start, before = recipe(fields.get("recipe", base)), recipe(overrides.get("recipe", base))
    kind = fields.get("model.kind", start.model.kind)
    if kind == overrides.get("model.kind", before.model.kind) or kind not in MODELS:
        return []
    names = hints(MODELS[kind])
    return [
        path
        for path in overrides
        if path.startswith("model.")
        and path not in changes
        and path.removeprefix("model.") not in names
    ]


def probe(config: Config, rate: float) -> Config:
    """A config at `rate` times its learning rates, all its durations cut to a tenth."""
    optim, train = config.optim, config.train
    epochs = max(1, round(train.epochs * PROBE_SHARE))
    small = min(round(train.small_epochs * PROBE_SHARE), epochs - 1)
    return config.override(
        {
            "optim.lr": optim.lr * rate,
            "optim.muon_lr": optim.muon_lr * rate,
            "optim.warmup_epochs": optim.warmup_epochs * PROBE_SHARE,
            "optim.hold_epochs": optim.hold_epochs * PROBE_SHARE,
            "optim.step_epochs": [epoch * PROBE_SHARE for epoch in optim.step_epochs],
            "train.epochs": epochs,
            "train.small_epochs": small,
            "train.small_size": train.small_size if small else None,
        }
    )


def slug(name: str) -> str:
    """A name as part of a folder's name."""
    kept = "".join(letter if letter.isalnum() or letter in "._=+-" else "-" for letter in name)
    return kept[:80].strip("-.")


def written(value: Any) -> str:
    """A JSON value of a field as one would type it."""
    return text(tuple(value) if isinstance(value, list) else value)
