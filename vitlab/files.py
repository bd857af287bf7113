"""Reading and writing files so that a crash leaves the old content or the new, never a half.

Everything vitlab stores goes through `replacing`: a temporary file in the same folder,
flushed to the disk, renamed over the target, and the folder flushed as well. `Lock` keeps a
second process out; the kernel releases it when its holder dies, however it dies.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any, Self

from vitlab.errors import RunError


@contextlib.contextmanager
def replacing(path: Path) -> Generator[IO[bytes]]:
    """A file to write, which takes the place of `path` in one step; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content in one step; parent folders are made."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content by UTF-8 text in one step."""
    write_bytes(path, text.encode())


def as_json(value: Any) -> str:
    """A value as indented JSON, the one way in which vitlab writes it."""
    return json.dumps(value, indent=2) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Replace a file's content by indented JSON in one step."""
    write_text(path, as_json(value))


def append_json(path: Path, value: Any) -> None:
    """Add one object as a line of its own and flush it to the disk."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> Any:
    """Read a JSON file of a run or study; RunError if it is missing, unreadable or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing: the run was never started or is damaged") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not JSON: {error}") from error


def read_json_lines(path: Path) -> list[Any]:
    """Read one object a line; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Lock:
    """One writer at a time: `with Lock(path): ...`, refused with the pid of the other one.

    Raises:
        OSError: when made, if the file cannot be opened for writing.
        RunError: when entered, if another process holds the lock.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held until __exit__

    def __enter__(self) -> Self:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "an unknown process"
            self._file.close()
            raise RunError(
                f"{self.path.parent} is being written by {holder}: wait for it or stop it"
            ) from None
        self._file.truncate(0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        self._file.write(f"pid {os.getpid()} on {socket.gethostname()}, started {started}")
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a disk that failed may not even take this
            self._file.truncate(0)
            self._file.close()
