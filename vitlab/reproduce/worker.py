"""A process that works for the queue, so that what breaks in it costs one row and no other.

An error of CUDA leaves its process without a GPU, and a crash leaves nothing. So rows are trained
in processes of their own, one after another in each.
"""

import gc
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from traceback import format_exc
from typing import Any

import torch

from vitlab.config import Config
from vitlab.device import choose_device
from vitlab.errors import Interrupted, VitlabError
from vitlab.evaluate import evaluate
from vitlab.measured import measured
from vitlab.run import Run
from vitlab.training import resume, train

Task = Callable[[Config, Path, str, str | None], dict[str, Any]]
"""Config, folder of the run, device and data root -> {"status", ...}."""


class Worker:
    """A process that carries out one task after another; it makes itself ready at once.

    Args:
        device: auto, cpu, cuda, ...
        threads: CPU threads that it may use; None leaves that to torch and the environment.
    """

    def __init__(self, device: str, threads: int | None = None):
        context = get_context("spawn")  # CUDA does not survive a fork
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, device, threads))
        self._process.start()
        theirs.close()

    def give(self, task: Task, config: Config, path: Path, data_root: str | None) -> None:
        """Give it something to do; its connection can be read once it has answered or ended."""
        with suppress(OSError):  # if it has ended, its end is the answer
            self.connection.send((task, config, path, data_root))

    def answer(self) -> dict[str, Any] | None:
        """What it answered; None if it has ended."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def ended(self) -> str:
        """How it ended, in words."""
        self._process.join()
        code = self._process.exitcode or 0
        if code == -signal.SIGKILL:
            return "its process was killed, as the system does where memory runs out"
        return f"its process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"

    def stop(self) -> None:
        """Ask it to write a checkpoint and answer."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close(self) -> None:
        """End it, and leave nothing behind."""
        self.kill()
        self._process.join()
        self._process.close()
        self.connection.close()


def _work(connection: Connection, device: str, threads: int | None) -> None:
    """Carry out tasks until there are no more."""
    os.setsid()  # Ctrl-C is the queue's to pass on
    os.dup2(2, 1)  # what libraries print is no result of the command
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.empty(1, device=choose_device(device))  # a GPU takes a second to come up
    with suppress(EOFError):
        while True:
            task, config, path, data_root = connection.recv()
            connection.send(attempt(task, config, path, device, data_root))
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # others may work beside this one


def attempt(task: Task, *arguments: Any) -> dict[str, Any]:
    """What a task returns, or how it failed."""
    try:
        return task(*arguments)
    except Interrupted as stop:
        return {"status": "stopped", "reason": str(stop)}
    except VitlabError as error:
        return {"status": "failed", "reason": str(error)}
    # Whatever a library raises, the rows after this one may still be had.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}\n{format_exc()}"
        return {"status": "failed", "reason": reason}


def train_row(config: Config, path: Path, device: str, data_root: str | None) -> dict[str, Any]:
    """Train a run to its end, or go on with it, and test it; draw nothing."""
    where = {"device": device, "data_root": data_root}
    if Run.exists(path):
        run = resume(path, quiet=True, **where)
    else:
        run = train(config, out=path.parent, name=path.name, quiet=True, **where)
    accuracy = evaluate(run, "test", pictures=False, quiet=True, **where)["accuracy"]
    return {
        "status": "finished",
        "accuracy": accuracy,
        "seconds": run.final_numbers["clock"]["wall_seconds"],
        **as_expected(run.config, accuracy),
    }


def as_expected(config: Config, accuracy: float) -> dict[str, Any]:
    """Compare a test accuracy with what runs of the same config reached before."""
    known = measured(config)
    span = known.span("test") if known else None
    if span is None:
        return {}
    return {"expected": list(span), "as_expected": span[0] <= accuracy <= span[1]}
