"""`vitlab reproduce`: rows are trained, tested and compared with their source in a given time.

Each row is trained by a worker, a process of its own, so that a crash or an error of CUDA costs
one row. When the time is up the runs at work write a checkpoint and the queue ends; the same
command goes on where it stopped, and touches nothing that is finished. What is small of every run,
all but weights, can be packed into one file to be carried away; pictures are drawn later from it.

With `--smoke` every row is only tried and timed. Where that was done before, rows are begun by
their value for each second they take, and none that would not be complete in the time that is left.
"""

import io
import math
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from vitlab.config import Config
from vitlab.data import KNOWN
from vitlab.device import choose_device
from vitlab.files import read_json, write_bytes, write_json
from vitlab.formatting import between, duration
from vitlab.progress import cores
from vitlab.reproduce.rows import SYSTEMS, published, row_config
from vitlab.reproduce.smoke import smoke_test
from vitlab.reproduce.worker import Task, Worker, train_row
from vitlab.run import Run
from vitlab.training.signals import stop_request

QUEUE, SMOKE = "queue.json", "smoke.json"
"""What became of the rows, and how long each of them takes, in the folder of runs."""

MARGIN = 0.015
"""How far below a published accuracy a run may lie and still count as having reached it."""

GRACE_SECONDS = 60.0
"""Seconds that a worker has to write its checkpoint before it is ended."""

POLL_SECONDS = 0.2
"""Seconds after which the time that is left is looked at again."""

SLACK_SECONDS = 5.0
"""Seconds that a row takes beside its training: its images are read, and it is tested."""

STOPPED = {"status": "stopped", "reason": "the time was up; the same command goes on"}


@dataclass
class Row:
    """A row with a seed: what a worker is given, and what is known of it so far."""

    name: str
    config: Config
    path: Path
    value: float = 1.0
    """What its result is worth beside that of another row."""
    estimate: float | None = None
    """Seconds it takes, if that is known."""
    shared: bool = False
    """Another row was at work beside it."""


def reproduce(
    names: Sequence[str],
    *,
    seeds: Sequence[int] = (0,),
    minutes: float | None = None,
    overrides: dict[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    pack: str | os.PathLike[str] | None = None,
    workers: int = 1,
    device: str = "auto",
    data_root: str | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Train and test every row with every seed, and compare it with its source.

    All rows with the first seed come first; those that were timed by `smoke` in the same folder,
    and are to be done in so many minutes, by value for each second.

    Args:
        names: of rows or recipes; ConfigError before anything starts if one is unknown.
        seeds: training seeds.
        minutes: when to stop; None works until everything is done.
        overrides: config fields changed in every row.
        out: folder of runs; default $VITLAB_RUNS, else runs.
        pack: a .tar.gz to write after every run, with what is small of all of them.
        workers: rows side by side; their times are then marked as shared.
        say: where a line per finished run goes.

    Returns:
        One line per row and seed: {"row", "seed", "status": finished | stopped | failed | waiting,
        "accuracy", "published", "verdict", "expected", "as_expected", "seconds", "shared", "run"}.
    """
    folder = folder_of(out)
    configs = {name: row_config(name, overrides) for name in names}
    rows = [
        Row(
            name,
            replace(config, train=replace(config.train, seed=seed)),
            folder / f"{name}-seed{seed}",
            # Most where nothing is known yet.
            value=(1.0 if name in SYSTEMS else 0.25) / 2**place,
        )
        for place, seed in enumerate(seeds)
        for name, config in configs.items()
    ]
    complete = {row.path for row in rows if share_done(row) == 1}
    timed = read_json(folder / SMOKE) if (folder / SMOKE).exists() else []
    for row in rows:
        for one in timed:
            if one["row"] == row.name and "seconds" in one:
                row.estimate = estimate(row, one)
    lines: dict[Path, dict[str, Any]] = {}

    def record(row: Row, outcome: dict[str, Any]) -> None:
        line = {"row": row.name, "seed": row.config.train.seed, "run": str(row.path)} | outcome
        if line["status"] == "finished":
            line |= beside_source(row.name, line["accuracy"])
            if row.path not in complete:
                if row.shared:
                    line["shared"] = True
                    mark_shared(row.path)
                for other in rows:  # what it took is more than an estimate
                    if other.name == row.name and other.estimate:
                        other.estimate = line["seconds"]
        lines[row.path] = line
        say(sentence(line))
        in_order = [lines[one.path] for one in rows if one.path in lines]
        write_json(folder / QUEUE, in_order)
        if pack is not None:
            pack_small(folder, [Path(line["run"]) for line in in_order], Path(pack))

    where = {"device": device, "data_root": data_root}
    carry_out(train_row, rows, record, minutes=minutes, workers=workers, **where)
    return [lines[row.path] for row in rows]


def smoke(
    names: Sequence[str],
    *,
    minutes: float | None = None,
    overrides: dict[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    workers: int = 1,
    device: str = "auto",
    data_root: str | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Try and time every row; arguments as of `reproduce`.

    Returns:
        One line per row, as `smoke_test` finds it; OUT/smoke.json holds the same.
    """
    folder = folder_of(out)
    configs = {name: row_config(name, overrides) for name in names}
    rows = [Row(name, config, folder / "smoke" / name) for name, config in configs.items()]
    lines = []

    def record(row: Row, outcome: dict[str, Any]) -> None:
        line = {"row": row.name, **outcome, **({"shared": True} if row.shared else {})}
        lines.append(line)
        say(smoke_sentence(line))
        write_json(folder / SMOKE, lines)

    where = {"device": device, "data_root": data_root}
    try:
        carry_out(smoke_test, rows, record, minutes=minutes, workers=workers, **where)
    finally:
        shutil.rmtree(folder / "smoke", ignore_errors=True)
    return lines


def folder_of(out: str | os.PathLike[str] | None) -> Path:
    """The folder of runs."""
    return Path(out or os.environ.get("VITLAB_RUNS") or "runs")


def carry_out(
    task: Task,
    rows: Sequence[Row],
    record: Callable[[Row, dict[str, Any]], None],
    *,
    minutes: float | None,
    workers: int,
    device: str,
    data_root: str | None,
) -> None:
    """Give every row to a worker, and record what became of it.

    A worker that failed is replaced: after an error of CUDA nothing works in its process.
    """
    choose_device(device)
    end = time.monotonic() + 60 * minutes if minutes is not None else math.inf
    threads = max(1, cores() // workers) if workers > 1 else None
    waiting, busy, idle = list(rows), dict[Worker, Row](), list[Worker]()
    stopped: float | None = None  # when the workers were asked to stop
    with stop_request() as stop:
        try:
            while True:
                now = time.monotonic()
                over = stop.signal or now >= end
                while len(busy) < workers and not over and (row := next_row(waiting, end - now)):
                    waiting.remove(row)
                    worker = idle.pop() if idle else Worker(device, threads)
                    worker.give(task, row.config, row.path, data_root)
                    busy[worker] = row
                    for one in busy.values():
                        one.shared |= len(busy) > 1
                if not busy:
                    break
                if waiting and not idle and not over:
                    idle.append(Worker(device, threads))  # makes itself ready meanwhile
                if over and stopped is None:
                    stopped = now
                    for worker in busy:
                        worker.stop()
                elif stopped is not None and now > stopped + GRACE_SECONDS:
                    for worker in busy:
                        worker.kill()
                ready = wait([one.connection for one in (*busy, *idle)], POLL_SECONDS)
                for worker in [one for one in (*busy, *idle) if one.connection in ready]:
                    outcome = worker.answer()
                    row = busy.pop(worker, None)
                    if row is None:  # it ended before it was given anything
                        idle.remove(worker)
                        worker.close()
                        continue
                    if outcome is None:
                        failed = {"status": "failed", "reason": worker.ended()}
                        outcome = failed if stopped is None else STOPPED
                    if outcome["status"] in ("finished", "works"):
                        idle.append(worker)
                    else:
                        worker.close()
                    record(row, outcome)
        finally:
            for worker in (*busy, *idle):
                worker.close()
    for row in waiting:
        reason = {"reason": f"takes about {duration(row.estimate)}"} if row.estimate else {}
        record(row, {"status": "waiting", **reason})


def next_row(waiting: Sequence[Row], seconds: float) -> Row | None:
    """The row to begin when so many seconds are left, or None if none would be complete.

    Without an end it is the next one; else that of the highest value for each second it takes,
    and those that were never timed come last.
    """
    if math.isinf(seconds):
        return waiting[0] if waiting else None
    fitting = [
        row for row in waiting if row.estimate is None or row.estimate + SLACK_SECONDS <= seconds
    ]
    return max(
        fitting, key=lambda row: row.value / max(1.0, row.estimate or math.inf), default=None
    )


def estimate(row: Row, tried: dict[str, Any]) -> float:
    """Seconds that a row still takes, from what the smoke test says of the whole training.

    That may have seen a part of a known data set.
    """
    data, images = row.config.data, tried.get("images")
    if known := KNOWN.get(data.dataset):
        images = known.train * (1 - data.validation_fraction) * data.train_fraction
    more = images / tried["images"] if images else 1.0
    return more * tried["seconds"] * (1 - share_done(row))


def share_done(row: Row) -> float:
    """Share of a training that lies in its folder already."""
    if Run.is_finished(row.path):
        return 1.0
    if not Run.exists(row.path) or not (metrics := Run(row.path).metrics):
        return 0.0
    return metrics[-1]["epoch"] / row.config.train.epochs


def mark_shared(path: Path) -> None:
    """Note in a finished run that its seconds were shared with other trainings."""
    run = Run(path)
    finished = run.final_numbers
    finished["clock"]["shared"] = True
    with Run.lock(path):
        run.finish(finished)


def beside_source(name: str, accuracy: float) -> dict[str, Any]:
    """A row's test accuracy beside what its source reports, if that reports any."""
    source = published(name)
    if source is None:
        return {}
    above = accuracy - source.accuracy
    reached = above >= -MARGIN
    verdict = "reached" if reached else f"not reached: {-100 * above:.2f} points below"
    return {"published": source.accuracy, "verdict": verdict}


def sentence(line: dict[str, Any]) -> str:
    """A line of the queue for a terminal."""
    start = f"{line['row']:<24} seed {line['seed']}  {line['status']}"
    if line["status"] != "finished":
        return f"{start}  {line.get('reason', '').partition(chr(10))[0]}"
    words = f"{start}  test {line['accuracy']:.2%} in {line['seconds']:.0f} s"
    if line.get("shared"):
        words += " shared with other rows"
    if "published" in line:
        words += f"  published {line['published']:.2%}: {line['verdict']}"
    if "expected" in line:
        place = "within" if line["as_expected"] else "outside"
        words += f"  {place} what was measured, {between(line['expected'])}"
    return words


def smoke_sentence(line: dict[str, Any]) -> str:
    """A line of the smoke test for a terminal."""
    start = f"{line['row']:<28} {line['status']:<7}"
    if line["status"] != "works":
        return f"{start} {line.get('reason', '').partition(chr(10))[0]}"
    eager, replay, step = (1e3 * line[f"{name}_seconds"] for name in ("eager", "replay", "step"))
    words = (
        f"{start} {line['precision']}, {line['compilation']}: {step:.2f} ms a step, {replay:.2f} "
        f"without its batches, {eager:.2f} plain; {line['share_of_peak']:.1%} of peak, "
        f"{line['memory_bytes'] / 1e9:.1f} GB, about {duration(line['seconds'])} in all"
    )
    if line.get("shared"):
        words += ", shared"
    if line["resumed"]:
        words += f"; resumed weights differ by up to {line['resumed']:.1e}"
    return "; ".join([words, *line["alarms"]])


def pack_small(folder: Path, runs: Sequence[Path], path: Path) -> None:
    """Write one .tar.gz of what is small of every run, and of the queue itself."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder / QUEUE, QUEUE)
        for run in runs:
            # A teacher's run lies beside that of its student.
            for one in (run, run.with_name(f"{run.name}-teacher")):
                for file in Run.small_files(one):
                    archive.add(file, file.relative_to(folder))
    write_bytes(path, buffer.getvalue())
