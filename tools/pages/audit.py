"""How many planted label errors `vitlab audit` finds, from its record -> lines of docs/audit.md."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from pages.runs import RECORDS
from vitlab.files import read_json
from vitlab.formatting import between, count, percent, table

NAME = "label-errors.json"

COLUMNS = ("vitlab", "cleanlab")


def label_errors(folder: Path = RECORDS) -> str:
    """What both find of planted errors; what was not measured says so."""
    if not (folder / NAME).exists():
        return "Not yet measured."
    found = read_json(folder / NAME)
    by_rate: dict[float, list[Mapping[str, Any]]] = {}
    for row in found["rows"]:
        by_rate.setdefault(row["rate"], []).append(row)
    lines = [
        [f"{100 * rate:g} %, {rows[0]['planted']:,}", who,
         f"{fmean(row[who]['reported'] for row in rows):,.0f}",
         *(spread([row[who][name] for row in rows])
           for name in ("recall", "precision", "precision_at_planted"))]
        for rate, rows in by_rate.items()
        for who in COLUMNS
    ]  # fmt: skip
    head = ("planted", "list of", "reported", "of the planted reported",
            "of the reported planted", "of the first so many planted")  # fmt: skip
    right = spread([row["agreement"] for row in found["rows"]])
    machine = found["machine"]
    seconds = max(row["vitlab"]["seconds"] for row in found["rows"])
    return "\n\n".join(
        [
            table(head, lines),
            f"{found['images']:,} training images of CIFAR-10, features of {found['backbone']}; "
            f"{count(len(by_rate[min(by_rate)]), 'seed')} each, the mean and, in brackets, the "
            f"lowest and the highest. Out of fold the likeliest class is the given label for "
            f"{right}. The last column asks for as many images as were planted, ranked by "
            f"normalised margin. cleanlab {found['cleanlab']}: `find_label_issues` as it comes, on "
            f"the same probabilities; ours takes {1000 * seconds:.0f} ms at most. Measured by "
            f"`{found['command']}` on {machine['device']}, {count(machine['threads'], 'thread')}, "
            f"{machine['cpu_capability']}, torch {machine['torch']}, beside other programs.",
        ]
    )


def spread(values: list[float]) -> str:
    """Mean of some shares, and the lowest and the highest."""
    return f"{percent(fmean(values))} ({between((min(values), max(values)))})"
