"""W: a service outlives slow, large, many, lying and curious clients, and answers each its own."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from harness import NotRun, case, without_network

sys.path.append(str(Path(__file__).parents[1] / "serve"))  # the tests check the same, smaller

try:
    import uvicorn  # noqa: F401
except ModuleNotFoundError:
    checks = None
else:
    import checks
    from client import Served, draw

import vitlab


def small(folder: Path) -> str:
    """Path of a small ViT of digits."""
    config = vitlab.recipe("digits").override(
        {"model.depth": 1, "optim.warmup_epochs": 0, "train.epochs": 1}
    )
    run = vitlab.train(config, out=folder, name="digits", device="cpu", quiet=True)
    return str(run.path)


@contextlib.contextmanager
def serving(source: str, folder: Path, *before: str, ready: bool = True) -> Iterator["Served"]:
    """A service as the command starts it, behind the words of another command if there are any."""
    if checks is None:
        raise NotRun("needs vitlab[serve]: pip install 'vitlab[serve]'")
    os.environ["VITLAB_RUNS"] = str(folder / "runs")
    served = Served(["-m", "vitlab", "serve", source], before=before)
    try:
        yield served.wait() if ready else served
        if served.process.poll() is None:
            code, seconds, complaints = served.stop()
            assert code == 0 and seconds <= 10, (code, seconds)
            assert "Traceback" not in complaints, complaints
    finally:
        served.end()


@case("W01", "live and ready from the first connection, SIGTERM with 5 requests under way")
def life(folder: Path, scale: float) -> str:
    with serving(small(folder), folder, ready=False) as served:
        return f"{checks.birth(served)}; {checks.death(served)}"


@case("W02", "64 clients with 20 pictures each, none of which is another's")
def together(folder: Path, scale: float) -> str:
    with serving("cpu-plain", folder) as served:
        return checks.together(served, "cpu-plain")


@case("W03", "500 requests at once, three times", minutes=8)
def crowd(folder: Path, scale: float) -> str:
    with serving("cpu-plain", folder) as served:
        return checks.crowd(served)


@case("W04", "uploads and heads that are too large, or lie about it")
def uploads(folder: Path, scale: float) -> str:
    with serving(small(folder), folder) as served:
        return checks.uploads(served)


@case("W05", "small pictures that unfold to much, ten side by side")
def bombs(folder: Path, scale: float) -> str:
    with serving(small(folder), folder) as served:
        return checks.bombs(served)


@case("W07", "paths and addresses in every place of a request, and every connection made")
def traversal(folder: Path, scale: float) -> str:
    if not shutil.which("strace"):
        raise NotRun("needs strace: apt-get install strace")
    trace = folder / "connects"
    strace = ("strace", "-f", "-e", "trace=connect,sendto", "-o", str(trace))
    with serving(small(folder), folder, *strace) as served:
        found = checks.traversal(served, folder)
        strace_id = served.process.pid
        children = Path(f"/proc/{strace_id}/task/{strace_id}/children").read_text()
        os.kill(int(children.split()[0]), signal.SIGTERM)
        served.process.wait(60)
    assert trace.read_text(), "strace saw nothing"
    asked = [line for line in trace.read_text().splitlines() if re.search(r"AF_INET6?\b", line)]
    assert not asked, asked[:5]
    return f"{found}, 0 connections"


@case("W08", "50 clients that dribble, 50 that say nothing, 50 that vanish")
def slow_clients(folder: Path, scale: float) -> str:
    with serving(small(folder), folder) as served:
        return checks.slow_clients(served, count=100, within=30)


@case("W09", "the service without a network")
def offline(folder: Path, scale: float) -> str:
    without_network()
    loopback_up()
    with serving(small(folder), folder) as served:
        found = served.send(draw())
        assert found.status == 200, found
        found = served.send(draw(), "/api/explain?method=occlusion")
        assert found.status == 200, found
        assert served.get("/").status == 200
    return "page, answer and map as ever"


def loopback_up() -> None:
    """Let this process reach itself; whoever is cut off has a loopback that is switched off."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        up = struct.pack("16sh14x", b"lo", 1)
        fcntl.ioctl(any_socket, 0x8914, up)  # SIOCSIFFLAGS, IFF_UP


@case("W10", "a model named, loaded or replaced over HTTP")
def other_models(folder: Path, scale: float) -> str:
    run = small(folder)
    with serving(run, folder) as served:
        return checks.other_models(served, Path(run))


@case("W11", "10,000 broken pictures, and requests drawn from the OpenAPI", minutes=15)
def broken(folder: Path, scale: float) -> str:
    with serving(small(folder), folder) as served:
        found = checks.mutations(served, round(10_000 * scale))
        return f"{found}; {checks.schema(served, round(100 * scale), folder)}"
