"""How fast a service answers, and how it says no: a client that measures.

    python tests/serve/load.py ADDRESS OUT.json [--run RUN] [--process N] [--seconds 10]

    lone      one client, one picture at a time: milliseconds
    steady    16 clients: answers per second
    eager     one picture at a time in this process, by torch: milliseconds
    together  64 clients with 20 pictures each: how far answers are from the model's own
    crowd     500 at once: what they were told, how soon, and whether the service still lived

It shares the machine with the service, and speaks HTTP over plain sockets, so that little of what
is measured is its own.
"""

import argparse
import contextlib
import json
import os
import platform
import selectors
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from client import PATIENCE, Client, Reply, draw, message, parsed

TIE = 1e-6
"""Likeliest classes that are closer to each other may change places."""

PROBE_SECONDS = 0.05
"""From one answer of /health/live to the next question."""

CROWD = 500


def milliseconds(replies: Sequence[Reply]) -> dict[str, float]:
    """How long replies took: the middle, the slowest twentieth and the slowest."""
    ordered = sorted(1000 * reply.seconds for reply in replies)
    return {
        "median_ms": statistics.median(ordered),
        "p95_ms": ordered[int(0.95 * (len(ordered) - 1))],
        "most_ms": ordered[-1],
    }


def counted(replies: Sequence[Reply]) -> dict[str, int]:
    """How many replies of each status."""
    return {str(status): n for status, n in sorted(Counter(r.status for r in replies).items())}


def asked(address: str, requests: Sequence[bytes], seconds: float = 0) -> list[Reply]:
    """Replies to requests on one connection; with seconds, again and again for so long."""
    replies, end = [], time.perf_counter() + seconds
    with contextlib.closing(Client(address)) as client:
        while len(replies) < len(requests) or (seconds and time.perf_counter() < end):
            replies.append(client.send(requests[len(replies) % len(requests)]))
    return replies


def lone(address: str, seconds: float) -> dict[str, Any]:
    """One client, one picture at a time."""
    requests = [message("/api/predict", draw(seed=seed)) for seed in range(20)]
    asked(address, requests)  # so that nothing is met for the first time
    replies = asked(address, requests, seconds)
    return {"requests": len(replies), **milliseconds(replies)}


def steady(address: str, seconds: float, clients: int = 16) -> dict[str, Any]:
    """Some clients, each of which asks again as soon as it is answered."""
    requests = [message("/api/predict", draw(seed=seed)) for seed in range(20)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        parts = list(pool.map(lambda _: asked(address, requests, seconds), range(clients)))
    replies, elapsed = [reply for part in parts for reply in part], time.perf_counter() - begun
    return {
        "clients": clients,
        "requests": len(replies),
        "per_second": len(replies) / elapsed,
        "statuses": counted(replies),
        **milliseconds(replies),
    }


def together(
    address: str,
    probabilities: Callable[[list[bytes]], np.ndarray],
    names: Sequence[str],
    clients: int = 64,
    each: int = 20,
) -> dict[str, Any]:
    """Many clients at once, each with pictures of its own, held against the model's own answers.

    Args:
        probabilities: maps files to probabilities (N, K), offline.
        names: of the classes.
    """
    files = [draw(seed=seed) for seed in range(clients * each)]
    offline = probabilities(files)
    requests = [message(f"/api/predict?top={len(names)}", file) for file in files]
    shares = [requests[first : first + each] for first in range(0, len(requests), each)]
    with ThreadPoolExecutor(clients) as pool:
        replies = [r for part in pool.map(lambda one: asked(address, one), shares) for r in part]
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
        **milliseconds(replies),
    }


def crowd(address: str, process: int | None = None, waves: int = 3) -> dict[str, Any]:
    """Very many requests at the same moment, some times, while somebody looks whether it lives.

    Args:
        process: number of the service's process, to read its memory.
    """
    requests = [message("/api/predict", draw(seed=seed)) for seed in range(CROWD)]
    found, before = [], memory(process)
    for _ in range(waves):
        replies, alive = burst(address, requests)
        begun = time.perf_counter()
        while asked(address, requests[:1])[0].status != 200:
            time.sleep(PROBE_SECONDS)
        normal, after = time.perf_counter() - begun, memory(process)
        refused = [reply for reply in replies if reply.status in (429, 503)]
        found.append(
            {
                "statuses": counted(replies),
                "refusals": milliseconds(refused) if refused else None,
                "told_when_to_come_back": sum("retry-after" in one.headers for one in refused),
                "live": milliseconds(alive),
                "normal_again_seconds": normal,
                "memory_growth_megabytes": None if before is None or after is None
                else (after - before) / 1e6,
            }
        )  # fmt: skip
    return {"requests": CROWD, "waves": found}


def burst(address: str, requests: Sequence[bytes]) -> tuple[list[Reply], list[Reply]]:
    """Replies to requests that are all sent at once, each on a connection of its own.

    Returns:
        them, and the replies to /health/live, asked again and again until the last has come.
    """
    where, selector = Client(address).where, selectors.DefaultSelector()
    replies: dict[int, Reply] = {}
    alive: list[Reply] = []

    def begin(number: int, request: bytes) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(where)
        call = [number, request, b"", time.perf_counter()]
        selector.register(connection, selectors.EVENT_WRITE, call)

    def probe() -> None:
        begin(-1, message("/health/live"))

    for number, request in enumerate(requests):
        begin(number, request)
    probe()
    end = time.perf_counter() + PATIENCE
    next_probe = end
    while (len(replies) < len(requests) or not alive) and time.perf_counter() < end:
        if time.perf_counter() >= next_probe:
            probe()
            next_probe = end
        for key, _ in selector.select(PROBE_SECONDS):
            call, connection = key.data, key.fileobj
            assert isinstance(connection, socket.socket)
            number, request, so_far, begun = call
            if key.events == selectors.EVENT_WRITE:
                connection.sendall(request)
                selector.modify(connection, selectors.EVENT_READ, call)
                continue
            try:
                part = connection.recv(65_536)
            except ConnectionError:
                part = b""
            call[2] = so_far + part
            response = parsed(call[2]) or (None if part else (0, {}, b""))
            if response is None:
                continue
            selector.unregister(connection)
            connection.close()
            reply = Reply(*response, time.perf_counter() - begun)
            if number >= 0:
                replies[number] = reply
            else:
                alive.append(reply)
                next_probe = time.perf_counter() + PROBE_SECONDS
    for key in list(selector.get_map().values()):
        selector.unregister(key.fileobj)
        key.fileobj.close()  # type: ignore[union-attr]
    missing = Reply(0, {}, b"", PATIENCE)
    return [replies.get(number, missing) for number in range(len(requests))], alive


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


def measure(address: str, process: int | None, run: str | None, seconds: float) -> dict[str, Any]:
    """All figures of a service that answers with a run's model."""
    from vitlab.classifier import open_classifier

    (reply,) = asked(address, [message("/api/model")])
    model, exact = json.loads(reply.body), open_classifier(run, "torch")
    eager, end = [], time.perf_counter() + seconds / 2
    while len(eager) < 3 or time.perf_counter() < end:
        begun = time.perf_counter()
        exact.probabilities(draw())
        eager.append(Reply(200, {}, b"", time.perf_counter() - begun))
    return {
        "model": model["name"],
        "engine": model["engine"],
        "checkpoint_sha256": model["card"]["checkpoint_sha256"],
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "eager": milliseconds(eager[1:]),
        "lone": lone(address, seconds),
        "steady": steady(address, seconds),
        "together": together(address, exact.probabilities, model["classes"]),
        "crowd": crowd(address, process),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address", help="as `vitlab serve` prints it")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--run", help="what is served, to compare with; default the shipped cpu")
    parser.add_argument("--process", type=int, help="number of the service's process")
    parser.add_argument("--seconds", type=float, default=10, help="of lone and steady; default 10")
    args = parser.parse_args()
    figures = json.dumps(measure(args.address, args.process, args.run, args.seconds), indent=2)
    args.out.write_text(f"{figures}\n", encoding="utf-8")
    print(figures)
