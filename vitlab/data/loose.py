"""The official files of sets that come without an archive: idx, as MNIST has it, and Matlab's.

A known set lists its files per split: images and labels in two idx files, gzipped or not, or both
in one Matlab file. Nothing is believed before it is measured: a file with a published hash must
have it, and a header's promise is checked against what follows.
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitlab.data.known import KnownSet
from vitlab.data.matlab import arrays
from vitlab.errors import DataError
from vitlab.files import sha256

MAX_BYTES = 400_000_000
"""What a file may unpack to, some eight times what the official ones do; more is a bomb."""


class Loose:
    """A known set in a folder of its official files."""

    has_test = True
    notes: Sequence[str] = ()

    def __init__(self, folder: Path, known: KnownSet):
        self.folder = folder
        self.known = known
        self.class_names = known.class_names
        self.uses = f"training and test images from the official files in {folder.name}/"

    def files(self, split: str) -> list[Path]:
        """The files of a split, each of which must be there, gzipped or not."""
        found = {name: _present(self.folder, name) for name in self.known.loose[split]}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise DataError(f"{self.folder} has no {' and no '.join(missing)}: add what is missing")
        return [path for path in found.values() if path]

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, H, W, C) and labels of a split."""
        files = self.files(split)
        for path in files:
            expected = self.known.sha256(path.name)
            if expected and (actual := sha256(path)) != expected:
                raise DataError(
                    f"{path} is truncated or altered: its SHA-256 is {actual}, expected "
                    f"{expected}. Remove it, and fetch it again"
                )
        if files[0].suffix == ".mat":
            images, labels = read_matlab(files[0])
        else:
            images, labels = read_idx(files[0])[..., None], read_idx(files[1])
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise DataError(f"{files[0]}: images {images.shape[:-1]} and labels {labels.shape}")
        return images, labels.astype(np.int64)


def holds_files(folder: Path, known: KnownSet) -> bool:
    """True if a folder holds one of a known set's official files, by its name."""
    return any(_present(folder, name) for names in known.loose.values() for name in names)


def read_idx(path: Path) -> np.ndarray:
    """Read a uint8 array of any shape from an idx file, gzipped or not."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            zero, kind, axes = file.read(2), *file.read(2)
            if zero != b"\0\0" or kind != 8:
                raise ValueError("no idx file of bytes")
            shape = tuple(np.frombuffer(file.read(4 * axes), ">u4").tolist())
            if len(shape) != axes or (size := math.prod(shape)) > MAX_BYTES:
                raise ValueError(f"no shape of images or labels: {shape}")
            values = file.read(size + 1)
        if len(values) != size:
            raise ValueError(f"{len(values):,} bytes or more where the header says {size:,}")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(path, error) from error
    return np.frombuffer(values, np.uint8).reshape(shape)


def read_matlab(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images (N, 32, 32, 3) and labels of SVHN's cropped digits; their label 10 is 0."""
    try:
        content = arrays(path.read_bytes(), MAX_BYTES)
        if not {"X", "y"} <= content.keys():
            raise ValueError(f"it holds {', '.join(sorted(content)) or 'nothing'}, not X and y")
        images, labels = content["X"], content["y"].ravel() % 10
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"X is {images.dtype} {images.shape}")
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return images.transpose(3, 0, 1, 2), labels


def _present(folder: Path, name: str) -> Path | None:
    """A file, or else the same gzipped."""
    paths = folder / name, folder / f"{name}.gz"
    return next((path for path in paths if path.is_file()), None)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is truncated, damaged or of another kind ({error}): fetch it again")
