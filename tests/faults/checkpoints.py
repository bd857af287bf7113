"""B: no checkpoint is lost or wrongly believed, whatever strikes the disk or the files."""

import json
import random
import re
import shutil
import subprocess
import time
import warnings
from pathlib import Path
from typing import NamedTuple

from harness import NotRun, case, grow_disk, read_only_disk, small_disk
from trial import TINY, TRAIN, Vitlab, clear, die_after, equal, finish, go_on, start, whole

from vitlab.run import Run


@case("B01", "a disk on which the third checkpoint has no room", short=1)
def full_disk(folder: Path, scale: float) -> str:
    reference = whole(folder)
    disk = folder / "disk"
    bytes_each = sum(f.stat().st_size for f in reference.checkpoint().path.iterdir())
    small_disk(disk, f"{int(2.9 * bytes_each) >> 10}k")
    error = start(disk, "run").refuse(str(disk / "run"), "needed", "free", "--resume")
    steps = [one.step for one in Run(disk / "run").checkpoints() if one.damage is None]
    assert len(steps) == 2, steps
    left = [path for path in (disk / "run").rglob("*.tmp")]
    assert len(left) <= 1, left
    grow_disk(disk, "50m")
    equal(finish(disk, "run"), reference)
    return f"steps {steps[0]} and {steps[1]} load, {len(error.splitlines())} line, then equal"


@case("B02", "a run in a read-only folder, in a file, in a folder that is not there", short=1)
def nowhere_to_write(folder: Path, scale: float) -> str:
    disk = folder / "disk"
    (folder / "file").touch()
    slowest = 0.0

    def refused(out: Path, name: str) -> None:
        nonlocal slowest
        process = Vitlab("train", *TRAIN, "--out", out, "--name", name, folder=folder)
        process.refuse("cannot write a run at", str(out), code=1)
        assert "epoch" not in process.said()
        slowest = max(slowest, time.monotonic() - process.begun)

    refused(folder, "file")
    refused(folder / "file", "run")
    small_disk(disk, "9m")
    read_only_disk(disk)
    refused(disk, "run")
    away = folder / "not" / "there"
    Vitlab("train", *TINY, "--out", away, "--name", "run", folder=folder).succeed()
    assert Run(away / "run").finished
    return f"3 refused within {slowest:.1f} s, before any epoch; a missing parent is made"


# Damage


def damaged(run: Run, expected: int) -> list[str]:
    """The warnings of opening a run whose sound checkpoint has a step; asserts both."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = Run(run.path).checkpoint()
    assert found.step == expected, f"step {found.step}, not {expected}"
    return [str(one.message) for one in caught]


@case("B03", "truncated files, missing files and every byte of every header")
def truncated(folder: Path, scale: float) -> str:
    reference = whole(folder)
    before, newest = reference.checkpoints()[-2:]
    tried = 0

    def detected() -> None:
        nonlocal tried
        (words,) = damaged(reference, before.step)
        assert newest.path.name in words and "falling back" in words, words
        tried += 1

    for file in sorted(newest.path.iterdir()):
        content = file.read_bytes()
        size, every = len(content), max(1, round(0.2 / scale))
        lengths = {0, 1, 7, 8, 9, size // 2, size - 1, *range(0, size, max(1, size * every // 100))}
        for length in sorted(lengths):
            file.write_bytes(content[:length])
            detected()
        for place in range(0, header(content), max(1, round(0.2 / scale))):
            changed = bytearray(content)
            changed[place] ^= 0x55
            file.write_bytes(changed)
            detected()
        file.unlink()
        detected()
        file.write_bytes(content)
    assert not damaged(reference, newest.step)
    kinds = ["empty", "cut", "manifest", "gone"]
    for kind in kinds if scale == 1 else kinds[:1]:
        path = folder / kind
        shutil.copytree(reference.path, path)
        (path / "finished.json").unlink()
        hurt = Run(path).checkpoints()[-1]
        match kind:
            case "empty":
                hurt.model.write_bytes(b"")
            case "cut":
                hurt.optimizer.write_bytes(hurt.optimizer.read_bytes()[:-1])
            case "manifest":
                (hurt.path / "manifest.json").unlink()
            case "gone":
                hurt.average.unlink()
        process = go_on(folder, kind).succeed()
        assert process.said().count("is damaged") == 1
        equal(Run(path), reference)
    return f"{tried:,} of {tried:,} detected and the previous used; resumed to equal weights"


def header(content: bytes) -> int:
    """Length of a safetensors file's header; of a readable file all."""
    length = int.from_bytes(content[:8], "little")
    return length + 8 if 0 < length < len(content) else len(content)


@case("B08", "random bit flips in a checkpoint", short=0.05)
def flipped(folder: Path, scale: float) -> str:
    reference = whole(folder, words=TINY)
    before, newest = reference.checkpoints()[-2:]
    files = sorted(newest.path.iterdir())
    sizes = [file.stat().st_size for file in files]
    draws, flips = random.Random(3), round(1000 * scale)
    for number in range(flips):
        # Half by size, as a disk would; half by file, so that the readable ones get their share.
        file = draws.choices(files, sizes)[0] if number % 2 else draws.choice(files)
        content = bytearray(file.read_bytes())
        place = draws.randrange(len(content))
        content[place] ^= 1 << draws.randrange(8)
        sound = file.read_bytes()
        file.write_bytes(content)
        (words,) = damaged(reference, before.step)
        assert newest.path.name in words and "falling back" in words, words
        file.write_bytes(sound)
    return f"{flips:,} of {flips:,} detected, and the previous checkpoint used"


@case("B05", "kill -9 while a new best is written")
def killed_at_the_best(folder: Path, scale: float) -> str:
    words = (*TRAIN, "--train.evaluate-epochs", "0.4", "--optim.lr", "0.01")
    reference = whole(folder, words=words)
    draws, kills = random.Random(4), max(2, round(10 * scale))
    for number in range(kills):
        name = f"run-{number}"
        process = start(folder, name, words)
        writing = folder / name / "checkpoints"
        step = draws.choice([4, 8, 12, 16, 20, 24])
        while process.poll() is None and not list(writing.glob(f".step-{step:06d}.tmp/*")):
            time.sleep(0.0002)
        process.kill()
        run = Run(folder / name)
        stored = [one for one in run.checkpoints() if one.damage is None]
        if stored:
            best = run.checkpoint("best")
            expected = reached(reference, max(one.step for one in stored))
            assert best.step == expected, f"step {best.step}, not {expected}"
            told = best.state["evaluation"]["validation"]["accuracy"]
            again = evaluated(run, folder)
            assert abs(again - told) <= 1e-6, (again, told)
        equal(finish(folder, name, words), reference)
    return f"{kills} of {kills}: the best loads and judges as it was recorded, within 1e-6"


def reached(reference: Run, step: int) -> int:
    """The step of the best validation of an uninterrupted run up to a step."""
    judged = [line for line in reference.metrics if line["split"] == "validation"]
    judged = [line for line in judged if line["step"] <= step]
    return max(judged, key=lambda line: (line["accuracy"], -line["step"]))["step"]


def evaluated(run: Run, folder: Path) -> float:
    """Validation accuracy of a run's best checkpoint, measured anew."""
    words = ("evaluate", run.path, "--checkpoint", "best", "--device", "cpu", "--json")
    said = Vitlab(*words, folder=folder).succeed().said()
    return json.loads(said[said.index("{") :])["accuracy"]


# A kill or an error at a chosen system call

CALLS = (
    "openat", "write", "fsync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir",
    "mkdir", "mkdirat", "ftruncate", "flock",
)  # fmt: skip
"""What changes a folder, or is needed to; not every machine has them all."""


class Strike(NamedTuple):
    """A system call of a process, by its kind and its number among those of that kind."""

    call: str
    number: int


@case("B04", "kill -9 at every system call that touches the run", short=0.01, minutes=30)
def killed_at_every_call(folder: Path, scale: float) -> str:
    return struck_everywhere(folder, scale, {"signal=SIGKILL": CALLS})


@case("B06", "an I/O error at every system call that touches the run", minutes=30)
def error_at_every_call(folder: Path, scale: float) -> str:
    full = ("openat", "write", "fsync", "mkdir", "mkdirat")
    broken = ("fsync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir")
    return struck_everywhere(folder, scale, {"error=ENOSPC": full, "error=EIO": broken})


def struck_everywhere(folder: Path, scale: float, faults: dict[str, tuple[str, ...]]) -> str:
    """Let each fault strike each of its calls, in a training and in one that goes on."""
    reference = whole(folder, words=TINY)
    assert start(folder, "half", TINY, before=lambda: die_after(2)).wait() == 77
    half = Run(folder / "half")
    struck = 0
    for base in (None, half):
        trace = traced(begin(folder, base), folder, calls(CALLS))
        assert Run(folder / "run").finished, "the traced run"
        found = strikes(trace, folder / "run")
        shutil.rmtree(folder / "run")
        for fault, kinds in faults.items():
            chosen = [strike for strike in found if strike.call in kinds]
            for strike in chosen[:: max(1, round(1 / scale))]:
                process = begin(folder, base)
                inject = f"inject={strike.call}:{fault}:when={strike.number}"
                trace = traced(process, folder, calls((strike.call, *RENAMES)), "-e", inject)
                try:
                    survived(process, trace, reference, base)
                    equal(finish(folder, "run", TINY), reference)
                except AssertionError as error:
                    how = "going on" if base else "from the start"
                    told = f"{fault} at {strike.call} {strike.number}, {how}: {error}"
                    raise AssertionError(told) from error
                shutil.rmtree(folder / "run")
                struck += 1
    assert struck
    kinds = ", ".join(sorted({strike.call for strike in found}))
    return f"{struck} of {struck} ({kinds}): a checkpoint and the best remain, then equal"


RENAMES = ("rename", "renameat", "renameat2")


def begin(folder: Path, base: Run | None) -> Vitlab:
    """A training that waits to be traced: from the start, or from a copy of a run."""
    if base is not None:
        shutil.copytree(base.path, folder / "run")
        (folder / "run" / "checkpoints" / ".step-000009.tmp").mkdir()  # somebody's leftover
    return go_on(folder, "run", TINY, held=True)


def calls(names: tuple[str, ...]) -> str:
    """The option that traces some system calls, those left out that this machine lacks."""
    return "-etrace=" + ",".join(f"?{name}" for name in names)


def traced(process: Vitlab, folder: Path, *options: str) -> str:
    """Let a held process run to its end under strace; return what strace wrote."""
    if not shutil.which("strace"):
        raise NotRun("needs strace: apt-get install strace")
    trace = folder / "trace"
    words = ["strace", "-y", "-o", str(trace), *options, "-p", str(process.pid)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        line = strace.stderr.readline()
        if "attached" not in line:
            process.kill()
            raise NotRun(f"strace may not look at another process here: {line.strip()}")
        process.go()
        process.wait()
    return trace.read_text()


def strikes(trace: str, run: Path) -> list[Strike]:
    """The system calls of a trace that concern a run's folder."""
    counts = dict.fromkeys(CALLS, 0)
    found = []
    for line in trace.splitlines():
        call = line.partition("(")[0]
        if call in counts:
            counts[call] += 1
            if str(run) in line:
                found.append(Strike(call, counts[call]))
    return found


def written(trace: str) -> list[int]:
    """Steps of the checkpoints whose folders a traced process renamed into place."""
    pattern = r'rename\w*\(.*/\.step-\d+\.tmp", .*/step-(\d+)".*\) = 0'
    return [int(step) for step in re.findall(pattern, trace)]


def survived(process: Vitlab, trace: str, reference: Run, base: Run | None) -> None:
    """Whatever struck: what was written loads, the best among it, and an error was a clear one."""
    steps = written(trace) + ([base.checkpoint().step] if base else [])
    path = process.log.parent / "run"
    if steps:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            last, best = Run(path).checkpoint().step, Run(path).checkpoint("best").step
        assert last >= max(steps), f"step {last} is the last, and {max(steps)} was written"
        assert best == reached(reference, last), f"step {best} is the best of up to {last}"
    code, said = process.wait(), process.said()
    assert code in (0, 1, 137), f"exit code {code}"
    if code == 1:
        clear(said)
