"""The signals that stop a service."""

import signal
from collections.abc import Callable

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def on_stop(act: Callable[[], object]) -> Callable[[], None]:
    """Let signals that stop a service call a function; returns what puts back how it was before.

    To be called in the main thread. After `nohup` a terminal that closes stops nothing.
    """
    numbers = [
        number
        for number in STOPS
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, lambda *_: act()) for number in numbers}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return put_back
