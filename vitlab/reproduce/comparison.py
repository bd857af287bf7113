"""The models that ship beside each other: a record of `vitlab compare` -> docs/compare.md.

The record is compare.json without its lists of single images.
"""

from pathlib import Path
from typing import Any

from vitlab.compare.page import rows
from vitlab.errors import RunError
from vitlab.files import read_json, write_json
from vitlab.formatting import table
from vitlab.reproduce.records import RECORDS

RECORD = RECORDS / "compare.json"
PAGE = Path("docs/compare.md")
SHOWN = (
    "accuracy", "loss", "mean AUC", "mean F1", "worst class", "calibration error",
    "generalisation gap", "mean accuracy, corrupted", "accuracy under FGSM",
    "accuracy under PGD", "epochs to 80 %, training / validation", "parameters",
    "multiply-adds of an image", "images per second, training", "training, process time",
    "epochs", "device", "threads", "bit-reproducible",
)  # fmt: skip
"""Rows of the comparison that the page shows."""


def keep(path: Path, record: Path = RECORD) -> Path:
    """Copy a compare.json to where it is committed."""
    if not path.is_file():
        raise RunError(f"{path} is no compare.json: `vitlab compare RUN RUN` writes one")
    found = read_json(path)
    for one in found["models"]:
        one.pop("disagreements", None)
    write_json(record, found)
    return record


def numbers(record: Path = RECORD) -> str:
    """Some rows of the comparison, as a table."""
    found = _read(record)
    lines = {title: cells for title, *cells in rows(found)}
    names = [run["run"] for run in found["runs"]]
    return table(("", *names), [[title, *lines[title]] for title in SHOWN if title in lines])


def findings(record: Path = RECORD) -> str:
    """The comparison in sentences, as a quotation."""
    return "\n>\n".join(f"> {sentence}" for sentence in _read(record)["findings"])


def _read(record: Path) -> dict[str, Any]:
    return read_json(record)
