"""What holds for every request, whatever it asks for: the host it names, and what goes out."""

import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitlab.errors import ConfigError

HEADERS = {
    # Pictures are shown from the browser's own memory (blob:), everything else comes from here.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Headers of every response. There is none for other origins, so browsers keep them out."""

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

EVERYWHERE = ("0.0.0.0", "::")
"""Addresses that mean all of a machine's, so that no request can name them."""

ROOT = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")

OWN = ("api", "docs", "health")
"""What the service's own paths begin with."""


def host_names(host: str, allowed: Iterable[str]) -> list[str]:
    """The names under which a service may be asked: this machine's own, and those allowed."""
    own = () if host in EVERYWHERE else (host,)
    names = {f"[{name}]" if ":" in name and "[" not in name else name for name in (*own, *allowed)}
    return sorted({name.lower() for name in names} | set(LOOPBACK))


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
    if root and (not ROOT.fullmatch(root) or root.split("/")[1] in OWN):
        raise ConfigError(
            [
                f"--root-path {path!r}: give the path alone, such as /vit, without host and query; "
                f"it may have letters, digits and - . _ ~, and begins with none of {', '.join(OWN)}"
            ]
        )
    return root


class Guard:
    """Refuses foreign hosts, and lets nobody go on sending what is not read.

    Args:
        app: what is guarded.
        hosts: names that the Host header may have. They keep a web page elsewhere from asking this
            service under a name of its own (DNS rebinding).
        root: path before all addresses, as `root_of` has it.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], root: str = ""):
        self.app, self.root = app, root
        self.hosts = TrustedHostMiddleware(known, list(hosts), www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request of the server's."""
        headers = Headers(scope=scope)
        unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

        async def receiving() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and unread:
                # Whatever is still sent would be taken in for nothing (W04).
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        answer = self.app
        await self.hosts(scope, receive, unsent)
        if not scope.get("known"):
            words = "this host name is not served here: see --allow-host"
            answer = JSONResponse({"error": words}, 400)
        elif scope["path"] == self.root:
            scope = {**scope, "path": f"{self.root}/"}
        await answer(scope, receiving, sending)


async def known(scope: Scope, receive: Receive, send: Send) -> None:
    """Mark a request whose host starlette let through."""
    scope["known"] = True


async def unsent(message: Message) -> None:
    """Leave out starlette's refusal, which does not say what helps."""
