"""How fast a service answers, and how it says no: a client that measures.

    python -m vitlab.serve.load ADDRESS OUT.json [--run RUN] [--seconds 10]

    lone      one client, one picture at a time: milliseconds
    steady    16 clients: answers per second
    eager     one picture at a time in this process, by torch: milliseconds
    together  64 clients with 20 pictures each: how far answers are from the model's own
    crowd     500 at once: what they were told, how soon, and whether the service still lived

It speaks HTTP/1.1 over plain sockets, so that little of what is measured is its own. It shares the
machine with the service.
"""

import argparse
import asyncio
import contextlib
import io
import json
import math
import os
import platform
import selectors
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from vitlab.files import write_json

if TYPE_CHECKING:
    from vitlab.classifier import Classifier

CLIENTS = 16
TOGETHER = 64, 20
CROWD, WAVES = 500, 3
TIE = 1e-6
"""Likeliest classes that are closer to each other may change places."""

PROBE_SECONDS = 0.05
"""From one answer of /health/live to the next question."""

PATIENCE = 60
"""Seconds after which an answer counts as missing."""


class Reply(NamedTuple):
    """What came back, and when."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


class Client:
    """A client of one address, which keeps its connection as browsers do."""

    def __init__(self, address: str):
        parts = urlsplit(address)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def message(self, path: str, file: bytes | None = None) -> bytes:
        """A request: a page, or a PNG file that is sent."""
        if file is None:
            return f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: image/png\r\n"
            f"Content-Length: {len(file)}\r\n\r\n"
        )
        return head.encode() + file

    async def get(self, path: str) -> Reply:
        """Ask for a page."""
        return await self.send(self.message(path))

    async def post(self, path: str, file: bytes) -> Reply:
        """Send a PNG file."""
        return await self.send(self.message(path, file))

    async def send(self, message: bytes) -> Reply:
        """Send a request and read its response; the clock starts with the connection."""
        started = time.perf_counter()
        async with asyncio.timeout(PATIENCE):
            if self._streams is None:
                self._streams = await asyncio.open_connection(self.host, self.port)
            reader, writer = self._streams
            writer.write(message)
            status, headers = head_of(await reader.readuntil(b"\r\n\r\n"))
            body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            await self.close()
        seconds = time.perf_counter() - started
        return Reply(status, headers, body, seconds)

    async def close(self) -> None:
        """End the connection."""
        if self._streams is not None:
            self._streams[1].close()
            with contextlib.suppress(ConnectionError):
                await self._streams[1].wait_closed()
            self._streams = None


def pictures(count: int, size: int = 32, seed: int = 0) -> list[bytes]:
    """PNG files of smooth noise, all different, which no data set holds."""
    from PIL import Image

    draws = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(draws.integers(0, 256, (4, 4, 3), np.uint8))
        file = io.BytesIO()
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(file, "PNG")
        files.append(file.getvalue())
    return files


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds: the middle, the slowest twentieth and the slowest."""
    ordered = sorted(1000 * value for value in seconds)
    return {
        "median_ms": statistics.median(ordered),
        "p95_ms": ordered[int(0.95 * (len(ordered) - 1))],
        "most_ms": ordered[-1],
    }


async def lone(address: str, seconds: float) -> dict[str, Any]:
    """One client, one picture at a time."""
    client, times = Client(address), []
    files = pictures(20)
    for file in files:  # so that nothing is met for the first time
        await client.post("/api/predict", file)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append((await client.post("/api/predict", files[len(times) % 20])).seconds)
    await client.close()
    return {"requests": len(times), **quantiles(times)}


async def steady(address: str, seconds: float, clients: int = CLIENTS) -> dict[str, Any]:
    """Some clients, each of which asks again as soon as it is answered."""
    files = pictures(20)
    start = time.perf_counter()
    replies: list[Reply] = []

    async def one() -> None:
        client = Client(address)
        while time.perf_counter() < start + seconds:
            replies.append(await client.post("/api/predict", files[len(replies) % 20]))
        await client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    elapsed = time.perf_counter() - start
    return {
        "clients": clients,
        "requests": len(replies),
        "per_second": len(replies) / elapsed,
        "statuses": counted(replies),
        **quantiles([reply.seconds for reply in replies]),
    }


async def together(
    address: str, expected: Callable[[list[bytes]], np.ndarray], names: Sequence[str]
) -> dict[str, Any]:
    """Many clients at once, each with pictures of its own, held against the model's own answers.

    Args:
        expected: maps files to probabilities (N, K), offline.
        names: of the classes.
    """
    clients, each = TOGETHER
    files = pictures(clients * each, seed=1)
    offline = expected(files)

    async def one(number: int) -> list[Reply]:
        client = Client(address)
        path = f"/api/predict?top={len(names)}"
        mine = files[number * each : (number + 1) * each]
        replies = [await client.post(path, file) for file in mine]
        await client.close()
        return replies

    parts = await asyncio.gather(*(one(number) for number in range(clients)))
    replies = [reply for part in parts for reply in part]
    worst, agreed = 0.0, 0
    for reply, row in zip(replies, offline, strict=True):
        if reply.status != 200:
            continue
        top = json.loads(reply.body)["top"]
        served = {guess["class"]: guess["probability"] for guess in top}
        worst = max(worst, *(float(abs(served[name] - row[k])) for k, name in enumerate(names)))
        agreed += bool(row[list(names).index(top[0]["class"])] >= row.max() - TIE)
    return {
        "clients": clients,
        "pictures_each": each,
        "statuses": counted(replies),
        "same_class": agreed,
        "largest_difference": worst,
        **quantiles([reply.seconds for reply in replies]),
    }


def crowd(
    address: str, process: int | None = None, count: int = CROWD, waves: int = WAVES
) -> dict[str, Any]:
    """Very many requests at the same moment, some times, while somebody looks whether it lives.

    Args:
        process: number of the service's process, to read its memory.
    """
    settle(address)
    files = pictures(count, seed=2)
    messages = [Client(address).message("/api/predict", file) for file in files]
    found, before = [], memory(process)
    for _ in range(waves):
        replies, alive = burst(address, messages)
        normal = asyncio.run(recovered(address, files[0]))
        refused = [reply for reply in replies if reply.status in (429, 503)]
        found.append(
            {
                "statuses": counted(replies),
                "refusals": quantiles([reply.seconds for reply in refused]) if refused else None,
                "told_when_to_come_back": sum("retry-after" in one.headers for one in refused),
                "live": quantiles([reply.seconds for reply in alive]),
                "normal_again_seconds": normal,
                "memory_growth_megabytes": grown(before, memory(process)),
            }
        )
    return {"requests": count, "waves": found}


def settle(address: str) -> dict[str, Any]:
    """Wait until a service has started all of itself; returns what it says of its model."""
    while True:
        (reply,), _ = burst(address, [Client(address).message("/api/model")])
        model = json.loads(reply.body)
        if reply.status == 200 and (model["methods"] or not model["explains"]):
            return model
        time.sleep(PROBE_SECONDS)


def burst(address: str, messages: Sequence[bytes]) -> tuple[list[Reply], list[Reply]]:
    """Replies to messages that are all sent at once, each on a connection of its own.

    Returns:
        them, and the replies to /health/live, asked again and again until the last has come. The
        clock of a reply starts with its connection.
    """
    client = Client(address)
    where = client.host, client.port
    probe = client.message("/health/live")
    selector = selectors.DefaultSelector()
    replies: dict[int, Reply] = {}
    alive: list[Reply] = []

    def begin(number: int | None, message: bytes) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        call = Call(number, message, bytearray(), time.perf_counter())
        connection.connect_ex(where)
        selector.register(connection, selectors.EVENT_WRITE, call)

    for number, message in enumerate(messages):
        begin(number, message)
    begin(None, probe)
    end, next_probe = time.perf_counter() + PATIENCE, math.inf
    while (len(replies) < len(messages) or not alive) and time.perf_counter() < end:
        if time.perf_counter() >= next_probe:
            begin(None, probe)
            next_probe = math.inf
        for key, _ in selector.select(PROBE_SECONDS):
            call, connection = key.data, key.fileobj
            assert isinstance(connection, socket.socket)
            if key.events == selectors.EVENT_WRITE:
                connection.sendall(call.message)
                selector.modify(connection, selectors.EVENT_READ, call)
                continue
            try:
                part = connection.recv(65_536)
            except ConnectionError:
                part = b""
            call.received.extend(part)
            reply = parsed(call, ended=not part)
            if reply is None:
                continue
            selector.unregister(connection)
            connection.close()
            if call.number is not None:
                replies[call.number] = reply
                continue
            alive.append(reply)
            next_probe = time.perf_counter() + PROBE_SECONDS
    for key in list(selector.get_map().values()):
        selector.unregister(key.fileobj)
        key.fileobj.close()  # type: ignore[union-attr]
    missing = Reply(0, {}, b"", PATIENCE)
    return [replies.get(number, missing) for number in range(len(messages))], alive


class Call(NamedTuple):
    """A message on its way, and what has come back."""

    number: int | None
    message: bytes
    received: bytearray
    started: float


def parsed(call: Call, ended: bool) -> Reply | None:
    """The reply to a call if all of it is there; of status 0 if it never will be."""
    seconds = time.perf_counter() - call.started
    head, blank, body = bytes(call.received).partition(b"\r\n\r\n")
    if blank:
        status, headers = head_of(head)
        if len(body) >= int(headers["content-length"]):
            return Reply(status, headers, body, seconds)
    return Reply(0, {}, b"", seconds) if ended else None


def head_of(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of a response."""
    lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value for name, _, value in pairs}


async def recovered(address: str, file: bytes) -> float:
    """Seconds until a picture is answered again."""
    client, start = Client(address), time.perf_counter()
    while (await client.post("/api/predict", file)).status != 200:
        await asyncio.sleep(0.05)
    await client.close()
    return time.perf_counter() - start


def counted(replies: Sequence[Reply]) -> dict[str, int]:
    """How many replies of each status."""
    return {str(status): n for status, n in sorted(Counter(r.status for r in replies).items())}


def memory(process: int | None) -> int | None:
    """Resident bytes of a process and its children, where Linux tells."""
    if process is None:
        return None
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        pages = [
            int(Path(f"/proc/{number}/statm").read_text().split()[1])
            for number in (str(process), *children)
        ]
    except OSError:
        return None
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def grown(before: int | None, after: int | None) -> float | None:
    """Megabytes by which memory has grown."""
    return None if before is None or after is None else (after - before) / 1e6


def eager(classifier: "Classifier", seconds: float) -> dict[str, float]:
    """Milliseconds from one picture's file to its probabilities in this process, by torch."""
    (file,), taken, end = pictures(1), [], time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < end:
        begun = time.perf_counter()
        classifier.probabilities(file)
        taken.append(time.perf_counter() - begun)
    return quantiles(taken[1:])


def measure(address: str, process: int | None, run: str | None, seconds: float) -> dict[str, Any]:
    """All figures of a service that answers with a run's model."""
    from vitlab.classifier import open_classifier

    model = settle(address)
    exact = open_classifier(run, "torch")

    def expected(files: list[bytes]) -> np.ndarray:
        return exact.probabilities(files)

    found = {
        "model": model["name"],
        "engine": model["engine"],
        "checkpoint_sha256": model["card"]["checkpoint_sha256"],
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    return found | {
        "eager": eager(exact, seconds / 2),
        "lone": asyncio.run(lone(address, seconds)),
        "steady": asyncio.run(steady(address, seconds)),
        "together": asyncio.run(together(address, expected, model["classes"])),
        "crowd": crowd(address, process),
    }


def main(words: Sequence[str]) -> int:
    """Measure a service that is running."""
    parser = argparse.ArgumentParser(prog="python -m vitlab.serve.load")
    parser.add_argument("address", help="as `vitlab serve` prints it")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--run", help="what is served, to compare with; default the shipped cpu")
    parser.add_argument("--process", type=int, help="number of the service's process")
    parser.add_argument("--seconds", type=float, default=10, help="of lone and steady; default 10")
    args = parser.parse_args(words)
    found = measure(args.address, args.process, args.run, args.seconds)
    write_json(args.out, found)
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
