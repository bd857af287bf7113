"""TRAIN, the training that the cases interrupt, and how its runs are compared bit by bit.

A trial is a process of its own that is really killed. It is forked from its case, which has
imported torch, and does there what `python -m vitlab` does; `Command` starts the real one.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Self

# Imported here so that every process forked from this one has them already.
import torch._dynamo  # noqa: F401
from harness import PRECISION, NotRun, die_with_parent
from safetensors.numpy import load_file

import vitlab.evaluate
import vitlab.study.run  # noqa: F401
from vitlab.cli import build_parser, main
from vitlab.run import Checkpoint, Run

TRAIN = (
    "digits", "--data.train-fraction", "0.387", "--model.width", "32", "--model.depth", "2",
    "--model.dropout", "0.1", "--augment.crop-padding", "1", "--augment.flip", "random",
    "--augment.erasing", "0.25", "--augment.mixup", "0.2", "--augment.cutmix", "1",
    "--optim.warmup-epochs", "1", "--optim.average-decay", "0.99", "--train.epochs", "3",
    "--train.batch-size", "60", "--train.accumulate", "2", "--train.checkpoint-epochs", "0.5",
    "--train.log-steps", "1", "--train.precision", PRECISION, "--device", "cpu",
)  # fmt: skip
"""503 images, 3 epochs of 9 steps, the last of 23 images; a checkpoint every 4 steps."""

TINY = (
    "digits", "--data.train-fraction", "0.05", "--data.validation-fraction", "0.02",
    "--model.width", "16", "--model.depth", "1", "--model.heads", "2", "--optim.warmup-epochs",
    "1", "--optim.average-decay", "0.9", "--train.epochs", "4", "--train.batch-size", "70",
    "--train.log-steps", "1", "--train.evaluate-epochs", "1", "--train.checkpoint-epochs", "1",
    "--train.precision", PRECISION, "--device", "cpu",
)  # fmt: skip
"""4 steps and a checkpoint after each: little to do but to write."""

build_parser()  # reads the help text of every field, once for all trials


class Process:
    """A process that was started, with what it prints in a file beside it."""

    def __init__(self, pid: int, log: Path, words: tuple[object, ...]):
        self.pid = pid
        self.log = log
        self.name = " ".join(map(str, words))
        self._code: int | None = None
        self.begun = time.monotonic()

    def poll(self) -> int | None:
        """Its exit code, 128 + the signal that killed it, or None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self._code = 128 - code if code < 0 else code
        return self._code

    def wait(self, seconds: float = 300) -> int:
        """Its exit code; after so long it is killed, and the case has failed."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"not over after {seconds} s: {self.name}\n{self.said()}")
            time.sleep(0.005)
        return code

    def stop(self) -> None:
        """Let it pause."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after a pause."""
        self.send(signal.SIGCONT)

    def send(self, number: int) -> None:
        """Send a signal to the process alone."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill -9 its whole process group, and wait until it is dead."""
        while self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it may not have its own group yet
                os.killpg(self.pid, signal.SIGKILL)
            time.sleep(0.001)

    def said(self) -> str:
        """What it printed so far."""
        return self.log.read_text(errors="replace")

    def succeed(self) -> Self:
        """Wait for it to end well."""
        code = self.wait()
        assert code == 0, f"exit code {code}:\n{self.said()[-3000:]}"
        return self

    def refuse(self, *words: str, code: int | None = None) -> str:
        """Wait for it to end with a clear error that has these words; return the error."""
        got, said = self.wait(), self.said()
        assert got != 0 and got == (code or got), f"exit code {got}:\n{said[-2000:]}"
        return clear(said, *words)


def clear(said: str, *words: str) -> str:
    """Make sure that an error is clear: of few lines, no traceback, with these words."""
    assert "Traceback" not in said, said[-3000:]
    error = said[said.rindex("vitlab: ") :] if "vitlab: " in said else ""
    assert error and len(error.splitlines()) <= 15, f"no clear error:\n{said[-2000:]}"
    for word in words:
        assert word in said, f"{word!r} is not in:\n{said[-2000:]}"
    return error


class Vitlab(Process):
    """A vitlab command in a forked process, with a process group of its own.

    Args:
        words: of the command line.
        before: done in the new process first.
        held: the process waits for `go` before it does anything.
    """

    count = 0

    def __init__(
        self,
        *words: object,
        folder: Path,
        before: Callable[[], object] | None = None,
        held: bool = False,
    ):
        Vitlab.count += 1
        log = folder / f"log-{Vitlab.count}"
        pipe, self._go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            die_with_parent()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(out, 1)
            os.dup2(out, 2)
            if held:
                os.read(pipe, 1)
            code = 1
            try:
                if before is not None:
                    before()
                code = main([str(word) for word in words])
                sys.stdout.flush()
            except SystemExit as stop:
                code = int(stop.code or 0)
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(code)
        os.close(pipe)
        super().__init__(pid, log, words)
        if not held:
            self.go()

    def go(self) -> None:
        """Let it begin."""
        os.write(self._go, b"!")
        os.close(self._go)
        self.begun = time.monotonic()


class Command(Process):
    """The real command line, in a process group of its own."""

    def __init__(self, *words: object, folder: Path, lead: tuple[str, ...] = (), **variables: str):
        Vitlab.count += 1
        log = folder / f"log-{Vitlab.count}"
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [*lead, sys.executable, "-m", "vitlab", *map(str, words)],
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                process_group=0,
                env={**os.environ, **variables},
            )
        super().__init__(self.process.pid, log, words)

    def poll(self) -> int | None:
        """Its exit code, 128 + the signal that killed it, or None while it runs."""
        code = self.process.poll()
        return 128 - code if code is not None and code < 0 else code


def start(folder: Path, name: str, words: tuple[str, ...] = TRAIN, **how: object) -> Vitlab:
    """Start a training in a folder of runs."""
    return Vitlab("train", *words, "--out", folder, "--name", name, folder=folder, **how)  # type: ignore[arg-type]


def go_on(folder: Path, name: str, words: tuple[str, ...] = TRAIN, **how: object) -> Vitlab:
    """The documented way to go on: resume where there is a run, and train where there is none."""
    if Run.exists(folder / name):
        return Vitlab("train", "--resume", folder / name, folder=folder, **how)  # type: ignore[arg-type]
    return start(folder, name, words, **how)


def whole(folder: Path, name: str = "reference", words: tuple[str, ...] = TRAIN) -> Run:
    """A run that nothing interrupts."""
    start(folder, name, words).succeed()
    return Run(folder / name)


def finish(folder: Path, name: str, words: tuple[str, ...] = TRAIN) -> Run:
    """Bring a run to its end."""
    go_on(folder, name, words).succeed()
    return Run(folder / name)


def fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 over names, types, shapes and bytes of weights, average and moments, and the state.

    Of the state that is all but the clocks, which no two runs share.
    """
    digest = hashlib.sha256()
    for file in (checkpoint.model, checkpoint.average, checkpoint.optimizer):
        for name, tensor in sorted(load_file(file).items()):
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            digest.update(tensor.tobytes())
    names = ("step", "image_size", "scaler", "plateau", "recent", "evaluation", "best")
    digest.update(json.dumps([checkpoint.state[name] for name in names]).encode())
    return digest.hexdigest()


def told(run: Run) -> list[dict[str, object]]:
    """The metrics of a run without their speeds: what a resumed run has to write again."""
    return [
        {name: value for name, value in line.items() if name != "images_per_second"}
        for line in run.metrics
    ]


def equal(run: Run, reference: Run) -> None:
    """Hold a finished run to the uninterrupted one: last and best checkpoint, every metric."""
    assert run.finished is not None
    for which in ("last", "best"):
        ours, theirs = run.checkpoint(which), reference.checkpoint(which)  # type: ignore[arg-type]
        assert ours.step == theirs.step, f"{which}: step {ours.step}, not {theirs.step}"
        assert fingerprint(ours) == fingerprint(theirs), f"{which} differs"
    assert told(run) == told(reference), "metrics differ"
    assert not list(run.path.glob(".*.tmp")) and not list(run.path.glob("checkpoints/.*"))


def until(condition: Callable[[], object], process: Process | None = None) -> None:
    """Wait for something to come true while a process runs."""
    end = time.monotonic() + 180
    while not condition():
        assert process is None or process.poll() is None, process.said()
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


def die_after(step: int) -> None:
    """End this process, without any farewell, once the checkpoint of a step is written."""
    write = Run.write_checkpoint

    def write_and_die(run: Run, at: int, *rest: object) -> None:
        write(run, at, *rest)  # type: ignore[arg-type]
        if at == step:
            os._exit(77)

    Run.write_checkpoint = write_and_die  # type: ignore[method-assign]


def tested(*ids: str) -> str:
    """Run tests of the suite that hold a row already; return how many passed.

    Raises NotRun if one of them was skipped, with its reason.
    """
    root = Path(__file__).parents[2]
    words = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *ids]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    if skipped := re.search(r"SKIPPED \[\d+\] [^:]+:\d+: (.*)", done.stdout):
        raise NotRun(skipped[1])
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0 and passed, done.stdout[-3000:] + done.stderr[-1000:]
    return f"{passed[1]} of {passed[1]} tests"
