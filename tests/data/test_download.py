"""Downloads: tried in turn, resumed, verified, and in place only when whole."""

import hashlib
import os
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from vitlab import data
from vitlab.config import DataConfig
from vitlab.data import KNOWN, download
from vitlab.data.known import File
from vitlab.errors import DataError, RunError
from vitlab.files import Lock

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "cifar-10-python.tar.gz"


@pytest.fixture
def host():
    """A host that sends CONTENT, and may cut connections, ignore ranges or know no file."""
    state = SimpleNamespace(cut=[], ranges=True, requests=[], content=CONTENT)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers["Range"]
            state.requests.append(asked)
            if self.path.startswith("/nothing"):
                return self.send_error(404)
            start = int(re.findall(r"\d+", asked)[0]) if asked and state.ranges else 0
            if start >= len(state.content):
                return self.send_error(416)
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cut.pop(0)] if state.cut else body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(cache, *urls, sha256=SHA256):
    """Fetch from the given addresses, each a source of its own."""
    mirrors = tuple((File(url, sha256),) for url in urls)
    return download.fetch("cifar10", replace(KNOWN["cifar10"], mirrors=mirrors), cache)


@pytest.mark.parametrize(
    ("cut", "ranges", "begun", "hosts", "requests"),
    [
        ([], True, 0, 1, [None]),
        ([300_000, 200_000], True, 0, 1, [None, "bytes=300000-", "bytes=500000-"]),
        ([300_000], False, 0, 1, [None, "bytes=300000-"]),
        ([], True, 1000, 1, ["bytes=1000-"]),
        ([], True, len(CONTENT), 1, [f"bytes={len(CONTENT)}-"]),
        ([1000, 0], True, 0, 2, [None, "bytes=1000-", "bytes=1000-"]),
    ],
    ids=["at once", "dropped twice", "no ranges", "killed before", "killed at the end", "gave up"],
)
def test_a_file_arrives_whole_and_alone(tmp_path, host, cut, ranges, begun, hosts, requests):
    host.cut, host.ranges = cut, ranges
    partial = tmp_path / "cifar10.part"
    if begun:
        partial.mkdir()
        (partial / f"{NAME}.part").write_bytes(CONTENT[:begun])
    path = fetch(tmp_path, *(f"{host.url}/{number}/{NAME}" for number in range(hosts)))
    assert (path / NAME).read_bytes() == CONTENT
    assert [p.name for p in path.iterdir()] == [NAME]
    assert host.requests == requests and not partial.exists()


def test_a_wrong_checksum_shows_both_hashes_and_leaves_nothing_behind(tmp_path, host):
    with pytest.raises(DataError, match=f"SHA-256 is {SHA256}, expected {'0' * 64}"):
        fetch(tmp_path, f"{host.url}/{NAME}", sha256="0" * 64)
    assert not list((tmp_path / "cifar10.part").iterdir()) and not (tmp_path / "cifar10").exists()


def test_when_every_host_fails_one_error_tells_the_ways_by_hand(tmp_path, host):
    urls = f"{host.url}/nothing/{NAME}", f"http://127.0.0.1:9/{NAME}", f"ftp://127.0.0.1/{NAME}"
    with pytest.raises(DataError) as error:
        fetch(tmp_path, *urls)
    for expected in (*urls, "404", "refused", "VITLAB_DATA", "VITLAB_CIFAR10_URL", SHA256):
        assert expected in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_leftovers_of_a_host_that_failed_are_not_taken_along(tmp_path, host):
    parts = (File(f"{host.url}/{name}.parquet", None) for name in ("train", "nothing"))
    mirrors = tuple(parts), (File(f"{host.url}/{NAME}", SHA256),)
    path = download.fetch("cifar10", replace(KNOWN["cifar10"], mirrors=mirrors), tmp_path)
    assert [p.name for p in path.iterdir()] == [NAME]


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_an_address_from_the_environment_takes_the_place_of_the_known_ones(
    tmp_path, host, monkeypatch, scheme
):
    (tmp_path / NAME).write_bytes(CONTENT)
    local = (tmp_path / NAME).as_uri()
    address = f"{host.url}/mine/{NAME}?download=1" if scheme == "http" else local
    monkeypatch.setenv("VITLAB_CIFAR10_URL", address)
    path = fetch(tmp_path / "cache", f"{host.url}/nothing/{NAME}")
    assert (path / NAME).read_bytes() == CONTENT
    assert len(host.requests) == (scheme == "http")


def test_an_address_from_the_environment_must_hold_the_published_file(tmp_path, host, monkeypatch):
    monkeypatch.setenv("VITLAB_CIFAR10_URL", f"{host.url}/{NAME}")
    with pytest.raises(DataError, match=f"SHA-256 is {SHA256}, expected 0000"):
        fetch(tmp_path, f"{host.url}/elsewhere/{NAME}", sha256="0" * 64)


def test_an_address_that_is_no_archive_is_refused_before_it_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("VITLAB_CIFAR10_URL", "https://example.org/cifar.zip")
    with pytest.raises(DataError, match=r"VITLAB_CIFAR10_URL=.*\.zip is not the address"):
        fetch(tmp_path)


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written .*file.*XDG_CACHE_HOME"):
        fetch(tmp_path / "file" / "cache")


def test_a_second_process_is_kept_away_from_a_running_download(tmp_path, host):
    with Lock(tmp_path / "cifar10.lock"), pytest.raises(RunError, match=f"pid {os.getpid()}"):
        fetch(tmp_path, f"{host.url}/{NAME}")


def test_a_data_set_below_the_root_is_used_before_any_download(tmp_path, monkeypatch):
    monkeypatch.setattr("vitlab.data.find.fetch", lambda *_: pytest.fail("downloaded"))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"not quite")
    with pytest.raises(DataError, match="is truncated or altered"):
        _ = data.open_dataset(DataConfig(), root=tmp_path).examples
