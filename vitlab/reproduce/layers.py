"""What layers of the models that ship know: a record of `vitlab features` -> docs/explore.md.

The record is features.json of the ViT and the CNN.
"""

from pathlib import Path
from typing import Any

from vitlab.files import read_json
from vitlab.formatting import table
from vitlab.reproduce.records import RECORDS

RECORD = RECORDS / "features-cpu-cpu-cnn.json"
PAGE = Path("docs/explore.md")
PLACES = {"first layer": 0.0, "halfway": 0.5, "last layer": 1.0}
"""Depths; a line speaks of the first layer there or deeper."""

TOKENS = {"pooled": "mean of the patch tokens", "patch": "one patch token"}


def probes(record: Path = RECORD) -> str:
    """A table of what a linear probe finds at some depths, a column per model."""
    runs = read_json(record)["runs"]
    rows = [
        [f"{words}, {place}", *(f"{100 * _probe(run, depth, token):.1f} %" for run in runs)]
        for token, words in TOKENS.items()
        for place, depth in PLACES.items()
    ]
    rows.append(["the model itself", *(f"{100 * run['accuracy']:.1f} %" for run in runs)])
    return table(["linear probe", *(f"`{run['run']}`" for run in runs)], rows)


def _probe(run: dict[str, Any], depth: float, token: str) -> float:
    layer = next(layer for layer in run["layers"] if layer["depth"] >= depth)
    return layer[token]["linear_probe"]
