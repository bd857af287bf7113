"""A study folder becomes what it says: numbers, tables, pictures and sentences.

    read        study.json, trials/*.json and the run folders
    written     summary.json  summary.md  arms.csv  points.csv  figures/

A pure function of what is read: written twice, the bytes are the same, and all that is written
may be deleted.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from vitlab import stats
from vitlab.errors import RunError
from vitlab.fields import text
from vitlab.figures import study as figures
from vitlab.figures.style import numbers as write_csv
from vitlab.files import write_json, write_text
from vitlab.run import SUMMARY
from vitlab.stats import Difference
from vitlab.study import page, scaling
from vitlab.study.define import ALL_PAIRS
from vitlab.study.record import PENDING, ArmResult, Outcome, StudyRecord

SCHEMA = 1
"""Number of the summary.json layout."""

UNSEEN = ("train.seed", "train.log_steps", "train.evaluate_epochs", "train.checkpoint_epochs")
"""Fields that may differ without making budgets unequal."""

TOLERANCE = 0.01
"""Relative difference of images seen, parameters or multiply-adds that counts as equal."""


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


def best_arms(folder: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """The changes of the best arm of each axis, by mean validation accuracy over seeds.

    An axis whose best is the baseline is left out, and so is an arm that lost a seed. Of a grid
    or a search, whose arms vary all axes together, the best arm stands under its own name. The
    best of several is flattered by luck: only new seeds tell how good it is.
    """
    record = StudyRecord(Path(folder))
    baseline = record.baseline
    if baseline is None or not baseline.complete:
        raise RunError(f"{folder}: the baseline has to finish before a best arm can be chosen")
    if record.plan.design == "one-factor":
        choices = {axis: record.on(axis) for axis in record.plan.axes}
    else:
        choices = {"": record.arms}
    found = {}
    for axis, arms in choices.items():
        complete = [one for one in arms if one.complete]
        best = max(complete, key=lambda one: (one.sample.mean, one.arm.baseline))
        if not best.arm.baseline:
            found[axis or best.name] = best.arm.changes
    return found


def summarize(record: StudyRecord) -> dict[str, Any]:
    """All numbers of a study as JSON values; fractions from 0 to 1, None for what is unknown."""
    plan = record.plan
    outcomes = [outcome for one in record.arms for outcome in one.outcomes]
    compared = comparisons(record)
    return _plain(
        {
            "schema": SCHEMA,
            "name": plan.name,
            "question": plan.question,
            "recipe": plan.recipe,
            "design": plan.design,
            "seeds": plan.seeds,
            "family": plan.family,
            "exploratory": plan.exploratory,
            "trials": {
                "planned": len(outcomes),
                "finished": sum(outcome.status == "finished" for outcome in outcomes),
                "pending": sum(outcome.status in PENDING for outcome in outcomes),
            },
            "validation_images": validation_images(record),
            "noise": noise(record, 1 if plan.exploratory else max(1, len(compared))),
            "arms": [arm_numbers(one, record) for one in record.arms],
            "comparisons": compared,
            "ranking": ranking(record),
            "refused": plan.refused,
            "scaling": scaling.summarize(record),
            "provenance": provenance(outcomes),
        }
    )


def noise(record: StudyRecord, size: int) -> dict[str, Any]:
    """How far runs lie apart that differ in their seed alone, and what can be seen through that."""
    (std, freedom), seeds = record.noise, len(record.plan.seeds)
    known = not math.isnan(std)
    return {
        "std": std,
        "std_interval": stats.std_interval(std, freedom) if known else None,
        "comparisons": size,
        "detectable": stats.detectable(seeds, std, size) if known and seeds > 1 else None,
        "seeds_for_half_a_point": stats.seeds_needed(0.005, std, size) if known else None,
    }


def provenance(outcomes: Iterable[Outcome]) -> dict[str, list[Any]]:
    """Where the runs come from: name -> every different value, which should be one."""
    origins = [outcome.run.provenance for outcome in outcomes if outcome.run]
    values = {
        "device": [origin["device"] for origin in origins],
        "CPU threads": [origin["threads"] for origin in origins],
        "precision": [origin["precision"]["value"] for origin in origins],
        "bit-reproducible": [origin["determinism"]["value"] for origin in origins],
        "vitlab": [origin["vitlab"] for origin in origins],
        "commit": [origin["commit"] for origin in origins],
        "torch": [origin["torch"] for origin in origins],
        "Python": [origin["python"] for origin in origins],
        "data": [origin["data"]["fingerprint"] for origin in origins],
        "validation split": [origin["data"]["split_sha256"]["validation"] for origin in origins],
    }
    return {name: list(dict.fromkeys(found)) for name, found in values.items()}


def validation_images(record: StudyRecord) -> int | None:
    """Number of images that accuracies are measured on."""
    run = next((one.run for one in record.arms if one.run), None)
    return run.provenance["data"]["validation_images"] if run else None


def arm_numbers(one: ArmResult, record: StudyRecord) -> dict[str, Any]:
    """Everything about an arm that is not a comparison."""
    sample = one.sample
    values = list(sample.values.values())
    gradients = [outcome.gradient for outcome in one.outcomes if outcome.gradient is not None]
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
            for x in one.outcomes
            if not x.finished and x.status not in PENDING
        ],
        "accuracy": {
            "mean": sample.mean,
            "std": sample.std,
            "interval": sample.interval,
            "min": min(values, default=None),
            "max": max(values, default=None),
            "seeds": {str(seed): value for seed, value in sorted(sample.values.items())},
        },
        "unequal": unequal(one, record.baseline) if record.baseline else [],
        "cost": {
            "parameters": one.typical(lambda x: x.numbers["parameters"]) or one.arm.parameters,
            "macs": one.typical(lambda x: x.numbers["macs"]) or one.arm.macs,
            "images_seen": one.typical(lambda x: x.images_seen),
            "training_macs": one.typical(lambda x: x.training_macs),
            "images_per_second": one.typical(lambda x: x.numbers["images_per_second"]),
            "wall_seconds": one.typical(lambda x: x.numbers["clock"]["wall_seconds"]),
            "peak_memory_bytes": one.typical(lambda x: x.numbers["peak_memory_bytes"]),
        },
        "stability": {
            "largest_gradient_norm": max(gradients, default=None),
            "loss_spikes": sum(outcome.spikes for outcome in one.outcomes),
            "rates": {f"{rate:g}": trains for rate, trains in sorted(one.rates.items())},
            "largest_rate": max((rate for rate, good in one.rates.items() if good), default=None),
        },
    }


def pairs(record: StudyRecord) -> Iterator[tuple[ArmResult, ArmResult]]:
    """The comparisons that the study declared before it ran."""
    if record.plan.family == ALL_PAIRS:
        yield from ((later, earlier) for earlier, later in combinations(record.arms, 2))
    elif record.baseline:
        yield from ((one, record.baseline) for one in record.arms if not one.arm.baseline)


def comparisons(record: StudyRecord) -> list[dict[str, Any]]:
    """Every declared comparison; exploratory ones have no p and no verdict."""
    found = [(one, other, Difference(one.sample, other.sample)) for one, other in pairs(record)]
    exploratory = record.plan.exploratory
    p = [math.nan if exploratory or one.refusal else one.p for _, _, one in found]
    # An arm that cannot be judged stays in the family, or others would gain from its loss.
    adjusted = stats.holm([1.0 if math.isnan(value) else value for value in p])
    return [
        {
            "arm": one.name,
            "against": other.name,
            "difference": difference.value,
            "interval": difference.interval,
            "paired": difference.paired,
            "correlation": difference.correlation,
            "p": raw,
            "adjusted_p": math.nan if math.isnan(raw) else corrected,
            "detectable": difference.detectable(len(found)),
            "bootstrap_interval": second_opinion(one, other),
            "verdict": None
            if exploratory
            else difference.verdict(corrected, comparisons=len(found), margin=record.plan.margin),
            "unequal": unequal(one, other),
        }
        for (one, other, difference), raw, corrected in zip(found, p, adjusted, strict=True)
    ]


def second_opinion(one: ArmResult, other: ArmResult) -> stats.Interval | None:
    """Interval of a difference by the two-way bootstrap; None without stored predictions."""
    if one.answers is None or other.answers is None:
        return None
    (right, images), (theirs, same) = one.answers, other.answers
    return stats.bootstrap(right, theirs) if np.array_equal(images, same) else None


def ranking(record: StudyRecord) -> list[dict[str, Any]]:
    """Arms by mean accuracy, highest first; a single seed has an interval over images."""
    images = validation_images(record)
    rows = []
    for one in record.arms:
        mean, interval, over = one.sample.mean, one.sample.interval, "seeds"
        if len(one.sample) == 1 and images:
            interval, over = stats.wilson(round(mean * images), images), "images"
        if len(one.sample):
            rows.append({"arm": one.name, "mean": mean, "interval": interval, "over": over})
    return sorted(rows, key=lambda row: -row["mean"])


def unequal(one: ArmResult, other: ArmResult) -> list[str]:
    """Where an arm had more or other means than another, beyond what it is there to change.

    Fields that neither names as its change are not what is studied. Images seen, parameters and
    multiply-adds are named even where they follow from the change, and those of the training where
    they alone say it.
    """
    if one is other or one.run is None or other.run is None:
        return []
    studied = {*one.arm.changes, *other.arm.changes, *UNSEEN}
    kinds = one.fields["model.kind"] != other.fields["model.kind"]
    found = [
        f"{name} {text(one.fields[name])} instead of {text(other.fields[name])}"
        for name in sorted(one.fields.keys() & other.fields.keys() - studied)
        if one.fields[name] != other.fields[name] and not (kinds and name.startswith("model."))
    ]
    here, there = one.run.provenance, other.run.provenance
    if here["data"]["split_sha256"]["validation"] != there["data"]["split_sha256"]["validation"]:
        found.append("another validation split")
    if here["precision"]["value"] != there["precision"]["value"]:
        found.append(f"{here['precision']['value']} instead of {there['precision']['value']}")
    if (here["device"], here["threads"]) != (there["device"], there["threads"]):
        found.append("times measured on other hardware")
    costs = {
        "images seen": lambda x: x.images_seen,
        "parameters": lambda x: x.numbers["parameters"],
        "multiply-adds": lambda x: x.numbers["macs"],
    }
    unequal = [words for name, cost in costs.items() if (words := _times(name, cost, one, other))]
    # Images of another size for a while cost another amount though each of the above is equal.
    if not unequal and (
        words := _times("multiply-adds of the training", lambda x: x.training_macs, one, other)
    ):
        unequal.append(words)
    return found + unequal


def _times(
    name: str, cost: Callable[[Outcome], float], one: ArmResult, other: ArmResult
) -> str | None:
    """How many times another's cost an arm's is; None where that is about once."""
    mine, theirs = one.typical(cost), other.typical(cost)
    if mine and theirs and abs(mine / theirs - 1) > TOLERANCE:
        return f"{mine / theirs:.3g} x the {name}"
    return None


POINT_COLUMNS = (
    "arm", "axis", "seed", "status", "reason", "accuracy", "loss", "train_accuracy",
    "train_images", "images_seen", "parameters", "macs", "training_macs", "images_per_second",
    "wall_seconds", "peak_memory_bytes", "largest_gradient_norm", "loss_spikes", "config_sha256",
    "run",
)  # fmt: skip


def point_rows(record: StudyRecord) -> Iterator[list[Any]]:
    """A row for every trial of the study, in the order of POINT_COLUMNS."""
    for one in record.arms:
        for x in one.outcomes:
            measured: list[Any] = [None] * 11
            if end := x.finished:
                measured = [
                    x.accuracy,
                    x.validation["loss"],
                    end["train_clean"]["accuracy"],
                    x.train_images,
                    x.images_seen,
                    end["parameters"],
                    end["macs"],
                    x.training_macs,
                    end["images_per_second"],
                    end["clock"]["wall_seconds"],
                    end["peak_memory_bytes"],
                ]
            yield [
                one.name, one.arm.axis, x.trial.seed, x.status, x.reason, *measured,
                x.gradient, x.spikes, x.run.config.sha256 if x.run else None, x.trial.run,
            ]  # fmt: skip


def draw(record: StudyRecord, summary: dict[str, Any], folder: Path) -> None:
    """Draw every picture of a study from what was read."""
    name, arms = record.plan.name, {one.name: one for one in record.arms}
    figures.compute(
        {
            label: [(x.training_macs, x.accuracy) for x in one.finished]
            for label, one in arms.items()
        },
        folder / "compute",
        title=name,
    )
    panels = {
        axis: [
            {
                "word": record.word(one, axis),
                "baseline": one.arm.baseline,
                "seeds": list(one.sample.values.values()),
                "mean": one.sample.mean,
                "interval": one.sample.interval,
                "failed": one.sample.failed,
            }
            for one in record.on(axis)
        ]
        for axis in record.plan.axes or ["seed"]
    }
    figures.axes(panels, folder / "axes", title=name)
    figures.curves(
        {
            label: [(x.metrics, bool(x.finished)) for x in one.outcomes if x.metrics]
            for label, one in arms.items()
        },
        folder / "curves",
        title=name,
    )
    if summary["scaling"]:
        figures.scaling(summary["scaling"], folder / "scaling", title=name)


def _plain(value: Any) -> Any:
    """A value as JSON knows it; NaN, which JSON does not know, becomes None."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        unknown = isinstance(value, tuple) and items == [None] * len(items)
        return None if unknown else items  # an interval that is not known is one None, not two
    return None if isinstance(value, float) and math.isnan(value) else value
