"""The ways a labelled set of images can lie on a disk, each read into items and labels.

A format tells its class names, whether it has a test split of its own, and the files of a
split; `read(split)` gives the items, encoded images (bytes or paths) or one uint8 array
(N, H, W, C), and their labels, int64 (N,).
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
from vitlab.data.known import DIGITS
from vitlab.errors import DataError

Split = Literal["train", "test"]
Items = Sequence[bytes] | Sequence[Path] | np.ndarray
TEST_NAMES = ("test", "validation", "valid", "val")
"""What a test split is called, in the order of preference."""


class Format(Protocol):
    """What every format tells of itself."""

    class_names: tuple[str, ...]
    has_test: bool

    def files(self, split: Split) -> list[Path]:
        """The files that hold a split; without a test split, all of them."""
        ...

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """Items and labels of a split."""
        ...


class Digits:
    """scikit-learn's handwritten digits, 8x8 and grey, 0..16 scaled to 0..255."""

    class_names = DIGITS
    has_test = False

    def files(self, split: Split) -> list[Path]:
        """None: the digits lie inside scikit-learn."""
        return []

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """All images (1797, 8, 8, 1) and their labels."""
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        return images[..., None], digits.target.astype(np.int64)


class Folder:
    """A folder per class, in FOLDER itself or in FOLDER/train and FOLDER/test.

    Classes are numbered in the code-point order of their names. Hidden files and folders are
    passed over, as is every file that is not named like an image. `validation`, `valid` or
    `val` is the test split of a set that has no `test`; beside a `test` it is not read.
    """

    def __init__(self, path: Path):
        self.train = path / "train" if (path / "train").is_dir() else path
        tests = [path / name for name in TEST_NAMES if (path / name).is_dir()]
        self.test = tests[0] if tests and self.train != path else None
        self.has_test = self.test is not None
        self.class_names = tuple(sorted(p.name for p in _visible_folders(self.train)))
        self._check(path)

    def _check(self, path: Path) -> None:
        if not self.class_names:
            raise DataError(
                f"{path} holds neither Parquet files nor class folders: put the images of each "
                "class into a folder of its own, or name a known set (`vitlab datasets`)"
            )
        folded: dict[str, str] = {}
        for name in self.class_names:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise DataError(f"{path}: class folder {os.fsencode(name)!r} is not UTF-8") from None
            twin = folded.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
            if twin != name:
                raise DataError(
                    f"{path}: class folders {twin!r} and {name!r} differ only in case or accents' "
                    "encoding, which some disks cannot tell apart: rename one"
                )
        if self.test:
            extra = {p.name for p in _visible_folders(self.test)} - set(self.class_names)
            if extra:
                raise DataError(
                    f"{self.test} has classes without training images: {', '.join(sorted(extra))}"
                )

    def files(self, split: Split) -> list[Path]:
        """Every image of a split, class by class, sorted."""
        return [path for paths in self._by_class(split).values() for path in paths]

    def _by_class(self, split: Split) -> dict[str, list[Path]]:
        folder = self.test if split == "test" and self.test else self.train
        return {name: sorted(_images(folder / name)) for name in self.class_names}

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """Paths and labels; raises DataError for a training class without images."""
        by_class = self._by_class(split)
        empty = [name for name, paths in by_class.items() if not paths]
        if empty and split == "train":
            raise DataError(
                f"{self.train}: no {'/'.join(EXTENSIONS)} image of class {', '.join(empty[:5])}: "
                "add some or remove the folder"
            )
        counts = [len(paths) for paths in by_class.values()]
        return self.files(split), np.repeat(np.arange(len(counts)), counts)


def _visible_folders(folder: Path) -> Iterator[Path]:
    return (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> Iterator[Path]:
    seen = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            seen.add(real)
            for name in names:
                if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                    yield Path(where, name)


class Parquet:
    """Parquet files in the Hugging Face image schema.

    The image column is the struct of `bytes` and `path`, the label column the integers; of
    several, the one with class names, else the one called `label`, is taken. A file belongs to
    the split that is a word of its path; files of a set that names no split are all training
    images. Class names come from the Hugging Face metadata, else `names`, else are numbers.
    """

    def __init__(self, path: Path, names: tuple[str, ...] | None = None, label: str = "label"):
        self.path = path
        paths = [path] if path.is_file() else sorted(parquet_files(path))
        words = {p: re.split("[^a-z]+", str(p.relative_to(path.parent)).lower()) for p in paths}
        by_word = {
            word: [p for p in paths if word in words[p]] for word in ("train", *TEST_NAMES)
        }
        self.train = by_word["train"] or paths
        self.test = next((by_word[word] for word in TEST_NAMES if by_word[word]), [])
        self.has_test = bool(self.test) and bool(by_word["train"])
        self.image, self.label, self.class_names = self._columns(names, label)

    def _columns(
        self, names: tuple[str, ...] | None, label: str
    ) -> tuple[str, str, tuple[str, ...]]:
        import pyarrow as pa

        schema = _parquet(self.train[0]).schema_arrow
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = features.get("info", {}).get("features", {})
        images = [
            f.name
            for f in schema
            if pa.types.is_struct(f.type) and {"bytes", "path"} <= {f.type[i].name for i in range(f.type.num_fields)}
        ]
        labels = [f.name for f in schema if pa.types.is_integer(f.type)]
        named = [name for name in labels if features.get(name, {}).get("names")]
        if len(named or labels) > 1:
            named = labels = [name for name in labels if name == label]
        if len(images) != 1 or not labels:
            raise DataError(
                f"{self.train[0]} has columns {', '.join(schema.names)}: needed are one image column, "
                f"a struct of bytes and path, and one integer label column (of several: {label!r})"
            )
        column = (named or labels)[0]
        names = tuple(features.get(column, {}).get("names", ())) or names
        if not names:
            _, found = self._read(self.train, images[0], column)
            names = tuple(map(str, range(found.max(initial=0) + 1)))
        return images[0], column, names

    def files(self, split: Split) -> list[Path]:
        """The Parquet files of a split."""
        return self.test if split == "test" and self.has_test else self.train

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """Encoded images and labels."""
        return self._read(self.files(split), self.image, self.label)

    @staticmethod
    def _read(paths: list[Path], image: str, label: str) -> tuple[list[bytes], np.ndarray]:
        import pyarrow as pa
        import pyarrow.compute as pc

        items: list[bytes] = []
        labels = [np.empty(0, np.int64)]
        for path in paths:
            try:
                table = _parquet(path).read(columns=[image, label])
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path} is damaged ({error}): fetch it again") from error
            encoded = pc.struct_field(table[image], "bytes")  # pyright: ignore
            if encoded.null_count or table[label].null_count:
                raise DataError(
                    f"{path}: {encoded.null_count} images without bytes and "
                    f"{table[label].null_count} without label: embed or remove them"
                )
            items += encoded.to_pylist()
            labels.append(table[label].to_numpy().astype(np.int64))
        return items, np.concatenate(labels)


def parquet_files(folder: Path) -> Iterator[Path]:
    """Every visible Parquet file below a folder."""
    return (
        p
        for p in folder.rglob("*.parquet")
        if not any(part.startswith(".") for part in p.relative_to(folder).parts)
    )


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not a whole Parquet file ({error}): fetch it again") from error
