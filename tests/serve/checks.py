"""What a service has to survive: each check asks a running one, and returns its figure in words.

The tests call them small, the catalogue of faults in full. W numbers are those of the catalogue.
"""

import contextlib
import io
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import load
import numpy as np
from client import Client, Reply, Served, draw, error, message, received

from vitlab.classifier import open_classifier
from vitlab.files import sha256

MEGABYTE = 1_000_000
CANARY = "canary-7d1f"


def memory(served: Served) -> float:
    """Resident megabytes of a service and its children."""
    found = load.memory(served.process.pid)
    assert found is not None
    return found / MEGABYTE


# W01


def birth(served: Served, patience: float = 1) -> str:
    """Live at once, ready later."""
    slowest, states = 0.0, []
    while not states or states[-1] != 200:
        slowest = max(slowest, served.get("/health/live").seconds)
        ready = served.get("/health/ready")
        assert ready.status == 200 or error(ready) == "starting", ready
        states.append(ready.status)
        time.sleep(0.02)
    assert states[0] == 503, "ready before it was loaded"
    assert slowest <= patience, f"live took {slowest:.2f} s"
    return f"live within {slowest:.2f} s"


def death(served: Served, patience: float = 1) -> str:
    """A signal with five under way: they are answered, and nothing else is begun."""
    request = message("/api/predict", draw())
    under_way = [served.connect() for _ in range(5)]
    for one in under_way:
        one.sendall(request[:-100])
    time.sleep(0.3)
    served.process.terminate()
    begun = time.monotonic()
    while (draining := served.get("/health/ready")).status == 200:
        time.sleep(0.01)
    assert draining.status == 503 and error(draining) == "draining"
    assert served.get("/health/live").status == 200
    late = served.send(draw())
    assert late.status == 503 and "retry-after" in late.headers, late
    for one in under_way:
        one.sendall(request[-100:])
    for one in under_way:
        with one:
            assert received(one).status == 200
    _, complaints = served.process.communicate(timeout=60)
    seconds = time.monotonic() - begun
    assert served.process.returncode == 0, served.process.returncode
    assert seconds <= 10 * patience and "Traceback" not in complaints, (seconds, complaints)
    return f"5 of 5 delivered while others get 503, exit 0 after {seconds:.1f} s"


# W02, W03


def together(served: Served, run) -> str:
    """64 clients with 20 pictures each; each answer is the model's own to that picture."""
    names = served.answer(served.get("/api/model"))["classes"]
    found = load.together(served.address, open_classifier(run, "torch").probabilities, names)
    assert found["statuses"] == {"200": 1280} and found["same_class"] == 1280, found
    assert found["largest_difference"] <= 1e-5, found
    return f"1,280 of 1,280 equal, probabilities within {found['largest_difference']:.1e}"


def crowd(served: Served, waves: int = 3, patience: float = 1) -> str:
    """500 at once: answered or told to come back, at once; then all is as before."""
    served.settle()
    found = load.crowd(served.address, served.process.pid, waves=waves)["waves"]
    for wave in found:
        assert set(wave["statuses"]) <= {"200", "429", "503"}, wave
        refused = 500 - wave["statuses"]["200"]
        assert wave["told_when_to_come_back"] == refused, wave
        assert wave["normal_again_seconds"] <= 5 * patience, wave
        assert wave["memory_growth_megabytes"] <= 200, wave
    refusal = max(wave["refusals"]["most_ms"] if wave["refusals"] else 0 for wave in found)
    live = max(wave["live"]["most_ms"] for wave in found)
    assert refusal <= 200 * patience and live <= 1000 * patience, found
    growth = found[-1]["memory_growth_megabytes"] - found[0]["memory_growth_megabytes"]
    assert growth <= 20, found
    return f"refused within {refusal:.0f} ms, live within {live:.0f} ms, {growth:+.0f} MB by waves"


# W04


def uploads(served: Served) -> str:
    """Bodies and heads that are too large, or lie; closed before more than the cap is read."""
    served.settle()
    before, most = memory(served), 0.0
    much = os.urandom(31 * MEGABYTE)
    head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    parts = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\n1\r\n' % number
        for number in range(10_000)
    )
    multipart = b"multipart/form-data; boundary=x"
    cases = {
        "31 MB": (head + b"Content-Length: 31000000\r\n\r\n", much, (413,)),
        "31 MB in chunks": (head + b"Transfer-Encoding: chunked\r\n\r\n", chunks(much), (413,)),
        "too long a length": (head + b"Content-Length: 99999999999999999999\r\n\r\n", b"", (413,)),
        "no number": (head + b"Content-Length: ten\r\n\r\n", b"", (400,)),
        "two lengths": (head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b"1234", (400,)),
        "shorter than told": (head + b"Content-Length: 4\r\n\r\n", b"GIF89a, and more", (422,)),
        "10,000 parts": (
            head.replace(b"image/png", multipart) + b"Content-Length: %d\r\n\r\n" % len(parts),
            parts, (415,),
        ),
        "no boundary": (
            head.replace(b"image/png", b"multipart/form-data") + b"Content-Length: 9\r\n\r\n",
            b"something", (415,),
        ),
        "50 MB form": (
            head.replace(b"image/png", b"application/x-www-form-urlencoded")
            + b"Content-Length: 50000000\r\n\r\n",
            b"a=" + 50 * MEGABYTE * b"x", (415,),
        ),
        "50 MB to the page": (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n\r\n",
            50 * MEGABYTE * b"x", (200,),
        ),
        "1 MB head": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + MEGABYTE * b"x", b"", (400,)),
        "100,000 headers": (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n" + 100_000 * b"X: y\r\n", b"", (400,),
        ),
        "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"", (400,)),
    }  # fmt: skip
    for name, (start, body, statuses) in cases.items():
        connection = served.connect()
        sent = 0
        with contextlib.suppress(ConnectionError):
            connection.sendall(start)
            for place in range(0, len(body), 65_536):
                sent += connection.send(body[place : place + 65_536])
        with connection:
            reply = received(connection)
        assert reply.status in statuses, (name, reply)
        if b"chunked" not in start:  # what the kernel holds on both sides is not read
            assert sent <= 20 * MEGABYTE, (name, sent)
        most = max(most, memory(served) - before)
    assert most <= 64, f"memory grew by {most:.0f} MB"
    assert served.send(draw()).status == 200
    return f"{len(cases)} of {len(cases)} refused, memory {most:+.0f} MB"


def chunks(body: bytes) -> bytes:
    """A body in chunks of 64 kB."""
    parts = [body[place : place + 65_536] for place in range(0, len(body), 65_536)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


# W05


def bombs(served: Served, side_by_side: int = 10, patience: float = 1) -> str:
    """Small files that unfold to much."""
    files = dict(bomb_files())
    served.settle()
    before, slowest, most = memory(served), 0.0, 0.0

    def throw(name: str) -> None:
        nonlocal slowest, most
        reply = served.send(files[name])
        assert reply.status in (413, 422), (name, reply.status, reply.body)
        error(reply)
        slowest = max(slowest, reply.seconds)
        most = max(most, memory(served) - before)

    for name in files:
        throw(name)
    alone = slowest
    with ThreadPoolExecutor(side_by_side) as pool:
        list(pool.map(throw, [list(files)[n % len(files)] for n in range(side_by_side)]))
    assert most <= 64, f"memory grew by {most:.0f} MB"
    assert served.send(draw()).status == 200
    assert alone <= 0.5 * patience, f"{alone:.2f} s"
    return f"{len(files)} refused within {alone:.2f} s, {slowest:.2f} s together, {most:+.0f} MB"


def bomb_files():
    """Bombs by name."""
    from PIL import Image

    for side in (9_000, 14_000):
        yield f"{side}² PNG", flat_png(side, side)
    yield "65535² GIF", b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b"\x3b"
    yield "10,000 frames", b"GIF89a" + struct.pack("<HHBBB", 100, 100, 0, 0, 0) + 10_000 * (
        b"\x2c" + struct.pack("<HHHHB", 0, 0, 100, 100, 0) + b"\x02\x02\x44\x01\x00"
    )  # fmt: skip
    packed = zlib.compress(bytes(80 * MEGABYTE), 6)
    yield "zTXt", flat_png(8, 8, (b"zTXt", b"words\0\0" + packed))
    yield "iCCP", flat_png(8, 8, (b"iCCP", b"profile\0\0" + packed))
    file, frames = io.BytesIO(), [Image.new("RGB", (8, 8), shade) for shade in ("red", "blue")]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    webp = bytearray(file.getvalue())
    assert webp[12:16] == b"VP8X"
    webp[24:30] = 2 * (16_383 - 1).to_bytes(3, "little")  # the canvas that all frames share
    yield "huge WebP", bytes(webp)
    yield "65535² JPEG", jpeg_of(65_535, 65_535)


def flat_png(width: int, height: int, *more: tuple[bytes, bytes]) -> bytes:
    """A black PNG, made row by row; `more` are chunks before the pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width // 8 + 1)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    parts = [(b"IHDR", header), *more, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose header says that it is large."""
    file = bytearray(draw((8, 8), "JPEG"))
    place = file.index(b"\xff\xc0") + 5
    file[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(file)


# W07, W10


def strange_paths(folder: Path) -> list[str]:
    """Paths and addresses that a careless service would open."""
    canary = folder / "canary.txt"
    canary.write_text(CANARY)
    up = 12 * "../"
    own = str(canary)
    plain = [
        f"{up}etc/passwd", f"..{own}", f"{up}{own[1:]}", own, f"//{own}", "//server/share/file",
        "\\\\server\\share", f"file://{own}", "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/#x", "//127.0.0.1:1/x", f"{own}\0.png", "..\\..\\canary.txt",
    ]  # fmt: skip
    quoted = []
    for path in plain:
        once = path.replace("%", "%25").replace("\0", "%00").replace(" ", "%20")
        quoted += [
            once,
            once.replace("/", "%2f").replace("..", "%2e%2e"),
            once.replace("/", "%252f").replace("..", "%252e%252e"),
            once.replace("../", "....//"),
        ]
    return list(dict.fromkeys(quoted))


def traversal(served: Served, folder: Path) -> str:
    """Strange paths in every place that a request has."""
    asked = 0

    def never(reply: Reply, statuses: set[int], where: str) -> None:
        nonlocal asked
        asked += 1
        assert reply.status in statuses, (where, reply.status, reply.body[:200])
        for word in (CANARY, "root:", "Traceback"):
            assert word.encode() not in reply.body, (where, reply.body[:200])

    picture = draw()
    pages = [("GET", "/"), ("GET", "/docs"), ("GET", "/api/"), ("POST", "/api/predict/")]
    for path in strange_paths(folder):
        target = path if path.isascii() else path.encode().hex()
        for method, start in pages:
            place = f"{start}{target}".replace("#", "%23") if start != "/" else f"/{target}"
            never(served.send(b"", place, "", method), {200, 400, 404, 405}, place)
        query = f"/api/explain?method={target}".replace("#", "%23")
        never(served.send(picture, query), {422}, query)
        query = f"/api/explain?method=attention&class={target}".replace("#", "%23")
        never(served.send(picture, query), {422}, query)
        query = f"/api/predict?path={target}&url={target}&model={target}".replace("#", "%23")
        never(served.send(picture, query), {200}, query)
        shown = path.replace("\0", "")
        headers = {
            "Content-Disposition": f'attachment; filename="{shown}"',
            "X-Original-URL": shown,
        }
        never(served.send(picture, **headers), {200}, f"headers {shown}")
        never(served.send(picture, Host=shown or "x"), {400}, f"Host {shown}")
        never(served.send(picture, Host=f"localhost.{shown}"[:200]), {400}, f"Host {shown}")
        form = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{shown}"\r\n\r\n'
        body = form.encode() + picture + b"\r\n--x--\r\n"
        never(served.send(body, kind="multipart/form-data; boundary=x"), {415}, f"form {shown}")
        target = path.split("#")[0] or "x"
        if target.startswith(("http", "file")):
            never(served.get(target), {400, 404}, f"absolute {target}")
    return f"{asked:,} requests, no file and nobody else was asked"


def other_models(served: Served, run: Path) -> str:
    """A model is neither named, nor loaded, nor replaced over HTTP."""
    files = sorted(path for path in run.rglob("*") if path.is_file())
    before = [sha256(path) for path in files]
    model = served.get("/api/model").body
    tried = Counter[int]()
    for path in ("/models", "/model", "/api/models", "/api/model", "/api/model/load", "/", "/api"):
        for method in ("PUT", "POST", "DELETE", "PATCH"):
            reply = served.send(b'{"path": "/etc/passwd"}', path, "application/json", method)
            assert reply.status in (404, 405), (method, path, reply.status)
            tried[reply.status] += 1
    for kind in (
        "application/vnd.bentoml+pickle", "application/x-python-serialize", "application/pickle",
        "application/octet-stream", "application/json", "application/x-www-form-urlencoded",
        "text/plain", "image/gif", "image/svg+xml", "image/*", "",
    ):  # fmt: skip
        for path in ("/api/predict?model=/etc/passwd", "/api/explain?method=attention"):
            reply = served.send(b"cos\nsystem\n(S'true'\ntR.", path, kind)
            assert reply.status == 415, (kind, reply.status)
            tried[415] += 1
    assert served.get("/api/model").body == model
    assert [sha256(path) for path in files] == before
    return f"{sum(tried.values())} of {sum(tried.values())} refused, {len(files)} files unchanged"


# W08


def slow_clients(served: Served, count: int, within: float, patience: float = 1) -> str:
    """Clients that dribble, say nothing or vanish; the others notice little."""
    quiet = load.lone(served.address, 2)
    request = message("/api/predict", draw())
    over = threading.Event()
    closed: list[float] = []
    begun = time.monotonic()

    def dribble(text: bytes, rest: bytes) -> None:
        connection = served.connect()
        connection.settimeout(0.2)
        with contextlib.suppress(ConnectionError, OSError):
            connection.sendall(text)
            place = 0
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(65_536):
                        break
                if rest and time.monotonic() - begun > 5 * place:
                    connection.sendall(rest[place : place + 1])
                    place += 1
        closed.append(time.monotonic() - begun)
        connection.close()

    kinds = [(b"", b"GET /" + 99 * b"x"), (request[:-90], request[-90:]), (b"", b""), (b"GET", b"")]

    def deaf() -> None:
        """Ask for a thousand pages and read none of them."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", served.port))
        poll = select.poll()
        poll.register(connection, select.POLLHUP | select.POLLERR)
        with contextlib.suppress(ConnectionError):
            connection.sendall(1000 * message("/page.js"))
        while not over.is_set() and not poll.poll(200):
            pass
        closed.append(time.monotonic() - begun)
        connection.close()

    threads = [
        threading.Thread(target=dribble, args=kinds[number % len(kinds)]) for number in range(count)
    ]
    threads += [threading.Thread(target=deaf) for _ in range(count // 10)]
    for one in threads:
        one.start()
    for _ in range(count):  # gone before they are answered
        connection = served.connect()
        connection.sendall(request)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    busy = load.lone(served.address, 2)
    for one in threads:
        one.join(max(0, within * patience + 1 - (time.monotonic() - begun)))
    over.set()
    for one in threads:
        one.join()
    assert len(closed) == len(threads) and max(closed) <= within * patience, max(closed)
    assert busy["p95_ms"] <= 2 * patience * quiet["p95_ms"], (quiet, busy)
    # Whoever has vanished keeps no place: all places can be taken at once again.
    found = load.steady(served.address, 1, clients=32)
    assert set(found["statuses"]) == {"200"}, found
    return (
        f"{len(closed)} closed within {max(closed):.0f} s, "
        f"p95 {quiet['p95_ms']:.0f} -> {busy['p95_ms']:.0f} ms"
    )


# Files that are almost pictures


def mutations(served: Served, count: int) -> str:
    """Pictures with bytes changed, cut, doubled or swapped: answered or refused, never a crash."""
    draws = np.random.default_rng(5)
    originals = [
        draw((24, 20), "PNG"), draw((24, 20), "PNG", "RGBA"), draw((24, 20), "PNG", "L"),
        draw((24, 20), "JPEG"), draw((24, 20), "JPEG", progressive=True),
        draw((24, 20), "WEBP"), draw((24, 20), "WEBP", lossless=True),
    ]  # fmt: skip
    files = [mutated(originals[n % len(originals)], draws) for n in range(count)]
    statuses = Counter[int]()

    def one(mine: list[bytes]) -> None:
        with contextlib.closing(Client(served.address)) as client:
            for file in mine:
                reply = client.send(message("/api/predict", file))
                assert reply.status in (200, 422), reply
                if reply.status == 422:
                    error(reply)
                statuses[reply.status] += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, [files[number::8] for number in range(8)]))
    assert served.process.poll() is None
    return f"{count:,} files: {statuses[200]:,} answered, {statuses[422]:,} refused, no crash"


def mutated(file: bytes, draws: np.random.Generator) -> bytes:
    """A file that something has happened to."""
    data = bytearray(file)
    for _ in range(int(draws.integers(1, 6))):
        place = int(draws.integers(0, max(1, len(data))))
        match int(draws.integers(0, 5)):
            case 0:
                data[place : place + 1] = bytes([int(draws.integers(0, 256))])
            case 1:
                del data[place:]
            case 2:
                del data[place : place + int(draws.integers(1, 40))]
            case 3:
                data[place:place] = data[place : place + int(draws.integers(1, 80))]
            case 4:
                data[place:place] = draws.bytes(int(draws.integers(1, 40)))
    return bytes(data) or b"\0"


def schema(served: Served, examples: int, folder: Path) -> str:
    """Schemathesis draws requests from the OpenAPI; none ends in an error of ours."""
    program = Path(sys.executable).with_name("schemathesis")
    command = [
        str(program), "run", f"{served.address}/openapi.json",
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_schema_conformance", "--max-examples", str(examples), "--seed", "1",
        "--phases", "examples,coverage,fuzzing", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    served.wait()
    return next(line.strip() for line in done.stdout.splitlines() if "generated" in line)
