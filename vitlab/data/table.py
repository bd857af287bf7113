"""A CSV of paths and labels as a data set, and everything wrong with it told by line."""

import csv
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitlab.data.formats import (
    LABEL_NAMES,
    PICTURES,
    SPLIT_NAMES,
    SYNONYMS,
    Items,
    Split,
    check_names,
    listed,
    part_of,
    simplified,
    unused,
)
from vitlab.errors import DataError
from vitlab.formatting import count, plain

PATH_NAMES = frozenset({
    "path", "paths", "file", "files", "filename", "filenames", "file_name", "filepath",
    "filepaths", "file_path", "image", "images", "image_path", "image_name", "image_file", "img",
    "img_path", "img_name",
})  # fmt: skip
"""What columns of paths are called, as `simplified` writes it."""

NAMES = {"path": PATH_NAMES, "label": LABEL_NAMES, "split": SPLIT_NAMES}

Cells = list[tuple[int, dict[str, str]]]
"""The lines of a table: number, and cells by column."""

REST = "\n"
"""Where cells beyond the last column are kept; no column has this name."""

SEPARATORS = ",;\t|"

SHOWN = 10
"""Problems that are spelt out; of more only the number is told."""


class Row(NamedTuple):
    """One image: a line of the table."""

    line: int
    path: str
    label: str
    split: str
    """train, test or validation; something else is a problem."""


class Table:
    """The columns `path` and `label`, and `split` where the set comes with a test split.

    Other usual names of columns are taken where there is only one, and semicolons, tabs or bars
    instead of commas. Paths are relative to the table's folder. Labels are any text: classes are
    numbered in the code-point order of their names, or by value where all are whole numbers.
    Validation rows stand in for missing test rows; without a column `split` all are training
    images. Raises one DataError that names the columns or the lines that are wrong.
    """

    def __init__(self, path: Path):
        self.path = path
        self.notes: list[str] = []
        self.columns, rows = read_rows(path, self.notes)
        by_part = {part: [row for row in rows if row.split == part] for part in SYNONYMS}
        self.train = by_part["train"]
        self.test = by_part["test"] or by_part["validation"]
        self.has_test = bool(self.test)
        if by_part["test"] and (left := by_part["validation"]):
            self.notes.append(unused("rows", "validation", len(left)))
        elif self.has_test and not by_part["test"]:
            self.notes.append("validation rows stand in for test images, which are missing")
        names = sorted({row.label for row in self.train})
        whole = all(name.isdecimal() for name in names)
        self.class_names = tuple(sorted(names, key=int) if whole else names)
        check_names(path, self.class_names)
        if unseen := {row.label for row in self.test} - {*names}:
            raise DataError(
                f"{path} has classes without training images: {', '.join(sorted(unseen))}. "
                "Add some or remove the classes"
            )

    @property
    def uses(self) -> str:
        """The columns of paths, labels and splits."""
        return ", ".join(
            f"{kind} from column {plain(self.columns[name])}"
            for kind, name in (("paths", "path"), ("labels", "label"), ("splits", "split"))
            if name in self.columns
        )

    def files(self, split: Split) -> list[Path]:
        """The table and the images of a split; without those that are gone meanwhile."""
        return [self.path, *filter(os.path.isfile, self._paths(split))]

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """Paths and labels."""
        number = {name: label for label, name in enumerate(self.class_names)}
        labels = [number[row.label] for row in self._rows(split)]
        return self._paths(split), np.array(labels, np.int64)

    def _rows(self, split: Split) -> list[Row]:
        return self.test if split == "test" else self.train

    def _paths(self, split: Split) -> list[Path]:
        return [self.path.parent / row.path for row in self._rows(split)]


def read_rows(path: Path, notes: list[str]) -> tuple[dict[str, str], list[Row]]:
    """Read and check a table; a row without a column `split` is a training image.

    Returns:
        The table's own names of the columns path, label and split, and the rows. What is passed
        over or read in another way than it is written is added to `notes`.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            separator = max(SEPARATORS, key=first.count)  # the comma, where there is none
            table = csv.DictReader(
                file, delimiter=separator, skipinitialspace=True, restval="", restkey=REST
            )
            names = [name.strip() for name in table.fieldnames or ()]
            table.fieldnames = names
            cells = [(table.line_num, {**row}) for row in table]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}") from error
    columns = _columns(path, names, cells)
    if left := [name for name in names if name and name not in columns.values()]:
        notes.append(f"columns that are not used: {listed(left)}")
    rows = []
    for line, row in cells:
        told = row[columns["split"]].strip() if "split" in columns else "train"
        part, rest = part_of(told)
        split = part if part and not rest else told
        rows.append(Row(line, row[columns["path"]].strip(), row[columns["label"]].strip(), split))
    rows = _plain_labels(path, _slashed(path.parent, rows, notes), notes)
    crowded = [
        f"  line {line}: more cells than columns: put what holds a {separator!r} into quotes"
        for line, row in cells
        if any(cell.strip() for cell in row.get(REST, ()))
    ]
    if problems := [*crowded, *_problems(path.parent, rows)]:
        more = [f"  and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise DataError("\n".join([f"{path} cannot be used as it is:", *problems[:SHOWN], *more]))
    if not any(row.split == "train" for row in rows):
        raise DataError(f"{path} has no training images: add rows")
    return columns, rows


def _columns(path: Path, names: Sequence[str], cells: Cells) -> dict[str, str]:
    """The names of the columns path, label and split among those of a table."""
    speaking = [
        name
        for name in names
        if any((part := part_of(row[name]))[0] and not part[1] for _, row in cells)
    ]
    found = {}
    for wanted, synonyms in NAMES.items():
        usable = [name for name in names if name == wanted]
        usable = usable or [name for name in names if simplified(name) == wanted]
        usable = usable or [
            name
            for name in names
            if simplified(name) in synonyms and (wanted != "split" or name in speaking)
        ]
        if len(usable) > 1:
            raise DataError(
                f"{path}: {' and '.join(map(repr, usable))} may all be the column {wanted}: call "
                f"one {wanted!r} in the first line"
            )
        if usable:
            found[wanted] = usable[0]
    for name in speaking:
        values = {part_of(row[name]) for _, row in cells if row[name].strip()}
        parts = all(part and not rest for part, rest in values) and len(values) > 1
        if parts and "split" not in found and name not in found.values():
            raise DataError(
                f"{path}: column {name!r} looks like that of splits: call it 'split' if it is, "
                "or remove it"
            )
    if missing := [name for name in ("path", "label") if name not in found]:
        raise DataError(
            f"{path}: no column {' and no column '.join(missing)} among {', '.join(names)!r}. "
            "The first line names the columns, with commas between: path,label or path,label,split"
        )
    return found


def _slashed(folder: Path, rows: list[Row], notes: list[str]) -> list[Row]:
    """Paths as Windows writes them, with slashes where that leads to a file."""
    turned = [
        row._replace(path=row.path.replace("\\", "/"))
        if "\\" in row.path and not os.path.isfile(folder / row.path)
        else row
        for row in rows
    ]
    if changed := sum(one != other for one, other in zip(rows, turned, strict=True)):
        notes.append(f"backslashes are read as slashes in {count(changed, 'path')}")
    return turned


def _plain_labels(path: Path, rows: list[Row], notes: list[str]) -> list[Row]:
    """Labels such as 1.0 as 1, where all are numbers; DataError for those that are not whole."""
    try:
        numbers = {row.label: float(row.label) for row in rows if row.label}
    except ValueError:
        return rows
    written = [label for label in numbers if not label.isdecimal()]
    if not written or any(label.startswith("-") for label in written):
        return rows
    if odd := [label for label in written if not numbers[label].is_integer()]:
        raise DataError(
            f"{path}: labels such as {listed(odd)} are not whole numbers: a class has a name or a "
            "whole number"
        )
    first = f"{plain(written[0])} as {int(numbers[written[0]])}"
    notes.append(f"labels are read as whole numbers, such as {first}")
    return [row._replace(label=str(int(numbers[row.label]))) if row.label else row for row in rows]


def _problems(folder: Path, rows: list[Row]) -> Iterator[str]:
    seen: dict[object, Row] = {}
    hint: str | None = None
    for row in rows:
        line, path, label, split = row
        try:
            facts = os.stat(folder / path)
        except (OSError, ValueError):
            facts = None
        if not path:
            yield f"  line {line}: no path"
        elif facts is None or not stat.S_ISREG(facts.st_mode):
            hint = _hint(folder, path) if hint is None else ""
            yield f"  line {line}: {path} is not a file below {folder}{hint}"
        else:
            # The same file may be written in several ways, and have several names.
            file = (facts.st_dev, facts.st_ino)
            first = seen.setdefault(file, row)
            if first is not row:
                same = "" if first.path == path else f" as {first.path}"
                yield f"  line {line}: {path} is on line {first.line} already{same}"
        if not label:
            yield f"  line {line}: no label"
        if split not in ("train", "test", "validation"):
            yield f"  line {line}: split {split!r} is not one of train, test, validation"


def _hint(folder: Path, path: str) -> str:
    """Where a file lies that is not where a table says, if it is near."""
    names = [path, *(path + ending for ending in PICTURES)]
    for place in (folder, *sorted(inner for inner in folder.iterdir() if inner.is_dir())):
        for name in names:
            if os.path.isfile(place / name):
                return f", but {(place / name).relative_to(folder)} is"
    return ""
