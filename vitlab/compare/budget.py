"""Where one run had a larger or another budget, so that a difference is not read as merit."""

from collections.abc import Iterator
from typing import Any

from vitlab.compare.facts import RunFacts
from vitlab.config import WITHOUT_EFFECT, fields_of
from vitlab.fields import text
from vitlab.files import read_json
from vitlab.run import STUDY, Run

BUDGET = ("data", "augment", "train")
"""Sections that say what a training was given."""

SHAPE = ("schedule", "warmup_epochs", "hold_epochs", "final_lr", "step_epochs", "step_factors",
         "plateau_factor", "plateau_patience")  # fmt: skip
"""Fields of `optim` that say how long a run trained at which part of its rate."""

COSTS = {"images_seen": "images seen", "parameters": "parameters", "macs": "multiply-adds"}
"""Facts whose ratio is named, and how they are called."""

TOLERANCE = 0.01
"""Relative difference of a cost that counts as equal."""


def unequal(one: RunFacts, other: RunFacts) -> list[str]:
    """What the budget of a run differs in from another's, as sentences; empty where it is equal.

    Images, batches, augmentation, schedule, precision, validation split and tuning are means;
    parameters and multiply-adds are named even where they are what is compared.
    """
    return [*_settings(one.run, other.run), *_circumstances(one, other), *_costs(one, other)]


def changes(run: Run, other: Run) -> dict[str, tuple[str, str]]:
    """Fields of two configs that differ and are no budget: name -> both values, as one types them.

    `-` stands where a kind of model has no such field.
    """
    left, right = fields_of(run.config), fields_of(other.config)

    def written(side: dict[str, Any], name: str) -> str:
        return text(side[name]) if name in side else "-"

    return {
        name: (written(left, name), written(right, name))
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


def _is_budget(name: str) -> bool:
    section, _, field = name.partition(".")
    return section in BUDGET or (section == "optim" and field in SHAPE)


def _settings(run: Run, other: Run) -> Iterator[str]:
    left, right = fields_of(run.config), fields_of(other.config)
    for name in sorted(left):
        if _is_budget(name) and name not in WITHOUT_EFFECT and left[name] != right[name]:
            yield f"{name} {text(left[name])} instead of {text(right[name])}"


def _circumstances(one: RunFacts, other: RunFacts) -> Iterator[str]:
    def differ(*facts: str) -> bool:
        pairs = [(one[fact], other[fact]) for fact in facts]
        return all(None not in pair for pair in pairs) and any(a != b for a, b in pairs)

    if differ("data_fingerprint"):
        yield "other images"
    if differ("split_sha256"):
        yield f"another {one['split']} split"
    if differ("precision"):
        yield f"{one['precision']} instead of {other['precision']}"
    here, there = tuning_trials(one.run), tuning_trials(other.run)
    if here != there:
        yield f"{here} known tuning trials instead of {there}"
    if differ("device", "threads"):
        yield "times measured on other hardware"


def _costs(one: RunFacts, other: RunFacts) -> Iterator[str]:
    for fact, name in COSTS.items():
        if one[fact] and other[fact] and abs(one[fact] / other[fact] - 1) > TOLERANCE:
            yield f"{one[fact] / other[fact]:.3g} x the {name}"
