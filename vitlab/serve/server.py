"""Listening, and stopping."""

import asyncio
import contextlib
import errno
import functools
import gc
import json
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from vitlab.errors import VitlabError
from vitlab.serve.limits import Limits

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from vitlab.serve.app import build_app
    from vitlab.serve.guard import HEADERS, host_names, is_loopback, root_of
    from vitlab.serve.service import Service
except ModuleNotFoundError as missing:
    raise VitlabError(f"{missing.name} is not installed: pip install 'vitlab[serve]'") from missing

BACKLOG = 1024
"""Connections that the kernel keeps until they are looked at."""

THREADS = 4
"""Most threads that compute an answer; one core is left to receive and to decode."""

LAST_SECONDS = 2
"""From the end of draining to the end of every connection."""


def serve(
    source: str | os.PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_hosts: Sequence[str] = (),
    root_path: str = "",
    limits: Limits | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Serve a page and an API over one model until SIGTERM or Ctrl-C.

    To be called in the main thread, below `if __name__ == "__main__"`. Returns within ten seconds
    of the signal, while a thread may still be loading or computing.

    Args:
        source: a run, a shipped model's name, or an ONNX export; None means the shipped model.
        host: address to listen on. Others than this machine's own are open to everybody there.
        port: to listen on; 0 takes a free one.
        allow_hosts: more names under which the service may be asked.
        root_path: path before all addresses, such as /vit, where a proxy has put the service.
        limits: how much it takes.
        tell: what is called with the address once it answers, and with what else there is to know.

    Raises:
        ConfigError: a `root_path` that is no path.
        VitlabError: an address that cannot be listened on, or a source that is no model.
    """
    limits, root = limits or Limits(), root_of(root_path)
    with bound(host, port) as listening:
        # Takes seconds in which nothing else can be answered, so it comes before the first request.
        from vitlab.classifier import open_classifier

        with plain_errors(host, port):
            listening.listen(BACKLOG)
        tell("loading the model; a run is exported to ONNX once, which takes up to a minute")
        threads = min(THREADS, max(1, (os.cpu_count() or 1) - 1))
        service = Service(functools.partial(open_classifier, source, threads=threads), limits)
        app = build_app(service, host_names(host, allow_hosts), root)
        shown = f"[{host}]" if ":" in host else host
        address = [f"http://{shown}:{listening.getsockname()[1]}"]
        if not is_loopback(host):
            address.append(
                "open to everybody who reaches this address, without password or encryption"
            )
        server = Server(service, app, address, tell)
        asyncio.run(server.run_until_stopped(listening))


def bound(host: str, port: int) -> socket.socket:
    """A socket with an address of its own; VitlabError says why there is none."""
    with plain_errors(host, port):
        if not 0 <= port < 65_536:  # the system would take another one
            raise OSError("ports are 0 to 65535")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        # Without the protocol asyncio would not send small responses at once.
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
        except OSError:
            made.close()
            raise
    return made


@contextlib.contextmanager
def plain_errors(host: str, port: int) -> Iterator[None]:
    """Say in words why an address cannot be listened on."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            words = "is taken: stop what listens there, or choose another with --port"
            raise VitlabError(f"{host} port {port} {words}") from error
        words = f"cannot listen on {host} port {port}: {error.strerror or error}"
        raise VitlabError(words) from error


def connection_of(service: Service) -> type[H11Protocol]:
    """uvicorn's connection, which refuses a picture too many without looking at it.

    To read what is refused would keep those waiting that are not (W03).
    """
    refusal = service.crowded()
    body = json.dumps({"error": refusal.message})
    headers = {
        **HEADERS, **refusal.headers, "content-type": "application/json",
        "content-length": str(len(body)), "connection": "close",
    }  # fmt: skip
    lines = [f"HTTP/1.1 {refusal.status} Too Many Requests"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    response = "\r\n".join([*lines, "", body]).encode()

    class Connection(H11Protocol):
        def data_received(self, data: bytes) -> None:
            idle = self.cycle is None or self.cycle.response_complete
            full = len(self.tasks) >= service.limits.requests
            if idle and full and data.startswith(b"POST "):
                self.transport.write(response)
                self.transport.close()
            else:
                super().data_received(data)

    return Connection


class Server(uvicorn.Server):
    """uvicorn, and what it lacks.

    It stops listening before it has answered; here what is under way is answered while readiness
    is 503 and new pictures are refused (W01). And it waits forever for the head of a request, and
    for a client that does not read (W08).
    """

    def __init__(
        self, service: Service, app: Any, address: Sequence[str], tell: Callable[[str], None]
    ):
        limits = service.limits
        super().__init__(
            uvicorn.Config(
                app,
                http=connection_of(service),
                ws="none",
                lifespan="off",
                loop="asyncio",
                backlog=BACKLOG,
                headers=list(HEADERS.items()),
                limit_concurrency=limits.connections,
                h11_max_incomplete_event_size=limits.header,
                timeout_keep_alive=max(1, round(limits.head_seconds)),
                timeout_graceful_shutdown=LAST_SECONDS,
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
            )
        )
        # What strangers do must not fill the terminal; what goes wrong here is shown.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self.service, self.address, self.tell = service, address, tell
        self._stop_at = 0.0
        self._waiting: dict[Any, float] = {}

    async def run_until_stopped(self, listening: socket.socket) -> None:
        """Serve until a signal comes; a second one does not wait for what is under way.

        VitlabError if the model cannot be opened.
        """
        starting = asyncio.create_task(self._start())
        await self.serve([listening])
        starting.cancel()
        (outcome,) = await asyncio.gather(starting, return_exceptions=True)
        await self.service.stop()
        if isinstance(outcome, Exception):
            raise outcome

    async def _start(self) -> None:
        try:
            await self.service.start()
        except Exception:
            self.should_exit = True
            raise
        # What is here now stays to the end: to look through it again and again would cost answers.
        gc.collect()
        gc.freeze()
        classifier = self.service.classifier
        for line in (*self.address, *classifier.notes):
            self.tell(line)
        self.tell(f"{classifier.name} is ready, computed by {classifier.engine}; Ctrl-C stops it")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; uvicorn calls this on a signal."""
        asyncio.get_running_loop().call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        if self.service.state == "draining":
            self.force_exit = self.should_exit = True
            return
        self.tell("stopping: what is under way is answered first")
        self.service.state = "draining"
        self._stop_at = time.monotonic() + self.service.limits.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop now; uvicorn asks ten times a second."""
        self._end_silent()
        drained = self.service.state == "draining" and (
            not self.service.requests or time.monotonic() > self._stop_at
        )
        return await super().on_tick(counter) or drained

    def _end_silent(self) -> None:
        """End connections that send no whole head, or take no answer, for too long (W08)."""
        now, waiting = time.monotonic(), {}
        connections: list[Any] = list(self.server_state.connections)
        for connection in connections:
            request, transport = connection.cycle, connection.transport
            idle = request is None or request.response_complete
            if idle or transport.get_write_buffer_size():
                key = connection, request  # another request is another beginning
                waiting[key] = self._waiting.get(key, now)
                if now - waiting[key] > self.service.limits.head_seconds:
                    # The kernel shall forget at once what nobody has read.
                    known = transport.get_extra_info("socket")
                    known.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    transport.abort()
        self._waiting = waiting
