"""A service as a user starts it, in a process of its own, and what is sent to it."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from vitlab.serve.load import Client, Reply, head_of

HURRIED = """
import sys
from vitlab.serve.limits import Limits
from vitlab.serve.server import serve
limits = Limits(head_seconds=3, body_seconds=4)
serve(sys.argv[1], port=0, limits=limits, tell=lambda line: print(line, flush=True))
"""
"""What `vitlab serve` does, with less patience for slow clients."""


class Served:
    """A service that runs, and how to ask it.

    Args:
        words: what Python is started with.
        before: a command that starts Python, such as strace.
    """

    def __init__(self, words: list[str], before: Sequence[str] = ()):
        self.process = subprocess.Popen(
            [*before, sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("http://"), self.process.communicate()
        self.port = int(self.address.rpartition(":")[2])

    def wait(self) -> "Served":
        """Wait until it is ready."""
        for _ in range(1200):
            if self.get("/health/ready").status == 200:
                return self
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.1)
        raise TimeoutError("not ready in two minutes")

    def get(self, path: str) -> Reply:
        """Ask for a page."""
        return self.raw(Client(self.address).message(path))

    def raw(self, message: bytes) -> Reply:
        """Send any bytes, and read a response; status 0 if there is none."""
        begun = time.perf_counter()
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(message)
            head, _, body = received(connection).partition(b"\r\n\r\n")
        status, headers = head_of(head) if head else (0, {})
        return Reply(status, headers, body, time.perf_counter() - begun)

    def send(
        self, file: bytes, path="/api/predict", kind="image/png", method="POST", **headers: str
    ) -> Reply:
        """Send a body with a content type."""
        lines = [f"{method} {path} HTTP/1.1", f"Content-Length: {len(file)}"]
        lines += [f"{name}: {value}" for name, value in {"Host": "localhost", **headers}.items()]
        lines += [f"Content-Type: {kind}"] if kind else []
        return self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + file)

    def connect(self) -> socket.socket:
        """A connection that says nothing yet."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def end(self) -> None:
        """Leave nothing of it behind, however it is."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> tuple[int, float, str]:
        """SIGTERM: its exit code, the seconds it took, and what it printed on standard error."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        _, complaints = self.process.communicate(timeout=30)
        return self.process.returncode, time.monotonic() - begun, complaints


@contextlib.contextmanager
def proxied(port: int, prefix: str, *, strips: bool) -> Iterator[str]:
    """A proxy that shows a service below a path, which it takes away or not; its address."""

    class Proxy(BaseHTTPRequestHandler):
        def answer(self) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            path = (self.path.removeprefix(prefix) or "/") if strips else self.path
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            behind = HTTPConnection("127.0.0.1", port)
            kept = {name: self.headers[name] for name in ("Content-Type",) if name in self.headers}
            behind.request(self.command, path, body, kept)
            reply = behind.getresponse()
            content = reply.read()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            behind.close()

        do_GET = do_POST = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def received(connection: socket.socket) -> bytes:
    """All of a response, or what comes until the other side closes."""
    parts = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65_536):
            parts += part
            head, blank, body = parts.partition(b"\r\n\r\n")
            if blank and len(body) >= int(head_of(head)[1].get("content-length", 0)):
                break
    return parts


def error(reply: Reply) -> str:
    """What an error says; it is JSON with nothing else in it."""
    body = json.loads(reply.body)
    assert list(body) == ["error"], body
    assert "Traceback" not in body["error"] and not re.search(r"/\w+/\w+/|\.py", body["error"])
    return body["error"]


def draw(size=(32, 32), kind="PNG", mode="RGB", seed=0, **options: Any) -> bytes:
    """A picture file of noise; size is (width, height)."""
    from PIL import Image

    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, kind, **options)
    return file.getvalue()
