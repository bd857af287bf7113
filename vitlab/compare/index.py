"""All runs of a folder: a line each, in models.csv beside them and in a table.

models.csv is made from the run folders alone, so losing it loses nothing. A run that is damaged or
not finished has its line as well, with its status.
"""

import fcntl
import os
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitlab.compare.facts import RunFacts
from vitlab.config import Config, field_types, fields_of
from vitlab.errors import ConfigError, RunError, VitlabError
from vitlab.fields import parse, unknown
from vitlab.files import write_text
from vitlab.formatting import csv_text, plain
from vitlab.run import CONFIG, Run

INDEX = "models.csv"

COLUMNS = (
    "model", "recipe", "seed", "status", "split", "accuracy", "accuracy_low", "accuracy_high",
    "mean_average_precision", "loss", "mean_auc", "mean_f1", "micro_f1", "calibration_error",
    "worst_class", "worst_class_accuracy",
    "generalisation_gap", "corrupted_accuracy", "pgd_accuracy", "parameters_m", "flops_g",
    "inference_ms", "training_seconds", "process_seconds", "seconds_per_epoch",
    "images_per_second", "peak_memory_mb", "test_accuracy", "dataset", "kind", "epochs",
    "batch_size", "device", "threads", "precision", "date", "bit_reproducible", "config_sha256",
    "reason",
)  # fmt: skip
"""Columns of models.csv. Units: millions, thousand millions of FLOPs (two a multiply-add), MB."""

SHOWN = (
    "model", "dataset", "status", "accuracy", "accuracy_low", "accuracy_high",
    "mean_average_precision", "loss", "mean_auc",
    "parameters_m", "flops_g", "inference_ms", "training_seconds", "epochs", "seed", "split",
)  # fmt: skip
"""Columns of the table, the mean average precision where a run has one; it may be sorted by any of
COLUMNS."""


@dataclass(frozen=True)
class Line:
    """A run's line, by column; its config where one could be read."""

    values: dict[str, Any]
    config: Config | None


def lines(folder: str | os.PathLike[str]) -> list[Line]:
    """The runs of a folder and of the folders in it, by name; RunError if there is no folder."""
    root = Path(folder)
    if not root.is_dir():
        raise RunError(f"{root} is no folder of runs: train one with `vitlab train`")
    return [_line(path, root) for path in sorted(_runs(root))]


def write_index(folder: str | os.PathLike[str]) -> list[Line]:
    """Make models.csv anew from the runs of a folder, and return its lines.

    Processes that arrive together wait for each other, so that none writes what it read before
    another's result. Warns where the file cannot be written. RunError if there is no folder.
    """
    root = Path(folder)
    found = None
    try:
        with _lock(root) if root.is_dir() else nullcontext():
            found = lines(root)
            rows = ([line.values[name] for name in COLUMNS] for line in found)
            write_text(root / INDEX, csv_text([COLUMNS, *rows]))
    except OSError as error:
        warnings.warn(f"cannot write {root / INDEX}: {error.strerror}", stacklevel=2)
    return lines(root) if found is None else found


def select(found: Sequence[Line], where: Sequence[str]) -> list[Line]:
    """The lines whose config has the given values: FIELD=VALUE, all of them.

    Raises:
        ConfigError: a field that no config has, or one without =.
    """
    known = set(fields_of(Config())) | {"recipe"}
    for line in found:
        known |= set(fields_of(line.config)) if line.config else set()
    problems: list[str] = []
    asked: dict[str, str] = {}
    for condition in where:
        name, sign, value = condition.partition("=")
        if not sign:
            problems.append(f"--where {condition!r}: say FIELD=VALUE, as in model.kind=vit")
        elif name not in known:
            problems.append(unknown(name, known))
        asked[name] = value
    if problems:
        raise ConfigError(problems)
    return [line for line in found if _matches(line, asked)]


def ranked(found: Sequence[Line], column: str = "accuracy") -> list[Line]:
    """The lines by data set, and within each by a column: numbers from the highest, text from A.

    Losses, costs, gaps and errors begin with the lowest; what is unknown comes last. An accuracy
    on one data set says nothing of another. ConfigError for an unknown column.
    """
    if column not in COLUMNS:
        raise ConfigError([f"--sort: {unknown(column, COLUMNS)}"])
    known = [line for line in found if line.values[column] is not None]
    others = [line for line in found if line.values[column] is None]
    if column == "accuracy":  # where images have several labels there is none
        others.sort(key=lambda line: -(line.values["mean_average_precision"] or 0.0))
    high = column in HIGHEST_FIRST
    known.sort(key=lambda line: _order(line.values[column]), reverse=high)
    return sorted(known + others, key=lambda line: _last_if_none(line.values["dataset"]))


HIGHEST_FIRST = (
    "accuracy", "accuracy_low", "accuracy_high", "mean_average_precision", "mean_auc", "mean_f1",
    "micro_f1", "worst_class_accuracy",
    "corrupted_accuracy", "pgd_accuracy", "images_per_second", "test_accuracy", "date",
)  # fmt: skip
"""Columns of which more is better, or newer."""


def _last_if_none(name: str | None) -> tuple[bool, str]:
    return name is None, name or ""


def _order(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _matches(line: Line, asked: Mapping[str, str]) -> bool:
    if line.config is None:
        return not asked
    fields = {"recipe": line.config.recipe, **fields_of(line.config)}
    return all(name in fields and _means(value, name, fields[name])
               for name, value in asked.items())  # fmt: skip


def _means(words: str, name: str, value: Any) -> bool:
    """Whether words, as one types them, are a value of a field: 1e-3 is 0.001, and on is true."""
    try:
        return parse(words, field_types().get(name, str)) == value
    except (TypeError, ValueError):
        return False


def _runs(root: Path) -> Iterator[Path]:
    """Folders with a config.json; a run may hold another, its teacher, which is not listed."""
    for place, folders, files in os.walk(root):
        if CONFIG in files:
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


@contextmanager
def _lock(folder: Path) -> Generator[None]:
    """Be the only process that writes the index of a folder, after those that came before."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _line(path: Path, root: Path) -> Line:
    name = plain(str(path.relative_to(root))) if path != root else plain(path.resolve().name)
    values: dict[str, Any] = dict.fromkeys(COLUMNS) | {"model": name}
    config = None
    try:
        run = Run(path)
        config = run.config
        values["dataset"] = config.data.dataset
        return Line(values | _values(run), config)
    except (VitlabError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        # Whatever is wrong with one run, the others have their lines.
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        return Line(values | {"status": "damaged", "reason": plain(reason)}, config)


def _values(run: Run) -> dict[str, Any]:
    entry = RunFacts(run)
    status, reason = run.status
    low, high = entry["accuracy_interval"] or (None, None)
    test = entry.results.get("test")
    seen = entry["validation_seen"] if entry.split == "validation" else 0
    own = {name: entry[name] for name in COLUMNS if name in entry.facts}
    return own | {
        "recipe": plain(entry["recipe"]),
        "status": status,
        "reason": plain(reason) or None,
        "split": entry.split + (f", {seen:,} trained on before" if seen else ""),
        "accuracy_low": low,
        "accuracy_high": high,
        "test_accuracy": test and test.get("accuracy"),
        "parameters_m": _scaled(entry["parameters"], 1e-6),
        "flops_g": _scaled(entry["macs"], 2e-9),
        "peak_memory_mb": _scaled(entry["peak_memory_bytes"], 1e-6),
        "date": entry["started"],
    }


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 6)
