"""Two recipes over seeds: runs whose configs differ in nothing but the seed are one recipe."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vitlab.compare.budget import changes, unequal
from vitlab.compare.facts import RunFacts
from vitlab.compare.models import Answers, incomparable
from vitlab.config import shared_fields
from vitlab.stats import FEWEST, LEAST, Difference, Sample, bootstrap, holm, seeds_needed


@dataclass(frozen=True)
class Recipe:
    """The runs of one config, by whatever seed."""

    name: str
    entries: list[RunFacts]

    @cached_property
    def by_seed(self) -> dict[int, RunFacts]:
        """The run of each seed: the first finished one, or the first there is."""
        found: dict[int, RunFacts] = {}
        for entry in sorted(self.entries, key=lambda entry: entry["status"] != "finished"):
            found.setdefault(entry["seed"], entry)
        return dict(sorted(found.items()))

    @property
    def repeated(self) -> list[str]:
        """Names of runs whose seed another run has as well: a seed is counted once."""
        counted = self.by_seed.values()
        return [entry.name for entry in self.entries if all(entry is not one for one in counted)]

    @cached_property
    def sample(self) -> Sample:
        """Accuracy by seed; seeds without a result are counted, as failed or as still to come."""
        runs = self.by_seed
        values = {
            seed: entry["accuracy"]
            for seed, entry in runs.items()
            if entry["status"] == "finished" and entry["accuracy"] is not None
        }
        pending = sum(entry["status"] in ("unfinished", "finished") for entry in runs.values())
        pending -= len(values)
        return Sample(values, len(runs) - len(values) - pending, pending)

    @property
    def typical(self) -> RunFacts:
        """A run that stands for the config."""
        return next((self.by_seed[seed] for seed in self.sample.values), self.entries[0])

    @cached_property
    def answers(self) -> np.ndarray | None:
        """Which seed is right about which image (seeds, images); None if not all have said."""
        entries = [self.by_seed[seed] for seed in self.sample.values]
        found = [Answers.read(entry) for entry in entries]
        if not found or any(incomparable(entry, entries[0]) for entry in entries):
            return None
        return np.stack([one.right for one in found if one])


def group(entries: Iterable[RunFacts]) -> list[Recipe]:
    """Runs by recipe: the same config but for its seed, and the same images."""
    groups: dict[str, list[RunFacts]] = {}
    for entry in entries:
        config = entry.run.config
        key = json.dumps([config.recipe, shared_fields(config), entry["data_fingerprint"]])
        groups.setdefault(key, []).append(entry)
    return [Recipe(_name(own, groups.values()), own) for own in groups.values()]


def _name(own: list[RunFacts], groups: Iterable[list[RunFacts]]) -> str:
    """The recipe's name, and where another is called the same, the fields in which they differ."""
    run = own[0].run
    alike = [one[0].run for one in groups if one[0].run.config.recipe == run.config.recipe]
    apart = {
        name: value
        for name, value in shared_fields(run.config).items()
        if any(shared_fields(other.config).get(name) != value for other in alike)
    }
    words = ", ".join(f"{name}={value}" for name, value in apart.items())
    if len(alike) > 1 and not words:
        words = f"data {own[0]['data_fingerprint'][:8]}" if own[0]["data_fingerprint"] else run.name
    return f"{run.config.recipe} ({words})" if words else run.config.recipe


def compare_recipes(entries: list[RunFacts]) -> dict[str, Any]:
    """Every recipe against that of the first run, over seeds: a family corrected by Holm."""
    first, *others = recipes = group(entries)
    differences = [Difference(one.sample, first.sample) for one in others]
    # A recipe that cannot be compared stays in the family, or its absence would favour the others.
    p = [math.nan if one.refusal else one.p for one in differences]
    adjusted = holm([1.0 if math.isnan(value) else value for value in p])
    return {
        "recipes": [_numbers(one) for one in recipes],
        "comparisons": [
            {
                "recipe": one.name,
                "against": first.name,
                "difference": _known(difference.value),
                "interval": _interval(difference.interval),
                "paired": difference.paired,
                "same_seeds": one.sample.values.keys() == first.sample.values.keys(),
                "correlation": _known(difference.correlation),
                "p": _known(raw),
                "adjusted_p": None if math.isnan(raw) else corrected,
                "detectable": _known(difference.detectable(len(others))),
                "seeds_needed": _needed(one.sample, first.sample, len(others)),
                "bootstrap_interval": _second_opinion(one, first),
                "verdict": difference.verdict(corrected, comparisons=len(others)),
                "unequal": unequal(one.typical, first.typical),
                "changes": {
                    name: list(pair)
                    for name, pair in changes(one.typical.run, first.typical.run).items()
                },
            }
            for one, difference, raw, corrected in zip(
                others, differences, p, adjusted, strict=True
            )
        ],
    }


def _numbers(recipe: Recipe) -> dict[str, Any]:
    sample = recipe.sample
    values = list(sample.values.values())
    without = (entry for seed, entry in recipe.by_seed.items() if seed not in sample.values)
    return {
        "recipe": recipe.name,
        "runs": [entry.name for entry in recipe.entries],
        "n": len(sample),
        "planned": sample.planned,
        "failed": sample.failed,
        "pending": sample.pending,
        "mean": _known(sample.mean),
        "std": _known(sample.std),
        "interval": _interval(sample.interval),
        "min": min(values, default=None),
        "max": max(values, default=None),
        "seeds": {str(seed): value for seed, value in sample.values.items()},
        "without_result": [
            {"run": entry.name, "seed": entry["seed"], "status": entry["status"]}
            for entry in without
        ],
        "repeated": recipe.repeated,
    }


def _needed(one: Sample, other: Sample, comparisons: int) -> int | None:
    """Seeds in each arm that would show a difference as large as the one seen."""
    spread = [sample.std for sample in (one, other) if not math.isnan(sample.std)]
    difference = abs(one.mean - other.mean)
    if not spread or not difference >= LEAST:
        return None
    std = float(np.sqrt(np.mean(np.square(spread))))
    # Thousands of seeds are no advice, and a search for their number would take minutes.
    if std and difference < std / 10:
        return None
    return max(FEWEST, seeds_needed(difference, std, comparisons))


def _second_opinion(one: Recipe, other: Recipe) -> list[float] | None:
    if one.answers is None or other.answers is None:
        return None
    if min(len(one.answers), len(other.answers)) < 2 or incomparable(one.typical, other.typical):
        return None
    return list(bootstrap(one.answers, other.answers))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _interval(interval: tuple[float, float]) -> list[float] | None:
    return None if math.isnan(interval[0]) else list(interval)
