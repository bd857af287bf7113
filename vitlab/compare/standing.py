"""One run, as facts: each with the file and the field of the run directory it was read from.

What was never measured is None, and so is what was measured of another checkpoint than the last.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from vitlab.metrics import epochs_to_accuracy
from vitlab.run import Run
from vitlab.stats import wilson

Split = str
"""validation or test."""


class Fact(NamedTuple):
    """A value, and where it was read: a file of the run directory and a field of it.

    What is computed from several fields names them all.
    """

    value: Any
    file: str
    field: str


SOURCES: dict[str, tuple[tuple[str, str], ...]] = {
    "recipe": (("config.json", "recipe"),),
    "kind": (("config.json", "model.kind"),),
    "dataset": (("config.json", "data.dataset"),),
    "seed": (("config.json", "train.seed"),),
    "epochs": (("config.json", "train.epochs"),),
    "batch_size": (("config.json", "train.batch_size"),),
    "images": (
        ("results.json", "{split}.images"),
        ("provenance.json", "data.{split}_images"),
    ),
    "accuracy": (
        ("results.json", "{split}.accuracy"),
        ("finished.json", "{split}.accuracy"),
    ),
    "loss": (
        ("results.json", "{split}.loss"),
        ("finished.json", "{split}.loss"),
    ),
    "top3_accuracy": (("results.json", "{split}.top3_accuracy"),),
    "mean_auc": (("results.json", "{split}.mean_auc"),),
    "mean_f1": (("results.json", "{split}.mean_f1"),),
    "mean_confidence": (("results.json", "{split}.mean_confidence"),),
    "calibration_error": (("results.json", "{split}.calibration_error"),),
    "scaled_calibration_error": (("results.json", "{split}.scaled_calibration_error"),),
    "train_accuracy": (
        ("finished.json", "train_clean.accuracy"),
        ("results.json", "{split}.train_accuracy"),
    ),
    "parameters": (("finished.json", "parameters"),),
    "macs": (("finished.json", "macs"),),
    "seconds_per_epoch": (("finished.json", "seconds_per_epoch"),),
    "images_per_second": (("finished.json", "images_per_second"),),
    "inference_ms": (("timing.json", "inference_ms"),),
    "inference_device": (("timing.json", "device"),),
    "inference_threads": (("timing.json", "threads"),),
    "peak_memory_bytes": (("finished.json", "peak_memory_bytes"),),
    "training_seconds": (("finished.json", "clock.wall_seconds"),),
    "process_seconds": (("finished.json", "clock.process_seconds"),),
    "corrupted_accuracy": (("results.json", "{split}-robustness.mean_corrupted_accuracy"),),
    "robustness_images": (("results.json", "{split}-robustness.images"),),
    "test_openings": (("results.json", "{split}.test_openings"),),
    "command": (("provenance.json", "command"),),
    "device": (("provenance.json", "device"),),
    "threads": (("provenance.json", "threads"),),
    "precision": (("provenance.json", "precision.value"),),
    "started": (("provenance.json", "started"),),
    "vitlab": (("provenance.json", "vitlab"),),
    "commit": (("provenance.json", "commit"),),
    "torch": (("provenance.json", "torch"),),
    "python": (("provenance.json", "python"),),
    "data_fingerprint": (("provenance.json", "data.fingerprint"),),
    "train_images": (("provenance.json", "data.train_images"),),
    "validation_seen": (("provenance.json", "data.validation_seen"),),
    "split_sha256": (
        ("results.json", "{split}.index_sha256"),
        ("provenance.json", "data.split_sha256.{split}"),
    ),
    "checkpoint_sha256": (("results.json", "{split}.checkpoint_sha256"),),
}
"""Facts that stand in a file as they are: where they are looked for, the first that is there."""


def standing(run: Run, split: Split | None = None) -> dict[str, Fact | None]:
    """What a run's files say of it: every name of SOURCES and DERIVED, None where not measured.

    Accuracies and calibration errors are fractions from 0 to 1, times are in seconds but for
    `inference_ms`, memory is in bytes. `epochs_to_accuracy` is that of `metrics`; `status` is
    finished, unfinished, or what a study wrote of a run that ended without a result.

    Args:
        split: what the run is judged on; None is validation, or test where nothing was held out
            for validation.

    Raises:
        RunError: a file of the run that cannot be read.
    """
    return _Reader(run, split).facts()


def fate(run: Run) -> tuple[str, str]:
    """How a run stands and why: finished, unfinished, or what its study wrote of its end."""
    if run.finished is not None:
        return "finished", ""
    written = run.path.resolve().parent.parent / "trials" / f"{run.name}.json"
    if written.is_file():
        tree = json.loads(written.read_text(encoding="utf-8"))
        return tree["status"], tree["reason"]
    return "unfinished", f"go on with `vitlab train --resume {run.path}`"


@dataclass(frozen=True)
class Entry:
    """A run in a comparison, under the name it has there; `entry["accuracy"]` is a value."""

    name: str
    run: Run
    facts: dict[str, Fact | None]

    def __getitem__(self, fact: str) -> Any:
        """The value of a fact, None where it is unknown."""
        found = self.facts[fact]
        return found.value if found else None


Found = dict[str, Fact | None]


class _Reader:
    """A run's files, read once."""

    def __init__(self, run: Run, split: Split | None):
        self.run = run
        self.finished = run.finished or {}
        self.lines = run.metrics
        results = run.results
        if split is None:
            held_out = run.config.data.validation_fraction or "validation" in results
            split = "validation" if held_out or "test" not in results else "test"
        self.split = split
        # A result of an earlier checkpoint than the last says nothing of the run as it ended.
        step = self.finished.get("step")
        self.files: dict[str, Any] = {
            "timing.json": json.loads(run.timing.read_text()) if run.timing.is_file() else {},
            "config.json": run.config.to_dict(),
            "provenance.json": run.provenance if run.provenance_file.is_file() else {},
            "finished.json": self.finished,
            "results.json": {
                name: result
                for name, result in results.items()
                if step is None or result.get("step", step) == step
            },
        }

    def read(self, *sources: tuple[str, str]) -> Fact | None:
        """The first of several fields that has a value."""
        for file, field in sources:
            field = field.format(split=self.split)
            value: Any = self.files[file]
            for part in field.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                return Fact(value, file, field)
        return None

    def facts(self) -> Found:
        """Every fact; those that are computed may use the others."""
        found = {name: self.read(*sources) for name, sources in SOURCES.items()}
        return {name: derive(self, found) for name, derive in DERIVED.items()} | found

    def status(self, _: Found) -> Fact:
        """How the run stands."""
        status, _reason = fate(self.run)
        return Fact(status, "finished.json", "step" if self.finished else "(missing)")

    def chosen_split(self, _: Found) -> Fact:
        """What the run is judged on."""
        return Fact(self.split, "results.json", self.split)

    def config_sha256(self, _: Found) -> Fact:
        """The name under which results of one config are found."""
        return Fact(self.run.config.sha256, "config.json", "(all)")

    def epochs_done(self, _: Found) -> Fact | None:
        """Epochs behind the last line of metrics."""
        return Fact(self.lines[-1]["epoch"], "metrics.jsonl", "epoch") if self.lines else None

    def images_seen(self, found: Found) -> Fact | None:
        """Images that training took in, repetitions included."""
        done, images = self.epochs_done(found), found["train_images"]
        return _computed(lambda epochs, each: round(epochs * each), done, images)

    def accuracy_interval(self, found: Found) -> Fact | None:
        """Wilson's interval, over images."""
        stored = self.read(("results.json", "{split}.accuracy_interval"))
        if stored:
            return stored
        return _computed(
            lambda accuracy, images: list(wilson(round(accuracy * images), images)),
            found["accuracy"],
            found["images"],
        )

    def generalisation_gap(self, found: Found) -> Fact | None:
        """Accuracy on clean training images less that on the split."""
        return _computed(
            lambda train, split: train - split, found["train_accuracy"], found["accuracy"]
        )

    def epochs_to_accuracy(self, _: Found) -> Fact | None:
        """When each threshold was first reached."""
        if not any("accuracy" in line for line in self.lines):
            return None
        return Fact(epochs_to_accuracy(self.lines), "metrics.jsonl", "accuracy")

    def worst_class(self, key: str) -> Fact | None:
        """A number of the class of least accuracy, or its name."""
        classes = self.read(("results.json", "{split}.per_class"))
        known = [one for one in classes.value if one["accuracy"] is not None] if classes else []
        if not (classes and known):
            return None
        return classes._replace(value=min(known, key=lambda one: one["accuracy"])[key])

    def condition(self, name: str) -> Fact | None:
        """Accuracy on images as they are, or under an attack."""
        conditions = self.read(("results.json", "{split}-robustness.conditions"))
        for one in conditions.value if conditions else ():
            if conditions and one["condition"] == name:
                return conditions._replace(value=one["accuracy"])
        return None

    def bit_reproducible(self, _: Found) -> Fact | None:
        """Whether the same command gives the same bits again."""
        word = self.read(("provenance.json", "determinism.value"))
        if any("not bit-exact" in alarm for alarm in self.finished.get("alarms", ())):
            return Fact(False, "finished.json", "alarms")
        return word and Fact(word.value == "on", word.file, word.field)


def _computed(rule: Callable[..., Any], first: Fact | None, second: Fact | None) -> Fact | None:
    """A fact made of two others, which names the sources of both."""
    if first is None or second is None:
        return None
    field = f"{first.field}, {second.file} {second.field}"
    return Fact(rule(first.value, second.value), first.file, field)


DERIVED: dict[str, Callable[[_Reader, Found], Fact | None]] = {
    "status": _Reader.status,
    "split": _Reader.chosen_split,
    "accuracy_interval": _Reader.accuracy_interval,
    "worst_class": lambda reader, _: reader.worst_class("class"),
    "worst_class_accuracy": lambda reader, _: reader.worst_class("accuracy"),
    "generalisation_gap": _Reader.generalisation_gap,
    "epochs_to_accuracy": _Reader.epochs_to_accuracy,
    "clean_accuracy": lambda reader, _: reader.condition("clean"),
    "fgsm_accuracy": lambda reader, _: reader.condition("fgsm"),
    "pgd_accuracy": lambda reader, _: reader.condition("pgd"),
    "epochs_done": _Reader.epochs_done,
    "images_seen": _Reader.images_seen,
    "config_sha256": _Reader.config_sha256,
    "bit_reproducible": _Reader.bit_reproducible,
}
"""Facts that are computed, and how."""
