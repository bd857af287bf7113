"""A CSV of paths and labels as a data set, and everything wrong with it, named by line."""

import csv
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitlab.data.folder import IMAGE_SUFFIXES
from vitlab.data.source import (
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    SPLIT_WORDS,
    check_class_names,
    listed,
    simplified,
    split_of,
    stands_in,
    unused_split,
)
from vitlab.data.splits import Split
from vitlab.errors import DataError
from vitlab.formatting import count, plain

PATH_COLUMNS = frozenset({
    "path", "paths", "file", "files", "filename", "filenames", "file_name", "filepath",
    "filepaths", "file_path", "image", "images", "image_path", "image_name", "image_file", "img",
    "img_path", "img_name",
})  # fmt: skip
"""What columns of paths are called, as `simplified` writes it."""

COLUMNS = {"path": PATH_COLUMNS, "label": LABEL_COLUMNS, "split": SPLIT_COLUMNS}

Line = tuple[int, dict[str, str]]
"""Number and cells by column of a line of a table."""

REST, JOINED = "\n", "\n\n"
"""Where cells beyond the last column are kept, and labels that were columns: names of no column."""

BINARY = {"": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
"""What the cells of a column that is a label say: whether an image has it."""

SEPARATORS = ",;\t|"

SHOWN_PROBLEMS = 10
"""Problems that an error names; of more only the number."""


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

    separator: str | None = None
    """What stands between the labels of an image; None where it has one class."""

    def __init__(self, path: Path):
        self.path = path
        self.notes: list[str] = []
        self.columns, rows = read_rows(path, self.notes, self.separator)
        by_split = {split: [row for row in rows if row.split == split] for split in SPLIT_WORDS}
        self.train = by_split["train"]
        self.test = by_split["test"] or by_split["validation"]
        self.has_test = bool(self.test)
        if by_split["test"] and (left := by_split["validation"]):
            self.notes.append(unused_split("rows", "validation", len(left)))
        elif self.has_test and not by_split["test"]:
            self.notes.append(stands_in("the table"))
        names, tested = ({name for row in rows for name in self.labels_of(row)}
                         for rows in (self.train, self.test))  # fmt: skip
        whole = all(name.isdecimal() for name in names)
        self.class_names = tuple(sorted(names, key=int if whole else str))
        check_class_names(path, self.class_names, tested)
        self.notes += self._remarks()

    @property
    def uses(self) -> str:
        """The columns of paths, labels and splits."""
        return ", ".join(
            f"{kind} from {self._column(name)}"
            for kind, name in (("paths", "path"), ("labels", "label"), ("splits", "split"))
            if name in self.columns
        )

    def _column(self, name: str) -> str:
        return f"column {plain(self.columns[name])}"

    def files(self, split: Split) -> list[Path]:
        """The table and the images of a split."""
        return [self.path, *self._paths(split)]

    def read(self, split: Split) -> tuple[list[Path], np.ndarray]:
        """Paths and labels."""
        number = {name: label for label, name in enumerate(self.class_names)}
        labels = [number[row.label] for row in self._rows(split)]
        return self._paths(split), np.array(labels, np.int64)

    def labels_of(self, row: Row) -> list[str]:
        """The class of an image."""
        return [row.label]

    def _remarks(self) -> Iterator[str]:
        """What of the labels may not be meant as it is read."""
        parts = [part for name in self.class_names if "|" in name for part in name.split("|")]
        if len(parts) > len({*parts}) or {*parts} & {*self.class_names}:
            joined = next(name for name in self.class_names if "|" in name)
            yield (
                f"{plain(joined)} is read as one class: for several labels an image add "
                "--data.task multilabel"
            )

    def _rows(self, split: Split) -> list[Row]:
        return self.test if split == "test" else self.train

    def _paths(self, split: Split) -> list[Path]:
        return [self.path.parent / row.path for row in self._rows(split)]


class MultilabelTable(Table):
    """A table whose images have any number of labels: two forms, which are read alike.

    The column `label` holds them with a separator between; or there is none, and every column of 0
    and 1 is a label. The labels of training images are the classes; an image may have none.
    """

    def __init__(self, path: Path, separator: str):
        self.separator = separator
        super().__init__(path)

    def _column(self, name: str) -> str:
        joined = self.columns[name] == JOINED
        return (
            f"columns of 0 and 1, {listed(self.class_names)}" if joined else super()._column(name)
        )

    def read(self, split: Split) -> tuple[list[Path], np.ndarray]:
        """Paths and multi-hot labels, uint8 (N, K)."""
        rows = self._rows(split)
        labels = np.zeros((len(rows), len(self.class_names)), np.uint8)
        number = {name: label for label, name in enumerate(self.class_names)}
        for place, row in enumerate(rows):
            labels[place, [number[name] for name in self.labels_of(row)]] = 1
        return self._paths(split), labels

    def labels_of(self, row: Row) -> list[str]:
        """The labels of an image."""
        assert self.separator
        return [name for part in row.label.split(self.separator) if (name := part.strip())]

    def _remarks(self) -> Iterator[str]:
        if without := sum(not self.labels_of(row) for row in (*self.train, *self.test)):
            yield f"{count(without, 'image')} without a label: none of the classes is in them"
        if all(len(self.labels_of(row)) < 2 for row in self.train):
            yield (
                f"no image has two labels: {self.separator!r} separates them (data.label_separator)"
            )


def read_rows(
    path: Path, notes: list[str], separator: str | None = None
) -> tuple[dict[str, str], list[Row]]:
    """Read and check a table; a row without a column `split` is a training image.

    Args:
        notes: what is not used, or read in another way than it is written, is added here.
        separator: what stands between the labels of an image; None where it has one class.

    Returns:
        The table's own names of the columns path, label and split, and the rows.
    """
    names, comma, lines = _read_lines(path)
    columns = _choose_columns(path, names, lines)
    binary = [] if "label" in columns else _binary_columns(names, columns, lines)
    if binary and separator is not None:
        _join_labels(path, binary, lines, separator)
        columns["label"] = JOINED
    _require_columns(path, names, columns, binary)
    used = [*columns.values(), *(binary if separator is not None else ())]
    if left := [name for name in names if name and name not in used]:
        notes.append(f"columns that are not used: {listed(left)}")
    rows = []
    for line, cells in lines:
        written = cells[columns["split"]].strip() if "split" in columns else "train"
        split, rest = split_of(written)
        name, label = (cells[columns[column]].strip() for column in ("path", "label"))
        rows.append(Row(line, name, label, split if split and not rest else written))
    rows = _with_slashes(path.parent, rows, notes)
    if separator is None:
        rows = _whole_labels(path, rows, notes)
    crowded = [
        f"  line {line}: more cells than columns: put what holds a {comma!r} into quotes"
        for line, cells in lines
        if any(cell.strip() for cell in cells.get(REST, ()))
    ]
    if problems := [*crowded, *_problems(path.parent, rows, separator)]:
        shown = problems[:SHOWN_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"  and {len(problems) - len(shown)} more")
        raise DataError("\n".join([f"{path} cannot be used as it is:", *shown]))
    if not any(row.split == "train" for row in rows):
        raise DataError(f"{path} has no training images: add rows")
    return columns, rows


def _read_lines(path: Path) -> tuple[list[str], str, list[Line]]:
    """Names of the columns, separator and lines of a table."""
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
            return names, separator, [(table.line_num, {**cells}) for cells in table]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}") from error


def _choose_columns(path: Path, names: Sequence[str], lines: Sequence[Line]) -> dict[str, str]:
    """The names of the columns path, label and split among those of a table, if they are there."""
    written = {name: {split_of(cells[name]) for _, cells in lines if cells[name].strip()}
               for name in names}  # fmt: skip
    of_splits = [name for name in names if any(part and not rest for part, rest in written[name])]
    chosen: dict[str, str] = {}
    for wanted, synonyms in COLUMNS.items():
        usual = [name for name in names if simplified(name) in synonyms]
        choices = (
            [name for name in names if name == wanted],
            [name for name in names if simplified(name) == wanted],
            [name for name in usual if wanted != "split" or name in of_splits],
        )
        usable = next(filter(None, choices), [])
        if len(usable) > 1:
            raise DataError(
                f"{path}: {' and '.join(map(repr, usable))} may all be the column {wanted}: call "
                f"one {wanted!r} in the first line"
            )
        if usable:
            chosen[wanted] = usable[0]
    for name in of_splits:
        splits_alone = all(part and not rest for part, rest in written[name])
        taken = "split" in chosen or name in chosen.values()
        if splits_alone and len(written[name]) > 1 and not taken:
            raise DataError(
                f"{path}: column {name!r} looks like that of splits: call it 'split' if it is, "
                "or remove it"
            )
    return chosen


def _require_columns(
    path: Path, names: Sequence[str], chosen: dict[str, str], binary: Sequence[str]
) -> None:
    """Refuse a table without a column of paths or of labels; `binary` are columns of 0 and 1."""
    missing = [name for name in ("path", "label") if name not in chosen]
    if missing == ["label"] and binary:
        raise DataError(
            f"{path}: no column label, but columns of 0 and 1: {listed(binary)}. If each is a "
            "label, of which an image may have several, add --data.task multilabel"
        )
    if missing:
        raise DataError(
            f"{path}: no column {' and no column '.join(missing)} among {', '.join(names)!r}. "
            "The first line names the columns, with commas between: path,label or path,label,split"
        )


def _binary_columns(
    names: Sequence[str], chosen: dict[str, str], lines: Sequence[Line]
) -> list[str]:
    """The columns that hold nothing but 0 and 1, and a 1 somewhere."""

    def is_binary(name: str) -> bool:
        cells = {cells[name].strip().casefold() for _, cells in lines}
        return cells <= BINARY.keys() and any(BINARY[cell] for cell in cells)

    return [name for name in names if name and name not in chosen.values() and is_binary(name)]


def _join_labels(path: Path, binary: Sequence[str], lines: Sequence[Line], separator: str) -> None:
    """Write the labels of each line, whose columns hold 1, into one cell."""
    if wrong := [name for name in binary if separator in name]:
        raise DataError(
            f"{path}: the column {wrong[0]!r} holds {separator!r}, which separates labels: choose "
            "another data.label_separator"
        )
    for _, cells in lines:
        has = [name for name in binary if BINARY[cells[name].strip().casefold()]]
        cells[JOINED] = separator.join(has)


def _with_slashes(folder: Path, rows: list[Row], notes: list[str]) -> list[Row]:
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


def _whole_labels(path: Path, rows: list[Row], notes: list[str]) -> list[Row]:
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


def _problems(folder: Path, rows: list[Row], separator: str | None) -> Iterator[str]:
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
        if not label and separator is None:
            yield f"  line {line}: no label"
        if split not in ("train", "test", "validation"):
            yield f"  line {line}: split {split!r} is not one of train, test, validation"


def _hint(folder: Path, path: str) -> str:
    """Where a file lies that is not where a table says, if it is near."""
    names = [path, *(path + suffix for suffix in IMAGE_SUFFIXES)]
    for place in (folder, *sorted(inner for inner in folder.iterdir() if inner.is_dir())):
        for name in names:
            if os.path.isfile(place / name):
                return f", but {(place / name).relative_to(folder)} is"
    return ""
