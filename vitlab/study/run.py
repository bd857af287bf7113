"""Running a study: every trial in a process of its own, so that none can take another with it.

What is finished is never touched. What was interrupted or killed goes on from its checkpoint;
what ended by itself without a result, because it raised, diverged or ran out of memory, would do
so again and stays as it is until `retry`. Nothing is remembered but in files, so a controller
that is killed leaves nothing behind that its successor could trip over: a trial that outlived it
holds its run's lock, and is waited for.
"""

import itertools
import re
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from vitlab import compare
from vitlab.errors import DivergenceError, Interrupted, PartialError, RunError, VitlabError
from vitlab.evaluate import evaluate
from vitlab.files import Lock, write_json
from vitlab.formatting import duration
from vitlab.progress import ProgressBar
from vitlab.recipes import command
from vitlab.run import LOCK, STUDY, Run, failure_file
from vitlab.study.define import follow_up
from vitlab.study.engines import Engine, Job
from vitlab.study.plan import Plan, Status, Trial
from vitlab.study.prepare import open_plan
from vitlab.study.results import (
    PENDING,
    StudyRecord,
    accuracy,
    best_arms,
    status,
    write_summary,
)
from vitlab.study.search import proposals
from vitlab.training.signals import stop_request

POLL_SECONDS = 0.1
"""Between two looks at what runs."""

OUT_OF_MEMORY = re.compile(r"out of memory|MemoryError|can't allocate memory|not enough memory")


@dataclass(kw_only=True)
class Scheduler:
    """Runs the trials of a study in its folder, each as a command that an engine starts."""

    plan: Plan
    folder: Path
    engine: Engine
    device: str = "auto"
    data_root: str | None = None
    retry: bool = False
    """Start again what ended by itself without a result."""
    quiet: bool = False
    _running: dict[Trial, Job] = field(default_factory=dict)

    def run(self, trials: Iterable[Trial]) -> None:
        """Run what is not over yet; a trial is asked for when a worker is free.

        Raises:
            RunError: another process runs this study.
            Interrupted: after SIGINT or SIGTERM, once running trials have written checkpoints.
        """
        (self.folder / "trials").mkdir(parents=True, exist_ok=True)
        display = Display(self.plan, self.folder, self.engine.workers, self.quiet)
        queue, locked = iter(trials), deque[Trial]()
        with Lock(self.folder / LOCK), stop_request() as stop, display:
            try:
                while not stop.signal:
                    for trial, code in self._ended():
                        self._note(trial, code)
                        display.ended(trial, self._running)
                    self._fill(queue, locked)
                    if not self._running and not locked:
                        return
                    display.update(self._running, len(locked))
                    time.sleep(POLL_SECONDS)
                for job in self._running.values():
                    job.stop()
                while self._running:
                    list(self._ended())  # what we stop is interrupted, not failed
                    time.sleep(POLL_SECONDS)
                raise Interrupted(
                    f"stopped; the same command goes on with {self.folder}", stop.signal
                )
            finally:
                for job in self._running.values():
                    job.kill()

    def _fill(self, queue: Iterator[Trial], locked: deque[Trial]) -> None:
        """Start trials until every worker has one, those first that were locked until now."""
        again = [locked.popleft() for _ in range(len(locked))]
        for trial in itertools.chain(again, self._free(queue)):
            if self._over(trial):
                continue
            if len(self._running) >= self.engine.workers or Run.is_locked(self.folder / trial.run):
                locked.append(trial)
            else:
                self._start(trial)

    def _free(self, queue: Iterator[Trial]) -> Iterator[Trial]:
        """The next trials, as long as a worker is free."""
        while len(self._running) < self.engine.workers:
            trial = next(queue, None)
            if trial is None:
                return
            yield trial

    def _over(self, trial: Trial) -> bool:
        now, _ = status(self.folder, trial)
        ended = now in ("failed", "diverged", "out of memory")
        return now == "finished" or (ended and not self.retry)

    def _start(self, trial: Trial) -> None:
        failure_file(self.folder, trial.name).unlink(missing_ok=True)
        stem = (self.folder / "trials" / trial.name).absolute()
        self._running[trial] = self.engine.start(self._command(trial), stem)

    def _command(self, trial: Trial) -> list[str]:
        """The command line of a trial, complete with its number of threads."""
        path = (self.folder / trial.run).absolute()
        if Run.exists(path):
            words = ["train", "--resume", str(path)]
        else:
            line = command(self.plan.config(trial))
            assert line is not None
            words = [*shlex.split(line)[1:], "--out", str(path.parent), "--name", path.name]
        words += ["--device", self.device]
        if self.data_root is not None:
            words += ["--data-root", str(Path(self.data_root).absolute())]
        threads = [f"{name}_NUM_THREADS={self.plan.threads}" for name in ("OMP", "MKL")]
        return ["env", *threads, sys.executable, "-m", "vitlab", *words]

    def _ended(self) -> Iterator[tuple[Trial, int]]:
        """Forget the trials that have ended; yield them with their exit codes."""
        for trial, job in list(self._running.items()):
            if (code := job.poll()) is not None:
                del self._running[trial]
                yield trial, code

    def _note(self, trial: Trial, code: int) -> None:
        """Write down why a trial that has ended has no result, if it has none."""
        if status(self.folder, trial)[0] != "finished":
            reached, reason = diagnose(code, self.folder / "trials" / f"{trial.name}.log")
            write_json(failure_file(self.folder, trial.name), {"status": reached, "reason": reason})


def run_study(plan: Plan, folder: Path, engine: Engine, **settings: Any) -> dict[str, Any]:
    """Run a whole study as its design asks, write its summary and return it.

    `settings` are those of a Scheduler.
    """
    scheduler = Scheduler(plan=plan, folder=folder, engine=engine, **settings)
    if not (folder / STUDY).exists():
        plan.save(folder)
    searching = plan.design == "search"
    trials = proposals(plan, folder, scheduler.data_root) if searching else plan.trials
    scheduler.run(itertools.chain(trials, plan.probes))
    return write_summary(folder)


def open_follow_up(plan: Plan, folder: Path, **where: Any) -> tuple[Path, Plan]:
    """The study of a finished study's best, beside it: planned once, whatever is found later.

    VitlabError if no arm was better than the baseline.
    """
    beside = folder.with_name(f"{folder.name}-best")
    if (beside / STUDY).exists():
        return beside, Plan.load(beside)
    best = best_arms(StudyRecord(folder))
    if not best:
        raise VitlabError(f"no arm of {plan.name} was better than its baseline: nothing to train")
    return beside, open_plan(follow_up(plan, best), beside, threads=plan.threads, **where)


def evaluate_best(folder: Path, **where: Any) -> dict[str, Any]:
    """Evaluate the baseline and the best arm on the test split, and compare them there.

    These are the arms of the study that `--then best` trained with new seeds, where there is one.
    Each of their runs is evaluated once, which enters the ledger; what comes out stands in the
    study's folder `test`.

    Args:
        where: device and data_root of `vitlab.evaluate`.

    Returns:
        `vitlab.compare.compare`.
    """
    followed = folder.with_name(f"{folder.name}-best")
    record = StudyRecord(followed if (followed / STUDY).exists() else folder)
    complete = [one for one in record.arms if one.complete and not one.arm.baseline]
    if record.baseline is None or not record.baseline.complete or not complete:
        raise RunError(f"{record.folder}: the baseline and an arm have to finish before their test")
    best = max(complete, key=lambda one: one.sample.mean)
    runs = [run.run for arm in (record.baseline, best) for run in arm.group.runs]
    for run in runs:
        if "test" not in run.results:
            evaluate(run, "test", pictures=False, **where)
    write_summary(record.folder)  # which says that the test split was opened
    return compare.write(runs, "test", record.folder / "test")


def check_results(plan: Plan, folder: Path) -> None:
    """Raise a PartialError that names every trial without a result, if there is one."""
    ended = {trial: status(folder, trial) for trial in plan.all}
    lost = {trial: end for trial, end in ended.items() if end[0] != "finished"}
    if lost:
        lines = [f"{trial.name}: {now}: {why}" for trial, (now, why) in lost.items()]
        raise PartialError(
            f"{len(lost)} of {len(ended)} trials have no result; the same command goes on with "
            "what was interrupted, --retry with the others as well\n" + "\n".join(lines)
        )


def diagnose(code: int, log: Path) -> tuple[Status, str]:
    """Why a trial ended without a result, from its exit code and the end of its log."""
    number = -code if code < 0 else code - 128
    if number in signal.valid_signals():
        name = signal.Signals(number).name
        memory = ", by somebody or by a system out of memory" if name == "SIGKILL" else ""
        return "killed", f"ended by {name}{memory}: the same command goes on with it"
    reason = last_error(log)
    if code == DivergenceError.exit_code:
        return "diverged", reason
    return ("out of memory" if OUT_OF_MEMORY.search(reason) else "failed"), reason


def last_error(log: Path) -> str:
    """The error a log ends with: our message, or the last line of a traceback."""
    if not log.exists():
        return "it left no log"
    lines = log.read_text(errors="replace").strip().splitlines()
    for place in range(len(lines) - 1, -1, -1):
        if lines[place].startswith("vitlab: "):
            return "\n".join(lines[place:]).removeprefix("vitlab: ")
        if lines[place].startswith("Traceback"):
            break
    return lines[-1] if lines else "it printed nothing"


class Display:
    """A line for every trial that ends; in a terminal also a bar, with the time left."""

    def __init__(self, plan: Plan, folder: Path, workers: int, quiet: bool):
        self._plan = plan
        self._folder = folder
        self._workers = workers
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        # The time left is known better here, from the estimates of trials of unlike length.
        self._bar = ProgressBar(quiet=quiet, console=self._console, timed=False)
        self._begun = self._looked = time.monotonic()
        self._done_before, _ = self._work(())

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__()

    def update(self, running: Iterable[Trial], locked: int) -> None:
        """Move the bar, about once a second."""
        if not self._bar.shown or time.monotonic() - self._looked < 1:
            return
        self._looked = time.monotonic()
        waiting = f", {locked} trained by another process" if locked else ""
        done, total = self._work(running)
        self._bar.update(done, total, f"{self._count()}{waiting}", self._left(done, total))

    def ended(self, trial: Trial, running: Iterable[Trial]) -> None:
        """Print how a trial ended."""
        reached, reason = status(self._folder, trial)
        right = accuracy(self._folder, trial)
        what = f"{trial.rate:g} x the learning rate" if trial.rate else f"seed {trial.seed}"
        end = f"{reached}: {reason.splitlines()[0]}" if right is None else f"{right:.2%}"
        left = self._left(*self._work(running))
        line = f"{self._count()}  {trial.arm}, {what}: {end}"
        self._console.print(f"{line}; {left}" if left else line, markup=False)

    def _count(self) -> str:
        return f"{sum(map(self._is_over, self._plan.all))}/{self._plan.size} trials"

    def _is_over(self, trial: Trial) -> bool:
        return status(self._folder, trial)[0] not in PENDING

    def _work(self, running: Iterable[Trial]) -> tuple[float, float]:
        """Seconds of the estimates that are done, and that there are in all."""
        running = set(running)
        done = total = 0.0
        for trial in self._plan.all:
            seconds = self._plan.seconds(trial) or 1.0
            total += seconds
            done += seconds * (self._share(trial) if trial in running else self._is_over(trial))
        # A search has not thought of all its arms yet.
        return done, total * self._plan.size / len(self._plan.all)

    def _share(self, trial: Trial) -> float:
        """How far a running trial has come, from its last line of metrics."""
        path = self._folder / trial.run
        lines = Run(path).metrics if Run.exists(path) else []
        return lines[-1]["epoch"] / Run(path).config.train.epochs if lines else 0.0

    def _left(self, done: float, total: float) -> str:
        """The time left, at the speed since this process began, or by the estimates."""
        fresh, elapsed = done - self._done_before, time.monotonic() - self._begun
        if total - done < 1e-9:
            return ""
        rate = fresh / elapsed if fresh > 0 else self._workers
        return f"about {duration((total - done) / rate)} left"
