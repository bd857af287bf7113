"""CIFAR's official editions, Python and binary, packed or unpacked, without trusting them.

An archive is unpacked in memory, up to a limit; only the known members are looked at, and
nothing is written.
The Python edition is a pickle, a language that can run anything: here it can only build
dictionaries, lists, bytes, text, numbers and uint8 arrays.
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

from vitlab.data.known import Batches, KnownSet
from vitlab.errors import DataError
from vitlab.files import sha256

MAX_BYTES = 400_000_000
"""What an archive may unpack to, about twice what the official ones do; more is a bomb."""

MAX_MEMBERS = 1_000
"""Members that are looked at; the official archives have about ten."""


class Cifar:
    """CIFAR-10 or CIFAR-100 (fine labels) in an archive or in a folder of its batches."""

    has_test = True
    notes: Sequence[str] = ()

    def __init__(self, path: Path, known: KnownSet):
        assert known.batches
        self.path = path
        self.known = known
        self.batches: Batches = known.batches
        self.class_names = known.class_names
        self.uses = f"training and test images from {path.name}"

    def files(self, split: str) -> list[Path]:
        """The archive, or the batches of a split that are there."""
        if self.path.is_file():
            return [self.path]
        names = self._names(split)
        return [p for p in (self.path / n for n in (*names, *map(_binary, names))) if p.is_file()]

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, 32, 32, 3) and labels of a split."""
        names = self._names(split)
        wanted = {*names, *map(_binary, names)}
        if self.path.is_file():
            self._verify()
            members = _members(self.path, wanted)
        else:
            members = {path.name: path.read_bytes() for path in self.files(split)}
        parts = [
            self._python(name, members[name])
            if name in members
            else self._records(_binary(name), members.get(_binary(name), b""))
            for name in names
        ]
        pixels = np.concatenate([pixels for pixels, _ in parts])
        images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return images, np.concatenate([labels for _, labels in parts])

    def _names(self, split: str) -> tuple[str, ...]:
        return self.batches.test if split == "test" else self.batches.train

    def _verify(self) -> None:
        expected = self.known.sha256(self.path.name)
        if expected and (actual := sha256(self.path)) != expected:
            raise DataError(
                f"{self.path} is truncated or altered: its SHA-256 is {actual}, expected "
                f"{expected}. Remove it, and it will be fetched again"
            )

    def _python(self, name: str, raw: bytes) -> tuple[np.ndarray, np.ndarray]:
        where = f"{self.path} ({name})"
        try:
            batch = Unpickler(io.BytesIO(raw), encoding="bytes").load()
            pixels = batch[b"data"].pixels()
            labels = np.array(batch[self.batches.labels.encode()], np.int64)
            if pixels.shape != (len(labels), 3072):
                raise ValueError(f"{len(labels)} labels for pixels of shape {pixels.shape}")
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        except Exception as error:  # a damaged pickle fails in any way it likes
            raise DataError(f"{where} is not a batch of CIFAR: {error!r}") from error
        return pixels, labels

    def _records(self, name: str, raw: bytes) -> tuple[np.ndarray, np.ndarray]:
        size = self.batches.label_bytes + 3072
        if not raw or len(raw) % size:
            raise DataError(
                f"{self.path} has no whole {name} or {name.removesuffix('.bin')}: fetch it again"
            )
        records = np.frombuffer(raw, np.uint8).reshape(-1, size)
        return records[:, -3072:], records[:, -3073].astype(np.int64)


def holds_batches(path: Path, known: KnownSet) -> bool:
    """True if a file is an archive or a folder holds unpacked batches, by their names."""
    if path.is_file():
        return path.name.endswith(".tar.gz")
    return known.batches is not None and any(
        (path / name).is_file() for name in (known.batches.test[0], _binary(known.batches.test[0]))
    )


def _binary(name: str) -> str:
    return f"{name}.bin"


def _members(path: Path, wanted: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with gzip.open(path) as file:
            unpacked = file.read(MAX_BYTES + 1)
        if len(unpacked) > MAX_BYTES:
            raise DataError(f"{path} unpacks to more than {MAX_BYTES:,} bytes: it is not CIFAR")
        with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
            for number, member in enumerate(archive):
                if number == MAX_MEMBERS:
                    raise DataError(f"{path} has more than {MAX_MEMBERS} members: it is not CIFAR")
                name = PurePosixPath(member.name).name
                plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
                if name in wanted and plain and not member.issparse():
                    content = archive.extractfile(member)
                    found[name] = content.read(MAX_BYTES) if content else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged ({error}): fetch it again") from error
    return found


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
