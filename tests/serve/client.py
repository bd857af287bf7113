"""A service as a user starts it, in a process of its own, and what is sent to it over sockets."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

HURRIED = """
import sys
from vitlab.serve.limits import Limits
from vitlab.serve.server import serve
limits = Limits(head_seconds=3, body_seconds=4)
tell = lambda line: print(line, flush=True)
serve(sys.argv[1], port=int(sys.argv[-1]), limits=limits, tell=tell)
"""
"""What `vitlab serve` does, with less patience for slow clients."""

PATIENCE = 300
"""Seconds after which an answer, or a service that becomes ready, counts as missing."""


class Reply(NamedTuple):
    """What came back, and when; status 0 if nothing did."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


def message(
    path: str, body: bytes | None = None, kind="image/png", method="", **headers: str
) -> bytes:
    """A request as the bytes that travel: a page, or a body with its content type."""
    lines = [f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in {"Host": "localhost", **headers}.items()]
    lines += [f"Content-Type: {kind}"] if kind and body is not None else []
    lines += [] if body is None else [f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def parsed(received: bytes) -> tuple[int, dict[str, str], bytes] | None:
    """Status, headers and body of a response, or None while there is more to come."""
    head, blank, body = received.partition(b"\r\n\r\n")
    if not blank:
        return None
    lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines[1:])
    headers = {name.lower(): value for name, _, value in pairs}
    whole = len(body) >= int(headers.get("content-length", 0))
    return (int(lines[0].split()[1]), headers, body) if whole else None


def received(connection: socket.socket) -> Reply:
    """The next response, or what comes until the other side closes."""
    parts, begun = b"", time.perf_counter()
    with contextlib.suppress(ConnectionError):
        while parsed(parts) is None and (part := connection.recv(65_536)):
            parts += part
    return Reply(*(parsed(parts) or (0, {}, b"")), time.perf_counter() - begun)


class Client:
    """A client of one address, which keeps its connection as browsers do."""

    def __init__(self, address: str):
        host, _, port = address.removeprefix("http://").rpartition(":")
        self.where = host.strip("[]"), int(port)
        self._connection: socket.socket | None = None

    def send(self, request: bytes) -> Reply:
        """Send a request and read its response; the clock starts with the connection."""
        begun = time.perf_counter()
        if self._connection is None:
            self._connection = socket.create_connection(self.where, timeout=PATIENCE)
        with contextlib.suppress(ConnectionError):
            self._connection.sendall(request)
        reply = received(self._connection)
        if reply.headers.get("connection", "close" if not reply.status else "") == "close":
            self.close()
        return reply._replace(seconds=time.perf_counter() - begun)

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Served:
    """A service that runs, and how to ask it.

    Args:
        words: what Python is started with, before `--port` and a free port.
        before: a command that starts Python, such as strace.
    """

    def __init__(self, words: list[str], before: Sequence[str] = ()):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [*before, sys.executable, *words, "--port", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        end = time.monotonic() + PATIENCE
        while True:  # until it listens
            with contextlib.suppress(ConnectionError), self.connect():
                return
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, f"did not listen within {PATIENCE} seconds"
            time.sleep(0.01)

    def wait(self) -> "Served":
        """Wait until it is ready."""
        end = time.monotonic() + PATIENCE
        while self.get("/health/ready").status != 200:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, f"not ready in {PATIENCE} seconds"
            time.sleep(0.1)
        return self

    def settle(self) -> dict[str, Any]:
        """Wait until it has started all of itself; returns what it says of its model."""
        self.wait()
        while (model := self.answer(self.get("/api/model")))["explains"] and not model["methods"]:
            time.sleep(0.1)
        return model

    def get(self, path: str) -> Reply:
        """Ask for a page."""
        return self.raw(message(path))

    def send(
        self, file: bytes, path="/api/predict", kind="image/png", method="POST", **headers: str
    ) -> Reply:
        """Send a body with a content type."""
        return self.raw(message(path, file, kind, method, **headers))

    def raw(self, request: bytes) -> Reply:
        """Send any bytes on a connection of its own, and read a response."""
        client = Client(self.address)
        with contextlib.closing(client):
            return client.send(request)

    @staticmethod
    def answer(reply: Reply) -> Any:
        """The JSON of a reply that is no error."""
        assert reply.status == 200, reply
        return json.loads(reply.body)

    def connect(self) -> socket.socket:
        """A connection that says nothing yet."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def stop(self) -> tuple[int, float, str]:
        """SIGTERM: its exit code, the seconds it took, and what it printed on standard error."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        _, complaints = self.process.communicate(timeout=30)
        return self.process.returncode, time.monotonic() - begun, complaints

    def end(self) -> None:
        """Leave nothing of it behind, however it is."""
        self.process.kill()
        self.process.communicate()


def error(reply: Reply) -> str:
    """What an error says; it is JSON with nothing else in it."""
    body = json.loads(reply.body)
    assert list(body) == ["error"], body
    assert "Traceback" not in body["error"] and not re.search(r"/\w+/\w+/|\.py", body["error"])
    return body["error"]


def draw(size=(32, 32), kind="PNG", mode="RGB", seed=0, **options: Any) -> bytes:
    """A picture file of noise, another for every seed; size is (width, height)."""
    from PIL import Image

    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()
