"""A: a training is killed, stopped and resumed, and ends with the bits it would have had."""

import random
import shutil
import signal
import time
from pathlib import Path

from harness import case
from trial import (
    TRAIN,
    Command,
    Process,
    Vitlab,
    die_after,
    equal,
    finish,
    go_on,
    start,
    until,
    whole,
)

from vitlab.run import Run


def timed(folder: Path) -> tuple[Run, float]:
    """The uninterrupted run, and its seconds."""
    begun = time.monotonic()
    return whole(folder), time.monotonic() - begun


@case("A01", "kill -9 at a random time, then resume", short=0.03, minutes=30)
def killed_at_random(folder: Path, scale: float) -> str:
    reference, seconds = timed(folder)
    draws, kills = random.Random(0), max(3, round(100 * scale))
    for number in range(kills):
        while True:  # a draw that comes after the end is no kill
            process = start(folder, f"run-{number}")
            time.sleep(draws.uniform(0, seconds))
            if process.poll() is None:
                break
            shutil.rmtree(folder / f"run-{number}")
        process.kill()
        equal(finish(folder, f"run-{number}"), reference)
        shutil.rmtree(folder / f"run-{number}")
    return f"{kills} of {kills} equal the uninterrupted run, metrics and best checkpoint too"


RICH = (
    *TRAIN, "--augment.policy", "trivialaugment", "--optim.optimizer", "muon", "--optim.sam",
    "0.05", "--optim.layer-decay", "0.8", "--optim.freeze", "blocks.0", "--train.class-weights",
    "balanced", "--model.patch", "whitened", "--train.small-size", "4,4", "--train.small-epochs",
    "1",
)  # fmt: skip
"""Whatever else has a state or draws a random number."""


@case("A02", "kill -9 of the real command line, with every other technique, then resume")
def killed_command(folder: Path, scale: float) -> str:
    reference = whole(folder, words=RICH)
    draws, kills = random.Random(1), max(1, round(5 * scale))
    for number in range(kills):
        path = folder / f"run-{number}"
        process = Command("train", *RICH, "--out", folder, "--name", path.name, folder=folder)
        step = draws.randrange(27)
        until(lambda path=path, step=step: Run.exists(path) and last_step(path) >= step, process)
        process.kill()
        Command("train", "--resume", path, folder=folder).succeed()
        equal(Run(path), reference)
    return f"{kills} of {kills} equal the uninterrupted run"


def last_step(path: Path) -> int:
    """The step of the last line of metrics."""
    return max((line["step"] for line in Run(path).metrics), default=0)


@case("A03", "ten kills in a row, some while it resumes")
def killed_again_and_again(folder: Path, scale: float) -> str:
    reference, seconds = timed(folder)
    draws, rows = random.Random(2), max(1, round(10 * scale))
    for row in range(rows):
        name, reached = f"run-{row}", 0
        for kill in range(10):
            process = go_on(folder, name)
            time.sleep(draws.uniform(0, 0.15 if kill % 2 else 0.3) * seconds)
            process.kill()
            if Run.exists(folder / name):
                steps = [one.step for one in Run(folder / name).checkpoints() if not one.damage]
                now = max(steps, default=0)
                assert now >= reached, f"step {now} after kill {kill}, and {reached} before"
                reached = now
        equal(finish(folder, name), reference)
    return f"{rows} of {rows} runs, killed ten times each, equal the uninterrupted run"


def stopped(folder: Path, name: str, step: int, numbers: list[int]) -> tuple[Process, float]:
    """A training that was sent signals after a step, 0.2 s apart; the seconds it took to end."""
    process = start(folder, name, (*TRAIN, "--model.depth", "6"))
    path = folder / name
    until(lambda: Run.exists(path) and last_step(path) >= step, process)
    for place, number in enumerate(numbers):
        if place:
            time.sleep(0.02)
        process.send(number)
    begun = time.monotonic()
    process.wait(10)
    return process, time.monotonic() - begun


@case("A04", "SIGTERM in the middle of an epoch")
def terminated(folder: Path, scale: float) -> str:
    deep = (*TRAIN, "--model.depth", "6")
    reference = whole(folder, words=deep)
    slowest, steps = 0.0, [3, 7, 12, 16, 21][: max(1, round(5 * scale))]
    for step in steps:
        process, seconds = stopped(folder, f"run-{step}", step, [signal.SIGTERM])
        path = folder / f"run-{step}"
        slowest = max(slowest, seconds)
        error = process.refuse("stopped at step", f"--resume {path}", code=143)
        at = int(error.split("stopped at step ")[1].split()[0])
        assert Run(path).checkpoint().step == at
        equal(finish(folder, path.name), reference)
    return f"{len(steps)} of {len(steps)}: exit code 143 within {slowest:.1f} s, then equal"


@case("A06", "SIGINT once; SIGINT twice")
def interrupted(folder: Path, scale: float) -> str:
    deep = (*TRAIN, "--model.depth", "6")
    reference, shared = whole(folder, words=deep), set(Path("/dev/shm").iterdir())
    process, once = stopped(folder, "once", 7, [signal.SIGINT])
    process.refuse("stopped at step", code=130)
    equal(finish(folder, "once"), reference)
    slowest = 0.0
    for number in range(max(1, round(10 * scale))):
        process, twice = stopped(folder, f"twice-{number}", 2 * number, [signal.SIGINT] * 2)
        assert process.wait() == 130 and twice <= 2, (process.said(), twice)
        slowest = max(slowest, twice)
        equal(finish(folder, f"twice-{number}"), reference)
    assert set(Path("/dev/shm").iterdir()) <= shared
    return f"once: exit code 130 within {once:.1f} s; twice: within {slowest:.1f} s, then equal"


@case("A08", "resume from a checkpoint of every step, and a finished run")
def resumed_everywhere(folder: Path, scale: float) -> str:
    often = (*TRAIN, "--train.checkpoint-epochs", "0.1")
    # Before and in the middle of an epoch, its partial last batch, its end, the last step.
    steps = [1, 5, 8, 9, 10, 18, 26, 27] if scale < 1 else range(1, 28)
    steps = steps if scale > 0.1 else [8]
    reference = whole(folder, words=often)
    for step in steps:
        path = folder / f"run-{step}"
        process = start(folder, path.name, often, before=lambda step=step: die_after(step))
        assert process.wait() == 77, process.said()
        assert Run(path).checkpoint().step == step
        equal(finish(folder, path.name), reference)
        rates = [line["lr"] for line in Run(path).metrics if line["split"] == "train"]
        assert rates == [line["lr"] for line in reference.metrics if line["split"] == "train"]
        shutil.rmtree(path)
    before = touched(reference.path)
    done = Vitlab("train", "--resume", reference.path, folder=folder).succeed()
    assert "already complete" in done.said() and touched(reference.path) == before
    return f"{len(steps)} of {len(steps)} equal, rates value by value; a finished run is untouched"


def touched(path: Path) -> dict[Path, int]:
    """When each file below a folder was last written."""
    return {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
