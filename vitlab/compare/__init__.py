"""Runs beside each other: what is known of each, where they differ, and what that is worth.

    RunFacts         one run           -> facts, each with the file and the field it was read from
    compare_groups   groups of seeds   -> differences, tests, verdicts, budgets: recipes and arms
    compare          two or more runs  -> facts, trained models image by image, recipes over seeds
    write            two or more runs  -> compare.json, compare.csv, compare.md and figures

The others are compared with the first. Everything is read from the files of the runs: no model
and no images are loaded, and the test split can only be compared on where all of the runs were
evaluated on it before.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitlab.compare import page
from vitlab.compare.comparison import Comparison, Group, compare_groups
from vitlab.compare.facts import Fact, RunFacts
from vitlab.compare.models import compare_models, kept_images, shown
from vitlab.compare.recipes import changed_fields, compare_recipes
from vitlab.config import BESIDE, refuse_multilabel
from vitlab.errors import RunError
from vitlab.figures import comparison as figures
from vitlab.files import write_json, write_text
from vitlab.formatting import csv_text, plain
from vitlab.pretrained import open_run
from vitlab.records import Split
from vitlab.run import Run

__all__ = [
    "Comparison",
    "Fact",
    "Group",
    "RunFacts",
    "changed_fields",
    "compare",
    "compare_groups",
    "default_folder",
    "write",
]

SCHEMA = 1
"""Number of the compare.json layout."""

LONGEST = 80
"""Most letters of the name of a comparison's folder."""

AnyRun = Run | str | os.PathLike[str]


def compare(runs: Sequence[AnyRun], split: Split = "validation") -> dict[str, Any]:
    """Compare runs with the first of them.

    Args:
        runs: two or more, each a Run, its path, or the name of a shipped model.
        split: "test" needs an evaluation of every run on its test split, and makes none.

    Returns:
        JSON values: `runs` with the facts of each; `models`, every trained model against the
        first, over images; `recipes`, every recipe against that of the first, over seeds; and
        `findings`, the same in sentences.

    Raises:
        RunError: fewer than two runs, one of them twice, or no evaluation on the test split.
    """
    return _compare(_entries(runs, split), split)


def write(
    runs: Sequence[AnyRun],
    split: Split = "validation",
    out: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Compare runs with the first of them, and write what was found.

    Args:
        runs, split: as for `compare`.
        out: folder of compare.json, compare.csv, compare.md and the figures; default
            `default_folder`.

    Returns:
        `compare`.
    """
    entries = _entries(runs, split)
    found = _compare(entries, split)
    folder = Path(out) if out else default_folder([entry.run for entry in entries])
    try:
        drawn = _draw(entries, found, folder / "figures")
        write_text(folder / "compare.csv", csv_text(page.csv_rows(found)))
        write_text(folder / "compare.md", page.markdown(found, drawn))
        write_json(folder / "compare.json", found)
    except OSError as error:
        raise RunError(
            f"cannot write the comparison into {folder}: {error.strerror}; choose another --out"
        ) from error
    return found


def default_folder(runs: Sequence[Run]) -> Path:
    """Where a comparison goes: beside the first run, named after all of them."""
    names = "-".join(run.name for run in runs)
    if len(names) > LONGEST:
        names = f"{runs[0].name[:LONGEST]}-and-{len(runs) - 1}-more"
    return runs[0].path.parent / f"compare-{names}"


def _entries(runs: Sequence[AnyRun], split: Split) -> list[RunFacts]:
    """The runs under names of which no two are equal."""
    opened = [open_run(run) for run in runs]
    if len(opened) < 2:
        raise RunError("a comparison takes two runs or more")
    paths = [run.path.resolve() for run in opened]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise RunError(f"{twice.name} is named twice: a run is not compared with itself")
    names = [path.name for path in paths]
    own = [
        plain(path.name if names.count(path.name) == 1 else f"{path.parent.name}/{path.name}")
        for path in paths
    ]
    unique = [f"{name} ({own[:place].count(name) + 1})" if own.count(name) > 1 else name
              for place, name in enumerate(own)]  # fmt: skip
    entries = [RunFacts(run, split, name) for name, run in zip(unique, opened, strict=True)]
    for run in opened:
        refuse_multilabel(run.config.data, f"compare tests the accuracy of {run.name}", BESIDE)
    untested = [entry for entry in entries if entry["accuracy"] is None]
    if split == "test" and untested:
        commands = ", ".join(f"`vitlab evaluate {one.run.path} --split test`" for one in untested)
        raise RunError(
            f"not evaluated on the test split: {', '.join(one.name for one in untested)}. A "
            f"comparison never uses it; {commands} does, and each use is logged"
        )
    return entries


def _compare(entries: list[RunFacts], split: Split) -> dict[str, Any]:
    found = {
        "schema": SCHEMA,
        "split": split,
        "against": entries[0].name,
        "runs": [
            {
                "run": entry.name,
                "facts": {name: fact and fact._asdict() for name, fact in entry.facts.items()},
            }
            for entry in entries
        ],
        "models": compare_models(entries),
        **compare_recipes(entries),
    }
    return {**found, "findings": list(page.findings(found))}


def _draw(entries: list[RunFacts], found: dict[str, Any], folder: Path) -> list[str]:
    """Draw what can be drawn of a comparison; return the names of the pictures."""
    kinds = {entry.name: entry["kind"] for entry in entries}
    figures.curves({entry.name: entry.metrics for entry in entries}, kinds, folder / "curves")
    facts = ("kind", "accuracy", "accuracy_interval", *figures.COSTS)
    costs = [{"name": entry.name, **{fact: entry[fact] for fact in facts}} for entry in entries]
    figures.cost(costs, folder / "cost", split=found["split"])
    drawn, kept = ["curves", "cost"], kept_images(entries)
    for number, pair in enumerate(found["models"], 1):
        if pair["reason"] is not None:
            continue
        names, every = (pair["run"], pair["against"]), pair["disagreements"]
        figures.class_differences(pair["classes"], names, folder / f"classes-{number}")
        drawn.append(f"classes-{number}")
        if pictured := shown(every, kept):
            images = [kept[one["index"]] for one in pictured]
            drawn.append(f"disagreements-{number}")
            figures.disagreements(images, pictured, names, folder / drawn[-1], total=len(every))
    return drawn
