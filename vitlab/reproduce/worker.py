"""A process that works for the queue, so that what breaks in it costs one row and no other.

An error of CUDA leaves its process without a GPU, and a crash leaves nothing. So rows are trained
in processes of their own, told what to do by lines of JSON, and answering in lines of JSON.

python -m vitlab.reproduce.worker DEVICE
"""

import gc
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from traceback import format_exc
from typing import Any

import torch

from vitlab.config import Config
from vitlab.device import choose_device
from vitlab.errors import Interrupted, VitlabError
from vitlab.evaluate import evaluate
from vitlab.measured import measured
from vitlab.reproduce.smoke import smoke_test
from vitlab.run import Run
from vitlab.training import resume, train


class Worker:
    """A process that carries out one task after another; it makes itself ready at once.

    Args:
        device: auto, cpu, cuda, ...
        answers: where (this worker, what it answered) go; None once it has ended.
        threads: CPU threads that it may use; None leaves that to torch and the environment.
    """

    def __init__(
        self,
        device: str,
        answers: "queue.Queue[tuple[Worker, dict[str, Any] | None]]",
        threads: int | None = None,
    ):
        limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=limit | os.environ,
            start_new_session=True,  # Ctrl-C is the queue's to pass on
        )
        self._answers = answers
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def give(self, task: dict[str, Any]) -> None:
        """Give it something to do; it answers later."""
        assert self._process.stdin is not None
        with suppress(OSError):  # if it has ended, its end is the answer
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put((self, json.loads(line)))
        self._answers.put((self, None))

    def ended(self) -> str:
        """How it ended, in words."""
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "its process was killed, as the system does where memory runs out"
        way = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended with {way}"

    def stop(self) -> None:
        """Ask it to write a checkpoint and answer."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close(self) -> None:
        """End it, and leave nothing behind."""
        self.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was written last never arrived
                pipe.close()


def train_row(config: Config, path: Path, device: str, data_root: str | None) -> dict[str, Any]:
    """Train a run to its end, or go on with it, and test it; draw nothing."""
    where = {"device": device, "data_root": data_root}
    if Run.exists(path):
        run = resume(path, quiet=True, **where)
    else:
        run = train(config, out=path.parent, name=path.name, quiet=True, **where)
    result = evaluate(run, "test", pictures=False, **where)
    return {
        "status": "finished",
        "accuracy": result["accuracy"],
        "seconds": run.final_numbers["clock"]["wall_seconds"],
        **hold(run.config, result["accuracy"]),
    }


def hold(config: Config, accuracy: float) -> dict[str, Any]:
    """Compare a test accuracy with what runs of the same config reached before."""
    known = measured(config)
    span = known.span("test") if known else None
    if span is None:
        return {}
    return {"expected": list(span), "as_expected": span[0] <= accuracy <= span[1]}


def attempt(task: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What a task returns, or how it failed."""
    try:
        return task(*arguments)
    except Interrupted as stop:
        return {"status": "stopped", "reason": str(stop)}
    # Whatever a library raises, the rows after this one may still be had.
    except Exception as error:
        words = str(error)
        if not isinstance(error, VitlabError):
            words = f"{type(error).__name__}: {error}\n{format_exc()}"
        return {"status": "failed", "reason": words}


def main(device: str) -> None:
    """Carry out the tasks that come as lines of JSON, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.empty(1, device=choose_device(device))  # a GPU takes a second to come up
    tasks = {"train": train_row, "smoke": smoke_test}
    for line in sys.stdin:
        task = json.loads(line)
        config, path = Config.from_dict(task["config"]), Path(task["path"])
        answer = attempt(tasks[task["do"]], config, path, device, task["data_root"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # others may work beside this one


if __name__ == "__main__":
    main(sys.argv[1])
