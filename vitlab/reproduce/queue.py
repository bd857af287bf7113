"""`vitlab reproduce`: rows are trained, tested and judged one after another, inside a given time.

When the time is up the run at work writes a checkpoint and the queue ends; the same command goes
on where it stopped, and touches nothing that is finished. What is small of every run, all but
weights and stored logits, can be packed into one file to be carried away.
"""

import io
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from traceback import format_exc
from typing import Any

from vitlab.config import Config
from vitlab.errors import Interrupted, VitlabError
from vitlab.evaluate import evaluate
from vitlab.files import write_bytes, write_json
from vitlab.measured import measured
from vitlab.reproduce.rows import published, row_config
from vitlab.train import resume, train
from vitlab.words import between

MARGIN = 0.015
"""How far below a published accuracy a run may lie and still count as having reached it."""

REMINDER_SECONDS = 2
"""Between two signals, once the time is up."""

SMALL = ("*.json", "metrics.jsonl", "figures/*.svg", "figures/*.csv", "teacher/*.json*")
"""What is packed of a run."""


def reproduce(
    names: Sequence[str],
    *,
    seeds: Sequence[int] = (0,),
    minutes: float | None = None,
    overrides: dict[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    pack: str | os.PathLike[str] | None = None,
    device: str = "auto",
    data_root: str | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Train, test and judge every row with every seed, all rows with the first seed first.

    Args:
        names: of rows or recipes; ConfigError before anything starts if one is unknown.
        seeds: training seeds.
        minutes: when to stop; None works until everything is done.
        overrides: config fields changed in every row.
        out: folder of runs; default $VITLAB_RUNS, else runs.
        pack: a .tar.gz to write at the end, with what is small of every run.
        say: where a line per finished run goes.

    Returns:
        One line per row and seed: {"row", "seed", "status": finished | stopped | failed | waiting,
        "accuracy", "published", "verdict", "expected", "as_expected", "seconds", "run"}.
    """
    folder = Path(out or os.environ.get("VITLAB_RUNS") or "runs")
    configs = {name: row_config(name, overrides) for name in names}
    lines = []
    with time_box(minutes) as time_is_up:
        for seed in seeds:
            for name, config in configs.items():
                seeded = replace(config, train=replace(config.train, seed=seed))
                line = {"row": name, "seed": seed, "run": str(folder / f"{name}-seed{seed}")}
                if time_is_up():
                    line["status"] = "waiting"
                else:
                    line |= _attempt(seeded, Path(line["run"]), device, data_root)
                line |= judge(name, line)
                lines.append(line)
                say(sentence(line))
                write_json(folder / "queue.json", lines)
                if pack is not None:
                    pack_small(folder, [Path(line["run"]) for line in lines], Path(pack))
    return lines


def _attempt(config: Config, path: Path, device: str, data_root: str | None) -> dict[str, Any]:
    where = {"device": device, "data_root": data_root, "quiet": True}
    try:
        if (path / "config.json").exists():
            run = resume(path, **where)
        else:
            run = train(config, out=path.parent, name=path.name, **where)
        result = evaluate(run, "test", device=device, data_root=data_root)
    except Interrupted as stop:
        return {"status": "stopped", "reason": str(stop)}
    # Whatever a library raises, the rows after this one may still be had.
    except Exception as error:
        words = str(error)
        if not isinstance(error, VitlabError):
            words = f"{type(error).__name__}: {error}\n{format_exc()}"
        return {"status": "failed", "reason": words}
    assert run.finished is not None
    return {
        "status": "finished",
        "accuracy": result["accuracy"],
        "seconds": run.finished["clock"]["wall_seconds"],
        **hold(run.config, result["accuracy"]),
    }


@contextmanager
def time_box(minutes: float | None):
    """Send this process SIGTERM after so many minutes; yield a function that says if it came.

    A training turns the signal into a checkpoint; between trainings it is only noted, so it
    comes again and again.
    """
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    over = threading.Event()

    def remind() -> None:
        pause = 60 * (minutes or 0)
        while not over.wait(pause):
            os.kill(os.getpid(), signal.SIGTERM)
            pause = REMINDER_SECONDS

    thread = threading.Thread(target=remind, daemon=True)
    if minutes is not None:
        thread.start()
    try:
        yield lambda: time.monotonic() >= end
    finally:
        over.set()
        if minutes is not None:
            thread.join()
        signal.signal(signal.SIGTERM, before)


def judge(name: str, line: dict[str, Any]) -> dict[str, Any]:
    """Compare a row's test accuracy with what its source reports."""
    source = published(name)
    if line["status"] != "finished" or source is None:
        return {}
    above = line["accuracy"] - source.accuracy
    reached = above >= -MARGIN
    verdict = "reached" if reached else f"not reached: {-100 * above:.2f} points below"
    return {"published": source.accuracy, "verdict": verdict}


def hold(config: Config, accuracy: float) -> dict[str, Any]:
    """Compare a test accuracy with what runs of the same config reached before."""
    known = measured(config)
    span = known.span("test") if known else None
    if span is None:
        return {}
    return {"expected": list(span), "as_expected": span[0] <= accuracy <= span[1]}


def sentence(line: dict[str, Any]) -> str:
    """A line of the queue for a terminal."""
    start = f"{line['row']:<24} seed {line['seed']}  {line['status']}"
    if line["status"] != "finished":
        return f"{start}  {line.get('reason', '').splitlines()[0] if line.get('reason') else ''}"
    words = f"{start}  test {line['accuracy']:.2%} in {line['seconds']:.0f} s"
    if "published" in line:
        words += f"  published {line['published']:.2%}: {line['verdict']}"
    if "expected" in line:
        place = "within" if line["as_expected"] else "outside"
        words += f"  {place} what was measured, {between(line['expected'])}"
    return words


def pack_small(folder: Path, runs: Sequence[Path], path: Path) -> None:
    """Write one .tar.gz of what is small of every run, and of the queue itself."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder / "queue.json", "queue.json")
        for run in runs:
            for pattern in SMALL:
                for file in sorted(run.glob(pattern)):
                    archive.add(file, file.relative_to(folder))
    write_bytes(path, buffer.getvalue())
