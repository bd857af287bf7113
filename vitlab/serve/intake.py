"""A request's body becomes the bytes of one picture, or a refusal; and a client may leave."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from vitlab.serve.limits import TYPES
from vitlab.serve.service import Refusal, Service

T = TypeVar("T")


class Gone(Exception):
    """The client has left; nobody waits for a response."""


@asynccontextmanager
async def picture(request: Request, service: Service) -> AsyncIterator[bytes]:
    """The file in a request's body, counted as held meanwhile.

    Raises:
        Refusal: 415 for another content type, 413 for too many bytes, 408 for too slow a client,
            422 for none, 429 where too many bytes are held already.
        Gone: the client has left.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in TYPES:
        raise Refusal(415, f"send one picture as the body, its content type {' or '.join(TYPES)}")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "send the picture without a content encoding")
    most = service.limits.upload
    too_large = Refusal(
        413,
        f"the picture has more than {most / 1e6:g} MB: send a smaller one, or start the service "
        "with a larger --max-bytes",
    )
    declared = request.headers.get("content-length", "0")
    # Long before digits become a number that takes time to read.
    if len(declared) > 15 or int(declared) > most:
        raise too_large
    file = bytearray()
    try:
        async with asyncio.timeout(service.limits.body_seconds):
            async for part in request.stream():
                if len(file) + len(part) > most:
                    raise too_large
                service.hold(len(part))
                file += part
        if not file:
            raise Refusal(422, "there is no picture: the body is empty")
        yield bytes(file)
    except TimeoutError:
        raise Refusal(408, "the picture came in too slowly") from None
    except ClientDisconnect:
        raise Gone from None
    finally:
        service.held -= len(file)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is given up when the client leaves (W08); Gone says that it
    did. The body has to be read before.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def left(request: Request) -> None:
    """Wait until the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
