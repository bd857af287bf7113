"""What pages say of the models that ship: their cards, and tables of docs/explain.md,
docs/explore.md and docs/compare.md.

The records are the faithfulness.json of `vitlab explain` under the run's name, the features.json of
`vitlab features`, and the compare.json of `vitlab compare` without its lists of single images.
"""

from pathlib import Path
from typing import Any

from pages.runs import CLASS_HEAD, RECORDS, class_rows, facts
from vitlab import pretrained
from vitlab.compare.page import rows as compared
from vitlab.files import read_json
from vitlab.formatting import table
from vitlab.recipes import ALL_RECIPES
from vitlab.records import PASSED
from vitlab.run import Run

EXPLAIN = RECORDS / "explain"
FEATURES = RECORDS / "features-cpu-cpu-cnn.json"
COMPARE = RECORDS / "compare.json"
SERVE = RECORDS / "serve.json"

COMPARED = (
    "accuracy", "loss", "mean AUC", "mean F1", "worst class", "calibration error",
    "generalisation gap", "mean accuracy, corrupted", "accuracy under FGSM",
    "accuracy under PGD", "epochs to 80 %, training / validation", "parameters",
    "multiply-adds of an image", "images per second, training", "training, process time",
    "epochs", "device", "threads", "bit-reproducible",
)  # fmt: skip
"""Rows of the comparison that the page shows."""

PLACES = {"first layer": 0.0, "halfway": 0.5, "last layer": 1.0}
"""Depths; a line speaks of the first layer there or deeper."""

TOKENS = {"pooled": "mean of the patch tokens", "patch": "one patch token"}


def outdated() -> list[Path]:
    """The records that are of other weights or another config than those that ship."""
    ships = {name: pretrained.shipped(name) for name in pretrained.names()}
    weights = {name: run.checkpoint().sha256 for name, run in ships.items()}
    configs = {name: run.config.sha256 for name, run in ships.items()}

    def measured(path: Path) -> list[tuple[str, str]]:
        record = read_json(path)
        if path == COMPARE:
            return [(run["run"], run["facts"]["config_sha256"]["value"]) for run in record["runs"]]
        if path == FEATURES:
            return [(run["run"], run["checkpoint_sha256"]) for run in record["runs"]]
        return [(record.get("model", path.stem), record["checkpoint_sha256"])]

    records = [COMPARE, FEATURES, SERVE, *(EXPLAIN / f"{name}.json" for name in ships)]
    return [
        path
        for path in records
        if path.exists()
        and any(
            sha256 != (configs if path == COMPARE else weights)[name]
            for name, sha256 in measured(path)
        )
    ]


def card(run: Run) -> str:
    """The card of a shipped model, in Markdown."""
    parts = [
        f"# {run.name}",
        (ALL_RECIPES[run.config.recipe].__doc__ or "").split("\n")[0],
        "Weights in half precision; the figures are of these weights. For research on and "
        "teaching of image classification; it knows ten classes and nothing else, and is "
        "sure of itself on pictures of other things too. Trained on CIFAR-10 (Krizhevsky, "
        "2009), from scratch, on no other data.",
        table(("", ""), facts(run)),
        table(CLASS_HEAD, class_rows(run)),
    ]
    return "\n\n".join(parts) + "\n"


def gains(folder: Path = EXPLAIN) -> str:
    """A table of each map's gain with its interval, a column per model, the first model's best
    first."""
    records = {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}
    cells: dict[str, dict[str, str]] = {}
    for name, record in records.items():
        for one in record["methods"]:
            low, high = one["gain"]["interval"]
            text = f"{one['gain']['mean']:+.3f} ({low:+.3f} to {high:+.3f})"
            if one.get("verdict") == PASSED:
                text = f"**{text}**"
            cells.setdefault(one["method"], {})[name] = text
    rows = [[method, *(each.get(name, "") for name in records)] for method, each in cells.items()]
    images = {record["images"] for record in records.values()}
    title = f"Gain on {' or '.join(map(str, images))} validation images"
    return table([title, *(f"`{name}`" for name in records)], rows)


def probes(record: Path = FEATURES) -> str:
    """A table of what a linear probe finds at some depths, a column per model."""
    runs = read_json(record)["runs"]
    rows = [
        [f"{what}, {place}", *(f"{100 * _probe(run, depth, token):.1f} %" for run in runs)]
        for token, what in TOKENS.items()
        for place, depth in PLACES.items()
    ]
    rows.append(["the model itself", *(f"{100 * run['accuracy']:.1f} %" for run in runs)])
    return table(["linear probe", *(f"`{run['run']}`" for run in runs)], rows)


def _probe(run: dict[str, Any], depth: float, token: str) -> float:
    layer = next(layer for layer in run["layers"] if layer["depth"] >= depth)
    return layer[token]["linear_probe"]


def comparison(record: Path = COMPARE) -> str:
    """Some rows of the comparison, as a table."""
    found = read_json(record)
    lines = {title: cells for title, *cells in compared(found)}
    names = [run["run"] for run in found["runs"]]
    return table(("", *names), [[title, *lines[title]] for title in COMPARED if title in lines])


def findings(record: Path = COMPARE) -> str:
    """The comparison in sentences, as a quotation."""
    return "\n>\n".join(f"> {sentence}" for sentence in read_json(record)["findings"])
