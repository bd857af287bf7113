"""The ways a labelled set of images can lie on a disk, each read into items and labels.

A format tells its class names, whether it has a test split of its own, and the files of a
split. `read(split)` gives the items, which are encoded images (bytes or paths) or one uint8
array (N, H, W, C), and their labels, int64 (N,). Where there is no test split, `train` is all.
"""

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from vitlab.data.images import EXTENSIONS
from vitlab.data.known import KNOWN
from vitlab.errors import DataError

Split = Literal["train", "test"]
Items = Sequence[bytes | Path] | np.ndarray

TEST_NAMES = ("test", "validation", "valid", "val")
"""What a test split is called, the first one found. vitlab draws its own validation images."""


class Format(Protocol):
    """What every format tells of itself."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        ...

    @property
    def has_test(self) -> bool:
        """True if the set comes with a test split."""
        ...

    def files(self, split: Split) -> list[Path]:
        """The files that hold a split."""
        ...

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """Items and labels of a split."""
        ...


class Digits:
    """scikit-learn's handwritten digits, 8x8 and grey, 0..16 scaled to 0..255."""

    class_names = KNOWN["digits"].class_names
    has_test = False

    def files(self, split: Split) -> list[Path]:
        """None: they lie inside scikit-learn."""
        return []

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """Images (1797, 8, 8, 1) and labels."""
        from sklearn.datasets import load_digits

        images, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
        images = np.rint(images * (255 / 16)).astype(np.uint8)
        return images.reshape(-1, 8, 8, 1), labels.astype(np.int64)


class Folder:
    """One folder per class, in FOLDER itself or in FOLDER/train and FOLDER/test.

    A `validation`, `valid` or `val` folder stands in for a missing `test`. Classes are numbered
    in the code-point order of their names. Hidden files and folders are passed over, and so is
    what is not named like a PNG, JPEG or WebP file. Raises DataError for class names that not
    every disk can hold, and for classes that only the test split has.
    """

    def __init__(self, path: Path):
        tests = [path / name for name in TEST_NAMES if any(_folders(path / name))]
        self.train = path / "train" if any(_folders(path / "train")) else path
        self.test = tests[0] if tests else None
        self.has_test = bool(tests)
        self.class_names = tuple(_folders(self.train))
        if self.test and self.train == path:
            raise DataError(f"{path} has a folder {self.test.name!r} and no folder 'train': add it")
        if not self.class_names:
            raise DataError(
                f"{path} holds neither class folders nor Parquet files: put the images of each "
                "class into a folder named like it"
            )
        check_names(path, self.class_names)
        unseen = set(_folders(self.test)) - {*self.class_names} if self.test else ()
        if unseen:
            raise DataError(
                f"{self.test} has classes without training images: {', '.join(sorted(unseen))}. "
                f"Add them to {self.train} or remove them"
            )

    def files(self, split: Split) -> list[Path]:
        """The images of a split, class by class, sorted."""
        return self._files_and_labels(split)[0]

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """Paths and labels."""
        return self._files_and_labels(split)

    def _files_and_labels(self, split: Split) -> tuple[list[Path], np.ndarray]:
        folder = self.test if split == "test" and self.test else self.train
        by_class = [sorted(picture_files(folder / name)) for name in self.class_names]
        labels = np.repeat(np.arange(len(by_class)), [len(paths) for paths in by_class])
        return [path for paths in by_class for path in paths], labels


def check_names(path: Path, class_names: Sequence[str]) -> None:
    """Refuse class names that cannot be printed or that not every disk can tell apart."""
    seen: dict[str, str] = {}
    for name in class_names:
        twin = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise DataError(f"{path}: class {name!r} cannot be printed: rename it")
        if twin != name:
            raise DataError(
                f"{path}: classes {twin} and {name} differ only in case or in how accents are "
                "stored, which not every disk can tell apart: rename one"
            )


def _folders(path: Path) -> list[str]:
    if not path.is_dir():
        return []
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def picture_files(folder: Path) -> Iterator[Path]:
    """Files below a folder that are named like a PNG, JPEG or WebP image, the hidden left out."""
    seen = set()  # real folders, so that a circle of links ends
    for where, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield Path(where, name)


class Parquet:
    """Parquet files in the Hugging Face image schema, whatever the columns are called.

    The image column is the struct of `bytes` and `path`, the label column holds integers; of
    several, the one with class names is taken, or else the one called `label`. A file belongs
    to the split that is the last such word of its path; without any, all are training images.
    Class names are `class_names`, or else those of the Hugging Face metadata, or else numbers.
    """

    def __init__(
        self, path: Path, class_names: tuple[str, ...] | None = None, label: str = "label"
    ):
        paths = [path] if path.is_file() else sorted(parquet_files(path))
        by_split: dict[str | None, list[Path]] = {}
        for file in paths:
            place = file.name if path.is_file() else str(file.relative_to(path))
            words = [w for w in re.split("[^a-z]+", place.lower()) if w in ("train", *TEST_NAMES)]
            by_split.setdefault(words[-1] if words else None, []).append(file)
        self.train = by_split.get("train", paths)
        self.test = next((by_split[word] for word in TEST_NAMES if word in by_split), [])
        self.has_test = "train" in by_split and bool(self.test)
        self.image, self.label, names = self._columns(label)
        self.class_names = class_names or names or numbered(self._labels("train"))

    def _columns(self, label: str) -> tuple[str, str, tuple[str, ...]]:
        import pyarrow.types as types

        schema = _open(self.train[0]).schema_arrow
        try:
            about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
            features = about.get("info", {}).get("features", {})
            named = [name for name, feature in features.items() if feature.get("names")]
        except (ValueError, AttributeError) as error:
            raise _damaged(self.train[0], error) from error
        images = [
            column.name
            for column in schema
            if types.is_struct(column.type) and {"bytes", "path"} <= {f.name for f in column.type}
        ]
        integers = [column.name for column in schema if types.is_integer(column.type)]
        labels = [name for name in integers if name in named] or integers
        if len(labels) > 1:
            labels = [name for name in labels if name == label]
        if len(images) != 1 or len(labels) != 1:
            raise DataError(
                f"{self.train[0]} has the columns {', '.join(schema.names)}: needed are one of "
                "images (a struct of bytes and path) and one of integer labels (of several, "
                f"{label!r})"
            )
        return images[0], labels[0], tuple(features.get(labels[0], {}).get("names", ()))

    def files(self, split: Split) -> list[Path]:
        """The Parquet files of a split."""
        return self.test if split == "test" and self.has_test else self.train

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """Encoded images and labels."""
        items: list[bytes] = []
        for path in self.files(split):
            for image in _column(path, self.image).to_pylist():
                if image is None or image["bytes"] is None:
                    raise DataError(f"{path}: image {len(items)} has no bytes: store them inside")
                items.append(image["bytes"])
        return items, self._labels(split)

    def _labels(self, split: Split) -> np.ndarray:
        columns = [_column(path, self.label) for path in self.files(split)]
        for path, column in zip(self.files(split), columns, strict=True):
            if column.null_count:
                raise DataError(f"{path}: {column.null_count} images have no label: remove them")
        return np.concatenate([column.to_numpy().astype(np.int64) for column in columns])


def parquet_files(folder: Path) -> Iterator[Path]:
    """The Parquet files below a folder, hidden ones left out."""
    for path in folder.rglob("*.parquet"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path


def numbered(labels: np.ndarray) -> tuple[str, ...]:
    """Class names for labels that come without: 0, 1, ... to the largest label."""
    count = int(labels.max(initial=0)) + 1
    if count > len(labels):
        raise DataError(
            f"labels reach {count - 1} with only {len(labels)} images: number the classes from 0"
        )
    return tuple(map(str, range(count)))


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
