"""Parquet files in the Hugging Face image schema as a data set, whatever the columns are called."""

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitlab.data.folder import list_files, suffixes
from vitlab.data.source import (
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    SPLIT_OF,
    Items,
    check_class_names,
    listed,
    numbered,
    simplified,
    split_of,
    stands_in,
    unused_split,
)
from vitlab.data.splits import Split
from vitlab.errors import DataError
from vitlab.formatting import plain


class Parquet:
    """Images and labels in Parquet files: a single one, or all below a folder.

    The image column is a struct of `bytes` (and `path`), or bytes alone. The label column holds
    integers, whole floats, bools or text; of several, the one with class names is taken, or else
    the one called `label`, or else the one that is called in one of `LABEL_COLUMNS`. A file belongs
    to the split that the last such word of its path says; where no path says any, all are training
    images. Class names are `class_names`, or else those of the Hugging Face metadata, or else the
    text of the labels or numbers. Raises DataError for files that may be of several splits or sets.
    """

    def __init__(
        self, path: Path, class_names: tuple[str, ...] | None = None, label: str = "label"
    ):
        self.path = path
        self.notes: list[str] = []
        self.train, self.test = ([path], []) if path.is_file() else self._find_splits()
        self.has_test = bool(self.test)
        self.image, self.label, names = self._choose_columns(label)
        for file in (*self.train, *self.test):
            _check_split_column(file)
        if self._is_text:
            names = tuple(sorted({*self._values("train")}))
            check_class_names(path, names)
        self.class_names = class_names or names or numbered(self._labels("train"))
        if path.is_dir():
            self._note_unused()

    @property
    def uses(self) -> str:
        """The files of training and of test images, and the columns."""
        columns = f"images from column {plain(self.image)}, labels from column {plain(self.label)}"
        if self.path.is_file():
            return columns
        test = f", test images from {self._names(self.test)}" if self.test else ""
        return f"training images from {self._names(self.train)}{test}; {columns}"

    def files(self, split: Split) -> list[Path]:
        """The Parquet files of a split."""
        return self.test if split == "test" and self.has_test else self.train

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """Encoded images and labels."""
        items: list[bytes] = []
        for path in self.files(split):
            for image in _column(path, self.image).to_pylist():
                content = image["bytes"] if isinstance(image, dict) else image
                if content is None:
                    raise DataError(f"{path}: image {len(items)} has no bytes: store them inside")
                items.append(content)
        return items, self._labels(split)

    def _find_splits(self) -> tuple[list[Path], list[Path]]:
        """The files of training and of test images."""
        by_split: dict[Split | None, list[Path]] = {}
        for file in sorted(parquet_files(self.path)):
            words = re.split("[^a-z]+", str(file.relative_to(self.path)).lower())
            splits: list[Split] = [SPLIT_OF[word] for word in words if word in SPLIT_OF]
            by_split.setdefault(splits[-1] if splits else None, []).append(file)
        unnamed = by_split.pop(None, [])
        if not by_split:
            self._check_one_set(unnamed)
            return unnamed, []
        if "train" not in by_split:
            rename = f"{self._names(unnamed)}, as in train-0.parquet"
            raise DataError(
                f"{self.path} has no Parquet file with 'train' in its path beside "
                f"{self._names(next(iter(by_split.values())))}: rename "
                + (rename if unnamed else "one, add it, or give a file as data set")
            )
        if unnamed:
            self.notes.append(f"{self._names(unnamed)} name neither train nor test: not used")
        test, validation = by_split.get("test", []), by_split.get("validation", [])
        if test and validation:
            rows = sum(_open(file).metadata.num_rows for file in validation)
            self.notes.append(unused_split(self._names(validation), "validation", rows))
        elif validation:
            self.notes.append(stands_in(self._names(validation)))
        for files in (by_split["train"], test or validation):
            self._check_one_set(files)
        return by_split["train"], test or validation

    def _check_one_set(self, files: list[Path]) -> None:
        """Refuse files that lie in several folders, as the configurations of a set do."""
        folders = {
            Path(*(part for part in folder.parts if split_of(part)[0] is None)): folder
            for folder in (file.relative_to(self.path).parent for file in files)
        }
        if len(folders) > 1:
            raise DataError(
                f"{self.path} has Parquet files of one split in {listed(sorted(folders))}: give "
                f"one of them as data set, as {self.path / min(folders)}, or move all into one "
                "folder"
            )

    def _names(self, files: list[Path]) -> str:
        return listed((file.relative_to(self.path) for file in files), shown=2)

    def _choose_columns(self, label: str) -> tuple[str, str, tuple[str, ...]]:
        """The columns of images and of labels, and the class names that the file has."""
        schema = _open(self.train[0]).schema_arrow
        kinds = {column.name: _kind(column.type) for column in schema}
        images = [name for name, kind in kinds.items() if kind == "image"]
        integers = [name for name, kind in kinds.items() if kind == "integer"]
        usable = [name for name, kind in kinds.items() if kind not in ("image", None)]
        try:
            about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
            features = about.get("info", {}).get("features", {})
            class_names = {
                name: tuple(map(str, features.get(name, {}).get("names") or ()))
                for name in schema.names
            }
        except (ValueError, TypeError, AttributeError) as error:
            raise _damaged(self.train[0], error) from error
        named = [name for name in integers if class_names[name]]
        so_called = [name for name in named or usable if name == label]
        usual = [name for name in usable if simplified(name) in LABEL_COLUMNS]
        choices = named, so_called, [] if named else usual or integers or usable
        labels = next((choice for choice in choices if len(choice) == 1), [])
        if len(images) != 1 or not labels:
            raise DataError(
                f"{self.train[0]} has the columns {', '.join(schema.names)}: needed are one of "
                "images (a struct of bytes and path, or bytes) and one of labels (of several, "
                f"{label!r})"
            )
        if left := [name for name in schema.names if name not in (images[0], labels[0])]:
            self.notes.append(f"columns that are not used: {listed(left)}")
        return images[0], labels[0], class_names[labels[0]]

    def _note_unused(self) -> None:
        """Note what lies beside the Parquet files."""
        found = list_files(self.path)
        others = [path for path in found.others if path.suffix != ".parquet"]
        if found.images or others:
            way_out = "; to use images, move the Parquet files away" if found.images else ""
            self.notes.append(
                f"not used, beside the Parquet files: {suffixes([*found.images, *others])}{way_out}"
            )

    @cached_property
    def _is_text(self) -> bool:
        return _kind(_open(self.train[0]).schema_arrow.field(self.label).type) == "text"

    def _labels(self, split: Split) -> np.ndarray:
        values = self._values(split)
        if self._is_text:
            number = {name: label for label, name in enumerate(self.class_names)}
            check_class_names(self.path, self.class_names, values)
            values = [number[value] for value in values]
        try:
            return np.array(values, np.int64)
        except OverflowError as error:
            raise _damaged(self.path, error) from error

    def _values(self, split: Split) -> list[Any]:
        """The labels of a split as integers or, where they are no numbers, as text."""
        found: list[Any] = []
        for path in self.files(split):
            column = _column(path, self.label)
            if column.null_count:
                raise DataError(f"{path}: {column.null_count} images have no label: remove them")
            values = column.to_pylist()
            if any(isinstance(value, float) and not value.is_integer() for value in values):
                raise DataError(
                    f"{path}: column {self.label!r} has numbers that are not whole: store the "
                    "number of a class, from 0, or its name"
                )
            try:
                found += [str(value) if self._is_text else int(value) for value in values]
            except (ValueError, OverflowError) as error:
                raise _damaged(path, error) from error
        return found


def parquet_files(folder: Path) -> Iterator[Path]:
    """The Parquet files below a folder, hidden ones left out."""
    for path in folder.rglob("*.parquet"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path


def _kind(column: Any) -> Literal["image", "integer", "float", "text"] | None:
    """What a column of an Arrow type may be: images or one of the forms of labels."""
    import pyarrow.types as types

    if types.is_struct(column):
        return "image" if any(field.name == "bytes" for field in column) else None
    if types.is_binary(column) or types.is_large_binary(column):
        return "image"
    if types.is_integer(column):
        return "integer"
    if types.is_floating(column):
        return "float"
    if types.is_dictionary(column):
        return "text" if _kind(column.value_type) not in ("image", None) else None
    tests = types.is_boolean, types.is_string, types.is_large_string
    return "text" if any(test(column) for test in tests) else None


def _check_split_column(file: Path) -> None:
    """Refuse a file of which a column says that its rows are of several splits."""
    for column in _open(file).schema_arrow:
        if _kind(column.type) != "text" or simplified(column.name) not in SPLIT_COLUMNS:
            continue
        values = sorted({str(value) for value in _column(file, column.name).unique()})
        if len({split_of(value)[0] for value in values} - {None}) > 1:
            raise DataError(
                f"{file}: column {column.name!r} says {listed(values)}: write each into a "
                "file of its own, such as train.parquet and test.parquet: "
                f"t = pyarrow.parquet.read_table({file.name!r}); "
                "pyarrow.parquet.write_table(t.filter(pyarrow.compute.field("
                f"{column.name!r}) == {values[0]!r}), 'train.parquet')"
            )


def _open(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise _damaged(path, error) from error


def _column(path: Path, name: str) -> Any:
    import pyarrow

    try:
        return _open(path).read(columns=[name])[name]
    except (OSError, KeyError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is truncated, damaged or of another schema ({error}): fetch it again")
