"""The verb that answers over HTTP: serve."""

import os
import sys
from argparse import Namespace


def serve(args: Namespace) -> int:
    """Serve a page and an API over one model, on this machine only by default."""
    from vitlab.serve.stopping import on_stop

    # Until requests are heard there is nothing to finish, and imports take seconds.
    put_back = on_stop(lambda: os._exit(0))
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
        put_back()
        raise
    return 0


def tell(line: str) -> None:
    """Print a line, if there still is somebody who reads it."""
    try:
        print(line, flush=True)
    except OSError:  # a terminal or pipe that has closed is no reason to end the service
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
