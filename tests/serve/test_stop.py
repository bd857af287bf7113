"""The end of the service, after all other tests of this folder, and before it is ready."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import checks
import pytest
from asking import Served

from vitlab.serve.stopping import on_stop


def test_a_signal_lets_five_requests_finish_while_nothing_new_is_taken(served):
    checks.death(served, patience=10)


@pytest.fixture
def fresh(run, tmp_path) -> Path:
    """A run that has yet to be exported."""
    return shutil.copytree(run, tmp_path / "fresh", ignore=shutil.ignore_patterns("export"))


def until(happened) -> None:
    """Wait for something."""
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def children(process: int) -> list[Path]:
    """Folders of the processes that one has started, which exist as long as they do."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [Path("/proc", number) for number in found]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_signal_while_it_imports_leaves_with_0(fresh):
    words = [sys.executable, "-m", "vitlab", "serve", str(fresh), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            until(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text())
            process.send_signal(signal.SIGHUP)
            _, complaints = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, complaints) == (0, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("moment", "number"), [("loading", signal.SIGTERM), ("exporting", signal.SIGINT)]
)
def test_a_signal_before_it_is_ready_leaves_with_0_and_nothing_behind(fresh, moment, number):
    served = Served(["-m", "vitlab", "serve", str(fresh), "--port", "0"])
    try:
        unfinished = fresh / "export" / ".onnx.tmp"
        if moment == "exporting":
            until(unfinished.exists)
        started = children(served.process.pid)
        assert served.process.stdout
        served.process.stdout.close()  # as a terminal that closes does
        served.process.send_signal(number)
        _, complaints = served.process.communicate(timeout=10)
        assert (served.process.returncode, complaints) == (0, "")
        assert not any(one.exists() for one in started)
        assert not unfinished.exists() and not (fresh / "export" / "onnx").exists()
    finally:
        served.end()


SLOW = """
import threading, time
from vitlab.serve.server import finish
slow = threading.Thread(target=time.sleep, args=(60,))
slow.start()
print("stopping")
finish([slow], time.monotonic() + 0.1)
"""


def test_a_thread_that_does_not_end_keeps_no_process():
    done = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "stopping\n")


def test_a_terminal_that_closes_stops_nothing_after_nohup():
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        put_back = on_stop(lambda: None)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
        put_back()
        assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
