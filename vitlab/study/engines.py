"""Where trials run, side by side: processes of this machine, or jobs of a SLURM cluster.

An engine is handed a command line and nothing else, so a trial on a cluster is the command that
a person could type there, and nothing of ours is pickled.
"""

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
from vitlab.progress import cores

JOB_MINUTES = 24 * 60
"""Minutes that a job of SLURM may take, unless --job timeout_min says otherwise."""

SCRIPT = """\
log=$1 stem=$2; shift 2
trap : TERM INT
"$@" >>"$log" 2>&1 & pid=$!
while wait $pid; code=$?; kill -0 $pid 2>/dev/null; do :; done
echo $code >"$stem.code.tmp"; mv "$stem.code.tmp" "$stem.code"
"""
"""Runs a command as a job and leaves its log and its exit code beside one another.

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
"""`local` is the earlier name of `processes` on several GPUs."""


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
        return Slurm(folder / "jobs", workers or size, threads, options)
    if options:
        raise ConfigError([f"--job {jobs[0]}: only --engine slurm has jobs"])
    chosen = choose_device(device)
    gpus = visible_gpus() if chosen.type == "cuda" and chosen.index is None else []
    idle = max(1, cores() // threads) if chosen.type == "cpu" else 1
    return Processes(min(workers or len(gpus) or idle, size), gpus)


class Process:
    """A trial as a process of this machine, in a session of its own so that Ctrl-C is ours."""

    def __init__(self, command: list[str], log: Path, gpu: str | None = None):
        self.gpu = gpu
        with open(log, "ab") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}),
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
    """Processes of this machine; each sees the one of the `gpus` that is the least used."""

    def __init__(self, workers: int, gpus: Sequence[str] = ()):
        self.workers = workers
        self._gpus = gpus
        self._started: list[Process] = []

    def start(self, command: list[str], stem: Path) -> Process:
        """Start a command."""
        self._started = [process for process in self._started if process.poll() is None]
        used = [process.gpu for process in self._started]
        gpu = min(self._gpus, key=used.count) if self._gpus else None
        self._started.append(Process(command, beside(stem, "log"), gpu))
        return self._started[-1]


class SlurmJob:
    """A trial as a job of SLURM, which may have no accounting to tell how a job ended: what counts
    is the exit code that its script leaves behind.
    """

    def __init__(self, job: Any, stem: Path):
        self.job = job
        self.stem = stem
        self._every: float = LOOK_SECONDS
        self._next_look = time.monotonic() + self._every
        self._missed = 0

    def poll(self) -> int | None:
        """Its exit code, or that of a kill if it has left the queue without one."""
        file = beside(self.stem, "code")
        if file.exists():
            return self._over(int(file.read_text()))
        if time.monotonic() < self._next_look:
            return None
        self._next_look = time.monotonic() + self._every
        # A shared folder may show the exit code some seconds late: one more look.
        self._missed = 0 if is_queued(self.job.job_id) else self._missed + 1
        return None if self._missed < 2 else self._over(-signal.SIGKILL)

    def _over(self, code: int) -> int:
        beside(self.stem, "job").unlink(missing_ok=True)  # a later start is another job
        return code

    def stop(self) -> None:
        """Ask it to write a checkpoint and end: SIGTERM, and SIGKILL after SLURM's KillWait."""
        self.job.cancel(check=False)
        self._every, self._next_look = STOP_SECONDS, 0.0

    def kill(self) -> None:
        """SLURM knows no sooner end than that of `stop`."""
        self.job.cancel(check=False)


def is_queued(job: str) -> bool:
    """False once SLURM waits for a job no longer and runs it no longer."""
    command = ["squeue", "--noheader", "--jobs", job]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        # Whoever cannot be reached says nothing about the job.
        return "Invalid job id" not in answer.stderr
    return bool(answer.stdout.strip())


class Slurm:
    """Jobs of SLURM through submitit.

    Args:
        folder: for submitit's own files.
        workers: trials side by side.
        threads: CPU threads of a trial.
        options: parameters of submitit, `timeout_min` and `slurm_partition` among them.
    """

    def __init__(self, folder: Path, workers: int, threads: int, options: dict[str, Any]):
        try:
            import submitit
        except ImportError:
            raise VitlabError(
                "--engine slurm needs submitit: pip install 'vitlab[cluster]'"
            ) from None
        self._submitit = submitit
        self._folder = folder
        self.workers = workers
        settings = {"timeout_min": JOB_MINUTES, "cpus_per_task": threads, **options}
        try:
            self._executor = submitit.AutoExecutor(folder, cluster="slurm")
            self._executor.update_parameters(**settings)
        except (RuntimeError, TypeError, ValueError, NameError) as error:
            raise VitlabError(f"--engine slurm cannot be used here: {error}") from error

    def start(self, command: list[str], stem: Path) -> SlurmJob:
        """Submit a command, or take up again the job that an earlier start submitted for it."""
        file = beside(stem, "job")
        if file.exists():
            number = json.loads(file.read_text())["job"]
            return SlurmJob(self._submitit.SlurmJob(self._folder, number), stem)
        beside(stem, "code").unlink(missing_ok=True)
        script = ["sh", "-c", SCRIPT, "sh", str(beside(stem, "log")), str(stem), *command]
        job = self._executor.submit(self._submitit.helpers.CommandFunction(script, verbose=False))
        write_json(file, {"job": job.job_id})
        return SlurmJob(job, stem)


def beside(stem: Path, what: str) -> Path:
    """A file of a trial: names of trials hold dots, so a suffix is never replaced."""
    return stem.with_name(f"{stem.name}.{what}")


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",") if named else [str(k) for k in range(torch.cuda.device_count())]
