"""Listening, and stopping: sockets, connections, signals."""

import asyncio
import errno
import functools
import gc
import logging
import math
import os
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from http import HTTPStatus
from typing import Any

import h11

from vitlab.errors import VitlabError
from vitlab.serve.limits import Limits
from vitlab.serve.service import Service
from vitlab.serve.stopping import on_stop

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from vitlab.serve.app import build_app
    from vitlab.serve.guard import ENCODED, error_body, host_names, is_loopback, root_of
except ModuleNotFoundError as missing:
    raise VitlabError(f"{missing.name} is not installed: pip install 'vitlab[serve]'") from missing

BACKLOG = 1024
"""Connections that the kernel keeps until they are looked at."""

THREADS = 4
"""Most threads that compute an answer; one core is left to receive and to decode."""

LAST_SECONDS = 2
"""From the end of draining to the end of every connection."""

STOP_SECONDS = 9.5
"""From a signal to the end of every thread; then the process ends without them."""


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
    """Serve a page and an API over one model until SIGTERM, SIGHUP or Ctrl-C.

    To be called in the main thread. Returns within ten seconds of the signal; where a thread that
    loads or computes takes longer, the whole process ends, with exit code 0.

    Args:
        source: a run, a shipped model's name, or an ONNX export; None means the shipped model.
        host: address to listen on. Others than this machine's own are open to everybody there.
        port: to listen on; 0 takes a free one.
        allow_hosts: more names under which the service may be asked.
        root_path: path before all addresses, such as /vit, where a proxy has put the service.
        limits: how much it takes.
        tell: what is called with the address, and with what there is to know later.

    Raises:
        ConfigError: a `root_path` that is no path.
        VitlabError: an address that cannot be listened on, or a source that is no model.
    """
    limits, root = limits or Limits(), root_of(root_path)
    with reserve(host, port) as listening:
        # Takes seconds in which nothing else can be answered, so it comes before the first request.
        from vitlab.classifier import open_classifier

        listen(listening)
        shown = f"[{host}]" if ":" in host else host
        tell(f"http://{shown}:{listening.getsockname()[1]}")
        if not is_loopback(host):
            tell("open to everybody who reaches this address, without password or encryption")
        tell("loading the model; a run is exported to ONNX once, which takes up to a minute")
        room_for(limits.connections)
        threads = min(THREADS, max(1, (os.cpu_count() or 1) - 1))
        service = Service(functools.partial(open_classifier, source, threads=threads), limits)
        server = Server(service, host_names(host, allow_hosts), root)
        others = set(threading.enumerate())
        with asyncio.Runner() as runner:
            runner.run(server.run_until_stopped(listening, tell))
        finish(set(threading.enumerate()) - others, server.leave_at)


def finish(threads: Iterable[threading.Thread], leave_at: float) -> None:
    """Wait for threads, and end the process if they take longer than to `leave_at` on the clock.

    A thread inside native code can neither be stopped nor left behind: Python would abort.
    """
    for thread in threads:
        thread.join(max(0, leave_at - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        for file in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                file.flush()
        os._exit(0)


def reserve(host: str, port: int) -> socket.socket:
    """A socket with an address of its own; VitlabError says why there is none."""
    made = None
    if not 0 <= port < 65_536:  # the system would take another one
        raise VitlabError(f"cannot listen on {host} port {port}: ports are 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        # Without the protocol asyncio would not send small responses at once.
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        if made is not None:
            made.close()
        raise unheard(f"{host} port {port}", error) from error
    return made


def listen(listening: socket.socket) -> None:
    """Let connections come in; VitlabError says why they cannot."""
    try:
        listening.listen(BACKLOG)
    except OSError as error:
        host, port = listening.getsockname()[:2]
        raise unheard(f"{host} port {port}", error) from error


def unheard(where: str, error: OSError) -> VitlabError:
    """Why nothing can be listened to."""
    if error.errno == errno.EADDRINUSE:
        return VitlabError(
            f"{where} is taken: stop what listens there, or choose another with --port"
        )
    return VitlabError(f"cannot listen on {where}: {error.strerror or error}")


def room_for(connections: int) -> None:
    """Let this process open files for all connections, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + 256
    if soft < needed:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))


class Connection(H11Protocol):
    """A connection that has to say what it wants in time, one of a limited number."""

    limits: Limits

    def connection_made(self, transport: Any) -> None:
        """Take a connection in, or tell it to come back."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.connections:
            self.refuse(503, "too many connections: try again in a moment")
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what was sent; the deadline ends with a complete head.

        Where more requests are under way than are taken, a picture is refused unread: to look at
        what is refused would keep those waiting that are not.
        """
        before = self.cycle
        idle = before is None or before.response_complete
        if idle and len(self.tasks) >= self.limits.requests and data.startswith(b"POST "):
            self.refuse(429, "too many pictures at once: try again in a moment")
            return
        super().data_received(data)
        if self.cycle is not before:
            self._head_came()

    def on_response_complete(self) -> None:
        """Wait for the next request, for as long as for the first."""
        before = self.cycle
        super().on_response_complete()
        if self.cycle is before and not self.transport.is_closing():
            self._await_head()

    def pause_writing(self) -> None:
        """Wait for a client that does not read, for as long as for one that does not write."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.limits.head_seconds, self._cut)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        self._unread.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or too long a head."""
        self.refuse(400, "not a request that can be read")

    def refuse(self, status: int, message: str) -> None:
        """Answer with an error without looking at the request, and close."""
        # Whatever state the connection is in, a response can be written.
        self.transport.write(canned(status, message, self.limits.retry_seconds))
        self.transport.close()

    def _cut(self) -> None:
        """End the connection, and let the kernel forget what nobody has read."""
        known = self.transport.get_extra_info("socket")
        known.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _await_head(self) -> None:
        self._head_came()
        self._deadline = self.loop.call_later(self.limits.head_seconds, self._cut)

    def _head_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


@functools.cache
def canned(status: int, message: str, retry: int) -> bytes:
    """A whole response that tells of an error, after which the connection ends."""
    body = error_body(message)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *([(b"retry-after", str(retry).encode())] if status in (429, 503) else ()),
        *ENCODED,
    ]
    start = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase)
    return (h11.Connection(h11.SERVER).send(start) or b"") + body


class Server(uvicorn.Server):
    """A server that answers what is under way before it stops."""

    def __init__(self, service: Service, hosts: frozenset[str], root: str = ""):
        limits = service.limits
        protocol = type("LimitedConnection", (Connection,), {"limits": limits})
        super().__init__(
            uvicorn.Config(
                build_app(service, hosts, root),
                http=protocol,
                ws="none",
                lifespan="off",
                loop="asyncio",
                h11_max_incomplete_event_size=limits.header,
                timeout_keep_alive=max(1, round(limits.head_seconds)),
                timeout_graceful_shutdown=LAST_SECONDS,
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
            )
        )
        # Strangers must not fill the terminal; what goes wrong here is told by the guard.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.service = service
        self.leave_at = math.inf
        """When the process has to end, on the monotonic clock."""

    def capture_signals(self) -> nullcontext[None]:
        """Leave signals to `run_until_stopped`."""
        return nullcontext()

    async def run_until_stopped(
        self, listening: socket.socket, tell: Callable[[str], None]
    ) -> None:
        """Serve until a signal comes; a second one does not wait for what is under way.

        VitlabError if the model cannot be opened.
        """
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            self.force_exit = stopped.is_set()
            self.leave_at = time.monotonic() + (0 if self.force_exit else STOP_SECONDS)
            stopped.set()

        put_back = on_stop(lambda: loop.call_soon_threadsafe(stop))
        try:
            await self._until(stopped, listening, tell)
        finally:
            put_back()

    async def _until(
        self, stopped: asyncio.Event, listening: socket.socket, tell: Callable[[str], None]
    ) -> None:
        serving = asyncio.create_task(self.serve([listening]))
        starting = asyncio.create_task(self._start(tell))
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        failed = starting.exception() if starting.done() else None
        if failed is None:
            await stopping
            tell("stopping: what is under way is answered first")
            draining = asyncio.create_task(self.service.drain())
            while not draining.done() and not self.force_exit:
                await asyncio.sleep(0.02)
            draining.cancel()
        self.should_exit = True
        await serving
        stopping.cancel()
        starting.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        await self.service.stop()
        if failed is not None:
            raise failed

    async def _start(self, tell: Callable[[str], None]) -> None:
        await self.service.start()
        # What is here now stays to the end: to look through it again and again would cost answers.
        gc.collect()
        gc.freeze()
        classifier = self.service.classifier
        for note in classifier.notes:
            tell(note)
        tell(f"{classifier.name} is ready, computed by {classifier.engine}; Ctrl-C stops it")
