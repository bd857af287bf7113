"""How far something has come that takes its time: one live line on a terminal.

It goes to standard error and is gone at the end. Where no terminal reads it, there is none.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from threading import Event
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")
Result = TypeVar("Result")

PART, THREADS = 16, 4
"""Items that a thread takes at once, so that handing them over costs nothing, and the most threads:
what they work on is in memory, and a PNG of 50 megapixels takes 0.6 GB while it is decoded."""

OFTEN = 0.1
"""Seconds between two changes of what is shown: to count fast must not cost more than to work."""


class ProgressBar:
    """What is being done, a bar, numbers and the time left; shown within its context.

    Args:
        words: what is being done.
        total: of how many parts; None if that is not known yet.
        quiet: show nothing.
        console: prints the lines above the bar; default one of standard error.
        timed: show the time left, as it follows from the parts done so far.
    """

    def __init__(
        self,
        words: str = "",
        total: float | None = None,
        *,
        quiet: bool = False,
        console: "Console | None" = None,
        timed: bool = True,
    ):
        from rich.console import Console  # here, because the command line shows help without it
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            *([TimeRemainingColumn()] if timed else []),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
            # What goes into a file must not be taken for what is shown above the bar.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._progress.add_task(words, total=total, numbers="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @property
    def shown(self) -> bool:
        """Whether there is a terminal to show it on."""
        return not self._progress.disable

    def update(self, done: float, total: float, words: str, numbers: str = "") -> None:
        """Say how far it has come."""
        self._progress.update(
            self._task, completed=done, total=total, description=words, numbers=numbers
        )


def tracked(
    items: Iterable[Item], words: str, total: int | None = None, *, quiet: bool = False
) -> Iterator[Item]:
    """Hand on items, and show how many of them are done.

    Args:
        total: how many there are; default the length of the items.
    """
    if total is None:
        assert isinstance(items, Sized)
        total = len(items)
    with ProgressBar(words, total, quiet=quiet) as bar:
        shown_at = -OFTEN
        for done, item in enumerate(items):
            if bar.shown and time.monotonic() - shown_at >= OFTEN:
                bar.update(done, total, words, f"{done:,}/{total:,}")
                shown_at = time.monotonic()
            yield item
        bar.update(total, total, words, f"{total:,}/{total:,}")


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], words: str
) -> Iterator[Result]:
    """Yield what a function makes of each item, in their order, and show how many are done.

    A thread on each core works ahead by a few parts, which pays where a function leaves Python.
    """
    from concurrent.futures import ThreadPoolExecutor

    stop, waiting = Event(), deque()

    def work(part: Sequence[Item]) -> list[Result]:
        return [function(item) for item in part if not stop.is_set()]

    def results() -> Iterator[Result]:
        for first in range(0, len(items), PART):
            waiting.append(pool.submit(work, items[first : first + PART]))
            if len(waiting) > 2 * count:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    count = min(cores(), THREADS)
    with ThreadPoolExecutor(count) as pool:
        try:
            yield from tracked(results(), words, len(items))
        finally:
            stop.set()  # whoever asks for no more does not wait for the rest


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
