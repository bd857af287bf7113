"""Where data sets lie: below the data root, below $VITLAB_DATA, in the cache, or on a host."""

import difflib
import os
from dataclasses import replace
from pathlib import Path

from vitlab.config import DataConfig
from vitlab.data.download import fetch
from vitlab.data.folder import Folder
from vitlab.data.known import KNOWN, KnownSet
from vitlab.data.official import Digits, Official, holds_official
from vitlab.data.parquet import Parquet, parquet_files
from vitlab.data.source import Source
from vitlab.data.table import MultilabelTable, Table
from vitlab.errors import DataError

Root = str | os.PathLike[str] | None

TABLES = (".csv", ".tsv")
"""How the names of tables end."""


def find_source(config: DataConfig, root: Root = None) -> Source:
    """The data set of a name or path; a known one that is nowhere is fetched into the cache."""
    dataset = config.dataset
    if config.task == "multilabel":
        return _find_multilabel(config, root)
    if dataset == "digits":
        return Digits()
    roots = data_roots(root)
    if known := KNOWN.get(dataset):
        places = (folder / dataset for folder in (*roots, cache_folder()))
        found = (source for place in places if (source := _known_at(place, known)))
        source = next(found, None) or _known_at(fetch(dataset, known, cache_folder()), known)
        assert source, "what was fetched is found"
        return source
    for place in (Path(dataset).expanduser(), *(folder / dataset for folder in roots)):
        suffix = place.suffix.lower()
        if (suffix == ".parquet" and place.is_file()) or any(parquet_files(place)):
            return Parquet(place)
        if suffix in TABLES and place.is_file():
            return Table(place)
        if place.is_dir():
            if name := next((n for n, one in KNOWN.items() if holds_official(place, one)), None):
                raise DataError(
                    f"{place} holds {name}: give data.dataset={name} and "
                    f"{place.absolute().parent} as --data-root"
                )
            return Folder(place)
    if Path(dataset).is_file():
        raise DataError(
            f"{dataset} is no .csv, .tsv or .parquet file: unpack an archive and give its folder"
        )
    close = difflib.get_close_matches(dataset, KNOWN, n=1)
    raise DataError(
        f"no data set {dataset!r}{f': did you mean {close[0]}?' if close else ''}\n"
        f"known: {', '.join(KNOWN)}; or the path of a folder of class folders or Parquet files, "
        "or of a CSV file, or its name below the data root"
    )


def _find_multilabel(config: DataConfig, root: Root) -> Source:
    """The table of a data set whose images have several labels: the one form that holds them."""
    places = (folder / config.dataset for folder in data_roots(root))
    for place in (Path(config.dataset).expanduser(), *places):
        if place.suffix.lower() in TABLES and place.is_file():
            return MultilabelTable(place, config.label_separator)
    raise DataError(
        f"data.task=multilabel needs a CSV file with several labels an image, and {config.dataset} "
        "is none: give the path of one, arrays in Python, or leave data.task out"
    )


def _known_at(folder: Path, known: KnownSet) -> Source | None:
    """The known set that lies in ROOT/name, or under one of its usual names beside it."""
    if any(parquet_files(folder)):
        source = Parquet(folder, known.class_names, known.label)
        if not source.has_test:
            raise DataError(f"{folder} has Parquet files, but not both train and test: fetch all")
        return source
    usual = [base / name for base in (folder, folder.parent) for name in known.local]
    for place in (folder, *usual, *sorted(folder.glob("*.tar.gz"))):
        if holds_official(place, known):
            return Official(place, known)
    if folder.is_dir() and any(folder.iterdir()):
        expected = known.local if known.label_key else [file.name for file in known.official]
        raise DataError(
            f"{folder} holds neither Parquet files nor {', '.join(expected)}: add them "
            f"or move the folder away. For a folder of class folders give {as_path(folder)}"
        )
    return None


def locate(name: str, root: Root = None) -> Path | None:
    """The folder where a known set lies on this machine, or None if it is still to be fetched."""
    places = (folder / name for folder in (*data_roots(root), cache_folder()))
    return next((place for place in places if _known_at(place, KNOWN[name])), None)


def relocate(config: DataConfig, root: Root = None) -> DataConfig:
    """The config of a run's data with the place where it lies now, which may not be where it lay.

    A folder or file that is gone is looked for by its name below the data root, and then the root
    itself is taken for it. DataError where nothing is found, with the way to give the place.
    """
    place = Path(config.dataset).expanduser()
    if config.dataset in KNOWN or place.exists():
        return config
    for folder in data_roots(root):
        for found in (folder / place, folder / place.name):
            if found.exists():
                return replace(config, dataset=str(found))
    if root is not None:
        return replace(config, dataset=str(root))
    raise DataError(
        f"{config.dataset}, where the data of this run lay, is gone: give the place where it is "
        "now with --data-root FOLDER; that it is the same is checked"
    )


def cache_folder() -> Path:
    """Where downloads and decoded images are kept: $XDG_CACHE_HOME/vitlab or ~/.cache/vitlab."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitlab"


def data_roots(root: Root) -> list[Path]:
    """The data root and $VITLAB_DATA, as far as they are given; each must be a folder."""
    roots = [Path(r).expanduser() for r in (root, os.environ.get("VITLAB_DATA")) if r]
    for folder in roots:
        if not folder.is_dir():
            raise DataError(f"data root {folder} is not a folder")
    return roots


def as_path(folder: Path) -> str:
    """A folder, written so that it is no name of a known set."""
    return str(folder) if len(folder.parts) > 1 else os.path.join(os.curdir, folder)
