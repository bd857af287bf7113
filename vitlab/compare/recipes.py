"""Two recipes over seeds: runs whose configs differ in nothing but the seed are one recipe."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from vitlab.compare.comparison import Group, changes, compare_groups, numbers
from vitlab.compare.facts import RunFacts
from vitlab.config import WITHOUT_EFFECT, Config, fields_of, shared_fields
from vitlab.data import ARRAYS, KNOWN
from vitlab.fields import text
from vitlab.recipes import ALL_RECIPES, command
from vitlab.stats import Sample


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

    @cached_property
    def group(self) -> Group:
        """Its runs with a result, and the accuracy of each seed."""
        runs = self.by_seed
        known = {
            seed: entry
            for seed, entry in runs.items()
            if entry["status"] == "finished" and entry["accuracy"] is not None
        }
        pending = sum(entry["status"] in ("unfinished", "finished") for entry in runs.values())
        pending -= len(known)
        values = {seed: entry["accuracy"] for seed, entry in known.items()}
        sample = Sample(values, len(runs) - len(known) - pending, pending)
        return Group(self.name, list(known.values()), sample, self.entries[0])

    def numbers(self) -> dict[str, Any]:
        """What is known of it as JSON values; a seed that another run has as well counts once."""
        counted, sample = list(self.by_seed.values()), self.group.sample
        return {
            "recipe": self.name,
            "runs": [entry.name for entry in self.entries],
            "n": len(sample),
            "planned": sample.planned,
            "failed": sample.failed,
            "pending": sample.pending,
            **numbers(sample),
            "without_result": [
                {"run": entry.name, "seed": seed, "status": entry["status"]}
                for seed, entry in self.by_seed.items()
                if seed not in sample.values
            ],
            "repeated": [entry.name for entry in self.entries if entry not in counted],
        }


def compare_recipes(entries: list[RunFacts]) -> dict[str, Any]:
    """Every recipe against that of the first run, over seeds."""
    groups: dict[str, list[RunFacts]] = {}
    for entry in entries:
        config = entry.run.config
        key = json.dumps([config.recipe, shared_fields(config), entry["data_fingerprint"]])
        groups.setdefault(key, []).append(entry)
    first, *others = recipes = [Recipe(_name(own, groups.values()), own) for own in groups.values()]
    found = compare_groups([(one.group, first.group) for one in others], called="recipe")
    runs = [one.group.known[0].run for one in recipes]
    return {
        "recipes": [one.numbers() for one in recipes],
        "comparisons": [
            {**one, "changes": changes(run, runs[0])}
            for one, run in zip(found, runs[1:], strict=True)
        ],
    }


NAMED = 2
"""Most changed fields that are named; of more there is only the number."""


def _name(own: list[RunFacts], groups: Iterable[list[RunFacts]]) -> str:
    """The recipe's name, and what tells it from another of that name or from the recipe itself."""
    run = own[0].run
    alike = [one[0].run for one in groups if one[0].run.config.recipe == run.config.recipe]
    others = [shared_fields(other.config) for other in alike]
    apart = ", ".join(
        f"{name}={value}"
        for name, value in shared_fields(run.config).items()
        if any(name in other and other[name] != value for other in others)
    )
    if len(alike) > 1 and not apart:
        apart = f"data {own[0]['data_fingerprint'][:8]}" if own[0]["data_fingerprint"] else run.name
    changed = changed_fields(run.config) or {}
    changes = [f"{name}={value}" for name, value in changed.items() if name not in WITHOUT_EFFECT]
    if len(alike) == 1 and changes:
        apart = ", ".join(changes) if len(changes) <= NAMED else f"{len(changes)} fields changed"
    return f"{run.config.recipe} ({apart})" if apart else run.config.recipe


def changed_fields(config: Config) -> dict[str, str] | None:
    """Fields in which a config is not that of its recipe, as one types them.

    The seed, and what a data set says of itself, are no change. None where no command makes it.
    """
    start = ALL_RECIPES.get(config.recipe)
    if start is None or config.data.dataset == ARRAYS:
        return None
    data, known = replace(config.data, classes=None), KNOWN.get(config.data.dataset)
    for name in ("image_size", "channels") if known else ():
        if getattr(data, name) == getattr(known, name):
            data = replace(data, **{name: None})
    train = replace(config.train, seed=start().train.seed)
    _, _, _, *words = shlex.split(command(replace(config, data=data, train=train)) or "")
    same = {name: text(value) for name, value in fields_of(start()).items()}
    pairs = zip((word[2:] for word in words[::2]), words[1::2], strict=True)
    return {name: value for name, value in pairs if same.get(name) != value}
