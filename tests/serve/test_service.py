"""The service answers as the model does, says what is wrong in words, and outlives its clients."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import checks
import numpy as np
import pytest
from client import Served, draw, error, message, received
from PIL import Image
from proxy import proxied

from vitlab.classifier import open_classifier
from vitlab.cli import main
from vitlab.errors import ConfigError, VitlabError
from vitlab.explain import METHODS as EXPLAINED
from vitlab.serve.app import PAGES
from vitlab.serve.explaining import METHODS, faithful_methods
from vitlab.serve.guard import HEADERS, host_names, is_loopback, root_of
from vitlab.serve.limits import Limits
from vitlab.serve.server import bound, serve

PATIENCE = 10
"""Times are measured on a quiet machine; here they only have to be of the right kind."""

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


# Answers and maps


@pytest.fixture(scope="module")
def exact(run):
    return open_classifier(run, "torch")


@pytest.mark.parametrize(
    ("kind", "mode", "size"),
    [
        ("PNG", "RGBA", (31, 8)),
        ("PNG", "L", (8, 8)),
        ("JPEG", "RGB", (300, 200)),
        ("WEBP", "RGB", (9, 40)),
    ],
)
def test_a_picture_of_any_kind_and_size_is_answered_as_offline(served, exact, kind, mode, size):
    file = draw(size, kind, mode)
    found = served.answer(served.send(file, "/api/predict?top=10", f"image/{kind.lower()}"))
    (offline,) = exact.classify(file, 10)
    assert found["certainty"] == offline["certainty"]
    assert [one["class"] for one in found["top"]] == [one["class"] for one in offline["top"]]
    for one, other in zip(found["top"], offline["top"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_three_classes_are_named_unless_asked_for_more(served):
    for query, count in (("", 3), ("?top=1", 1), ("?top=10", 10)):
        assert len(served.answer(served.send(draw(), f"/api/predict{query}"))["top"]) == count


def test_every_method_makes_a_map_of_the_likeliest_class_or_the_one_asked_for(served):
    methods = served.settle()["methods"]
    assert [one["name"] for one in methods] == list(EXPLAINED) == list(METHODS)
    assert {one["faithful"] for one in methods} == {None}, "nobody has tested them"
    for name in EXPLAINED:
        found = served.answer(served.send(draw(), f"/api/explain?method={name}"))
        heat = np.array(found["map"])
        assert heat.ndim == 2 and heat.min() >= 0 and heat.max() <= 1 and np.ptp(heat) > 0
        assert found["class"] == found["top"][0]["class"] and found["method"] == name
    other = served.answer(served.send(draw(), "/api/explain?method=occlusion&class=7"))
    assert other["class"] == "7"
    assert (
        other["map"] != served.answer(served.send(draw(), "/api/explain?method=occlusion"))["map"]
    )


def test_maps_that_passed_their_own_test_come_first(digits_run):
    assert faithful_methods(digits_run, "a") == {}
    rows = [
        {"method": "occlusion", "verdict": "beats both; hardly depends on the weights"},
        {"method": "a random map"},
        {"method": "rollout", "verdict": "beats both"},
        {"method": "attention", "verdict": "worse than a random map"},
    ]
    file = digits_run.faithfulness_file("test")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"checkpoint_sha256": "a", "methods": rows}))
    assert faithful_methods(digits_run, "another checkpoint") == {}
    found = [("rollout", True), ("occlusion", False), ("attention", False)]
    assert list(faithful_methods(digits_run, "a").items()) == found


def test_a_picture_lies_as_its_exif_says(served):
    left = Image.new("RGB", (40, 40), "white")
    left.paste("black", (0, 0, 20, 40))
    turned, file, plain = Image.Exif(), io.BytesIO(), io.BytesIO()
    turned[0x0112] = 3
    left.rotate(180).save(file, "PNG", exif=turned)
    left.save(plain, "PNG")
    replies = [served.answer(served.send(data.getvalue())) for data in (file, plain)]
    assert replies[0] == replies[1]


def test_a_photo_of_fifty_megapixels_is_answered(served):
    file = io.BytesIO()
    Image.new("RGB", (8160, 6144), "grey").save(file, "JPEG")
    assert len(served.answer(served.send(file.getvalue(), kind="image/jpeg"))["top"]) == 3


# What is refused


@pytest.mark.parametrize(
    ("file", "path", "kind", "status", "words"),
    [
        (b"no picture", "/api/predict", "image/png", 422, "not a PNG, JPEG or WebP image"),
        (b"", "/api/predict", "image/png", 422, "the body is empty"),
        (draw()[:60], "/api/predict", "image/png", 422, "cannot read this picture"),
        (draw(), "/api/predict", "text/plain", 415, "image/png or image/jpeg or image/webp"),
        (checks.jpeg_of(12_000, 9_000), "/api/predict", "image/jpeg", 422, "larger --max-pixels"),
        (
            checks.flat_png(6_000, 5_000), "/api/predict", "image/png", 422,
            "25,000,000 of a PNG or WebP",
        ),
        (draw(), "/api/predict?top=0", "image/png", 422, "greater than or equal to 1"),
        (draw(), "/api/explain", "image/png", 422, "method"),
        (draw(), "/api/explain?method=magic", "image/png", 422, "attention"),
        (draw(), "/api/explain?method=rollout&class=cat", "image/png", 422, "no such class"),
        (draw(), "/api/nothing", "image/png", 404, "there is nothing here: see /docs"),
        (draw(), "/health/live", "image/png", 405, "takes another method"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_words(served, file, path, kind, status, words):
    reply = served.send(file, path, kind)
    assert reply.status == status
    assert words in error(reply)


def test_a_file_of_too_many_bytes_is_told_what_raises_the_limit(served):
    head = message("/api/predict", b"").replace(b"Length: 0", b"Length: 30000001")
    reply = served.raw(head)
    assert reply.status == 413 and "more than 30 MB" in error(reply)
    assert "larger --max-bytes" in error(reply)


def test_a_limit_that_is_raised_takes_along_what_it_needs():
    assert Limits.of(Limits.upload, Limits.pixels) == Limits()
    raised = Limits.of(90_000_000, 200_000_000)
    assert raised.uploads == 270_000_000
    assert raised.decoder_memory == 2 * Limits.decoder_memory
    assert raised.decode_seconds == 2 * Limits.decode_seconds
    assert Limits.of(1000, 1000).decoder_memory == Limits.decoder_memory
    with pytest.raises(ConfigError, match=r"2 problems.*\n--max-bytes 0: .*\n--max-pixels -1: "):
        Limits.of(0, -1)


def test_a_packed_body_is_refused(served):
    assert served.send(draw(), **{"Content-Encoding": "gzip"}).status == 415


# Who is let in, and what goes out


def routes(served) -> Iterator[tuple[str, str]]:
    """Every method and address that there is, and one that is not."""
    api = served.answer(served.get("/openapi.json"))
    for path, methods in api["paths"].items():
        yield from ((method.upper(), path) for method in methods)
    yield from (("GET", path) for path in (*PAGES, "/openapi.json", "/nothing"))


def test_every_route_has_the_headers_that_keep_others_out(served):
    for method, path in routes(served):
        headers = served.send(b"", path, "", method).headers
        assert {name: headers.get(name) for name in HEADERS} == HEADERS, path
        assert not any(name.startswith("access-control") for name in headers), path
        assert "server" not in headers, path


def test_every_route_refuses_a_host_that_is_not_its_own(served):
    for method, path in routes(served):
        reply = served.send(b"", path, "", method, Host="evil.example")
        assert reply.status == 400 and "--allow-host" in error(reply), path
    for host in ("localhost", "127.0.0.1:80", "[::1]:8000", "LOCALHOST"):
        assert served.send(b"", "/", "", "GET", Host=host).status == 200, host


def test_a_page_elsewhere_is_not_let_in_by_a_browser(served):
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    reply = served.send(b"", "/api/predict", "", "OPTIONS", **asked)
    assert reply.status == 405
    assert "access-control-allow-origin" not in reply.headers


def test_names_that_are_served_are_the_machines_own_and_those_allowed():
    own = {"localhost", "127.0.0.1", "[::1]"}
    assert set(host_names("127.0.0.1", ())) == set(host_names("::", ())) == own
    assert set(host_names("0.0.0.0", ("Box.local", "fe80::1"))) == own | {"box.local", "[fe80::1]"}
    assert "192.168.0.7" in host_names("192.168.0.7", ())
    assert [is_loopback(host) for host in ("127.0.0.2", "::1", "localhost", "0.0.0.0", "a.b")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_the_pages_are_their_files_and_ask_nobody_else(served):
    for path in PAGES:
        reply = served.get(path)
        assert reply.status == 200 and len(reply.body) > 100, path
        text = reply.body.decode()
        assert "https://" not in text and "style=" not in text and "onclick" not in text, path
        if "html" in reply.headers["content-type"]:
            assert "<script>" not in text and "<style" not in text, path
            assert "http://" not in text, path


IN_PROCESS = """
import asyncio, json, sys
from opentelemetry import metrics, trace

heard = []

class Provider(trace.TracerProvider, metrics.MeterProvider):
    def get_tracer(self, *words, **more):
        heard.append(words)
        return trace.NoOpTracer()
    def get_meter(self, *words, **more):
        heard.append(words)
        return metrics.NoOpMeter("none")

trace.set_tracer_provider(Provider())
metrics.set_meter_provider(Provider())

from vitlab.serve.app import build_app
from vitlab.serve.limits import Limits
from vitlab.serve.service import Service

class Broken(Service):
    def describe(self):
        raise OSError("/home/jane/secret")

async def receive():
    return {"type": "http.request"}

def ask(path):
    sent = []
    async def send(message):
        sent.append(message)
    scope = {
        "type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")],
        "query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "",
    }
    try:
        asyncio.run(build_app(Broken(None, Limits()), ["localhost"])(scope, receive, send))
    except OSError as error:
        sent.append(str(error))
    return sent

assert ask("/health/live")[0]["status"] == 200
start, body, raised = ask("/api/model")
assert start["status"] == 500 and raised == "/home/jane/secret"  # for whoever runs it
assert json.loads(body["body"]) == {"error": "something went wrong here"}
print(*heard)
"""


def test_nothing_is_told_to_telemetry_and_what_goes_wrong_inside_stays_inside():
    pytest.importorskip("opentelemetry", reason="this FastAPI has no telemetry")
    command = [sys.executable, "-c", IN_PROCESS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "fastapi" not in done.stdout, done


@pytest.mark.skipif("CI" in os.environ, reason="ONNX Runtime is silent there by itself")
def test_onnx_runtime_is_not_let_tell_anybody(served):
    assert served.send(draw()).status == 200
    # It would keep an identifier of this machine there, and what it has yet to send.
    assert not (Path(os.environ["XDG_CACHE_HOME"]) / "Microsoft").exists()


def test_decoding_loads_neither_torch_nor_the_server():
    code = "import sys, vitlab.serve.decoding; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "fastapi", "uvicorn", "scipy", "sklearn"} & set(done.stdout.split())


# Below a path, behind a proxy that takes the path away or does not


@pytest.fixture(scope="module")
def below(run, served) -> Iterator[Served]:
    """The digits under /vit; the other service has exported them."""
    service = Served(["-m", "vitlab", "serve", str(run), "--root-path", "vit/"])
    try:
        yield service.wait()
    finally:
        service.end()


def fetched(url: str, body: bytes | None = None) -> tuple[str, bytes]:
    """Where a page was found in the end, and what it is."""
    request = urllib.request.Request(url, body, {"Content-Type": "image/png"} if body else {})
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert reply.status == 200
        return reply.url, reply.read()


def named_by(url: str) -> set[str]:
    """Addresses that a page names, each of which is there."""
    where, page = fetched(url)
    found = {urljoin(where, name) for name in re.findall(r'(?:href|src)="([^"]+)"', page.decode())}
    assert len(found) >= 4
    for one in found:
        fetched(one)
    return found


@pytest.mark.parametrize("strips", [True, False])
def test_all_is_found_below_the_path(below, strips):
    with proxied(below.port, "/vit", strips=strips) as proxy:
        for start in ("/vit", "/vit/", "/vit/docs"):
            assert all(url.startswith(f"{proxy}/vit/") for url in named_by(proxy + start))
        for name in ("api/model", "health/live", "health/ready", *(path[1:] for path in PAGES)):
            fetched(f"{proxy}/vit/{name}")
        _, api = fetched(f"{proxy}/vit/openapi.json")
        (server,) = json.loads(api)["servers"]
        _, answer = fetched(urljoin(proxy, server["url"]) + "/api/predict", draw())
        assert len(json.loads(answer)["top"]) == 3
        with pytest.raises(urllib.error.HTTPError) as missing:
            fetched(f"{proxy}/vit/nothing")
        assert "see /vit/docs" in missing.value.read().decode()


def test_without_the_option_a_page_works_below_a_path_that_is_taken_away(served):
    with proxied(served.port, "/any/where", strips=True) as proxy:
        start = f"{proxy}/any/where/"
        for name in ("", "docs"):
            assert all(url.startswith(start) for url in named_by(start + name))
    assert served.get("/vit").status == 404


def test_headers_of_strangers_change_no_address(below):
    names = ("X-Forwarded-Prefix", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Script-Name")
    headers = dict.fromkeys(names, "evil")
    for path in ("/", "/vit", "/openapi.json"):
        assert below.send(b"", path, "", "GET", **headers).body == below.get(path).body
    assert below.send(b"", "/vit", "", "GET", Host="evil.example").status == 400


@pytest.mark.parametrize(
    ("given", "root"), [("", ""), ("/", ""), ("vit", "/vit"), ("/a/b-1.x/", "/a/b-1.x")]
)
def test_a_path_is_taken_however_it_is_written(given, root):
    assert root_of(given) == root


@pytest.mark.parametrize(
    "given", ["https://host/vit", "/a//b", "/..", "/a/./b", '/"><b>', "/a b", "/vit?x", "/api"]
)
def test_what_is_no_path_is_named(given, capsys):
    with pytest.raises(ConfigError, match="--root-path"):
        root_of(given)
    assert main(["serve", "cpu", "--port", "0", "--root-path", given]) == 2
    assert "such as /vit" in capsys.readouterr().err


# Faults: the catalogue has the same in full


@pytest.mark.parametrize(
    "check",
    [
        checks.uploads,
        lambda served: checks.crowd(served, waves=2, patience=PATIENCE),
        lambda served: checks.bombs(served, side_by_side=4, patience=PATIENCE),
        lambda served: checks.slow_clients(served, count=20, within=6, patience=PATIENCE),
        lambda served: checks.mutations(served, 300),
        pytest.param(lambda served: checks.mutations(served, 10_000), marks=pytest.mark.slow),
    ],
    ids=[
        "bodies that are too large or lie", "500 at once", "bombs",
        "clients that dribble, say nothing, do not read or vanish", "broken pictures",
        "thousands of broken pictures",
    ],
)  # fmt: skip
def test_it_outlives(served, check: Callable[[Served], str]):
    check(served)


def test_sixty_four_clients_get_the_answers_to_their_own_pictures(served, run):
    checks.together(served, run)


def test_no_path_and_no_address_is_ever_followed(served, tmp_path):
    checks.traversal(served, tmp_path)


def test_no_model_is_loaded_or_replaced_over_http(served, run):
    checks.other_models(served, run)


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_the_openapi(served, tmp_path):
    checks.schema(served, 100, tmp_path)


def children(process: int) -> list[Path]:
    """Folders of the processes that one has started, which exist as long as they do."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [Path("/proc", number) for number in found]


@LINUX
def test_workers_that_die_are_replaced(served):
    served.settle()
    started = children(served.process.pid)
    workers = [one for one in started if b"spawn_main" in (one / "cmdline").read_bytes()]
    assert len(workers) == 3
    for one in workers:
        os.kill(int(one.name), signal.SIGKILL)
    assert [served.send(draw()).status for _ in range(4)] == [200] * 4
    assert served.send(draw(), "/api/explain?method=attention").status == 200


# Listening


def test_a_port_that_is_taken_is_one_clear_error(served, capsys):
    assert main(["serve", "cpu", "--port", str(served.port)]) == 1
    out, complaint = capsys.readouterr()
    assert out == "" and len(complaint.splitlines()) == 1
    assert f"127.0.0.1 port {served.port} is taken" in complaint and "--port" in complaint


def test_a_small_response_does_not_wait_for_the_next_packet(served):
    with served.connect() as connection:
        times = []
        for _ in range(20):
            connection.sendall(message("/health/live"))
            times.append(received(connection).seconds)
    assert min(times) < 0.03  # what a delayed acknowledgement takes is 0.04


@pytest.mark.parametrize("address", [("127.0.0.1", 70_000), ("no.such.host.invalid", 0)])
def test_an_address_that_cannot_be_is_named(address):
    with pytest.raises(VitlabError, match="cannot listen on"):
        bound(*address)


def test_what_is_no_model_ends_the_service_with_its_name(tmp_path):
    lines = []
    with pytest.raises(VitlabError, match="nothing"):
        serve(tmp_path / "nothing", port=0, tell=lines.append)
    assert not any("http" in line for line in lines), "an address where nothing answers"


def test_the_address_is_told_once_it_answers(run):
    service = Served(["-m", "vitlab", "serve", str(run)])
    try:
        lines = iter(service.process.stdout.readline, "")
        assert service.address in (line.strip() for line in lines)
        assert service.send(draw()).status == 200
    finally:
        service.end()


# Stopping


LOADS_FOR_LONG = """
import signal, sys, time
import vitlab.classifier
from vitlab.cli import main
vitlab.classifier.open_classifier = lambda *_, **more: time.sleep(60)
if "nohup" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
main(["serve", "cpu", *sys.argv[-2:]])
"""


def until(happened: Callable[[], bool]) -> None:
    """Wait for something."""
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


@LINUX
def test_a_signal_while_it_imports_leaves_with_0():
    words = [sys.executable, "-m", "vitlab", "serve", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            until(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text())
            process.send_signal(signal.SIGHUP)
            _, complaints = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, complaints) == (0, b"")


def test_a_signal_while_a_thread_loads_leaves_with_0_though_not_a_hang_up_after_nohup():
    service = Served(["-c", LOADS_FOR_LONG, "nohup"])
    try:
        service.process.send_signal(signal.SIGHUP)
        assert error(service.get("/health/ready")) == "starting"
        code, seconds, complaints = service.stop()
        assert code == 0 and seconds <= 10 and complaints == "", (code, seconds, complaints)
    finally:
        service.end()


@LINUX
def test_a_signal_while_it_exports_leaves_with_0_and_nothing_behind(run, tmp_path):
    fresh = shutil.copytree(run, tmp_path / "fresh", ignore=shutil.ignore_patterns("export"))
    unfinished = fresh / "export" / ".onnx.tmp"
    service = Served(["-m", "vitlab", "serve", str(fresh)])
    try:
        until(unfinished.exists)
        started = children(service.process.pid)
        assert service.process.stdout
        service.process.stdout.close()  # as a terminal that closes does
        service.process.send_signal(signal.SIGINT)
        _, complaints = service.process.communicate(timeout=10)
        assert (service.process.returncode, complaints) == (0, "")
        until(lambda: not any(one.exists() for one in started))
        assert not unfinished.exists() and not (fresh / "export" / "onnx").exists()
    finally:
        service.end()


def test_a_signal_lets_five_requests_finish_while_nothing_new_is_taken(below):
    checks.death(below, patience=PATIENCE)  # the last test of this service
