"""A signal asks a training to stop: it is noted, and the loop ends at the next step.

Where there is nothing to store yet, while images are read or a trial runs, a signal ends the
training at once.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vitlab.errors import Interrupted


class _StopNow(KeyboardInterrupt):
    """Ends what is under way, like Ctrl-C: no library takes it for an error of its own."""


@dataclass
class StopRequest:
    """The signal that asked the loop to stop, once one has."""

    signal: int = 0
    _raise: bool = False
    """True while a signal need not wait for the end of a step."""

    @contextmanager
    def immediately(self, message: str) -> Iterator[None]:
        """Let a signal end what is done in here, also one that came before.

        Raises:
            Interrupted: with the message.
        """
        try:
            self._raise = True
            if self.signal:
                raise _StopNow
            yield
        except _StopNow:
            raise Interrupted(message, self.signal) from None
        finally:
            self._raise = False


@contextmanager
def stop_request(passed_on: bool = False) -> Iterator[StopRequest]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into a request; a second SIGINT stops at once.

    A SIGHUP that is ignored, as under `nohup`, stays so.

    Args:
        passed_on: signals come from `torchrun` as well, so that a single Ctrl-C arrives twice;
            its second is part of the request.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _: object) -> None:
        if request.signal and number == signal.SIGINT and not passed_on:
            raise KeyboardInterrupt
        if number == signal.SIGHUP:
            _silence_closed_terminal()
        first, request.signal = not request.signal, number
        if first and request._raise:
            raise _StopNow

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _silence_closed_terminal() -> None:
    """Print nothing more to a terminal that was closed: every write to it would be an error."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
