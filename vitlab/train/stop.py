"""Stopping before the last step: on request, or because the validation accuracy says enough.

A signal is noted, and the loop ends at the next step with a checkpoint.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vitlab.config import TrainConfig
from vitlab.train.state import TrainState


@dataclass
class StopRequest:
    """The signal that asked the loop to stop, once one has."""

    signal: int = 0


@contextmanager
def stop_request(passed_on: bool = False) -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second SIGINT stops at once.

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
        request.signal = number

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
