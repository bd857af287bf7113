"""The ways a labelled set of images can lie on a disk, each read into items and labels.

A format tells its class names, whether it has a test split of its own, and the files of a
split. `read(split)` gives the items, which are encoded images (bytes or paths) or one uint8
array (N, H, W, C), and their labels, int64 (N,). Where there is no test split, `train` is all.
It also says in words what it uses for what, and in `notes` all that it passes over.
"""

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from vitlab.data.images import EXTENSIONS
from vitlab.data.known import KNOWN
from vitlab.errors import DataError
from vitlab.formatting import count, plain

Split = Literal["train", "test"]
Part = Literal["train", "test", "validation"]
Items = Sequence[bytes | Path] | np.ndarray

SYNONYMS: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainset", "trainingset"),
    "test": ("test", "testing", "tests", "tst", "testset", "holdout"),
    "validation": (
        "validation", "valid", "val", "validate", "dev", "eval", "evaluation", "valset",
    ),
}  # fmt: skip
"""What the parts of a data set are called, in small letters. Validation images stand in for missing
test images; vitlab draws its own."""

PARTS: dict[str, Part] = {word: part for part, words in SYNONYMS.items() for word in words}

FILLERS = frozenset({
    "data", "dataset", "database", "set", "sets", "split", "splits", "seg", "image", "images",
    "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "file", "files",
    "folder", "folders", "raw", "all",
})  # fmt: skip
"""Words that say nothing about which part of a data set a folder holds."""

PICTURES = (*EXTENSIONS, ".jpe", ".jfif", ".jif")
"""What PNG, JPEG and WebP files are called; the last three are other names of JPEG."""

FOREIGN = frozenset({
    ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jp2", ".npy", ".npz", ".ppm",
    ".pgm", ".svg", ".dcm", ".dng", ".cr2",
})  # fmt: skip
"""Names of images and arrays that are not read."""

LABEL_NAMES = frozenset({
    "label", "labels", "class", "classes", "class_name", "classname", "category", "target",
    "targets",
})  # fmt: skip
"""What columns of labels are called, as `simplified` writes it."""

SPLIT_NAMES = frozenset({
    "split", "splits", "subset", "partition", "data_set", "dataset", "set", "phase",
})  # fmt: skip
"""What columns are called that say the part of the data set that a row is in."""

SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini", "_ds_store"})
"""What operating systems leave in folders without a dot before its name."""


def part_of(name: str) -> tuple[Part | None, tuple[str, ...]]:
    """The part of a data set that a name speaks of, and the words that it has besides.

    Case, digits and signs do not matter, nor do words such as `images`: `TRAIN`, `train_images`,
    `Training set` and `seg_train` are all training images and nothing else.
    """
    words = [
        word.casefold()
        for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\dA-Za-z_]+", name)
    ]
    parts: set[Part] = {PARTS[word] for word in words if word in PARTS}
    rest = tuple(word for word in words if word not in PARTS and word not in FILLERS)
    return (parts.pop() if len(parts) == 1 else None), rest


def listed(names: Iterable[object], shown: int = 3) -> str:
    """The first of some names on one line, and how many more there are."""
    names = list(names)
    more = [f"{len(names) - shown:,} more"] if len(names) > shown else []
    return ", ".join([*(plain(str(name)) for name in names[:shown]), *more])


def unused(folder: str, part: str, images: int) -> str:
    """Say that validation images of a set that also has test images are not used."""
    return (
        f"{folder} ({count(images, 'image')} of the {part} split) is not used: vitlab draws its "
        "own validation images from the training images"
    )


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

    @property
    def uses(self) -> str:
        """Which files, folders or columns are used for what, in words."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """A sentence for each kind of thing that is passed over, and why; empty for none."""
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
    uses = "scikit-learn's handwritten digits"
    notes: Sequence[str] = ()

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

    Parts are told by the words of `PARTS`; validation images stand in for missing test images.
    A single folder that says nothing by its name, or the same again, is looked into. Classes are
    numbered in the code-point order of their names; images in folders inside a class folder
    belong to the class. Raises DataError for class names that not every disk can hold, for
    classes that only the test split has, and for folders that may or may not be parts.
    """

    def __init__(self, path: Path):
        self.path = path
        self.notes: list[str] = []
        if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            raise DataError(
                f"{path} holds Arrow files: write them as Parquet, with d = "
                f"datasets.load_from_disk({str(path)!r}) and d['train'].to_parquet("
                "'train.parquet'), and so for test, or d.to_parquet where it has no splits"
            )
        root = self._unwrapped(path)
        self.train, self.test = self._parts(root)
        self.has_test = self.test is not None
        self.class_names = tuple(_folders(self.train))
        if not self.class_names:
            raise DataError(_nothing_in(path, self.train))
        check_names(path, self.class_names)
        for folder in filter(None, (self.train, self.test)):
            self._check_classes(folder)
        if self.train == root:
            self._check_alike(root)
        unseen = set(_folders(self.test)) - {*self.class_names} if self.test else ()
        if unseen:
            raise DataError(
                f"{self.test} has classes without training images: {', '.join(sorted(unseen))}. "
                f"Add them to {self.train} or remove them"
            )
        self._check_links()
        self._found = {"train": self._contents(self.train)}
        if self.test:
            self._found["test"] = self._contents(self.test)
        self._remark(root)

    @property
    def uses(self) -> str:
        """The folders of training and of test images."""
        training = f"training images from {self._name(self.train)}"
        return f"{training}, test images from {self._name(self.test)}" if self.test else training

    def files(self, split: Split) -> list[Path]:
        """The images of a split, class by class, sorted; without those that are not there."""
        return [path for path in self.read(split)[0] if os.path.isfile(path)]

    def read(self, split: Split) -> tuple[list[Path], np.ndarray]:
        """Paths and labels."""
        by_class = [found.pictures for found in self._found.get(split, self._found["train"])]
        labels = np.repeat(np.arange(len(by_class)), [len(paths) for paths in by_class])
        return [path for paths in by_class for path in paths], labels

    def _name(self, folder: Path) -> str:
        """A folder's name below the set, for people."""
        inside = folder.relative_to(self.path)
        return f"{plain(str(inside if inside.parts else self.path.absolute().name))}/"

    def _unwrapped(self, folder: Path) -> Path:
        """Go into a folder as long as it holds but one folder, which cannot be a class."""
        seen = set()
        while (names := _folders(folder)) and os.path.realpath(folder) not in seen:
            seen.add(os.path.realpath(folder))  # so that a circle of links ends
            inner = folder / names[0]
            if len(names) > 1 or any(_is_picture(name) for name in os.listdir(folder)):
                break
            part, rest = part_of(names[0])
            again = names[0].casefold() == folder.absolute().name.casefold()
            says_nothing = part is None and not rest
            if not again and (part or not (says_nothing or self._holds_parts(inner))):
                break
            folder = inner
        return folder

    def _holds_parts(self, folder: Path) -> bool:
        parts = {part_of(name)[0] for name in _folders(folder)}
        return "train" in parts and len(parts - {None}) > 1

    def _parts(self, root: Path) -> tuple[Path, Path | None]:
        """The folders of training and of test images."""
        names = _folders(root)
        inside = {name: _folders(self._unwrapped(root / name)) for name in names}
        told = {name: part_of(name) for name in names}
        # Names such as letters_train and letters_test have the same other words.
        for rest in sorted({rest for _, rest in told.values()}, key=len):
            by_part: dict[str, list[str]] = {}
            for name, (part, other) in told.items():
                if part and other == rest:
                    by_part.setdefault(part, []).append(name)
            trained = [name for name in by_part.get("train", ()) if inside[name]]
            if trained and (not rest or len(by_part) > 1):
                return self._split(root, by_part, inside)
        flat = {part: name for name, (part, rest) in told.items() if part and not rest}
        with_classes = [name for name in flat.values() if inside[name]]
        if tests := [name for name in with_classes if part_of(name)[0] != "train"]:
            raise DataError(f"{root} has a folder {tests[0]!r} and no folder 'train': add it")
        if len(flat) > 1:
            raise DataError(
                f"{root}: {listed(sorted(flat.values()))} hold images and no class folders: put "
                "the images of each class into a folder named like it, as in train/cat, or list "
                "them in a CSV file with the columns path, label and split"
            )
        odd = [name for part, name in flat.items() if part != "train"]
        if odd and len(names) > 2:
            raise DataError(
                f"{root}: is {odd[0]!r} a class or a split? It holds images and no class folders. "
                "Rename it if it is a class, or else move it out of the folder"
            )
        return root, None

    def _split(
        self, root: Path, by_part: dict[str, list[str]], inside: dict[str, list[str]]
    ) -> tuple[Path, Path | None]:
        """The folders of a root that has training images in a folder of their own."""
        usable = {part: [n for n in names if inside[n]] for part, names in by_part.items()}
        test = "test" if usable.get("test") else "validation"
        for part in ("train", test):
            if len(usable.get(part, ())) > 1:
                raise DataError(
                    f"{root}: {' and '.join(usable[part])} are all called like {part} images: "
                    "keep one, or move their images together"
                )
        train = usable["train"][0]
        chosen = {train, *usable.get(test, ())}
        parts = {name: part for part, names in by_part.items() for name in names}
        left = [name for name in inside if name not in chosen]
        images = {name: len(contents(root / name).pictures) for name in left}
        others = [name for name in left if name not in parts and images[name]]
        if len(chosen) == 1 and others:
            raise DataError(
                f"{root}: is {train!r} the training images, or a class beside "
                f"{listed(others)}? For the training images give {root / train} as data set, or "
                f"move the others away; for a class put the images of {train!r} directly into it"
            )
        for name in left:
            if name in parts and inside[name]:
                self.notes.append(unused(f"{plain(name)}/", parts[name], images[name]))
            elif images[name]:
                why = "they lie in no class folder" if name in parts else "it is no train or test"
                number = count(images[name], "image")
                self.notes.append(f"{plain(name)}/ ({number}) is not used: {why}")
        test_name = next(iter(usable.get(test, ())), None)
        if test_name and test == "validation":
            self.notes.append(f"{plain(test_name)}/ stands in for test images, which are missing")
        return self._unwrapped(root / train), (
            self._unwrapped(root / test_name) if test_name else None
        )

    def _check_alike(self, root: Path) -> None:
        """Refuse folders that look like parts of a set, or like sets, and not like classes."""
        names = self.class_names
        inside = {name: _folders(root / name) for name in names}
        if len(names) == 1 and (below := _below(root / names[0])) is not None:
            raise DataError(
                f"{root} holds one folder, {names[0]}, and a classifier needs two classes: for the "
                f"folders {listed(_folders(below))} give {below} as data set"
            )
        alike = [
            (one, other)
            for place, one in enumerate(names)
            for other in names[place + 1 :]
            if len({*inside[one]} & {*inside[other]}) > 1
        ][:1]
        for one, other in alike:
            same = listed(sorted({*inside[one]} & {*inside[other]}))
            if len(names) <= 3:  # more are hardly parts
                raise DataError(
                    f"{root}: {one} and {other} both hold folders named {same}. If they are "
                    "training and test images, rename them to train and test; if they are two "
                    f"data sets, give one of them, {root / one}; if they are classes, move their "
                    "images directly into them"
                )
            self.notes.append(
                f"{plain(one)}/ and {plain(other)}/, among others, both hold folders named {same}: "
                "all images below each of them are one class"
            )

    def _check_classes(self, folder: Path) -> None:
        """Refuse class folders that hold parts or other classes, and those that are no classes."""
        names = _folders(folder)
        if {name.casefold() for name in names} <= {"images", "labels", "annotations", "masks"}:
            raise DataError(
                f"{folder} holds the folders {listed(names)}, as sets for detection or "
                "segmentation do: put the images of each class into a folder named like it, or "
                "list them in a CSV file with the columns path and label"
            )
        for name in names:
            below = _folders(folder / name)
            parts = {part_of(inner)[0] for inner in below if not part_of(inner)[1]}
            if "train" in parts and len(parts - {None}) > 1:
                raise DataError(
                    f"{folder / name} holds the folders {listed(below)}: move them above the "
                    f"classes, as in {folder / 'train' / name}, or give {folder / name} as data "
                    "set if it is one"
                )
            if len(same := {*below} & ({*names} - {name})) > 1:
                raise DataError(
                    f"{folder / name} holds folders named like classes beside it, "
                    f"{listed(sorted(same))}: if it is a copy, move it away"
                )

    def _check_links(self) -> None:
        """Refuse links that make one folder two classes, or training and test images."""
        seen: dict[str, Path] = {}
        for folder in filter(None, (self.train, self.test)):
            for name in _folders(folder):
                twin = seen.setdefault(os.path.realpath(folder / name), folder / name)
                if twin != folder / name:
                    raise DataError(f"{folder / name} and {twin} are the same folder: remove one")

    def _contents(self, folder: Path) -> list["Contents"]:
        """What the class folders hold."""
        found = [
            contents(place) if (place := folder / name).is_dir() else Contents([], [], [])
            for name in self.class_names
        ]
        for name, one in zip(self.class_names, found, strict=True):
            if folder == self.train and one.others and not one.pictures:
                raise DataError(
                    f"{folder} has no training image of class {name}: its "
                    f"{count(len(one.others), 'file')} are no PNG, JPEG or WebP by their names "
                    f"({kinds(one.others)}). Save them as PNG, or remove the class"
                )
        return found

    def _remark(self, root: Path) -> None:
        """Note what is passed over around and inside the class folders."""
        found = [one for part in self._found.values() for one in part]
        others = [path for one in found for path in one.others]
        if others:
            way_out = "; save images as PNG" if any(_is_foreign(path) for path in others) else ""
            are = (
                "is no PNG, JPEG or WebP by its name"
                if len(others) == 1
                else ("are no PNG, JPEG or WebP by their names")
            )
            self.notes.append(
                f"{count(len(others), 'file')} of class folders {are}: {kinds(others)}, such as "
                f"{plain(str(self._inside(others[0])))}{way_out}"
            )
        around = [
            path
            for folder in dict.fromkeys(filter(None, (self.path, root, self.train, self.test)))
            for path in _files(folder)
        ]
        loose = [path for path in around if _is_picture(path.name)]
        if loose:
            self.notes.append(
                f"not used, as no class folder holds them: {count(len(loose), 'image')}, "
                f"{listed(map(self._inside, loose))}"
            )
        gone = [path for path in around if path.is_symlink() and not path.exists()]
        tables = [path for path in around if path not in loose and path not in gone]
        if gone:
            self.notes.append(f"broken links: {listed(map(self._inside, gone))}")
        if tables:
            self.notes.append(
                f"not read, beside the class folders: {listed(map(self._inside, tables))}"
            )
        deep = Counter(
            str(path.parent.relative_to(self.path))
            for name, folder in self._class_folders()
            for path in name.pictures
            if path.parent != folder
        )
        if deep:
            most = [f"{folder}/ {number}" for folder, number in deep.most_common()]
            self.notes.append(
                f"images in folders inside a class folder count to the class: {listed(most)}"
            )
        hidden = [path for one in found for path in one.hidden]
        hidden += [path for path in self.path.iterdir() if _is_hidden(path.name)]
        if hidden:
            names = Counter(path.name for path in hidden)
            self.notes.append(
                f"{len(hidden):,} hidden or left by the system: {listed(sorted(names))}"
            )
        if self.test:
            empty = [
                name
                for name, one in zip(self.class_names, self._found["test"], strict=True)
                if not one.pictures
            ]
            if empty:
                self.notes.append(f"no test images of class {listed(empty)}")

    def _class_folders(self) -> Iterator[tuple["Contents", Path]]:
        for part, found in self._found.items():
            folder = self.test if part == "test" and self.test else self.train
            for name, one in zip(self.class_names, found, strict=True):
                yield one, folder / name

    def _inside(self, path: Path) -> Path:
        return path.relative_to(self.path)


def _below(folder: Path) -> Path | None:
    """The first folder that holds several folders, down a path of single ones."""
    seen = set()
    while len(names := _folders(folder)) == 1 and os.path.realpath(folder) not in seen:
        seen.add(os.path.realpath(folder))
        folder = folder / names[0]
    return folder if len(names) > 1 else None


def _nothing_in(path: Path, train: Path) -> str:
    """Why a folder without class folders is no data set, and what to do with what it holds."""
    names = sorted(name for name in os.listdir(path) if not _is_hidden(name))
    ways = []
    if tables := [name for name in names if name.lower().endswith((".csv", ".tsv"))]:
        ways.append(f"if {tables[0]} lists the images, give {path / tables[0]} as data set")
    if any(name.lower().endswith((".zip", ".tar", ".tgz", ".gz", ".rar", ".7z")) for name in names):
        ways.append("unpack the archives in it")
    ways.append("put the images of each class into a folder named like it")
    return f"{train} holds neither class folders nor Parquet files: {', or '.join(ways)}"


def check_names(path: Path, class_names: Sequence[str]) -> None:
    """Refuse class names that cannot be printed or that not every disk can tell apart."""
    seen: dict[str, str] = {}
    for name in class_names:
        simple = " ".join(unicodedata.normalize("NFC", name).casefold().split())
        twin = seen.setdefault(simple, name)
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise DataError(f"{path}: class {name!r} cannot be printed: rename it")
        if twin != name:
            raise DataError(
                f"{path}: classes {twin!r} and {name!r} differ only in case or in spaces or in how "
                "accents are stored, which not every disk can tell apart: rename one"
            )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in SYSTEM


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES) and not _is_hidden(name)


def _is_foreign(path: Path) -> bool:
    return path.suffix.lower() in FOREIGN


def _entries(path: Path, folders: bool) -> list[str]:
    """The folders in a folder, or else what is none, sorted and without what is hidden."""
    try:
        with os.scandir(path) as entries:  # which knows the folders without asking file by file
            found = [e.name for e in entries if _is_folder(e) == folders and not _is_hidden(e.name)]
    except OSError as error:
        raise _unlisted(error) from error
    return sorted(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink():
        return os.path.isdir(entry.path)  # which a circle of links does not upset
    return entry.is_dir()


def _folders(path: Path) -> list[str]:
    return _entries(path, folders=True) if path.is_dir() else []


def _files(path: Path) -> list[Path]:
    return [path / name for name in _entries(path, folders=False)]


def _unlisted(error: OSError) -> DataError:
    return DataError(
        f"{error.filename} cannot be listed: {error.strerror}. Allow it, or move the folder away"
    )


def kinds(paths: Iterable[Path]) -> str:
    """The endings of files, with the number of each."""
    endings = Counter(path.suffix.lower() or "without an ending" for path in paths)
    return ", ".join(f"{plain(ending)} {number:,}" for ending, number in sorted(endings.items()))


class Contents(NamedTuple):
    """What lies in a folder and in the folders below it, sorted."""

    pictures: list[Path]
    """Files that are named like a PNG, JPEG or WebP image."""
    others: list[Path]
    """Files that are not."""
    hidden: list[Path]
    """Hidden files and folders, and what operating systems leave."""


def contents(folder: Path) -> Contents:
    """Tell apart all that lies below a folder; links are followed. DataError if that cannot be."""
    found = Contents([], [], [])
    seen = set()  # real folders, so that a circle of links ends

    def refuse(error: OSError) -> None:
        raise _unlisted(error) from error

    for where, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found.hidden.extend(Path(where, name) for name in folders if _is_hidden(name))
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in names:
            kind = found.hidden if _is_hidden(name) else found.others
            (found.pictures if _is_picture(name) else kind).append(Path(where, name))
    for paths in found:
        paths.sort(key=lambda path: path.parts)
    return found


def picture_files(folder: Path) -> Iterator[Path]:
    """Files below a folder that are named like a PNG, JPEG or WebP image, the hidden left out."""
    yield from contents(folder).pictures


class Parquet:
    """Parquet files in the Hugging Face image schema, whatever the columns are called.

    The image column is a struct of `bytes` (and `path`), or bytes alone. The label column holds
    integers, whole floats, bools or text; of several, the one with class names is taken, or else
    the one called `label`, or else the one that is called in one of `LABEL_NAMES`. A file belongs
    to the part that the last such word of its path says; where no path says any, all are training
    images. Class names are `class_names`, or else those of the Hugging Face metadata, or else the
    text of the labels or numbers. Raises DataError for files that may be of several parts or sets.
    """

    def __init__(
        self, path: Path, class_names: tuple[str, ...] | None = None, label: str = "label"
    ):
        self.path = path
        self.notes: list[str] = []
        self.train, self.test = self._parts()
        self.has_test = bool(self.test)
        self.image, self.label, names = self._columns(label)
        self._check_rows()
        self._text = self._is_text()
        if self._text:
            names = tuple(sorted({*self._values("train")}))
            check_names(path, names)
        self.class_names = class_names or names or numbered(self._labels("train"))
        self._remark()

    def _parts(self) -> tuple[list[Path], list[Path]]:
        """The files of training and of test images."""
        if self.path.is_file():
            return [self.path], []
        paths = sorted(parquet_files(self.path))
        by_part: dict[Part | None, list[Path]] = {}
        for file in paths:
            words = re.split("[^a-z]+", str(file.relative_to(self.path)).lower())
            parts: list[Part] = [PARTS[word] for word in words if word in PARTS]
            by_part.setdefault(parts[-1] if parts else None, []).append(file)
        if not by_part.keys() - {None}:
            self._check_one_set(paths)
            return paths, []
        unnamed = by_part.get(None, [])
        if "train" not in by_part:
            raise DataError(
                f"{self.path} has no Parquet file with 'train' in its path beside "
                f"{self._names(next(files for part, files in by_part.items() if part))}: rename "
                + (f"{self._names(unnamed)}, as in train-0.parquet" if unnamed else "one, add it, ")
                + ("" if unnamed else "or give a file as data set")
            )
        if unnamed:
            self.notes.append(f"{self._names(unnamed)} name neither train nor test: not used")
        if "test" in by_part and "validation" in by_part:
            left = by_part["validation"]
            rows = sum(_open(file).metadata.num_rows for file in left)
            self.notes.append(unused(self._names(left), "validation", rows))
        elif "validation" in by_part:
            self.notes.append(
                f"{self._names(by_part['validation'])} stands in for test images, which are missing"
            )
        test = by_part.get("test") or by_part.get("validation") or []
        for files in (by_part["train"], test):
            self._check_one_set(files)
        return by_part["train"], test

    def _check_one_set(self, files: list[Path]) -> None:
        """Refuse files that lie in several folders, as the configurations of a set do."""
        folders = {
            Path(*(part for part in folder.parts if part_of(part)[0] is None)): folder
            for folder in (file.relative_to(self.path).parent for file in files)
        }
        if len(folders) > 1:
            raise DataError(
                f"{self.path} has Parquet files of one part in {listed(sorted(folders))}: give one "
                f"of them as data set, as {self.path / min(folders)}, or move all into one folder"
            )

    def _names(self, files: list[Path]) -> str:
        return listed((file.relative_to(self.path) for file in files), shown=2)

    @property
    def uses(self) -> str:
        """The files of training and of test images, and the columns."""
        columns = f"images from column {plain(self.image)}, labels from column {plain(self.label)}"
        if self.path.is_file():
            return columns
        test = f", test images from {self._names(self.test)}" if self.test else ""
        return f"training images from {self._names(self.train)}{test}; {columns}"

    def _columns(self, label: str) -> tuple[str, str, tuple[str, ...]]:
        schema = _open(self.train[0]).schema_arrow
        try:
            about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
            features = about.get("info", {}).get("features", {})
            named = [name for name, feature in features.items() if feature.get("names")]
        except (ValueError, AttributeError) as error:
            raise _damaged(self.train[0], error) from error
        images = [column.name for column in schema if _holds_images(column.type)]
        others = [column for column in schema if column.name not in images]
        integers = [column.name for column in others if _holds_integers(column.type)]
        usable = [column.name for column in others if _holds_labels(column.type)]
        labels = [name for name in integers if name in named]
        if len(labels) != 1:
            labels = [name for name in labels or usable if name == label]
        if not labels and not (named and {*named} & {*integers}):
            labels = [name for name in usable if simplified(name) in LABEL_NAMES]
            labels = labels or integers or usable
        if len(images) != 1 or len(labels) != 1:
            raise DataError(
                f"{self.train[0]} has the columns {', '.join(schema.names)}: needed are one of "
                "images (a struct of bytes and path, or bytes) and one of labels (of several, "
                f"{label!r})"
            )
        try:
            names = tuple(map(str, features.get(labels[0], {}).get("names") or ()))
        except (TypeError, AttributeError) as error:
            raise _damaged(self.train[0], error) from error
        left = [name for name in schema.names if name not in (images[0], labels[0])]
        if left:
            self.notes.append(f"columns that are not used: {listed(left)}")
        return images[0], labels[0], names

    def _check_rows(self) -> None:
        """Refuse files of which a column says that they hold rows of several parts."""
        import pyarrow.types as types

        for file in (*self.train, *self.test):
            for column in _open(file).schema_arrow:
                text = types.is_string(column.type) or types.is_large_string(column.type)
                if not text or simplified(column.name) not in SPLIT_NAMES:
                    continue
                values = sorted({str(value) for value in _column(file, column.name).unique()})
                if len({part_of(value)[0] for value in values} - {None}) > 1:
                    raise DataError(
                        f"{file}: column {column.name!r} says {listed(values)}: write each into a "
                        "file of its own, such as train.parquet and test.parquet: "
                        f"t = pyarrow.parquet.read_table({file.name!r}); "
                        "pyarrow.parquet.write_table(t.filter(pyarrow.compute.field("
                        f"{column.name!r}) == {values[0]!r}), 'train.parquet')"
                    )

    def _is_text(self) -> bool:
        import pyarrow.types as types

        kind = _open(self.train[0]).schema_arrow.field(self.label).type
        return not (types.is_integer(kind) or types.is_floating(kind))

    def _remark(self) -> None:
        """Note what lies beside the Parquet files."""
        if self.path.is_file():
            return
        found = contents(self.path)
        others = [path for path in found.others if path.suffix != ".parquet"]
        if found.pictures:
            self.notes.append(
                f"not used, beside the Parquet files: {count(len(found.pictures), 'image')}, "
                f"{listed(path.relative_to(self.path) for path in found.pictures)}; to use them "
                "instead, move the Parquet files away"
            )
        if others:
            self.notes.append(f"not read, beside the Parquet files: {kinds(others)}")

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

    def _labels(self, split: Split) -> np.ndarray:
        if not self._text:
            try:
                return np.array(self._values(split), np.int64)
            except OverflowError as error:
                raise _damaged(self.path, error) from error
        number = {name: label for label, name in enumerate(self.class_names)}
        values = self._values(split)
        if unseen := {*values} - number.keys():
            raise DataError(
                f"{self.path} has classes without training images: {listed(sorted(unseen))}. "
                "Add some or remove the classes"
            )
        return np.array([number[value] for value in values], np.int64)

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
                found += [str(value) if self._text else int(value) for value in values]
            except (ValueError, OverflowError) as error:
                raise _damaged(path, error) from error
        return found


def simplified(name: str) -> str:
    """The name of a column without case, spaces and signs."""
    return re.sub(r"[\W_]+", "_", name.strip().casefold()).strip("_")


def _holds_images(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _holds_integers(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_integer(kind)


def _holds_labels(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return _holds_labels(kind.value_type)
    tests = types.is_integer, types.is_floating, types.is_boolean, types.is_string
    return any(test(kind) for test in (*tests, types.is_large_string))


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
