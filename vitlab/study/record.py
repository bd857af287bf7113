"""A study folder, read: its plan together with the runs of its trials.

Accuracy is that of the validation images at the last step; nothing here opens the test split.
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vitlab.config import fields_of
from vitlab.fields import text
from vitlab.models.cost import training_macs
from vitlab.records import Evaluation, FinalNumbers, MetricsLine
from vitlab.run import Run
from vitlab.stats import Sample
from vitlab.study.define import written
from vitlab.study.plan import Arm, Plan, Trial, status, validation

PENDING = ("planned", "interrupted")
"""What a trial is before its end; every other status but `finished` is a failure."""

SPIKE, BEFORE = 1.2, 5
"""A loss spike is a line of training loss above 1.2 times the median of the five before it."""

TRAINS = 1.3
"""A learning rate trains if its run finishes above 1.3 times the accuracy of chance."""


@dataclass(frozen=True)
class Outcome:
    """How far a trial came, and its run where there is one."""

    trial: Trial
    status: str
    reason: str
    run: Run | None

    @classmethod
    def read(cls, folder: Path, trial: Trial) -> "Outcome":
        """Read a trial of a study; a run that stopped before its first step is none."""
        path = folder / trial.run
        run = Run(path) if Run.exists(path) and Run(path).has_provenance else None
        return cls(trial, *status(folder, trial), run)

    @cached_property
    def finished(self) -> FinalNumbers | None:
        """Final numbers; None for a trial without a result."""
        return self.run.finished if self.run else None

    @cached_property
    def metrics(self) -> list[MetricsLine]:
        """Lines of the run's metrics; none where it never began."""
        return self.run.metrics if self.run else []

    @property
    def numbers(self) -> FinalNumbers:
        """Final numbers of a finished trial."""
        assert self.finished
        return self.finished

    @cached_property
    def validation(self) -> Evaluation:
        """The validation of a finished trial at its last step."""
        assert self.run
        return validation(self.run)

    @property
    def accuracy(self) -> float:
        """Validation accuracy at the last step of a finished trial."""
        return self.validation["accuracy"]

    @property
    def train_images(self) -> int:
        """Training images that its run began with."""
        assert self.run
        return self.run.provenance["data"]["train_images"]

    @property
    def images_seen(self) -> float:
        """Images that a finished training took in, repetitions included."""
        return self.metrics[-1]["epoch"] * self.train_images

    @property
    def training_macs(self) -> float:
        """Multiply-adds of a finished training, forward and backward."""
        assert self.run
        return training_macs(self.run.config, self.metrics[-1]["epoch"], self.train_images)

    @property
    def trains(self) -> bool:
        """Whether it finished clearly above chance."""
        if self.run is None or not self.finished:
            return False
        return self.accuracy > TRAINS / (self.run.config.data.classes or 1)

    @property
    def gradient(self) -> float | None:
        """Largest gradient norm of the metrics."""
        norms = (line["grad_norm"] for line in self.metrics if line["split"] == "train")
        return max(norms, default=None)

    @property
    def spikes(self) -> int:
        """Number of loss spikes in the metrics."""
        return count_spikes([one["loss"] for one in self.metrics if one["split"] == "train"])


def count_spikes(losses: Sequence[float]) -> int:
    """How often a series of losses leaps above what came before; see SPIKE."""
    high = [
        losses[k] > SPIKE * float(np.median(losses[k - BEFORE : k]))
        for k in range(BEFORE, len(losses))
    ]
    return sum(now and not before for before, now in zip([False, *high], high, strict=False))


@dataclass(frozen=True)
class ArmResult:
    """An arm and the outcomes of its trials."""

    arm: Arm
    outcomes: tuple[Outcome, ...]
    probes: tuple[Outcome, ...]

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.arm.name

    @property
    def finished(self) -> list[Outcome]:
        """Outcomes with a result."""
        return [outcome for outcome in self.outcomes if outcome.finished]

    @cached_property
    def sample(self) -> Sample:
        """Accuracies by seed, and how many seeds have none."""
        pending = sum(outcome.status in PENDING for outcome in self.outcomes)
        values = {outcome.trial.seed: outcome.accuracy for outcome in self.finished}
        return Sample(values, len(self.outcomes) - len(values) - pending, pending)

    @property
    def complete(self) -> bool:
        """Whether every planned seed has a result."""
        return len(self.sample) == self.sample.planned

    def typical(self, number: Callable[[Outcome], float]) -> float | None:
        """Median over finished trials of a number of theirs; None if there are none."""
        values = [number(outcome) for outcome in self.finished]
        return float(np.median(values)) if values else None

    @cached_property
    def run(self) -> Run | None:
        """A run that stands for the arm's config: a finished one where there is one."""
        return next((one.run for one in (*self.finished, *self.outcomes) if one.run), None)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """Fields of its config; empty before its first run."""
        return fields_of(self.run.config) if self.run else {}

    @property
    def rates(self) -> dict[float, bool]:
        """Learning rates that were probed, and whether each of them trains."""
        ended = [one for one in self.probes if one.run and one.status not in PENDING]
        return {one.run.config.optim.lr: one.trains for one in ended if one.run}

    @cached_property
    def answers(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Which seed is right about which validation image (seeds, images); which images (images,).

        None unless every finished seed has stored its predictions of the same images.
        """
        right, indices = [], []
        for outcome in self.finished:
            assert outcome.run
            file = outcome.run.predictions("validation")
            if not file.is_file():
                return None
            with np.load(file, allow_pickle=False) as arrays:
                right.append(arrays["logits"].argmax(axis=1) == arrays["labels"])
                indices.append(arrays["indices"])
        if not right or any(not np.array_equal(one, indices[0]) for one in indices):
            return None
        return np.stack(right), indices[0]


class StudyRecord:
    """A study folder, read; reading never writes.

    Args:
        folder: the study's folder; RunError if it holds no plan.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.plan = Plan.load(folder)

        def of(arm: Arm, trials: list[Trial]) -> tuple[Outcome, ...]:
            return tuple(Outcome.read(folder, trial) for trial in trials if trial.arm == arm.name)

        self.arms = [
            ArmResult(arm, of(arm, self.plan.trials), of(arm, self.plan.probes))
            for arm in self.plan.arms
        ]

    @property
    def baseline(self) -> ArmResult | None:
        """What other arms are compared with."""
        return next((arm for arm in self.arms if arm.arm.baseline), None)

    def on(self, axis: str) -> list[ArmResult]:
        """Arms of an axis, the baseline among them, by number, or in the order of its words."""
        alone = self.plan.design == "one-factor"
        own = [one for one in self.arms if one.arm.baseline or not alone or one.arm.axis == axis]
        try:
            return sorted(own, key=lambda one: float(self.word(one, axis)))
        except ValueError:
            words = [written(word) for word in self.plan.axes.get(axis, ())]
            order = {word: place for place, word in enumerate(words)}
            return sorted(own, key=lambda one: order.get(self.word(one, axis), len(words)))

    def word(self, one: ArmResult, axis: str) -> str:
        """How an arm is called on an axis; the baseline by the word that no other arm has."""
        words = self._baseline_words if one.arm.baseline else self._words(one.name)
        return words.get(axis) or text(one.fields.get(axis, one.name))

    def _words(self, name: str) -> dict[str, str]:
        """The words that an arm's name is made of, by axis; a word may hold a comma."""
        starts = "|".join(map(re.escape, self.plan.axes))
        parts = re.split(f", (?=(?:{starts})=)", name)
        return dict(part.split("=", 1) for part in parts if "=" in part)

    @cached_property
    def _baseline_words(self) -> dict[str, str]:
        """The words that make up the baseline, which is planned under none of them."""
        taken = [self._words(one.name) for one in self.arms]
        taken += [self._words(one["name"]) for one in self.plan.refused]
        axes = [[(axis, written(word)) for word in words] for axis, words in self.plan.axes.items()]
        if self.plan.design == "search":
            return {}
        if self.plan.design == "grid":
            free = [dict(words) for words in itertools.product(*axes) if dict(words) not in taken]
            return free[0] if len(free) == 1 else {}
        free = [[word for word in words if dict([word]) not in taken] for words in axes]
        return dict(words[0] for words in free if len(words) == 1)

    @cached_property
    def noise(self) -> tuple[float, int]:
        """Standard deviation over seeds within an arm, pooled over arms, and its degrees of
        freedom; NaN for single seeds.
        """
        samples = [one.sample for one in self.arms if len(one.sample) > 1]
        freedom = sum(len(sample) - 1 for sample in samples)
        squares = sum((len(sample) - 1) * sample.std**2 for sample in samples)
        return (squares / freedom) ** 0.5 if freedom else math.nan, freedom
