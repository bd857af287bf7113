"""Stopping before the last step: on request, or because the validation accuracy says enough.

A signal is noted, and the loop ends at the next step with a checkpoint. Where there is nothing to
store yet, while images are read or a trial runs, it ends the training at once.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vitlab.config import TrainConfig
from vitlab.errors import Interrupted
from vitlab.training.state import TrainState


class _Now(KeyboardInterrupt):
    """Ends what is under way, like Ctrl-C: no library takes it for an error of its own."""


@dataclass
class StopRequest:
    """The signal that asked the loop to stop, once one has."""

    signal: int = 0
    _waiting: bool = True
    """False while a signal need not wait for the end of a step."""

    @contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Let a signal end what is done in here, also one that came before.

        Raises:
            Interrupted: with the message.
        """
        try:
            self._waiting = False
            if self.signal:
                raise _Now
            yield
        except _Now:
            raise Interrupted(message, self.signal) from None
        finally:
            self._waiting = True


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
            _let_go()
        first, request.signal = not request.signal, number
        if first and not request._waiting:
            raise _Now

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_go() -> None:
    """Print nothing more to a terminal that was closed: every write to it would be an error."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def reason_to_stop(train: TrainConfig, state: TrainState, steps_per_epoch: int) -> str | None:
    """Why a training should end at this step by its own config, or None.

    It depends on nothing but what a checkpoint holds, so a resumed run stops at the same step.
    """
    if "validation" not in state.judged:
        return None
    accuracy = state.judged["validation"]["accuracy"]
    if train.stop_accuracy and accuracy >= train.stop_accuracy:
        return f"validation accuracy {accuracy:.4f} reached {train.stop_accuracy:g}"
    waited = (state.step - state.best.get("step", 0)) / steps_per_epoch
    if train.stop_patience and waited >= train.stop_patience:
        return f"no better validation accuracy for {waited:g} epochs"
    return None
