"""The verb that answers over HTTP: serve."""

import os
import signal
import sys
from argparse import Namespace


def serve(args: Namespace) -> int:
    """Serve a page and an API over one model, on this machine only by default."""
    # Until requests are heard there is nothing to finish, and imports take seconds.
    handlers = {number: lambda *_: os._exit(0) for number in (signal.SIGTERM, signal.SIGINT)}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else it outlives its terminal: nohup
        handlers[signal.SIGHUP] = lambda *_: signal.raise_signal(signal.SIGTERM)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        from vitlab.serve.limits import Limits
        from vitlab.serve.server import serve

        serve(
            args.source,
            host=args.host,
            port=args.port,
            allow_hosts=args.allow_host,
            root_path=args.root_path,
            limits=Limits.of(args.max_bytes, args.max_pixels),
            tell=tell,
        )
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise
    # A thread inside native code can neither be stopped nor left behind: Python would wait for it.
    os._exit(0)


def tell(line: str) -> None:
    """Print a line, if there still is somebody who reads it."""
    try:
        print(line, flush=True)
    except OSError:  # a terminal or pipe that has closed is no reason to end the service
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
