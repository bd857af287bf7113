"""What pages say of the models that ship: their cards, and tables of docs/explain.md,
docs/explore.md, docs/use.md and docs/compare.md.

The records are the faithfulness.json of `vitlab explain` and the parity.json of `vitlab export`
under the run's name, the features.json of `vitlab features`, the numbers.json of `vitlab explore`,
and the compare.json of `vitlab compare` without its lists of single images.
"""

import json
from pathlib import Path
from typing import Any

from pages.runs import CLASS_HEAD, RECORDS, class_rows, facts
from vitlab import pretrained
from vitlab.compare.page import rows as compared
from vitlab.files import read_json
from vitlab.formatting import percent, table
from vitlab.recipes import ALL_RECIPES
from vitlab.records import PASSED
from vitlab.run import Run

EXPLAIN = RECORDS / "explain"
EXPORT = RECORDS / "export"
EXPLORE = RECORDS / "explore-cifar10.json"
SPEED = RECORDS / "speed" / "bench.json"
FEATURES = RECORDS / "features-cpu-cpu-cnn.json"
INSIDE = RECORDS / "inside.json"
EXACT = {"logits": "logits off by", "attention": "attention off by"}

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
    """The records that are of other weights, another config or other images than what ships."""
    ships = {name: pretrained.shipped(name) for name in pretrained.names()}
    weights = {name: run.checkpoint().sha256 for name, run in ships.items()}
    configs = {name: run.config.sha256 for name, run in ships.items()}
    images = {run.provenance["data"]["fingerprint"] for run in ships.values()}

    def of_what_ships(path: Path) -> bool:
        record = read_json(path)
        if path == EXPLORE:
            return {record["fingerprint"]} == images
        if path == COMPARE:
            facts = {run["run"]: run["facts"]["config_sha256"]["value"] for run in record["runs"]}
            return facts.items() <= configs.items()
        if path == FEATURES:
            found = {run["run"]: run["checkpoint_sha256"] for run in record["runs"]}
        elif path == SPEED:
            one = record["accuracy"]
            found = {one["run"]: one.get("checkpoint_sha256")}
        elif path.parent == EXPORT:
            found = {path.stem: record["onnx"]["checkpoint_sha256"]}
        else:
            found = {record.get("model", path.stem): record["checkpoint_sha256"]}
        return found.items() <= weights.items()

    each = [folder / f"{name}.json" for folder in (EXPLAIN, EXPORT) for name in ships]
    records = [path for path in (COMPARE, FEATURES, EXPLORE, SPEED, SERVE, *each) if path.exists()]
    return [path for path in records if not of_what_ships(path)]


def card(run: Run) -> str:
    """The card of a shipped model, in Markdown."""
    classes, weights = run.config.data.classes, run.config.train.weights
    start = "from random weights, on no other data" if weights is None else f"from {weights}"
    parts = [
        f"# {run.name}",
        (ALL_RECIPES[run.config.recipe].__doc__ or "").split("\n")[0],
        "Weights in half precision; the figures are of these weights. For research on and "
        f"teaching of image classification; it knows {classes} classes and nothing else, and may "
        "be sure of itself on pictures of other things too ([measured](../../../docs/unknown.md)). "
        f"Trained on CIFAR-10 (Krizhevsky, 2009), {start}.",
        table(("", ""), facts(run)),
        table(CLASS_HEAD, class_rows(run)),
    ]
    return "\n\n".join(parts) + "\n"


def faithfulness(name: str) -> str:
    """What a shipped model knows of its maps, on one line: models that ship have to be small."""
    return json.dumps(read_json(EXPLAIN / f"{name}.json"), separators=(",", ":")) + "\n"


def exports(folder: Path = EXPORT) -> str:
    """A table of what int8 keeps of each model, with the sizes of its files."""
    records = {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}
    rows = []
    for name, record in records.items():
        exact, int8 = record["onnx"], record["onnx-int8"]
        sizes = [f"{one['files']['model.onnx']['bytes']:,}" for one in (exact, int8)]
        before, after = (percent(int8["accuracy"][key]) for key in ("before", "after"))
        same = percent(int8["top1_agreement"])
        rows.append([f"`{name}`", before, after, same, *sizes])
    head = ("model", "accuracy", "as int8", "same class", "fp32 bytes", "int8 bytes")
    where = "; ".join(sorted({one["machine"] for one in records.values()}))
    return f"{table(head, rows)}\n\nMeasured on {where}."


def copies(record: Path = EXPLORE) -> str:
    """How many test and validation images nearly copy one that is trained on."""
    counts = {one["split"]: one for one in read_json(record)["images"]}
    test, validation = (
        f"{counts[split]['near_duplicates']:,} of {counts[split]['images']:,}"
        for split in ("test", "validation")
    )
    training = f"{counts['training']['images']:,}"
    return (
        f"On CIFAR-10, {test} test images nearly copy one of {training} training images, and "
        f"{validation} validation images do."
    )


def distances(record: Path = EXPLORE) -> str:
    """A table of mean distances within and between classes, in pixels and in maps of them."""
    rows = [
        [
            f"{'the pixels themselves' if one['space'] == 'own' else one['space']}, "
            f"{one['dimensions']:,} dimensions",
            *(f"{one[key]:.2f}" for key in ("within", "between", "ratio")),
        ]
        for one in read_json(record)["separation"]
    ]
    return table(("space", "within", "between", "ratio"), rows)


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


def inside(record: Path = INSIDE) -> str:
    """How large, fast and exact the pages of the models are, as a table, and where that was."""
    found = read_json(record)
    rows = [
        [
            f"[`{one['model']}`](inside/{one['model']}.html)",
            f"{one['bytes'] / 1e6:.1f} MB",
            f"{one['open_seconds']:.1f} s",
            f"{one['answer_ms']:.0f} ms",
            f"{one['maps_ms']:.0f} ms",
            *(f"{one['difference'][k]:.0e}" if k in one["difference"] else "" for k in EXACT),
        ]
        for one in found["models"]
    ]
    head = ["page", "size", "opens in", "answer after an edit", "all maps", *EXACT.values()]
    (images,) = {one["images"] for one in found["models"]}
    return (
        f"{table(head, rows)}\n\n{found['device']}, {found['browser']}, median of "
        f"{found['repeats']}; differences from torch are the largest on {images} validation "
        f"images. `{found['command']}`"
    )
