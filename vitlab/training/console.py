"""What a training says: a header of choices, one live line, one line per validation."""

import errno
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text


class ConsoleLogger:
    """Prints, or keeps quiet. Output goes to standard error, so that --json stays clean."""

    def __init__(self, quiet: bool):
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self._task = self._progress.add_task("train", total=None, epoch="", numbers="")
        self._accuracy = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def header(self, lines: Iterable[tuple[str, object]]) -> None:
        """Print aligned lines of what was chosen and why."""
        for name, value in lines:
            self.say(f"{name:<12}{value}")

    def warn(self, message: str) -> None:
        """Print something a person should know before going on."""
        self.say(Text.assemble(("warning", "yellow"), f"     {message}"))

    def step(self, step: int, steps: int, epochs: int, loss: float, speed: float) -> None:
        """Move the live line."""
        self._progress.update(
            self._task,
            completed=step,
            total=steps,
            epoch=f"{step / steps * epochs:.1f}/{epochs}",
            numbers=f"loss {loss:.3f}{self._accuracy}  {speed:,.0f} images/s",
        )

    def judged(self, epoch: float, numbers: dict[str, dict[str, float]], best: bool) -> None:
        """Print the line of a validation."""
        parts = [
            f"{split.replace('_', ' ')} {values['accuracy']:7.2%} (loss {values['loss']:.3f})"
            for split, values in numbers.items()
        ]
        if "validation" in numbers:
            self._accuracy = f"  accuracy {numbers['validation']['accuracy']:.2%}"
        self.say(f"epoch {epoch:6.1f}  {'  '.join(parts)}{'  best' if best else ''}")

    def say(self, message: str | Text) -> None:
        """Print a line; a terminal that was closed ends no training."""
        try:
            self.console.print(message, markup=False)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
