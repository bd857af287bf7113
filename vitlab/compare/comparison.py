"""Groups of runs that differ in their seed alone, and what the difference of two is worth.

A group is a recipe with its runs, or an arm of a study with its trials: both are compared in the
same way. The family of comparisons is corrected by Holm, and whatever one side had more of stands
beside the verdict.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict, cast

import numpy as np

from vitlab.compare.facts import RunFacts
from vitlab.config import WITHOUT_EFFECT, fields_of
from vitlab.fields import text
from vitlab.files import read_json
from vitlab.run import STUDY, Run
from vitlab.stats import FEWEST, LEAST, Difference, Interval, Sample, bootstrap, holm, seeds_needed

BUDGET = ("data", "augment", "train")
"""Sections that say what a training was given."""

SHAPE = ("schedule", "warmup_epochs", "hold_epochs", "final_lr", "step_epochs", "step_factors",
         "plateau_factor", "plateau_patience")  # fmt: skip
"""Fields of `optim` that say how long a run trained at which part of its rate."""

COSTS = {
    "images_seen": "images seen",
    "parameters": "parameters",
    "macs": "multiply-adds of an image",
}
"""Facts whose ratio is named, and how they are called."""

TOLERANCE = 0.01
"""Relative difference of a cost that counts as equal."""


@dataclass(frozen=True)
class Group:
    """Runs of one config by whatever seed, and their accuracies.

    Args:
        runs: those that a result is known of.
        sample: accuracy by seed; seeds without a result are counted, as failed or as still to come.
        fallback: a run that stands for the config where none has a result.
        studied: fields that a study changes here on purpose; None where nobody planned a change.
    """

    name: str
    runs: Sequence[RunFacts]
    sample: Sample
    fallback: RunFacts | None = None
    studied: frozenset[str] | None = None

    @property
    def known(self) -> Sequence[RunFacts]:
        """The runs with a result, or the one that stands for them."""
        return self.runs or [one for one in (self.fallback,) if one]

    @cached_property
    def right(self) -> np.ndarray | None:
        """Which seed is right about which image (seeds, images); None if not all have answered."""
        if not self.runs or any(incomparable(run, self.runs[0]) for run in self.runs):
            return None
        return np.stack([run.answers.right for run in self.runs if run.answers])


class Comparison(TypedDict):
    """A group against another; None is what is unknown. Accuracies and differences are fractions.

    A recipe's has its `name` under "recipe", an arm's under "arm".
    """

    against: str
    difference: float | None
    interval: list[float] | None
    paired: bool
    same_seeds: bool
    correlation: float | None
    p: float | None
    adjusted_p: float | None
    detectable: float | None
    seeds_needed: int | None
    """Seeds in each group that would show a difference as large as the one seen."""
    bootstrap_interval: list[float] | None
    verdict: str | None
    unequal: list[str]


def compare_groups(
    pairs: Sequence[tuple[Group, Group]],
    *,
    called: str,
    margin: float | None = None,
    exploratory: bool = False,
) -> list[Comparison]:
    """Compare the first of each pair with the second, as one family of tests.

    Args:
        called: key of the first one's name, "recipe" or "arm".
        margin: difference within which two may be called equal, fixed beforehand.
        exploratory: groups that were found by looking at results: no p and no verdict.
    """
    found = [Difference(one.sample, other.sample) for one, other in pairs]
    raw = [math.nan if exploratory or one.refusal else one.p for one in found]
    # What cannot be compared stays in the family, or its absence would favour the others.
    adjusted = holm([1.0 if math.isnan(p) else p for p in raw])
    comparisons: list[Comparison] = []
    for (one, other), difference, p, corrected in zip(pairs, found, raw, adjusted, strict=True):
        verdict = difference.verdict(corrected, comparisons=len(pairs), margin=margin)
        comparison = {
            called: one.name,
            "against": other.name,
            "difference": difference.value,
            "interval": difference.interval,
            "paired": difference.paired,
            "same_seeds": one.sample.values.keys() == other.sample.values.keys(),
            "correlation": difference.correlation,
            "p": p,
            "adjusted_p": math.nan if math.isnan(p) else corrected,
            "detectable": difference.detectable(len(pairs)),
            "seeds_needed": _needed(one.sample, other.sample, len(pairs)),
            "bootstrap_interval": _second_opinion(one, other),
            "verdict": None if exploratory else verdict,
            "unequal": unequal(one, other),
        }
        comparisons.append(json_values(comparison))
    return comparisons


def numbers(sample: Sample) -> dict[str, Any]:
    """Accuracies of a sample as JSON values."""
    values = list(sample.values.values())
    return json_values(
        {
            "mean": sample.mean,
            "std": sample.std,
            "interval": within(sample.interval),
            "min": min(values, default=None),
            "max": max(values, default=None),
            "seeds": {str(seed): value for seed, value in sorted(sample.values.items())},
        }
    )


def within(interval: Interval, most: float = 1.0) -> Interval:
    """The part of an interval that an accuracy can lie in, or what is at `most` that large."""
    low, high = (min(max(end, 0.0), most) if end == end else end for end in interval)
    return low, high


def incomparable(one: RunFacts, other: RunFacts) -> str | None:
    """Why two runs cannot be compared image by image, and the way out; None where they can."""
    lacking = {entry.name: entry for entry in (one, other) if entry.answers is None}
    if lacking:
        option = " --split test" if one["split"] == "test" else ""
        commands = [f"`vitlab evaluate {entry.run.path}{option}`" for entry in lacking.values()]
        return f"no predictions of {' and '.join(lacking)} are stored: {' and '.join(commands)}"
    if one["data_fingerprint"] != other["data_fingerprint"]:
        return "they were trained and evaluated on different data"
    if one["split_sha256"] != other["split_sha256"]:
        return f"their {one['split']} splits have different images"
    return None


def unequal(one: Group, other: Group) -> list[str]:
    """What the budget of a group differs in from another's, as sentences; empty where it is equal.

    Images, batches, augmentation, schedule, precision, validation split and tuning are means.
    Between arms of a study every field counts that neither of them changes on purpose.
    Parameters and multiply-adds are named even where they are what is compared.
    """
    if one is other or not (one.known and other.known):
        return []
    costs = [
        _times(name, *([run[fact] for run in group.runs if run[fact]] for group in (one, other)))
        for fact, name in COSTS.items()
    ]
    whole = ([run.training_macs for run in g.runs if run.training_macs] for g in (one, other))
    costs.append(_times("multiply-adds of the training", *whole))
    found = [*_settings(one, other), *_circumstances(one.known[0], other.known[0]), *costs]
    return [words for words in found if words]


def changes(run: Run, other: Run) -> dict[str, list[str]]:
    """Fields of two configs that differ and are no budget: name -> both values, as one types them.

    `-` stands where a kind of model has no such field.
    """
    left, right = fields_of(run.config), fields_of(other.config)
    return {
        name: [text(side[name]) if name in side else "-" for side in (left, right)]
        for name in {**left, **right}
        if left.get(name) != right.get(name) and not _is_budget(name)
    }


def tuning_trials(run: Run) -> int:
    """Trials that chose the settings of a run: probes of its learning rate, arms of its search.

    0 where none were written down, as of a run that is no study's.
    """
    file = run.study / STUDY
    if not file.is_file():
        return 0
    plan = read_json(file)
    planned = (trial["arm"] for trial in plan["trials"] if trial["run"] == f"runs/{run.name}")
    arm = next(planned, None)
    probes = sum(probe["arm"] == arm for probe in plan["probes"])
    found = [one["name"] for one in plan["arms"] if not one["baseline"]]
    return probes + (len(found) if plan["design"] == "search" and arm in found else 0)


def json_values(value: Any) -> Any:
    """A value as JSON has it: NaN, which JSON lacks, is None, and so is an unknown interval."""
    if isinstance(value, dict):
        inside = cast(dict[str, Any], value)
        return {name: json_values(inner) for name, inner in inside.items()}
    if isinstance(value, list | tuple):
        items = [json_values(item) for item in cast(Sequence[Any], value)]
        return None if isinstance(value, tuple) and items == [None] * len(items) else items
    return None if isinstance(value, float) and math.isnan(value) else value


def _is_budget(name: str) -> bool:
    section, _, field = name.partition(".")
    return section in BUDGET or (section == "optim" and field in SHAPE)


def _settings(one: Group, other: Group) -> list[str]:
    """Fields of both configs that differ and that nobody studies."""
    left, right = (fields_of(group.known[0].run.config) for group in (one, other))
    planned = one.studied is not None and other.studied is not None
    studied = {*WITHOUT_EFFECT, *(one.studied or ()), *(other.studied or ())}
    another_kind = left["model.kind"] != right["model.kind"]

    def counts(name: str) -> bool:
        if not planned:
            return _is_budget(name)
        return not (another_kind and name.startswith("model."))

    return [
        f"{name} {_short(left[name])} instead of {_short(right[name])}"
        for name in sorted(left.keys() & right.keys() - studied)
        if left[name] != right[name] and counts(name)
    ]


def _short(value: Any) -> str:
    """A value as one types it, a fraction to six digits."""
    return text(float(f"{value:.6g}") if isinstance(value, float) else value)


def _circumstances(one: RunFacts, other: RunFacts) -> list[str]:
    def differ(*facts: str) -> bool:
        pairs = [(one[fact], other[fact]) for fact in facts]
        return all(None not in pair for pair in pairs) and any(a != b for a, b in pairs)

    here, there = tuning_trials(one.run), tuning_trials(other.run)
    found = {
        "other images": differ("data_fingerprint"),
        f"another {one['split']} split": differ("split_sha256"),
        f"{one['precision']} instead of {other['precision']}": differ("precision"),
        f"{here} known tuning trials instead of {there}": here != there,
        "times measured on other hardware": differ("device", "threads"),
    }
    return [words for words, applies in found.items() if applies]


def _times(name: str, mine: Sequence[float], theirs: Sequence[float]) -> str | None:
    """How many times another's cost a group's is, by medians; None where that is about once."""
    ratio = float(np.median(mine) / np.median(theirs)) if mine and theirs else 1.0
    return f"{ratio:.3g} x the {name}" if abs(ratio - 1) > TOLERANCE else None


def _needed(one: Sample, other: Sample, comparisons: int) -> int | None:
    """Seeds in each group that would show a difference as large as the one seen."""
    spread = [sample.std for sample in (one, other) if not math.isnan(sample.std)]
    difference = abs(one.mean - other.mean)
    if not spread or not difference >= LEAST:
        return None
    std = float(np.sqrt(np.mean(np.square(spread))))
    # Thousands of seeds are no advice, and a search for their number would take minutes.
    if std and difference < std / 10:
        return None
    return max(FEWEST, seeds_needed(difference, std, comparisons))


def _second_opinion(one: Group, other: Group) -> list[float] | None:
    """Interval of the difference over seeds and images; None without two answered seeds each."""
    if one.right is None or other.right is None or incomparable(one.runs[0], other.runs[0]):
        return None
    if min(len(one.right), len(other.right)) < 2:
        return None
    return list(bootstrap(one.right, other.right))
