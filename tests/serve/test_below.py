"""The service below a path, behind a proxy that takes the path away or does not."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import urljoin

import pytest
from asking import Served, draw, proxied
from test_page import Visit, browser  # noqa: F401 - a fixture

from vitlab.cli import main
from vitlab.errors import ConfigError
from vitlab.serve.app import PAGES
from vitlab.serve.guard import root_of

API = ("api/model", "health/live", "health/ready", "openapi.json")


@pytest.fixture(scope="module")
def below(run, served) -> Iterator[Served]:
    """The digits under /vit; the other service has exported them."""
    service = Served(["-m", "vitlab", "serve", str(run), "--port", "0", "--root-path", "vit/"])
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


def follow(url: str) -> set[str]:
    """Addresses that a page names, each of which is there."""
    where, page = fetched(url)
    found = {urljoin(where, name) for name in re.findall(r'(?:href|src)="([^"]+)"', page.decode())}
    assert len(found) >= 4
    for one in found:
        fetched(one)
    return found


@pytest.mark.parametrize("strips", [True, False])
@pytest.mark.parametrize("start", ["/vit", "/vit/", "/vit/docs"])
def test_all_that_a_page_names_is_below_the_path(below, strips, start):
    with proxied(below.port, "/vit", strips=strips) as proxy:
        assert all(url.startswith(f"{proxy}/vit/") for url in follow(proxy + start))


@pytest.mark.parametrize("strips", [True, False])
def test_programs_find_the_api_below_the_path(below, strips):
    with proxied(below.port, "/vit", strips=strips) as proxy:
        for name in (*API, *(path[1:] for path in PAGES)):
            fetched(f"{proxy}/vit/{name}")
        _, api = fetched(f"{proxy}/vit/openapi.json")
        (server,) = json.loads(api)["servers"]
        predict = urljoin(proxy, server["url"]) + "/api/predict"
        _, answer = fetched(predict, draw())
        assert len(json.loads(answer)["top"]) == 3
        with pytest.raises(urllib.error.HTTPError) as missing:
            fetched(f"{proxy}/vit/nothing")
        assert "see /vit/docs" in missing.value.read().decode()


def test_without_the_option_a_page_works_below_a_path_that_is_taken_away(served):
    with proxied(served.port, "/any/where", strips=True) as proxy:
        for name in ("", "docs"):
            start = f"{proxy}/any/where/"
            assert all(url.startswith(start) for url in follow(start + name))


def test_the_path_is_added_by_a_redirect_that_names_no_host(below, served):
    reply = below.get("/vit?a=b")
    assert (reply.status, reply.headers["location"]) == (308, "/vit/?a=b")
    assert reply.headers["x-frame-options"] == "DENY"
    assert below.send(b"", "/vit", "", "GET", Host="evil.example").status == 400
    assert served.get("/vit").status == 404


def test_headers_of_strangers_change_no_address(below):
    plain = below.get("/").body, below.get("/openapi.json").body
    names = ("X-Forwarded-Prefix", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Script-Name")
    headers = dict.fromkeys(names, "evil")
    for path, body in zip(("/", "/openapi.json"), plain, strict=True):
        assert below.send(b"", path, "", "GET", **headers).body == body
    assert below.send(b"", "/vit", "", "GET", **headers).headers["location"] == "/vit/"


@pytest.mark.parametrize("strips", [True, False])
def test_a_picture_is_answered_and_explained_below_the_path(below, browser, strips):  # noqa: F811
    with proxied(below.port, "/vit", strips=strips) as proxy:
        visit = Visit(browser, SimpleNamespace(address=f"{proxy}/vit"))
        visit.give(draw())
        visit.page.wait_for_selector(".bar >> nth=2")
        visit.page.wait_for_selector(".method", timeout=60_000)
        visit.mapped()
        visit.page.get_by_role("link", name="Ask from a program").click()
        visit.page.wait_for_selector(".api >> nth=4")
        assert f"{proxy}/vit/api/predict" in visit.page.inner_text("#operations")
        visit.page.get_by_role("link", name="Back to the page").click()
        visit.page.wait_for_selector("#file:enabled", state="attached")
        visit.leave()


@pytest.mark.parametrize(
    ("given", "root"), [("", ""), ("/", ""), ("vit", "/vit"), ("/a/b-1.x/", "/a/b-1.x")]
)
def test_a_path_is_taken_however_it_is_written(given, root):
    assert root_of(given) == root


@pytest.mark.parametrize(
    "given", ["https://host/vit", "/a//b", "/..", "/a/./b", '/"><b>', "/a b", "/vit?x"]
)
def test_what_is_no_path_is_named(given, capsys):
    with pytest.raises(ConfigError, match="--root-path"):
        root_of(given)
    assert main(["serve", "cpu", "--port", "0", "--root-path", given]) == 2
    assert "such as /vit" in capsys.readouterr().err
