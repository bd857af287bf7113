"""What a training reports: lines on the terminal, metrics.jsonl, and events for TensorBoard."""

import errno
import shutil
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.text import Text

from vitlab.errors import VitlabError
from vitlab.progress import ProgressBar
from vitlab.run import Run

TAGS = {
    "loss": "{split}/loss",
    "accuracy": "{split}/accuracy",
    "mean_average_precision": "{split}/mean_average_precision",
    "lr": "lr",
    "grad_norm": "grad_norm",
    "images_per_second": "images_per_second",
}
"""Under which tag TensorBoard shows a key of a line of metrics."""


class ConsoleLogger:
    """Prints a header of choices, one live line, and one line per evaluation; or keeps quiet.

    Output goes to standard error, so that --json stays clean. As a context it shows the live line.
    """

    def __init__(self, quiet: bool):
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._bar = ProgressBar(quiet=quiet, console=self.console)
        self._score = ""

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__()

    def header(self, lines: Iterable[tuple[str, object]]) -> None:
        """Print aligned lines of what was chosen and why."""
        for name, value in lines:
            self.say(f"{name:<12}{value}")

    def warn(self, message: str) -> None:
        """Print something a person should know before going on."""
        self.say(Text.assemble(("warning", "yellow"), f"     {message}"))

    def step(self, step: int, steps: int, epochs: int, loss: float, speed: float) -> None:
        """Move the live line."""
        epoch = f"epoch {step / steps * epochs:.1f}/{epochs}"
        numbers = f"loss {loss:.3f}{self._score}  {speed:,.0f} images/s"
        self._bar.update(step, steps, epoch, numbers)

    def evaluation(
        self, epoch: float, numbers: dict[str, dict[str, float]], best: bool, score: str
    ) -> None:
        """Print the line of an evaluation, whose `score` is called by its name if no accuracy."""
        name = {"accuracy": "", "mean_average_precision": "mAP "}[score]
        parts = [
            f"{split.replace('_', ' ')} {name}{values[score]:7.2%} (loss {values['loss']:.3f})"
            for split, values in numbers.items()
        ]
        if "validation" in numbers:
            self._score = f"  {name.strip() or score} {numbers['validation'][score]:.2%}"
        self.say(f"epoch {epoch:6.1f}  {'  '.join(parts)}{'  best' if best else ''}")

    def say(self, message: str | Text) -> None:
        """Print a line; a terminal that was closed ends no training."""
        try:
            self.console.print(message, markup=False)
        except OSError as error:
            if error.errno != errno.EIO:
                raise


class MetricsLogger:
    """Writes lines of metrics into the run and, where asked for, as events for TensorBoard.

    The events are a copy, written anew from metrics.jsonl whenever a training starts or resumes.
    So no step is in them twice, and they may be deleted at any time.

    Args:
        run: the run they belong to, its metrics cut back to where training goes on.
        tensorboard: write events as well.
    """

    def __init__(self, run: Run, tensorboard: bool):
        self.run = run
        self._events = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            shutil.rmtree(run.events, ignore_errors=True)
            self._events = SummaryWriter(str(run.events))
            for line in run.metrics:
                self._add_events(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            self._events.close()

    def log(self, line: Mapping[str, Any]) -> None:
        """Write a line."""
        self.run.append_metrics(line)
        self._add_events(line)

    def _add_events(self, line: Mapping[str, Any]) -> None:
        if self._events is not None:
            for key, tag in TAGS.items():
                if key in line:
                    self._events.add_scalar(tag.format(**line), line[key], line["step"])
            self._events.flush()


def require_tensorboard() -> None:
    """Refuse to begin what needs the extra `tensorboard` without it."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise VitlabError(
            "--tensorboard needs the extra of that name: pip install 'vitlab[tensorboard]'"
        ) from error
