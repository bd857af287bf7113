"""A CSV of paths and labels as a data set, and everything wrong with it told by line."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitlab.data.formats import TEST_NAMES, Items, Split, check_names
from vitlab.errors import DataError

SPLITS = ("train", *TEST_NAMES)

SHOWN = 10
"""Problems that are spelt out; of more only the number is told."""


class Row(NamedTuple):
    """One image: a line of the table."""

    line: int
    path: str
    label: str
    split: str


class Table:
    """The columns `path` and `label`, and `split` where the set comes with a test split.

    Paths are relative to the table's folder. Labels are any text: classes are numbered in the
    code-point order of their names, or by value where all are whole numbers. A `validation`,
    `valid` or `val` split stands in for a missing `test`; without a column `split` all are training
    images. Raises one DataError that names the columns or the lines that are wrong.
    """

    def __init__(self, path: Path):
        self.path = path
        rows = read_rows(path)
        test = next((word for word in TEST_NAMES if any(row.split == word for row in rows)), None)
        self.has_test = test is not None
        self.train = [row for row in rows if row.split == "train"]
        self.test = [row for row in rows if row.split == test]
        names = sorted({row.label for row in self.train})
        whole = all(name.isdecimal() for name in names)
        self.class_names = tuple(sorted(names, key=int) if whole else names)
        check_names(path, self.class_names)
        if unseen := {row.label for row in self.test} - {*names}:
            raise DataError(
                f"{path} has classes without training images: {', '.join(sorted(unseen))}. "
                "Add some or remove the classes"
            )

    def files(self, split: Split) -> list[Path]:
        """The table and the images of a split."""
        return [self.path, *self._paths(split)]

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """Paths and labels."""
        number = {name: label for label, name in enumerate(self.class_names)}
        labels = [number[row.label] for row in self._rows(split)]
        return self._paths(split), np.array(labels, np.int64)

    def _rows(self, split: Split) -> list[Row]:
        return self.test if split == "test" else self.train

    def _paths(self, split: Split) -> list[Path]:
        return [self.path.parent / row.path for row in self._rows(split)]


def read_rows(path: Path) -> list[Row]:
    """Read and check a table; a row without a column `split` is a training image."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, skipinitialspace=True, restval="")
            columns = [name.strip() for name in table.fieldnames or ()]
            table.fieldnames = columns
            cells = [(table.line_num, row) for row in table]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}") from error
    if missing := [name for name in ("path", "label") if name not in columns]:
        raise DataError(
            f"{path}: no column {' and no column '.join(missing)} among {', '.join(columns)!r}. "
            "The first line names the columns, with commas between: path,label or path,label,split"
        )
    rows = [
        Row(line, row["path"].strip(), row["label"].strip(), row.get("split", "train").strip())
        for line, row in cells
    ]
    if problems := list(_problems(path.parent, rows)):
        more = [f"  and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise DataError("\n".join([f"{path} cannot be used as it is:", *problems[:SHOWN], *more]))
    if not any(row.split == "train" for row in rows):
        raise DataError(f"{path} has no training images: add rows")
    return rows


def _problems(folder: Path, rows: list[Row]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for line, path, label, split in rows:
        if not path:
            yield f"  line {line}: no path"
        elif not (folder / path).is_file():
            yield f"  line {line}: {path} is not a file below {folder}"
        elif (first := seen.setdefault(path, line)) != line:
            yield f"  line {line}: {path} is on line {first} already"
        if not label:
            yield f"  line {line}: no label"
        if split not in SPLITS:
            yield f"  line {line}: split {split!r} is not one of {', '.join(SPLITS)}"
