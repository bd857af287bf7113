"""A study folder becomes what it says: numbers, tables, pictures and sentences.

    read        study.json, trials/*.json and the run folders
    written     summary.json  summary.md  arms.csv  points.csv  figures/

A pure function of what is read: written twice, the bytes are the same, and all that is written
may be deleted. Accuracy is that of the validation images at the last step; nothing here opens the
test split.
"""

import itertools
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vitlab import stats
from vitlab.compare.comparison import (
    Group,
    compare_groups,
    json_values,
    numbers,
    unequal,
    within,
)
from vitlab.compare.facts import RunFacts
from vitlab.config import fields_of
from vitlab.errors import RunError
from vitlab.fields import text
from vitlab.figures import study as figures
from vitlab.figures.style import numbers as write_csv
from vitlab.files import write_json, write_text
from vitlab.records import Evaluation
from vitlab.run import SUMMARY, Run, read_failure
from vitlab.stats import Sample
from vitlab.study import page, scaling
from vitlab.study.plan import ALL_PAIRS, Arm, Plan, Trial, written

SCHEMA = 1
"""Number of the summary.json layout."""

PENDING = ("planned", "interrupted")
"""What a trial is before its end; every other status but `finished` is a failure."""

TRAINS = 1.3
"""A learning rate trains if its run finishes above 1.3 times the accuracy of chance."""


def status(folder: Path, trial: Trial) -> tuple[str, str]:
    """The Status of a trial, and why it has no result if it ended without one."""
    if Run.is_finished(folder / trial.run):
        return "finished", ""
    if failure := read_failure(folder, trial.name):
        return failure["status"], failure["reason"]
    return ("interrupted" if (folder / trial.run).exists() else "planned"), ""


def accuracy(folder: Path, trial: Trial) -> float | None:
    """Validation accuracy at the last step of a finished trial, else None."""
    if status(folder, trial)[0] != "finished":
        return None
    return validation(Run(folder / trial.run))["accuracy"]


def validation(run: Run) -> Evaluation:
    """The validation of a finished run at its last step; RunError where it has none."""
    found = run.final_numbers
    if "validation" not in found:
        raise RunError(
            f"{run.name} was not validated, and a study compares by validation images: set "
            "data.validation_fraction above 0"
        )
    return found["validation"]


NUMBERS = (
    "accuracy", "loss", "train_accuracy", "train_images", "images_seen", "parameters", "macs",
    "training_macs", "images_per_second", "wall_seconds", "peak_memory_bytes",
)  # fmt: skip
"""Numbers of a finished trial."""


@dataclass(frozen=True)
class TrialResult:
    """How far a trial came; `facts` is None until its run has taken its first step."""

    trial: Trial
    status: str
    reason: str
    facts: RunFacts | None

    @classmethod
    def read(cls, folder: Path, trial: Trial) -> "TrialResult":
        """Read a trial of a study."""
        path = folder / trial.run
        begun = Run.exists(path) and Run(path).has_provenance
        facts = RunFacts(Run(path), "validation") if begun else None
        return cls(trial, *status(folder, trial), facts)

    @property
    def finished(self) -> bool:
        """Whether it has a result."""
        return self.facts is not None and self.facts.finished is not None

    def fact(self, name: str) -> Any:
        """A fact of its run; None where it never began."""
        return self.facts and self.facts[name]

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """What a finished trial reached and took, in the order of NUMBERS."""
        assert self.facts
        facts, measured = self.facts, validation(self.facts.run)
        return {
            "accuracy": measured["accuracy"],
            "loss": measured["loss"],
            "train_accuracy": facts["train_accuracy"],
            "train_images": facts["train_images"],
            "images_seen": facts["images_seen"],
            "parameters": facts["parameters"],
            "macs": facts["macs"],
            "training_macs": facts.training_macs,
            "images_per_second": facts["images_per_second"],
            "wall_seconds": facts["training_seconds"],
            "peak_memory_bytes": facts["peak_memory_bytes"],
        }

    @cached_property
    def accuracy(self) -> float:
        """Validation accuracy at the last step of a finished trial."""
        assert self.facts
        return validation(self.facts.run)["accuracy"]

    @property
    def trains(self) -> bool:
        """Whether it finished clearly above chance."""
        if self.facts is None or not self.finished:
            return False
        return self.accuracy > TRAINS / (self.facts.run.config.data.classes or 1)


@dataclass(frozen=True)
class ArmResult:
    """An arm, how it is called, and the results of its trials."""

    arm: Arm
    name: str
    trials: tuple[TrialResult, ...]
    probes: tuple[TrialResult, ...]

    @cached_property
    def finished(self) -> list[TrialResult]:
        """Trials with a result."""
        return [trial for trial in self.trials if trial.finished]

    @cached_property
    def sample(self) -> Sample:
        """Accuracies by seed, and how many seeds have none."""
        pending = sum(trial.status in PENDING for trial in self.trials)
        values = {one.trial.seed: one.accuracy for one in self.finished}
        return Sample(values, len(self.trials) - len(values) - pending, pending)

    @cached_property
    def group(self) -> Group:
        """Its runs as a side of a comparison."""
        begun = (trial.facts for trial in (*self.finished, *self.trials) if trial.facts)
        return Group(
            self.name,
            [trial.facts for trial in self.finished if trial.facts],
            self.sample,
            next(begun, None),
            frozenset(self.arm.changes),
        )

    @property
    def complete(self) -> bool:
        """Whether every planned seed has a result."""
        return len(self.sample) == self.sample.planned

    def median(self, name: str) -> float | None:
        """Median over finished trials of one of NUMBERS; None if there are none."""
        found = (trial.numbers[name] for trial in self.finished)
        values = [value for value in found if value is not None]
        return float(np.median(values)) if values else None

    @cached_property
    def fields(self) -> dict[str, Any]:
        """Fields of its config; empty before its first run."""
        known = self.group.known
        return fields_of(known[0].run.config) if known else {}

    @property
    def rates(self) -> dict[float, bool]:
        """Learning rates that were probed, and whether each of them trains."""
        ended = [one for one in self.probes if one.status not in PENDING]
        return {one.facts.run.config.optim.lr: one.trains for one in ended if one.facts}


class StudyRecord:
    """A study folder, read; reading never writes.

    Args:
        folder: the study's folder; RunError if it holds no plan.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.plan = Plan.load(folder)

        def of(arm: Arm, trials: list[Trial]) -> tuple[TrialResult, ...]:
            return tuple(TrialResult.read(folder, one) for one in trials if one.arm == arm.name)

        self.arms = [
            ArmResult(
                arm,
                self._baseline_name if arm.baseline else arm.name,
                of(arm, self.plan.trials),
                of(arm, self.plan.probes),
            )
            for arm in self.plan.arms
        ]

    @property
    def trials(self) -> list[TrialResult]:
        """The trials of all arms."""
        return [trial for one in self.arms for trial in one.trials]

    @property
    def baseline(self) -> ArmResult | None:
        """What other arms are compared with."""
        return next((arm for arm in self.arms if arm.arm.baseline), None)

    def on(self, axis: str) -> list[ArmResult]:
        """Arms of an axis, the baseline among them, by number, or in the order of its values."""
        alone = self.plan.design == "one-factor"
        own = [one for one in self.arms if one.arm.baseline or not alone or one.arm.axis == axis]
        try:
            return sorted(own, key=lambda one: float(self.value(one, axis)))
        except ValueError:
            values = [written(value) for value in self.plan.axes.get(axis, ())]
            order = {value: place for place, value in enumerate(values)}
            return sorted(own, key=lambda one: order.get(self.value(one, axis), len(values)))

    def value(self, one: ArmResult, axis: str) -> str:
        """The value of an arm on an axis; of the baseline the one that no other arm has."""
        values = self._baseline_values if one.arm.baseline else self._values(one.name)
        return values.get(axis) or text(one.fields.get(axis, one.name))

    def _values(self, name: str) -> dict[str, str]:
        """The values that an arm's name is made of, by axis; a value may hold a comma."""
        starts = "|".join(map(re.escape, self.plan.axes))
        parts = re.split(f", (?=(?:{starts})=)", name)
        return dict(part.split("=", 1) for part in parts if "=" in part)

    @cached_property
    def _baseline_values(self) -> dict[str, str]:
        """The values that make up the baseline, which is planned under none of them."""
        plan = self.plan
        taken = [self._values(arm.name) for arm in plan.arms]
        taken += [self._values(one["name"]) for one in plan.refused]
        axes = [[(axis, written(value)) for value in values] for axis, values in plan.axes.items()]
        if plan.design == "search":
            return {}
        if plan.design == "grid":
            free = [
                dict(chosen) for chosen in itertools.product(*axes) if dict(chosen) not in taken
            ]
            return free[0] if len(free) == 1 else {}
        free = [[pair for pair in values if dict([pair]) not in taken] for values in axes]
        return dict(values[0] for values in free if len(values) == 1)

    @property
    def _baseline_name(self) -> str:
        """`model.patch_size=4 (baseline)` where one value sets it apart, or all of a grid do."""
        axes, known = list(self.plan.axes), dict(self._baseline_values)
        baseline = next(arm for arm in self.plan.arms if arm.baseline)
        if len(axes) == 1 and axes[0] not in known and baseline.config:
            value = fields_of(self.plan.arm_config(baseline)).get(axes[0])
            known = {} if value is None else {axes[0]: text(value)}
        if len(known) < len(axes) or not axes or (len(axes) > 1 and self.plan.design != "grid"):
            return baseline.name
        return f"{', '.join(f'{axis}={value}' for axis, value in known.items())} (baseline)"

    @cached_property
    def noise(self) -> tuple[float, int]:
        """Standard deviation over seeds within an arm, pooled over arms, and its degrees of
        freedom; NaN for single seeds.
        """
        samples = [one.sample for one in self.arms if len(one.sample) > 1]
        freedom = sum(len(sample) - 1 for sample in samples)
        squares = sum((len(sample) - 1) * sample.std**2 for sample in samples)
        return (squares / freedom) ** 0.5 if freedom else math.nan, freedom


def write_summary(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Write everything that a study says, of finished trials and of those that are not.

    Returns:
        `summarize`, which is also written as summary.json.

    Raises:
        RunError: no study, or a run of it that is damaged.
    """
    folder = Path(folder)
    record = StudyRecord(folder)
    summary = summarize(record)
    draw(record, summary, folder / "figures")
    write_csv(folder / "arms", page.ARM_COLUMNS, page.arm_rows(summary))
    write_csv(folder / "points", POINT_COLUMNS, point_rows(record))
    write_text(folder / "summary.md", page.markdown(summary))
    write_json(folder / SUMMARY, summary)
    return summary


def best_arms(record: StudyRecord) -> dict[str, dict[str, Any]]:
    """The changes of the best arm of each axis, by mean validation accuracy over seeds.

    An axis whose best is the baseline is left out, and so is an arm that lost a seed. Of a grid
    or a search, whose arms vary all axes together, the best arm stands under its own name. Of
    rivals the baseline is an arm of the first axis. The best of several is overestimated: only
    new seeds tell how good it is.
    """
    plan, baseline = record.plan, record.baseline
    if not plan.rivals and (baseline is None or not baseline.complete):
        raise RunError(f"{record.folder}: the baseline has to finish before a best arm is chosen")
    choices = {"": record.arms}
    if plan.design == "one-factor":
        choices = {axis: record.on(axis) for axis in plan.axes}
    found = {}
    for place, (axis, arms) in enumerate(choices.items()):
        own = [one for one in arms if one.complete and not (plan.rivals and place and
               one.arm.baseline)]  # fmt: skip
        if not own:
            raise RunError(f"{record.folder}: no arm of {axis} has all its seeds")
        best = max(own, key=lambda one: (one.sample.mean, one.arm.baseline))
        if plan.rivals or not best.arm.baseline:
            found[axis or best.name] = best.arm.changes
    return found


def summarize(record: StudyRecord) -> dict[str, Any]:
    """All numbers of a study as JSON values; fractions from 0 to 1, None for what is unknown."""
    plan, trials = record.plan, record.trials
    compared = comparisons(record)
    return json_values(
        {
            "schema": SCHEMA,
            "name": plan.name,
            "question": plan.question,
            "recipe": plan.recipe,
            "overrides": plan.overrides,
            "design": plan.design,
            "seeds": plan.seeds,
            "family": plan.family,
            "exploratory": plan.exploratory,
            "trials": {
                "planned": len(trials),
                "finished": sum(trial.status == "finished" for trial in trials),
                "pending": sum(trial.status in PENDING for trial in trials),
            },
            "tested": sum("test" in trial.facts.results for trial in trials if trial.facts),
            "validation_images": validation_images(record),
            "noise": noise(record, 1 if plan.exploratory else max(1, len(compared))),
            "arms": [arm_numbers(one, record) for one in record.arms],
            "comparisons": compared,
            "ranking": ranking(record),
            "refused": plan.refused,
            "scaling": scaling.summarize(by_images(record)),
            "provenance": provenance(record),
        }
    )


def comparisons(record: StudyRecord) -> list[Any]:
    """The comparisons that the study declared before it ran."""
    arms, baseline, plan = record.arms, record.baseline, record.plan
    pairs: list[tuple[ArmResult, ArmResult]] = []
    if plan.family == ALL_PAIRS:
        pairs = [(later, earlier) for earlier, later in itertools.combinations(arms, 2)]
    elif baseline:
        pairs = [(one, baseline) for one in arms if one is not baseline]
    return compare_groups(
        [(one.group, other.group) for one, other in pairs],
        called="arm",
        margin=plan.margin,
        exploratory=plan.exploratory,
    )


def noise(record: StudyRecord, size: int) -> dict[str, Any]:
    """How far runs lie apart that differ in their seed alone, and what can be seen through that."""
    (std, freedom), seeds = record.noise, len(record.plan.seeds)
    known = not math.isnan(std)
    return {
        "std": std,
        "std_interval": within(stats.std_interval(std, freedom), 0.5) if known else None,
        "comparisons": size,
        "detectable": stats.detectable(seeds, std, size) if known and seeds > 1 else None,
        "seeds_for_half_a_point": stats.seeds_needed(0.005, std, size) if known else None,
    }


def provenance(record: StudyRecord) -> dict[str, list[Any]]:
    """Where the runs come from: name -> every different value, which should be one."""
    names = {
        "device": "device", "CPU threads": "threads", "precision": "precision",
        "bit-reproducible": "bit_reproducible", "vitlab": "vitlab", "commit": "commit",
        "torch": "torch", "Python": "python", "data": "data_fingerprint",
        "validation split": "split_sha256",
    }  # fmt: skip
    begun = [trial for trial in record.trials if trial.facts]
    found = {name: [trial.fact(fact) for trial in begun] for name, fact in names.items()}
    exact = {True: "yes", False: "no"}
    found["bit-reproducible"] = [exact.get(value) for value in found["bit-reproducible"]]
    return {name: list(dict.fromkeys(values)) for name, values in found.items()}


def validation_images(record: StudyRecord) -> int | None:
    """Number of images that accuracies are measured on."""
    return next((trial.fact("images") for trial in record.trials if trial.facts), None)


def arm_numbers(one: ArmResult, record: StudyRecord) -> dict[str, Any]:
    """Everything about an arm that is not a comparison."""
    sample, begun = one.sample, [trial.facts for trial in one.trials if trial.facts]
    gradients = [facts.largest_gradient for facts in begun]
    cost = {name: one.median(name) for name in page.COSTS}
    cost["parameters"] = cost["parameters"] or one.arm.parameters
    cost["macs"] = cost["macs"] or one.arm.macs
    return {
        "name": one.name,
        "axis": one.arm.axis,
        "baseline": one.arm.baseline,
        "changes": one.arm.changes,
        "explanation": one.arm.explanation,
        "planned": sample.planned,
        "n": len(sample),
        "pending": sample.pending,
        "failures": [
            {"seed": x.trial.seed, "status": x.status, "reason": x.reason, "run": x.trial.run}
            for x in one.trials
            if not x.finished and x.status not in PENDING
        ],
        "accuracy": numbers(sample),
        "unequal": unequal(one.group, record.baseline.group) if record.baseline else [],
        "cost": cost,
        "stability": {
            "largest_gradient_norm": max(filter(None, gradients), default=None),
            "loss_spikes": sum(facts.loss_spikes for facts in begun),
            "rates": {f"{rate:g}": trains for rate, trains in sorted(one.rates.items())},
            "largest_rate": max((rate for rate, good in one.rates.items() if good), default=None),
        },
    }


def ranking(record: StudyRecord) -> list[dict[str, Any]]:
    """Arms by mean accuracy, highest first; a single seed has an interval over images."""
    images = validation_images(record)
    rows = []
    for one in record.arms:
        mean, interval, over = one.sample.mean, within(one.sample.interval), "seeds"
        if len(one.sample) == 1 and images:
            interval, over = stats.wilson(round(mean * images), images), "images"
        if len(one.sample):
            rows.append({"arm": one.name, "mean": mean, "interval": interval, "over": over})
    return sorted(rows, key=lambda row: -row["mean"])


def by_images(record: StudyRecord) -> dict[str, scaling.Points]:
    """Accuracies by number of training images, of arms that differ in nothing else."""
    groups: dict[str, list[ArmResult]] = {}
    for one in record.arms:
        if one.finished:
            rest = {name: value for name, value in one.fields.items()
                    if name not in (scaling.IMAGES, "train.seed")}  # fmt: skip
            groups.setdefault(repr(rest), []).append(one)
    series: dict[str, scaling.Points] = {}
    for arms in groups.values():
        points: scaling.Points = {}
        for one in arms:
            images = one.finished[0].fact("train_images")
            points.setdefault(images, []).extend(one.sample.values.values())
        axes = [axis for axis in record.plan.axes if axis != scaling.IMAGES]
        names = [record.value(arms[0], axis) for axis in axes if record.plan.design == "grid"]
        series[", ".join(names) or record.plan.recipe] = dict(sorted(points.items()))
    return series


POINT_COLUMNS = (
    "arm", "axis", "seed", "status", "reason", *NUMBERS, "largest_gradient_norm", "loss_spikes",
    "config_sha256", "run",
)  # fmt: skip


def point_rows(record: StudyRecord) -> Iterator[list[Any]]:
    """A row for every trial of the study, in the order of POINT_COLUMNS."""
    for one in record.arms:
        for x in one.trials:
            yield [
                one.name, one.arm.axis, x.trial.seed, x.status, x.reason,
                *(x.numbers[name] if x.finished else None for name in NUMBERS),
                x.facts and x.facts.largest_gradient, x.facts.loss_spikes if x.facts else 0,
                x.fact("config_sha256"), x.trial.run,
            ]  # fmt: skip


def draw(record: StudyRecord, summary: dict[str, Any], folder: Path) -> None:
    """Draw every picture of a study from what was read."""
    name, arms = record.plan.name, record.arms
    points = {
        one.name: [(x.numbers["training_macs"], x.accuracy) for x in one.finished] for one in arms
    }
    figures.compute(points, folder / "compute", title=name)
    panels = {
        axis: [
            {
                "word": record.value(one, axis),
                "baseline": one.arm.baseline,
                "seeds": list(one.sample.values.values()),
                "mean": one.sample.mean,
                "interval": within(one.sample.interval),
                "failed": one.sample.failed,
            }
            for one in record.on(axis)
        ]
        for axis in record.plan.axes or ["seed"]
    }
    figures.axes(panels, folder / "axes", title=name)
    lines = {
        one.name: [(x.facts.metrics, x.finished) for x in one.trials if x.facts and x.facts.metrics]
        for one in arms
    }
    figures.curves(lines, folder / "curves", title=name)
    if summary["scaling"]:
        figures.scaling(summary["scaling"], folder / "scaling", title=name)
