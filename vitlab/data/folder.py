"""A folder of class folders as a data set, and everything in it that is not used."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitlab.data.images import EXTENSIONS
from vitlab.data.source import check_class_names, listed, split_of, stands_in, unused_split
from vitlab.data.splits import Split
from vitlab.errors import DataError
from vitlab.formatting import count, plain

IMAGE_SUFFIXES = (*EXTENSIONS, ".jpe", ".jfif", ".jif")
"""What PNG, JPEG and WebP files are called; the last three are other names of JPEG."""

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".rar", ".7z")

SYSTEM_FILES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "_ds_store"})
"""What operating systems leave in folders without a dot before its name."""

DETECTION_FOLDERS = frozenset({"images", "labels", "annotations", "masks"})
"""What a set for detection or segmentation has in the place of classes."""


class Listing(NamedTuple):
    """What lies in a folder and in the folders below it, sorted."""

    images: list[Path]
    """Files that are named like a PNG, JPEG or WebP image."""
    others: list[Path]
    """Files that are not."""
    hidden: list[Path]
    """Hidden files and folders, and what operating systems leave."""


class Folder:
    """One folder per class, in FOLDER itself or in FOLDER/train and FOLDER/test.

    Splits are known by their usual names (`source.SPLIT_WORDS`); validation images stand in for
    missing test images. A single folder that says nothing by its name, or the same again, is looked
    into. Classes are numbered in the code-point order of their names; images in folders inside a
    class folder belong to the class. Raises DataError for class names that not every disk can hold,
    for classes that only the test split has, and for folders that may or may not be splits.
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
        self.train, self.test = self._find_splits(root)
        self.has_test = self.test is not None
        self.class_names = tuple(_folders(self.train))
        if not self.class_names:
            raise DataError(_no_classes(path, self.train))
        for folder in filter(None, (self.train, self.test)):
            _check_class_folders(folder, alone=folder == root)
        check_class_names(path, self.class_names, _folders(self.test) if self.test else ())
        self._check_links()
        self._classes: dict[Split, dict[Path, Listing]] = {"train": self._list_classes(self.train)}
        if self.test:
            self._classes["test"] = self._list_classes(self.test)
        self._note_unused(root)

    @property
    def uses(self) -> str:
        """The folders of training and of test images."""
        training = f"training images from {self._name(self.train)}"
        return f"{training}, test images from {self._name(self.test)}" if self.test else training

    def files(self, split: Split) -> list[Path]:
        """The images of a split, class by class, sorted, broken links among them."""
        return self.read(split)[0]

    def read(self, split: Split) -> tuple[list[Path], np.ndarray]:
        """Paths and labels."""
        listings = self._classes.get(split, self._classes["train"]).values()
        counts = [len(listing.images) for listing in listings]
        paths = [path for listing in listings for path in listing.images]
        return paths, np.repeat(np.arange(len(counts)), counts)

    def _name(self, folder: Path) -> str:
        """A folder's name below the set, for people."""
        inside = folder.relative_to(self.path)
        return f"{plain(str(inside if inside.parts else self.path.absolute().name))}/"

    def _inside(self, paths: Iterable[Path]) -> str:
        return listed(path.relative_to(self.path) for path in paths)

    def _unwrapped(self, folder: Path) -> Path:
        """Go into a folder as long as it holds but one folder, which cannot be a class."""
        seen = set()
        while (names := _folders(folder)) and os.path.realpath(folder) not in seen:
            seen.add(os.path.realpath(folder))  # so that a circle of links ends
            inner = folder / names[0]
            if len(names) > 1 or any(_is_image(name) for name in os.listdir(folder)):
                break
            split, rest = split_of(names[0])
            again = names[0].casefold() == folder.absolute().name.casefold()
            says_nothing = split is None and not rest
            if not again and (split or not (says_nothing or _has_splits(_folders(inner)))):
                break
            folder = inner
        return folder

    def _find_splits(self, root: Path) -> tuple[Path, Path | None]:
        """The folders of training and of test images."""
        names = _folders(root)
        inside = {name: _folders(self._unwrapped(root / name)) for name in names}
        meanings = {name: split_of(name) for name in names}
        # Names such as letters_train and letters_test have the same other words.
        for rest in sorted({rest for _, rest in meanings.values()}, key=len):
            by_split: dict[Split, list[str]] = {}
            for name, (split, other) in meanings.items():
                if split and other == rest:
                    by_split.setdefault(split, []).append(name)
            trained = [name for name in by_split.get("train", ()) if inside[name]]
            if trained and (not rest or len(by_split) > 1):
                return self._choose_splits(root, by_split, inside)
        flat = {split: name for name, (split, rest) in meanings.items() if split and not rest}
        if tests := [name for split, name in flat.items() if split != "train" and inside[name]]:
            raise DataError(f"{root} has a folder {tests[0]!r} and no folder 'train': add it")
        if len(flat) > 1:
            raise DataError(
                f"{root}: {listed(sorted(flat.values()))} hold images and no class folders: put "
                "the images of each class into a folder named like it, as in train/cat, or list "
                "them in a CSV file with the columns path, label and split"
            )
        if flat and "train" not in flat and len(names) > 2:
            raise DataError(
                f"{root}: is {next(iter(flat.values()))!r} a class or a split? It holds images and "
                "no class folders. Rename it if it is a class, or else move it out of the folder"
            )
        return root, None

    def _choose_splits(
        self, root: Path, by_split: dict[Split, list[str]], inside: dict[str, list[str]]
    ) -> tuple[Path, Path | None]:
        """The folders of a root that has training images in a folder of their own."""
        usable = {split: [n for n in names if inside[n]] for split, names in by_split.items()}
        test: Split = "test" if usable.get("test") else "validation"
        for split in ("train", test):
            if len(usable.get(split, ())) > 1:
                raise DataError(
                    f"{root}: {' and '.join(usable[split])} are all called like {split} images: "
                    "keep one, or move their images together"
                )
        train, test_name = usable["train"][0], next(iter(usable.get(test, ())), None)
        splits: dict[str, Split] = {
            name: split for split, names in by_split.items() for name in names
        }
        unused = {
            name: len(list_files(root / name).images)
            for name in inside
            if name not in (train, test_name)
        }
        others = [name for name, images in unused.items() if images and name not in splits]
        if test_name is None and others:
            raise DataError(
                f"{root}: is {train!r} the training images, or a class beside "
                f"{listed(others)}? For the training images give {root / train} as data set, or "
                f"move the others away; for a class put the images of {train!r} directly into it"
            )
        for name, images in unused.items():
            if name in splits and inside[name]:
                self.notes.append(unused_split(f"{plain(name)}/", splits[name], images))
            elif images:
                why = "they lie in no class folder" if name in splits else "it is no train or test"
                number = count(images, "image")
                self.notes.append(f"{plain(name)}/ ({number}) is not used: {why}")
        if test_name is None:
            return self._unwrapped(root / train), None
        if test == "validation":
            self.notes.append(stands_in(f"{plain(test_name)}/"))
        return self._unwrapped(root / train), self._unwrapped(root / test_name)

    def _check_links(self) -> None:
        """Refuse links that make one folder two classes, or training and test images."""
        seen: dict[str, Path] = {}
        for folder in filter(None, (self.train, self.test)):
            for name in _folders(folder):
                twin = seen.setdefault(os.path.realpath(folder / name), folder / name)
                if twin != folder / name:
                    raise DataError(f"{folder / name} and {twin} are the same folder: remove one")

    def _list_classes(self, folder: Path) -> dict[Path, Listing]:
        """What the class folders hold; a test split may lack some."""
        classes = {
            path: list_files(path) if path.is_dir() else Listing([], [], [])
            for path in (folder / name for name in self.class_names)
        }
        for path, listing in classes.items():
            if folder == self.train and listing.others and not listing.images:
                raise DataError(
                    f"{folder} has no training image of class {path.name}: its "
                    f"{count(len(listing.others), 'file')} are no PNG, JPEG or WebP by their names "
                    f"({suffixes(listing.others)}). Save them as PNG, or remove the class"
                )
        return classes

    def _note_unused(self, root: Path) -> None:
        """Note what is not used around and inside the class folders."""
        classes = {path: one for found in self._classes.values() for path, one in found.items()}
        if others := [path for listing in classes.values() for path in listing.others]:
            self.notes.append(
                f"not used, no PNG, JPEG or WebP by name: {count(len(others), 'file')} of class "
                f"folders ({suffixes(others)}), such as {self._inside(others[:1])}; save images as "
                "PNG"
            )
        around = dict.fromkeys(filter(None, (self.path, root, self.train, self.test)))
        if files := [folder / name for folder in around for name in _files(folder)]:
            self.notes.append(
                f"not used, beside the class folders: {count(len(files), 'file')} "
                f"({suffixes(files)}), {self._inside(files)}"
            )
        deep = Counter(
            str(image.parent.relative_to(self.path))
            for path, listing in classes.items()
            for image in listing.images
            if image.parent != path
        )
        if deep:
            most = [f"{folder}/ {number}" for folder, number in deep.most_common()]
            self.notes.append(
                f"images in folders inside a class folder count to the class: {listed(most)}"
            )
        hidden = [path for listing in classes.values() for path in listing.hidden]
        hidden += [path for path in self.path.iterdir() if _is_hidden(path.name)]
        if hidden:
            names = sorted({path.name for path in hidden})
            self.notes.append(f"{len(hidden):,} hidden or left by the system: {listed(names)}")
        tested = self._classes.get("test", {})
        if empty := [path.name for path, listing in tested.items() if not listing.images]:
            self.notes.append(f"no test images of class {listed(empty)}")


def _has_splits(names: Iterable[str]) -> bool:
    """True for the names of training images and of another split."""
    splits = {split_of(name)[0] for name in names}
    return "train" in splits and len(splits - {None}) > 1


def _no_classes(path: Path, train: Path) -> str:
    """Why a folder without class folders is no data set, and what to do with what it holds."""
    names = sorted(name for name in os.listdir(path) if not _is_hidden(name))
    ways = []
    if tables := [name for name in names if name.lower().endswith((".csv", ".tsv"))]:
        ways.append(f"if {tables[0]} lists the images, give {path / tables[0]} as data set")
    if any(name.lower().endswith(ARCHIVE_SUFFIXES) for name in names):
        ways.append("unpack the archives in it")
    ways.append("put the images of each class into a folder named like it")
    return f"{train} holds neither class folders nor Parquet files: {', or '.join(ways)}"


def _check_class_folders(folder: Path, alone: bool) -> None:
    """Refuse class folders that hold what looks like splits or classes.

    Args:
        alone: True if no folder of another split lies beside this one, so that what is taken for
            classes may be splits or whole data sets.
    """
    names = _folders(folder)
    inside = {name: _folders(folder / name) for name in names}
    if {name.casefold() for name in names} <= DETECTION_FOLDERS:
        raise DataError(
            f"{folder} holds the folders {listed(names)}, as sets for detection or "
            "segmentation do: put the images of each class into a folder named like it, or "
            "list them in a CSV file with the columns path and label"
        )
    if alone and len(names) == 1 and inside[names[0]]:
        raise DataError(
            f"{folder} holds one folder, {names[0]}, and a classifier needs two classes: for the "
            f"folders {listed(inside[names[0]])} give {folder / names[0]} as data set"
        )
    for place, name in enumerate(names):
        below = {*inside[name]}
        twins = [one for one in names[place + 1 :] if len(below & {*inside[one]}) > 1]
        if _has_splits(inner for inner in below if not split_of(inner)[1]):
            way_out = (
                f"move them above the classes, as in {folder / 'train' / name}, or give "
                f"{folder / name} as data set if it is one"
            )
        elif len(below & ({*names} - {name})) > 1:
            way_out = "they are named like classes beside it: if it is a copy, move it away"
        elif alone and twins and len(names) <= 3:  # more are hardly splits
            way_out = (
                f"{twins[0]} holds the same. If they are training and test images, rename them to "
                f"train and test; if they are two data sets, give one of them, {folder / name}; if "
                "they are classes, move their images directly into them"
            )
        else:
            continue
        raise DataError(f"{folder / name} holds the folders {listed(inside[name])}: {way_out}")


def list_files(folder: Path) -> Listing:
    """Sort all that lies below a folder; links are followed. DataError if it cannot be listed."""
    found = Listing([], [], [])
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
            (found.images if _is_image(name) else kind).append(Path(where, name))
    for paths in found:
        paths.sort(key=lambda path: path.parts)
    return found


def suffixes(paths: Iterable[Path]) -> str:
    """The suffixes of files, with the number of each."""
    counts = Counter(path.suffix.lower() or "without suffix" for path in paths)
    return ", ".join(f"{plain(suffix)} {number:,}" for suffix, number in sorted(counts.items()))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in SYSTEM_FILES


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not _is_hidden(name)


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(path) if _is_folder(entry))


def _files(path: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(path) if not _is_folder(entry))


def _entries(path: Path) -> Iterator[os.DirEntry[str]]:
    """What a folder holds that is not hidden; nothing for what is no folder."""
    try:
        if path.is_dir():
            with os.scandir(path) as entries:  # knows folders without asking file by file
                yield from (entry for entry in entries if not _is_hidden(entry.name))
    except OSError as error:
        raise _unlisted(error) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink():
        return os.path.isdir(entry.path)  # which a circle of links does not upset
    return entry.is_dir()


def _unlisted(error: OSError) -> DataError:
    return DataError(
        f"{error.filename} cannot be listed: {error.strerror}. Allow it, or move the folder away"
    )
