"""The API answers as the model does, says what is wrong in words, and guards every route."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from asking import draw, error, received
from checks import awaited, flat_png, jpeg_of
from PIL import Image

from vitlab.classifier import open_classifier
from vitlab.cli import main
from vitlab.errors import ConfigError, VitlabError
from vitlab.explain import METHODS as EXPLAINED
from vitlab.serve.app import PAGES, build_app
from vitlab.serve.explaining import METHODS
from vitlab.serve.guard import HEADERS, host_names, is_loopback
from vitlab.serve.limits import Limits
from vitlab.serve.load import Client
from vitlab.serve.server import reserve, serve
from vitlab.serve.service import Service


def answer(reply):
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


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
    found = answer(served.send(file, "/api/predict?top=10", f"image/{kind.lower()}"))
    row = exact.probabilities(file)[0]
    offline = exact.answer(row, 10)
    assert found["certainty"] == offline["certainty"]
    assert [one["class"] for one in found["top"]] == [one["class"] for one in offline["top"]]
    for one, other in zip(found["top"], offline["top"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_three_classes_are_named_unless_asked_for_more(served):
    assert len(answer(served.send(draw()))["top"]) == 3
    assert len(answer(served.send(draw(), "/api/predict?top=1"))["top"]) == 1


def test_every_method_makes_a_map_of_the_likeliest_class_or_the_one_asked_for(served):
    model = answer(served.get("/api/model"))
    while not model["methods"]:
        model = answer(served.get("/api/model"))
    assert [one["name"] for one in model["methods"]] == list(EXPLAINED)
    for one in model["methods"]:
        found = answer(served.send(draw(), f"/api/explain?method={one['name']}"))
        heat = np.array(found["map"])
        assert heat.ndim == 2 and heat.min() >= 0 and heat.max() <= 1 and np.ptp(heat) > 0
        assert found["class"] == found["top"][0]["class"] and found["method"] == one["name"]
    other = answer(served.send(draw(), "/api/explain?method=occlusion&class=7"))
    assert other["class"] == "7"
    assert other["map"] != answer(served.send(draw(), "/api/explain?method=occlusion"))["map"]


def test_words_are_told_for_every_method_there_is():
    assert list(METHODS) == list(EXPLAINED)


def test_a_picture_lies_as_its_exif_says(served):
    left = Image.new("RGB", (40, 40), "white")
    left.paste("black", (0, 0, 20, 40))
    turned, file = Image.Exif(), io.BytesIO()
    turned[0x0112] = 3
    left.rotate(180).save(file, "PNG", exif=turned)
    plain = io.BytesIO()
    left.save(plain, "PNG")
    replies = [answer(served.send(data.getvalue())) for data in (file, plain)]
    assert replies[0] == replies[1]


@pytest.mark.parametrize(
    ("file", "path", "kind", "status", "words"),
    [
        (b"no picture", "/api/predict", "image/png", 422, "not a PNG, JPEG or WebP image"),
        (b"", "/api/predict", "image/png", 422, "the body is empty"),
        (draw()[:60], "/api/predict", "image/png", 422, "cannot read this picture"),
        (draw(), "/api/predict", "text/plain", 415, "image/png or image/jpeg or image/webp"),
        (jpeg_of(12_000, 9_000), "/api/predict", "image/jpeg", 422, "larger --max-pixels"),
        (flat_png(6_000, 5_000), "/api/predict", "image/png", 422, "25,000,000 of a PNG or WebP"),
        (draw(), "/api/predict?top=0", "image/png", 422, "greater than or equal to 1"),
        (draw(), "/api/explain", "image/png", 422, "method"),
        (draw(), "/api/explain?method=magic", "image/png", 422, "attention"),
        (draw(), "/api/explain?method=rollout&class=cat", "image/png", 422, "no such class"),
    ],
)
def test_what_is_wrong_is_said_in_words(served, file, path, kind, status, words):
    reply = served.send(file, path, kind)
    assert reply.status == status
    assert words in error(reply)


def test_a_file_of_too_many_bytes_is_told_what_raises_the_limit(served):
    head = "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    reply = served.raw(f"{head}Content-Length: 30000001\r\n\r\n".encode())
    assert reply.status == 413 and "more than 30 MB" in error(reply)
    assert "larger --max-bytes" in error(reply)


def test_a_photo_of_fifty_megapixels_is_answered(served):
    file = io.BytesIO()
    Image.new("RGB", (8160, 6144), "grey").save(file, "JPEG")
    assert len(answer(served.send(file.getvalue(), kind="image/jpeg"))["top"]) == 3


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
    headers = {"Content-Encoding": "gzip"}
    assert served.send(draw(), **headers).status == 415


def test_what_goes_wrong_inside_stays_inside(caplog):
    class Broken(Service):
        def describe(self):
            raise OSError("/home/jane/secret")

    sent = []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": "/api/model", "headers": [(b"host", b"a.b")],
        "query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "",
    }  # fmt: skip
    awaited(build_app(Broken(None, Limits()), frozenset({"a.b"}))(scope, receive, send))
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"]) == {"error": "something went wrong here"}
    assert "secret" in caplog.text  # for whoever runs it


def routes(served):
    """Every address and method that there is, and one that is not."""
    api = answer(served.get("/openapi.json"))
    for path, methods in api["paths"].items():
        for method in methods:
            yield method.upper(), path
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
    assert host_names("127.0.0.1", ()) == {"localhost", "127.0.0.1", "::1"}
    assert host_names("0.0.0.0", ("Box.local",)) == {"localhost", "127.0.0.1", "::1", "box.local"}
    assert host_names("192.168.0.7", ()) >= {"192.168.0.7"}
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


def test_a_decoder_that_dies_is_replaced(served):
    def decoders():
        process = served.process.pid
        for number in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            if "vitlab.serve.decoding" in Path(f"/proc/{number}/cmdline").read_text():
                yield int(number)

    for number in decoders():
        subprocess.run(["kill", "-9", str(number)], check=True)
    statuses = [served.send(draw()).status for _ in range(4)]
    assert statuses[-2:] == [200, 200], statuses
    assert len(list(decoders())) == 2


def test_a_port_that_is_taken_is_one_clear_error(served, capsys):
    assert main(["serve", "cpu", "--port", str(served.port)]) == 1
    out, complaint = capsys.readouterr()
    assert out == "" and len(complaint.splitlines()) == 1
    assert f"127.0.0.1 port {served.port} is taken" in complaint and "--port" in complaint


def test_a_small_response_does_not_wait_for_the_next_packet(served):
    message = Client(served.address).message("/health/live")
    times = []
    with served.connect() as connection:
        for _ in range(20):
            begun = time.perf_counter()
            connection.sendall(message)
            received(connection)
            times.append(time.perf_counter() - begun)
    assert min(times) < 0.03  # what a delayed acknowledgement takes is 0.04


@pytest.mark.parametrize("address", [("127.0.0.1", 70_000), ("no.such.host.invalid", 0)])
def test_an_address_that_cannot_be_is_named(address):
    with pytest.raises(VitlabError, match="cannot listen on"):
        reserve(*address)


def test_what_is_no_model_ends_the_service_with_its_name(tmp_path):
    told = []
    with pytest.raises(VitlabError, match="nothing"):
        serve(tmp_path / "nothing", port=0, tell=told.append)
    assert told[0].startswith("http://127.0.0.1:")


TOLD = """
import asyncio
from opentelemetry import metrics, trace

told = []

class Provider(trace.TracerProvider, metrics.MeterProvider):
    def get_tracer(self, *words, **more):
        told.append(words)
        return trace.NoOpTracer()
    def get_meter(self, *words, **more):
        told.append(words)
        return metrics.NoOpMeter("none")

trace.set_tracer_provider(Provider())
metrics.set_meter_provider(Provider())

from vitlab.serve.app import build_app
from vitlab.serve.limits import Limits
from vitlab.serve.service import Service

app = build_app(Service(None, Limits()), frozenset({"localhost"}))
sent = []

async def receive():
    return {"type": "http.request"}

async def send(message):
    sent.append(message)

scope = {
    "type": "http", "method": "GET", "path": "/health/live", "headers": [(b"host", b"localhost")],
    "query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "",
}
asyncio.run(app(scope, receive, send))
assert sent[0]["status"] == 200, sent
print(*told)
"""


@pytest.mark.skipif("CI" in os.environ, reason="ONNX Runtime is silent there by itself")
def test_onnx_runtime_is_not_let_tell_anybody(served):
    assert served.send(draw()).status == 200
    # It would keep an identifier of this machine there, and what it has yet to send.
    assert not (Path(os.environ["XDG_CACHE_HOME"]) / "Microsoft").exists()


def test_requests_are_told_to_no_telemetry():
    pytest.importorskip("opentelemetry", reason="this FastAPI has no telemetry")
    done = subprocess.run([sys.executable, "-c", TOLD], capture_output=True, text=True, check=True)
    assert "fastapi" not in done.stdout


def test_decoding_loads_neither_torch_nor_the_server():
    code = "import sys, vitlab.serve.decoding; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "fastapi", "uvicorn", "scipy", "sklearn"} & set(done.stdout.split())
