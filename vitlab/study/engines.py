"""Where trials run, side by side: processes of this machine, or jobs of somebody else's queue.

    processes   a process per trial
    local       submitit's local executor: a process per trial, GPUs dealt out one each
    slurm       submitit's SLURM executor: a job per trial

An engine is handed a command line and nothing else, so a trial on a cluster is the command that
a person could type there, and nothing of ours is pickled.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from vitlab.device import choose_device
from vitlab.errors import ConfigError, VitlabError
from vitlab.files import write_json

JOB_MINUTES = 24 * 60
"""Minutes that a job of a queue may take, unless --job timeout_min says otherwise."""

SCRIPT = """\
log=$1 stem=$2; shift 2
trap : TERM INT
"$@" >>"$log" 2>&1 & pid=$!
echo $pid >"$stem.pid"
while wait $pid; code=$?; kill -0 $pid 2>/dev/null; do :; done
echo $code >"$stem.code.tmp"; mv "$stem.code.tmp" "$stem.code"
"""
"""Runs a command and leaves its log, its process id and its exit code beside one another.

A signal ends the first `wait`, not the script: the command writes its checkpoint meanwhile.
"""

LOOK_SECONDS, STOP_SECONDS = 30, 2
"""Between two questions to SLURM after a job without an exit code: while it runs, once stopped."""


class Job(Protocol):
    """A trial that was started."""

    def poll(self) -> int | None:
        """Its exit code, 128 + n or -n after signal n; None while it runs."""

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""

    def kill(self) -> None:
        """End it at once."""


class Engine(Protocol):
    """Starts trials; `workers` is how many may run side by side."""

    workers: int

    def start(self, command: list[str], stem: Path) -> Job:
        """Start a command, with files of its own at `stem`.log and the like."""
        ...


ENGINES = ("processes", "local", "slurm")


def build_engine(
    name: str,
    folder: Path,
    *,
    size: int,
    threads: int,
    device: str = "auto",
    workers: int | None = None,
    jobs: Sequence[str] = (),
) -> Engine:
    """The engine of a name.

    Args:
        name: one of ENGINES.
        folder: the study's.
        size: number of trials.
        threads: CPU threads of a trial.
        device: what trials run on.
        workers: trials side by side; default all of them for SLURM, which has a queue of its own,
            one per GPU, or as many as the CPU has cores for.
        jobs: parameters of submitit, each as NAME=VALUE.
    """
    options: dict[str, Any] = {}
    for job in jobs:
        key, sign, value = job.partition("=")
        if not sign:
            raise ConfigError([f"--job {job}: write NAME=VALUE"])
        options[key] = int(value) if value.isdigit() else value
    if name == "slurm":
        return Queue(name, folder / "jobs", workers or size, threads, options)
    on_cpu = choose_device(device).type == "cpu"
    idle = max(1, cores() // threads) if on_cpu else 1
    if name == "local":
        devices = 0 if on_cpu else torch.cuda.device_count()
        workers = workers or devices or idle
        return Queue(name, folder / "jobs", workers, threads, options, gpus=devices)
    if options:
        raise ConfigError([f"--job {jobs[0]}: only --engine local and slurm have jobs"])
    return Processes(min(workers or idle, size))


class Process:
    """A trial as a process of this machine, in a session of its own so that Ctrl-C is ours."""

    def __init__(self, command: list[str], log: Path):
        with open(log, "ab") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


class Processes:
    """Processes of this machine."""

    def __init__(self, workers: int):
        self.workers = workers

    def start(self, command: list[str], stem: Path) -> Process:
        """Start a command."""
        return Process(command, log=beside(stem, "log"))


class Submitted:
    """A trial as a job of submitit, judged by the exit code that its script leaves behind."""

    def __init__(self, job: Any, stem: Path):
        self.job = job
        self.stem = stem

    def code(self) -> int | None:
        """The exit code, once there is one; a later start of the trial is then another job."""
        file = beside(self.stem, "code")
        if not file.exists():
            return None
        beside(self.stem, "job").unlink(missing_ok=True)
        return int(file.read_text())


class LocalJob(Submitted):
    """A job of submitit's local executor."""

    def poll(self) -> int | None:
        """Its exit code once submitit's own helper is gone, or that of a kill if it left none."""
        if not self.job.done():
            return None
        code = self.code()
        return -signal.SIGKILL if code is None else code

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        # Submitit would signal a helper of its own, which does not pass it on.
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(beside(self.stem, "pid").read_text()), number)


class SlurmJob(Submitted):
    """A job of SLURM, which may have no accounting to tell how a job ended."""

    def __init__(self, job: Any, stem: Path):
        super().__init__(job, stem)
        self._every = LOOK_SECONDS
        self._next_look = time.monotonic() + self._every
        self._missed = 0

    def poll(self) -> int | None:
        """Its exit code, or that of a kill if it has left the queue without one."""
        code = self.code()
        if code is not None or time.monotonic() < self._next_look:
            return code
        self._next_look = time.monotonic() + self._every
        # A shared folder may show the exit code some seconds late: one more look.
        self._missed = 0 if is_queued(self.job.job_id) else self._missed + 1
        if self._missed < 2:
            return None
        beside(self.stem, "job").unlink(missing_ok=True)
        return -signal.SIGKILL

    def stop(self) -> None:
        """Ask it to write a checkpoint and end: SIGTERM, and SIGKILL after SLURM's KillWait."""
        self.job.cancel(check=False)
        self._every, self._next_look = STOP_SECONDS, 0.0

    def kill(self) -> None:
        """SLURM knows no sooner end than that of `stop`."""
        self.job.cancel(check=False)


def is_queued(job: str) -> bool:
    """False once SLURM waits for a job no longer and runs it no longer."""
    words = ["squeue", "--noheader", "--jobs", job]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    if told.returncode:
        # Whoever cannot be reached says nothing about the job.
        return "Invalid job id" not in told.stderr
    return bool(told.stdout.strip())


class Queue:
    """Jobs through submitit.

    Args:
        cluster: local or slurm.
        folder: for submitit's own files.
        workers: trials side by side; not more than there are GPUs on the local executor.
        threads: CPU threads of a trial.
        options: parameters of submitit, `timeout_min` and `slurm_partition` among them.
        gpus: of this machine, for the local executor.
    """

    def __init__(
        self,
        cluster: str,
        folder: Path,
        workers: int,
        threads: int,
        options: dict[str, Any],
        gpus: int = 0,
    ):
        try:
            import submitit
        except ImportError:
            raise VitlabError(
                f"--engine {cluster} needs submitit: pip install 'vitlab[cluster]'"
            ) from None
        self._submitit = submitit
        self._folder = folder
        self._here = cluster == "local"
        # The local executor hands its GPUs to every job alike, so it is told of one at a time.
        self._gpus: dict[int, LocalJob | None] = dict.fromkeys(range(gpus))
        self.workers = min(workers, gpus or workers)
        settings = {"timeout_min": JOB_MINUTES, **options}
        try:
            if self._here:
                self._executor = submitit.LocalExecutor(folder)
            else:
                self._executor = submitit.AutoExecutor(folder, cluster="slurm")
                settings = {"cpus_per_task": threads, **settings}
            self._executor.update_parameters(**settings)
        except (RuntimeError, TypeError, ValueError, NameError) as error:
            raise VitlabError(f"--engine {cluster} cannot be used here: {error}") from error

    def start(self, command: list[str], stem: Path) -> LocalJob | SlurmJob:
        """Submit a command, or take up again the job that an earlier sitting submitted for it."""
        file = beside(stem, "job")
        if not self._here and file.exists():
            number = json.loads(file.read_text())["job"]
            return SlurmJob(self._submitit.SlurmJob(self._folder, number), stem)
        beside(stem, "code").unlink(missing_ok=True)
        free = [gpu for gpu, job in self._gpus.items() if job is None or job.poll() is not None]
        if free:
            self._executor.update_parameters(gpus_per_node=1, visible_gpus=free[:1])
        script = ["sh", "-c", SCRIPT, "sh", str(beside(stem, "log")), str(stem), *command]
        function = self._submitit.helpers.CommandFunction(script, verbose=False)
        job = self._executor.submit(function)
        if not self._here:
            write_json(file, {"job": job.job_id})
            return SlurmJob(job, stem)
        started = LocalJob(job, stem)
        self._gpus |= dict.fromkeys(free[:1], started)
        return started


def beside(stem: Path, what: str) -> Path:
    """A file of a trial: names of trials hold dots, so a suffix is never replaced."""
    return stem.with_name(f"{stem.name}.{what}")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
