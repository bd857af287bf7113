"""Known sets in the files that their authors publish, packed or unpacked, without trusting them.

CIFAR comes as an archive of batches in one of two editions, Fashion-MNIST as idx files and SVHN as
Matlab's. A file with a published hash must have it. An archive is unpacked in memory, up to a
limit; only the known members are looked at, and nothing is written. CIFAR's Python edition is a
pickle, a language that can run anything: here it can only build dictionaries, lists, bytes, text,
numbers and uint8 arrays.
"""

import gzip
import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vitlab.data.known import KNOWN, KnownSet
from vitlab.data.splits import Split
from vitlab.errors import DataError
from vitlab.files import sha256

MAX_BYTES = 400_000_000
"""What a file may unpack to, about twice what the official ones do; more is a bomb."""

MAX_MEMBERS = 1_000
"""Members of an archive that are looked at; the official archives have about ten."""

PIXELS = 32 * 32 * 3
"""Bytes of an image of CIFAR."""


class Digits:
    """scikit-learn's handwritten digits, 8x8 and grey, 0..16 scaled to 0..255."""

    class_names = KNOWN["digits"].class_names
    has_test = False
    uses = "scikit-learn's handwritten digits"
    notes: Sequence[str] = ()

    def files(self, split: Split) -> list[Path]:
        """None: they lie inside scikit-learn."""
        return []

    def read(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Images (1797, 8, 8, 1) and labels."""
        from sklearn.datasets import load_digits

        images, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
        images = np.rint(images * (255 / 16)).astype(np.uint8)
        return images.reshape(-1, 8, 8, 1), labels.astype(np.int64)


class Official:
    """A known set in an archive, or in a folder of its official files."""

    has_test = True
    notes: Sequence[str] = ()

    def __init__(self, path: Path, known: KnownSet):
        self.path = path
        self.known = known
        self.class_names = known.class_names
        place = path.name if path.is_file() else f"the official files in {path.name}/"
        self.uses = f"training and test images from {place}"

    def files(self, split: Split) -> list[Path]:
        """The archive, or the files of a split, each of which must be there."""
        if self.path.is_file():
            return [self.path]
        found = {name: _present(self.path, name) for name in self.known.files[split]}
        if missing := [name for name, path in found.items() if path is None]:
            raise DataError(f"{self.path} has no {' and no '.join(missing)}: add what is missing")
        return [path for path in found.values() if path]

    def read(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, H, W, C) and labels of a split."""
        files = self.files(split)
        for path in files:
            expected = self.known.sha256(path.name)
            if expected and (actual := sha256(path)) != expected:
                raise DataError(
                    f"{path} is truncated or altered: its SHA-256 is {actual}, expected "
                    f"{expected}. Remove it, and it will be fetched again"
                )
        if self.known.label_key:
            images, labels = self._read_batches(split)
        elif files[0].suffix == ".mat":
            images, labels = _read_matlab(files[0])
        else:
            images, labels = read_idx(files[0])[..., None], read_idx(files[1])
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise DataError(f"{files[0]}: images {images.shape[:-1]} and labels {labels.shape}")
        return images, labels.astype(np.int64)

    def _read_batches(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of CIFAR's batches, in either edition."""
        names = self.known.files[split]
        if self.path.is_file():
            members = _members(self.path, {*names, *(f"{name}.bin" for name in names)})
        else:
            members = {path.name: path.read_bytes() for path in self.files(split)}
        pixels, labels = [], []
        for name in names:
            where = f"{self.path} ({name})"
            if name in members:
                batch = _python_batch(where, members[name], self.known.label_key)
            else:
                raw = members.get(f"{name}.bin", b"")
                batch = _binary_batch(where, raw, self.known.label_bytes)
            pixels.append(batch[0])
            labels.append(batch[1])
        images = np.concatenate(pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return images, np.concatenate(labels)


def holds_official(path: Path, known: KnownSet) -> bool:
    """True if a file is an archive or a folder holds one of a set's official files, by the name."""
    if path.is_file():
        return bool(known.label_key) and path.name.endswith(".tar.gz")
    return any(_present(path, name) for names in known.files.values() for name in names)


def _present(folder: Path, name: str) -> Path | None:
    """A file, or else CIFAR's binary edition of it, or else the same gzipped."""
    paths = (folder / f"{name}{suffix}" for suffix in ("", ".bin", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def _members(path: Path, wanted: set[str]) -> dict[str, bytes]:
    """The content of some files of an archive, wherever they lie in it."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(_unpacked(path))) as archive:
            for number, member in enumerate(archive):
                if number == MAX_MEMBERS:
                    raise DataError(f"{path} has more than {MAX_MEMBERS} members: it is not CIFAR")
                name = PurePosixPath(member.name).name
                plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
                if name in wanted and plain and not member.issparse():
                    content = archive.extractfile(member)
                    found[name] = content.read(MAX_BYTES) if content else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    return found


def _unpacked(path: Path) -> bytes:
    """The content of a file, gzipped or not, up to a limit."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise DataError(f"{path} unpacks to more than {MAX_BYTES:,} bytes: no official file does")
    return content


def _python_batch(where: str, raw: bytes, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) and labels of a batch in the Python edition."""
    try:
        batch = Unpickler(io.BytesIO(raw), encoding="bytes").load()
        pixels = batch[b"data"].pixels()
        labels = np.array(batch[label_key.encode()], np.int64)
        if pixels.shape != (len(labels), PIXELS):
            raise ValueError(f"{len(labels)} labels for pixels of shape {pixels.shape}")
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except Exception as error:  # a damaged pickle fails in any way it likes
        raise DataError(f"{where} is not a batch of CIFAR: {error!r}") from error
    return pixels, labels


def _binary_batch(where: str, raw: bytes, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) and labels of a batch in the binary edition."""
    size = label_bytes + PIXELS
    if not raw or len(raw) % size:
        raise DataError(f"{where} is missing, or no whole batch of CIFAR: fetch it again")
    records = np.frombuffer(raw, np.uint8).reshape(-1, size)
    return records[:, -PIXELS:], records[:, -PIXELS - 1].astype(np.int64)


class PickledArray:
    """Stands in for numpy's array and dtype while a pickle is read; it only keeps its state."""

    def __init__(self, *arguments: Any):
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def pixels(self) -> np.ndarray:
        """The uint8 array that was pickled."""
        _, shape, dtype, fortran, raw = self.state
        if dtype.arguments[0] not in ("u1", b"u1") or len(raw) != math.prod(shape):
            raise ValueError(f"an array of {dtype.arguments[0]!r}, not of uint8")
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class Unpickler(pickle.Unpickler):
    """Builds plain values and `PickledArray`; every other name is refused before it is found."""

    ADMITTED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module_name: str, global_name: str) -> type[PickledArray]:
        """Admit the names an array is pickled with; raises DataError for any other."""
        if (module_name, global_name) not in self.ADMITTED:
            raise DataError(
                f"refused: the pickle asks for {module_name}.{global_name}, which CIFAR does not "
                "need. Nothing of it was run; fetch the data set from another place"
            )
        return PickledArray


def read_idx(path: Path) -> np.ndarray:
    """Read a uint8 array of any shape from an idx file, gzipped or not."""
    try:
        raw = _unpacked(path)
        if raw[:3] != b"\0\0\x08":
            raise ValueError("no idx file of bytes")
        axes = int.from_bytes(raw[3:4])
        shape = np.frombuffer(raw, ">u4", axes, offset=4).tolist()
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(path, error) from error


def _read_matlab(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images (N, 32, 32, 3) and labels of SVHN's cropped digits; their label 10 is 0.

    Damaged bytes may crash scipy's reader, so it is given only files that have their hash.
    """
    from scipy.io import loadmat

    content = loadmat(path, variable_names=("X", "y"))
    return content["X"].transpose(3, 0, 1, 2), content["y"].ravel() % 10


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is truncated or damaged ({error}): fetch it again")
