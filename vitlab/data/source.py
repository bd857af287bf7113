"""What the forms of a labelled set on a disk share: one protocol, and the usual names of parts.

A source is a folder, a table, Parquet files or the official files of a known set. `read(split)`
gives the items, which are encoded images (bytes or paths) or one uint8 array (N, H, W, C), and
their labels, int64 (N,). Where a set comes without a test split, its `train` is all there is.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from vitlab.data.splits import Split
from vitlab.errors import DataError
from vitlab.formatting import count, plain

Items = Sequence[bytes | Path] | np.ndarray

SPLIT_WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainset", "trainingset"),
    "test": ("test", "testing", "tests", "tst", "testset", "holdout"),
    "validation": (
        "validation", "valid", "val", "validate", "dev", "eval", "evaluation", "valset",
    ),
}  # fmt: skip
"""What splits are called, in small letters. Validation images stand in for missing test images;
vitlab draws its own."""

SPLIT_OF: dict[str, Split] = {word: split for split, words in SPLIT_WORDS.items() for word in words}

FILLERS = frozenset({
    "data", "dataset", "database", "set", "sets", "split", "splits", "seg", "image", "images",
    "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "file", "files",
    "folder", "folders", "raw", "all",
})  # fmt: skip
"""Words that do not say which split a folder holds."""

LABEL_COLUMNS = frozenset({
    "label", "labels", "class", "classes", "class_name", "classname", "category", "target",
    "targets",
})  # fmt: skip
"""What columns of labels are called, as `simplified` writes it."""

SPLIT_COLUMNS = frozenset({
    "split", "splits", "subset", "partition", "data_set", "dataset", "set", "phase",
})  # fmt: skip
"""What columns are called that say the split of a row."""


class Source(Protocol):
    """A labelled set of images on a disk."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        ...

    @property
    def has_test(self) -> bool:
        """True if the set comes with a test split."""
        ...

    @property
    def uses(self) -> str:
        """Which files, folders or columns are used for what, in words."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """A sentence for each kind of thing that is not used, and why; empty for none."""
        ...

    def files(self, split: Split) -> list[Path]:
        """The files that hold a split, train or test."""
        ...

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """Items and labels of a split, train or test."""
        ...


@dataclass(frozen=True)
class Undivided:
    """A source without a test split, of which none is drawn: all its images are in `train`."""

    source: Source
    has_test = True

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        return self.source.class_names

    @property
    def uses(self) -> str:
        """Which files, folders or columns are used for what, in words."""
        return self.source.uses

    @property
    def notes(self) -> Sequence[str]:
        """A sentence for each kind of thing that is not used, and why; empty for none."""
        return self.source.notes

    def files(self, split: Split) -> list[Path]:
        """The files that hold the images."""
        return self.source.files(split)

    def read(self, split: Split) -> tuple[Items, np.ndarray]:
        """Items and labels."""
        return self.source.read(split)


def split_of(name: str) -> tuple[Split | None, tuple[str, ...]]:
    """The split that a name speaks of, and the words that it has besides.

    Case, digits and signs do not matter, nor do words such as `images`: `TRAIN`, `train_images`,
    `Training set` and `seg_train` are all training images and nothing else.
    """
    words = [
        word.casefold()
        for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\dA-Za-z_]+", name)
    ]
    splits: set[Split] = {SPLIT_OF[word] for word in words if word in SPLIT_OF}
    rest = tuple(word for word in words if word not in SPLIT_OF and word not in FILLERS)
    return (splits.pop() if len(splits) == 1 else None), rest


def simplified(name: str) -> str:
    """The name of a column without case, spaces and signs."""
    return re.sub(r"[\W_]+", "_", name.strip().casefold()).strip("_")


def listed(names: Iterable[object], shown: int = 3) -> str:
    """The first of some names on one line, and how many more there are."""
    names = list(names)
    more = [f"{len(names) - shown:,} more"] if len(names) > shown else []
    return ", ".join([*(plain(str(name)) for name in names[:shown]), *more])


def unused_split(where: str, split: Split, images: int) -> str:
    """Say that a split is not used because another stands for the test images."""
    return (
        f"{where} ({count(images, 'image')} of the {split} split) is not used: vitlab draws its "
        "own validation images from the training images"
    )


def stands_in(where: str) -> str:
    """Say that validation images are used as test images."""
    return f"validation images of {where} stand in for test images, which are missing"


def check_class_names(where: Path, class_names: Sequence[str], test: Iterable[str] = ()) -> None:
    """Refuse class names that cannot be printed or that not every disk can tell apart.

    And those of test images, where there are any, that no training image has.
    """
    seen: dict[str, str] = {}
    for name in class_names:
        simple = " ".join(unicodedata.normalize("NFC", name).casefold().split())
        twin = seen.setdefault(simple, name)
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise DataError(f"{where}: class {name!r} cannot be printed: rename it")
        if twin != name:
            raise DataError(
                f"{where}: classes {twin!r} and {name!r} differ only in case or in spaces or in "
                "how accents are stored, which not every disk can tell apart: rename one"
            )
    if unseen := sorted({*test} - {*class_names}):
        raise DataError(
            f"{where} has test images of classes without training images: {listed(unseen)}. Add "
            "some or remove the classes"
        )


def numbered(labels: np.ndarray) -> tuple[str, ...]:
    """Class names for labels that come without: 0, 1, ... to the largest label."""
    classes = int(labels.max(initial=0)) + 1
    if classes > len(labels):
        raise DataError(
            f"labels reach {classes - 1} with only {len(labels)} images: number the classes from 0"
        )
    return tuple(map(str, range(classes)))
