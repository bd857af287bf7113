"""Cases of the catalogue of faults, and what runs them: each in a process of its own.

    @case("A01", "kill -9 at random times, then resume", short=0.03)
    def killed(folder: Path, scale: float) -> str: ...

A case gets an empty folder and a scale, 1 in the long form and `short` in the short one, and
returns its figure in words. It fails by any exception, and says by `NotRun` what this machine
lacks. Its process is forked from one that has imported torch, and may be cut off from the network
or given mounts of its own without anybody noticing.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

AREAS = {
    "A": "Crashes, signals, resuming",
    "B": "Checkpoint files",
    "C": "Numbers and resources",
    "D": "Locks, configs, commands",
    "E": "Data",
    "F": "Determinism",
    "G": "Studies",
    "R": "Reports and network",
    "S": "Statistics",
    "W": "Web service",
    "Z": "Fuzzing",
}

Body = Callable[[Path, float], str]


class NotRun(Exception):
    """This machine cannot run a case; the message says what it lacks."""


@dataclass(frozen=True)
class Case:
    """One row of the catalogue. `short` is its scale in the short form, None where it is absent."""

    id: str
    title: str
    body: Body
    short: float | None
    minutes: float


@dataclass(frozen=True)
class Outcome:
    """What became of a case: `passed`, `failed` or `not run`, and its figure or the reason."""

    id: str
    title: str
    status: str
    figure: str
    seconds: float


PRECISION = "fp32"
"""Of the trainings that are disturbed, unless the command line says otherwise."""

CASES: dict[str, Case] = {}


def case(
    number: str, title: str, *, short: float | None = None, minutes: float = 5
) -> Callable[[Body], Body]:
    """Register a function as the case of a number; after `minutes` it has failed."""

    def register(body: Body) -> Body:
        assert number not in CASES and number[0] in AREAS, number
        CASES[number] = Case(number, title, body, short, minutes)
        return body

    return register


def conduct(
    cases: Iterable[tuple[Case, float]], told: Callable[[Outcome], None], beside: int = 2
) -> list[Outcome]:
    """Run cases at their scales, some side by side; tell of each when it is over."""
    waiting, running, outcomes = list(cases), [], []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        try:
            while waiting or running:
                while waiting and len(running) < beside:
                    running.append(Running(*waiting.pop(0), Path(folder)))
                select.select([one.pipe for one in running], [], [], 0.2)
                for one in running.copy():
                    if (outcome := one.look()) is not None:
                        running.remove(one)
                        outcomes.append(outcome)
                        told(outcome)
        finally:
            for one in running:
                one.stop()
    return sorted(outcomes, key=lambda outcome: outcome.id)


class Running:
    """A case under way, in a process and a folder of its own."""

    def __init__(self, one: Case, scale: float, folder: Path):
        self.case = one
        self.folder = folder / one.id
        self.folder.mkdir()
        self.begun = time.monotonic()
        self.pipe, end = os.pipe()
        self.told = b""
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                die_with_parent()
                os.close(self.pipe)
                os.write(end, json.dumps(answer(one, self.folder, scale)).encode())
            finally:
                os._exit(0)
        os.close(end)

    def look(self) -> Outcome | None:
        """Its outcome once it is over, or has taken too long."""
        seconds = time.monotonic() - self.begun
        while select.select([self.pipe], [], [], 0)[0]:
            if part := os.read(self.pipe, 1 << 16):
                self.told += part
                continue
            self.stop()
            status, figure = json.loads(self.told or '["failed", "its process died"]')
            return Outcome(self.case.id, self.case.title, status, figure, round(seconds, 1))
        if seconds < 60 * self.case.minutes:
            return None
        self.stop()
        figure = f"not over after {self.case.minutes:g} minutes"
        return Outcome(self.case.id, self.case.title, "failed", figure, round(seconds, 1))

    def stop(self) -> None:
        """End its process and what it left behind."""
        end_session(self.pid)
        os.waitpid(self.pid, 0)
        os.close(self.pipe)
        shutil.rmtree(self.folder, ignore_errors=True)


def end_session(session: int) -> None:
    """Kill every process of a session."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(entry.name)) == session:
                os.kill(int(entry.name), signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def answer(one: Case, folder: Path, scale: float) -> tuple[str, str]:
    """Status and figure of a case, run here and now."""
    try:
        return "passed", one.body(folder, scale)
    except NotRun as reason:
        return "not run", str(reason)
    except BaseException as error:
        return "failed", f"{type(error).__name__}: {error}\n{traceback.format_exc()}"


def summarise(outcomes: list[Outcome], seconds: float, machine: dict[str, Any]) -> dict[str, Any]:
    """What docs/results/faults.json holds."""
    statuses = [outcome.status for outcome in outcomes]
    present = {outcome.id[0] for outcome in outcomes}
    return {
        "machine": machine,
        "seconds": round(seconds),
        "counts": {word: statuses.count(word) for word in ("passed", "failed", "not run")},
        "areas": {key: name for key, name in AREAS.items() if key in present},
        "cases": [asdict(outcome) for outcome in outcomes],
    }


# What the kernel can do for a case. Its process is its own, so nothing has to be undone.

DEATH_SIGNAL = 1


def die_with_parent() -> None:
    """Let this process be killed when the one that forked it dies."""
    LIBC.prctl(DEATH_SIGNAL, signal.SIGKILL)


NEW_MOUNTS, NEW_USER, NEW_NETWORK = 0x00020000, 0x10000000, 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int, what: str) -> None:
    """Cut this process off from the mounts or the network of others, as root or as a user."""
    user, group = os.getuid(), os.getgid()
    if LIBC.unshare(flags if user == 0 else flags | NEW_USER):
        raise NotRun(f"{what} needs root or user namespaces: {os.strerror(ctypes.get_errno())}")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def without_network() -> None:
    """From here on this process reaches nobody, its own loopback included."""
    unshare(NEW_NETWORK, "a process without network")


PRIVATE, REMOUNT, READ_ONLY = 0x44000, 0x20, 0x1


def small_disk(folder: Path, size: str) -> None:
    """Put a disk of a size, such as `3m`, at a folder that this process and its children see."""
    unshare(NEW_MOUNTS, "a disk of its own")
    mount("none", Path("/"), None, PRIVATE)
    folder.mkdir(exist_ok=True)
    mount("tmpfs", folder, "tmpfs", 0, f"size={size}")


def grow_disk(folder: Path, size: str) -> None:
    """Give that disk another size."""
    mount("tmpfs", folder, None, REMOUNT, f"size={size}")


def read_only_disk(folder: Path) -> None:
    """Let nobody write to that disk."""
    mount("tmpfs", folder, None, REMOUNT | READ_ONLY)


def mount(source: str, target: Path, kind: str | None, flags: int, data: str = "") -> None:
    """The system call."""
    words = source.encode(), os.fsencode(target), kind.encode() if kind else None
    if LIBC.mount(*words, ctypes.c_ulong(flags), data.encode()):
        raise NotRun(f"mounting a disk: {os.strerror(ctypes.get_errno())}")
