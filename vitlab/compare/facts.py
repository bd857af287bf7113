"""One run, as facts: each with the file and the field of the run directory it was read from.

What was never measured is None, and so is what was measured of another checkpoint than the last.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np

from vitlab.metrics import epochs_to_accuracy, log_softmax
from vitlab.records import FinalNumbers, MetricsLine, Provenance, Results, Split, SplitResult
from vitlab.run import CONFIG, FINISHED, METRICS, PROVENANCE, RESULTS, TIMING, Run
from vitlab.stats import wilson

SPIKE, BEFORE = 1.2, 5
"""A loss spike is a line of training loss above 1.2 times the median of the five before it."""


class Fact(NamedTuple):
    """A value, and where it was read: a file of the run directory and a field of it.

    What is computed from several fields names them all.
    """

    value: Any
    file: str
    field: str


Facts = dict[str, Fact | None]
"""By name; None for what was never measured."""

SOURCES: dict[str, dict[str, str]] = {
    CONFIG: {
        "recipe": "recipe",
        "kind": "model.kind",
        "dataset": "data.dataset",
        "seed": "train.seed",
        "epochs": "train.epochs",
        "batch_size": "train.batch_size",
    },
    RESULTS: {
        "images": "{split}.images",
        "accuracy": "{split}.accuracy",
        "loss": "{split}.loss",
        "top3_accuracy": "{split}.top3_accuracy",
        "mean_auc": "{split}.mean_auc",
        "mean_f1": "{split}.mean_f1",
        "mean_confidence": "{split}.mean_confidence",
        "calibration_error": "{split}.calibration_error",
        "temperature": "{split}.temperature",
        "scaled_calibration_error": "{split}.scaled_calibration_error",
        "train_accuracy": "{split}.train_accuracy",
        "corrupted_accuracy": "{split}-robustness.mean_corrupted_accuracy",
        "robustness_images": "{split}-robustness.images",
        "test_openings": "{split}.test_openings",
        "cross_validated": "{split}.cross_validated",
        "split_sha256": "{split}.index_sha256",
        "checkpoint_sha256": "{split}.checkpoint_sha256",
    },
    FINISHED: {
        "accuracy": "{split}.accuracy",
        "loss": "{split}.loss",
        "train_accuracy": "train_clean.accuracy",
        "train_accuracy_images": "train_clean.images",
        "parameters": "parameters",
        "macs": "macs",
        "seconds_per_epoch": "seconds_per_epoch",
        "images_per_second": "images_per_second",
        "peak_memory_bytes": "peak_memory_bytes",
        "training_seconds": "clock.wall_seconds",
        "process_seconds": "clock.process_seconds",
    },
    TIMING: {
        "inference_ms": "inference_ms",
        "inference_device": "device",
        "inference_threads": "threads",
    },
    PROVENANCE: {
        "images": "data.{split}_images",
        "command": "command",
        "device": "device",
        "device_type": "device_type",
        "threads": "threads",
        "precision": "precision.value",
        "started": "started",
        "vitlab": "vitlab",
        "commit": "commit",
        "torch": "torch",
        "python": "python",
        "data_fingerprint": "data.fingerprint",
        "train_images": "data.train_images",
        "validation_images": "data.validation_images",
        "validation_seen": "data.validation_seen",
        "split_sha256": "data.split_sha256.{split}",
    },
}
"""Facts that are read as they are: file -> name -> field; the first file with a value counts."""

OF_LABELS: dict[str, dict[str, str]] = {
    RESULTS: {
        "mean_average_precision": "{split}.mean_average_precision",
        "mean_average_precision_interval": "{split}.mean_average_precision_interval",
        "micro_f1": "{split}.micro_f1",
        "exact_match": "{split}.exact_match",
    },
    FINISHED: {
        "mean_average_precision": "{split}.mean_average_precision",
        "train_mean_average_precision": "train_clean.mean_average_precision",
    },
}
"""Facts of a run whose images may have several labels, beside those of all."""


@dataclass(frozen=True)
class Answers:
    """A run's stored predictions on a split: classes, confidence and truth, each (N,)."""

    indices: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Which images are classified correctly, (N,)."""
        return self.predicted == self.labels


class RunFacts:
    """A run under a name, and what its files say of it, each of them read once.

    `run_facts["accuracy"]` is a value, None where it was never measured; `run_facts.facts` has all
    of them with their sources. Accuracies and calibration errors are fractions from 0 to 1, times
    are in seconds but for `inference_ms`, memory is in bytes. `epochs_to_accuracy` is that of
    `metrics`; `status` that of `Run`.

    Args:
        split: what the run is evaluated on; None is validation, or test where nothing was held out
            for validation.
        name: what the run is called beside others; default its folder's name.

    Raises:
        RunError: on reading, a file of the run that cannot be read.
    """

    def __init__(self, run: Run, split: Split | None = None, name: str | None = None):
        self.run = run
        self.name = run.name if name is None else name
        if split is None:
            held_out = run.config.data.validation_fraction or "validation" in self.results
            split = "validation" if held_out or "test" not in self.results else "test"
        self.split: Split = split

    def __getitem__(self, fact: str) -> Any:
        """The value of a fact, None where it is unknown."""
        found = self.facts[fact]
        return found.value if found else None

    @cached_property
    def provenance(self) -> Provenance | None:
        """Where the run comes from; None for one that stopped before its first step."""
        return self.run.provenance if self.run.has_provenance else None

    @cached_property
    def finished(self) -> FinalNumbers | None:
        """Final numbers, None while it is not finished."""
        return self.run.finished

    @cached_property
    def metrics(self) -> list[MetricsLine]:
        """The lines of its training."""
        return self.run.metrics

    @cached_property
    def results(self) -> Results:
        """Every evaluation of it."""
        return self.run.results

    @cached_property
    def result(self) -> SplitResult | None:
        """Its evaluation on the split; None where there is none of its last checkpoint."""
        found = self.results.get(self.split)
        return found if found and self._is_current(found) else None

    def _is_current(self, result: Mapping[str, Any]) -> bool:
        """A result of an earlier checkpoint than the last says nothing of the run as it ended."""
        return self.finished is None or result.get("step") in (None, self.finished["step"])

    @cached_property
    def answers(self) -> Answers | None:
        """Its stored answers on the split; None where there are none of its last checkpoint.

        Nor are there any where an image has several labels.
        """
        file = self.run.predictions(self.split)
        one_class = self.run.config.data.task == "multiclass"
        if self["checkpoint_sha256"] is None or not file.is_file() or not one_class:
            return None
        with np.load(file, allow_pickle=False) as arrays:
            logits = arrays["logits"]
            confidence = np.exp(log_softmax(logits).max(axis=1))
            return Answers(arrays["indices"], arrays["labels"], logits.argmax(axis=1), confidence)

    @property
    def largest_gradient(self) -> float | None:
        """Largest gradient norm of its training."""
        norms = (line["grad_norm"] for line in self.metrics if line["split"] == "train")
        return max(norms, default=None)

    @property
    def loss_spikes(self) -> int:
        """Number of loss spikes of its training."""
        return count_spikes([line["loss"] for line in self.metrics if line["split"] == "train"])

    @cached_property
    def facts(self) -> Facts:
        """Every fact by name; those that are computed name what they were computed from."""
        found: Facts = {}
        several = self.run.config.data.task == "multilabel"
        for file, fields in (*SOURCES.items(), *(OF_LABELS.items() if several else ())):
            for name, field in fields.items():
                found[name] = found.get(name) or self._read(file, field)
        epochs = Fact(self.metrics[-1]["epoch"], METRICS, "epoch") if self.metrics else None
        computed = {
            "status": Fact(self.run.status[0], FINISHED, "step" if self.finished else "(missing)"),
            "split": Fact(self.split, RESULTS, self.split),
            "accuracy_interval": self._read(RESULTS, "{split}.accuracy_interval")
            or _computed(_interval, found["accuracy"], found["images"]),
            "worst_class": self._worst_class("class"),
            "worst_class_accuracy": self._worst_class("accuracy"),
            "generalisation_gap": _computed(
                operator.sub, found["train_accuracy"], found["accuracy"]
            ),
            "epochs_to_accuracy": self._epochs_to_accuracy(),
            "clean_accuracy": self._condition("clean"),
            "fgsm_accuracy": self._condition("fgsm"),
            "pgd_accuracy": self._condition("pgd"),
            "epochs_done": epochs,
            "images_seen": _computed(_images_seen, epochs, found["train_images"]),
            "config_sha256": Fact(self.run.config.sha256, CONFIG, "(all)"),
            "bit_reproducible": self._bit_reproducible(),
        }
        return computed | found

    @cached_property
    def training_macs(self) -> float | None:
        """Multiply-adds of its training, where backward takes twice as many as forward.

        Each pass of SAM is counted, and a teacher is not. None where its parts are unknown.
        """
        config, macs = self.run.config, self["macs"]
        epochs, images = self["epochs_done"], self["train_images"]
        if not (macs and epochs and images):
            return None
        if not config.train.small_epochs:
            return (6 if config.optim.sam else 3) * epochs * images * macs
        # What small images cost only the model knows: the one case in which torch is loaded.
        from vitlab.models.cost import cost, training_macs

        return training_macs(config, epochs, images) * macs / cost(config).macs

    @cached_property
    def _files(self) -> dict[str, Mapping[str, Any]]:
        results = cast(dict[str, Any], self.results)
        current = {name: one for name, one in results.items() if self._is_current(one)}
        return {
            CONFIG: self.run.config.to_dict(),
            PROVENANCE: self.provenance or {},
            FINISHED: self.finished or {},
            RESULTS: current,
            TIMING: self.run.timing or {},
        }

    def _read(self, file: str, field: str) -> Fact | None:
        """A field of a file; None where it has no value."""
        field = field.format(split=self.split)
        value: Any = self._files[file]
        for part in field.split("."):
            value = cast(Any, value).get(part) if isinstance(value, dict) else None
        return None if value is None else Fact(value, file, field)

    def _epochs_to_accuracy(self) -> Fact | None:
        if not any("accuracy" in line for line in self.metrics):
            return None
        return Fact(epochs_to_accuracy(self.metrics), METRICS, "accuracy")

    def _worst_class(self, key: str) -> Fact | None:
        """A number of the class of least accuracy, or its name."""
        classes = self._read(RESULTS, "{split}.per_class")
        known = [one for one in classes.value if one.get("accuracy") is not None] if classes else []
        if not (classes and known):
            return None
        return classes._replace(value=min(known, key=lambda one: one["accuracy"])[key])

    def _condition(self, name: str) -> Fact | None:
        """Accuracy on images as they are, or under an attack."""
        conditions = self._read(RESULTS, "{split}-robustness.conditions")
        for one in conditions.value if conditions else ():
            if conditions and one["condition"] == name:
                return conditions._replace(value=one["accuracy"])
        return None

    def _bit_reproducible(self) -> Fact | None:
        """Whether the same command gives the same bits again."""
        alarms = self.finished["alarms"] if self.finished else ()
        if any("not bit-exact" in alarm for alarm in alarms):
            return Fact(False, FINISHED, "alarms")
        choice = self._read(PROVENANCE, "determinism.value")
        return choice and choice._replace(value=choice.value == "on")


def count_spikes(losses: Sequence[float]) -> int:
    """How often a series of losses leaps above what came before; see SPIKE."""
    high = [
        losses[k] > SPIKE * float(np.median(losses[k - BEFORE : k]))
        for k in range(BEFORE, len(losses))
    ]
    return sum(now and not before for before, now in zip([False, *high], high, strict=False))


def _computed(rule: Callable[..., Any], first: Fact | None, second: Fact | None) -> Fact | None:
    """A fact made of two others, which names the sources of both."""
    if first is None or second is None:
        return None
    field = f"{first.field}, {second.file} {second.field}"
    return Fact(rule(first.value, second.value), first.file, field)


def _images_seen(epochs: float, images: int) -> int:
    return round(epochs * images)


def _interval(accuracy: float, images: int) -> list[float]:
    return list(wilson(round(accuracy * images), images))
