"""The verb that answers over HTTP: serve."""

from argparse import Namespace


def serve(args: Namespace) -> int:
    """Serve a page and an API over one model, on this machine only unless told otherwise."""
    from vitlab.serve.server import serve

    serve(
        args.source,
        host=args.host,
        port=args.port,
        allow_hosts=args.allow_host,
        tell=lambda line: print(line, flush=True),
    )
    return 0
