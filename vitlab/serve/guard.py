"""What holds for every request, whatever it asks for: the host it names, and what goes out.

One ASGI application around all routes, so that none can be forgotten.
"""

import ipaddress
import json
import logging
import re
from collections.abc import Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitlab.errors import ConfigError

LOG = logging.getLogger("vitlab.serve")

HEADERS = {
    # Pictures are shown from the browser's own memory (blob:), everything else comes from here.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Headers of every response. There is none for other origins, so browsers keep them out."""

ENCODED = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

LOOPBACK = ("localhost", "127.0.0.1", "::1")

EVERYWHERE = ("0.0.0.0", "::")
"""Addresses that mean all of a machine's, so that no request can name them."""


ROOT = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")


def host_names(host: str, allowed: Iterable[str]) -> frozenset[str]:
    """The names under which a service may be asked: this machine's own, and those allowed."""
    own = () if host in EVERYWHERE else (host,)
    return frozenset(name.strip("[]").lower() for name in (*LOOPBACK, *own, *allowed))


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def root_of(path: str) -> str:
    """The path before all addresses as addresses have it, /vit; nothing for none.

    ConfigError if it is no path.
    """
    root = f"/{path.strip('/')}".rstrip("/")
    if root and not ROOT.fullmatch(root):
        raise ConfigError(
            [
                f"--root-path {path!r}: give the path alone, such as /vit, without host and query; "
                "it may have letters, digits and - . _ ~"
            ]
        )
    return root


def named(value: bytes) -> str:
    """The name in a Host header, without its port and brackets."""
    text = value.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def error_body(message: str) -> bytes:
    """The JSON of every error."""
    return json.dumps({"error": message}).encode()


class Guard:
    """Refuses foreign hosts, gives every response its headers, and hides what went wrong inside.

    Args:
        app: what is guarded.
        hosts: names that the Host header may have. They keep a web page elsewhere from asking this
            service under a name of its own (DNS rebinding).
        root: path before all addresses, as `root_of` has it. Requests come with it or without it:
            some proxies take it away.
        own: addresses of the app, without it.
    """

    def __init__(
        self, app: ASGIApp, hosts: frozenset[str], root: str = "", own: Iterable[str] = ()
    ):
        self.app, self.hosts, self.root, self.own = app, hosts, root, frozenset(own)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request of the server's."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        unread = length != b"0" or b"transfer-encoding" in headers
        started = False

        async def receiving() -> Message:
            nonlocal unread
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                unread = False
            return message

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                names = [name for name, _ in message["headers"]]
                more = [(b"cache-control", b"no-store")] if b"cache-control" not in names else []
                if unread:  # or whatever is still sent would be taken in for nothing
                    more.append((b"connection", b"close"))
                message = {**message, "headers": [*message["headers"], *ENCODED, *more]}
            await send(message)

        if named(headers.get(b"host", b"")) not in self.hosts:
            await refuse(sending, 400, "this host name is not served here: see --allow-host")
            return
        if scope["path"] == self.root and self.root not in self.own:
            await redirect(sending, f"{self.root}/", scope["query_string"])
            return
        try:
            await self.app(self._below(scope), receiving, sending)
        except Exception:
            LOG.exception("a request failed")
            if not started:
                await refuse(sending, 500, "something went wrong here")

    def _below(self, scope: Scope) -> dict[str, Any]:
        """A scope whose path begins with the root, as ASGI wants it."""
        path = scope["path"]
        if path in self.own or not path.startswith(f"{self.root}/"):
            path = self.root + path
        return {**scope, "path": path, "root_path": self.root}


async def redirect(send: Send, path: str, query: bytes) -> None:
    """Send whoever asks to another path of the same host, whatever proxies call that."""
    location = path.encode() + (b"?" + query if query else b"")
    headers = [(b"location", location), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 308, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def refuse(send: Send, status: int, message: str) -> None:
    """Answer with an error."""
    body = error_body(message)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
