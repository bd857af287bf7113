"""A person's way through the page, in a real browser."""

import base64
import json
from pathlib import Path

import pytest
from client import draw
from PIL import Image, ImageDraw
from proxy import proxied

DROP = """([data, type]) => {
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt());
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "a <b>picture</b>.png", { type }));
  const Kind = TYPE;
  const options = { bubbles: true, cancelable: true, DATA: transfer };
  document.body.dispatchEvent(new Kind("NAME", options));
}"""

LARGE = """() => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(30000001)], "large.png", { type: "image/png" }));
  document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer: transfer }));
}"""


class Visit:
    """A page that is looked at, and what it asked for and complained of meanwhile."""

    def __init__(self, browser, address: str, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.base = address
        self.complaints, self.asked = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(self.base)
        self.page.wait_for_selector("#file:enabled", state="attached")

    def choose(self, path: Path):
        self.page.set_input_files("#file", path)

    def give(self, file: bytes, event="drop", kind="image/png"):
        """Drop a file onto the page or paste it."""
        kinds = {
            "drop": ("DragEvent", "dataTransfer"),
            "paste": ("ClipboardEvent", "clipboardData"),
        }
        script = DROP.replace("TYPE", kinds[event][0]).replace("DATA", kinds[event][1])
        data = base64.b64encode(file).decode()
        self.page.evaluate(script.replace("NAME", event), [data, kind])

    def colours(self) -> str:
        """The map that is shown, as text."""
        return self.page.evaluate("document.getElementById('overlay').toDataURL()")

    def answered(self):
        self.page.wait_for_selector(".bar >> nth=2")
        assert self.page.locator(".bar").count() == 3

    def mapped(self):
        self.page.wait_for_selector(".method", timeout=60_000)
        self.page.wait_for_selector("#overlay:not([hidden])")
        self.page.wait_for_function(
            "() => !document.getElementById('shows').textContent.includes('…')"
        )

    def overflows(self) -> bool:
        return self.page.evaluate("document.documentElement.scrollWidth > innerWidth")

    def leave(self):
        """Close it; it asked nobody else and complained of nothing."""
        away = [url for url in self.asked if not url.startswith((self.base, "blob:"))]
        self.context.close()
        assert away == [] and self.complaints == []


@pytest.fixture
def boat(tmp_path) -> Path:
    """A drawing of a boat."""
    image = Image.new("RGB", (320, 240), (120, 170, 230))
    pen = ImageDraw.Draw(image)
    pen.rectangle([0, 185, 320, 240], fill=(30, 80, 150))
    pen.polygon([(60, 150), (260, 150), (230, 190), (90, 190)], fill=(90, 60, 40))
    pen.polygon([(162, 65), (162, 140), (225, 140)], fill=(250, 250, 245))
    path = tmp_path / "boat.png"
    image.save(path)
    return path


def test_a_picture_is_dropped_answered_and_explained(browser, served, boat):
    visit = Visit(browser, served.address, viewport={"width": 1440, "height": 900})
    page = visit.page
    visit.give(boat.read_bytes())
    visit.answered()
    shares = [float(text.rstrip(" %")) for text in page.locator(".share").all_inner_texts()]
    assert shares == sorted(shares, reverse=True) and sum(shares) <= 100.2
    assert page.locator("#verdict").inner_text().split(":")[0] in ("Sure", "Fairly sure", "Unsure")
    visit.mapped()
    assert "Here for" in page.locator("#shows").inner_text()
    assert "Not tested yet" in page.locator("#shows").inner_text()
    first = visit.colours()
    page.get_by_label("occlusion").check()
    page.wait_for_function(
        "first => document.getElementById('overlay').toDataURL() !== first", arg=first
    )
    visit.mapped()
    assert "covered" in page.locator("#shows").inner_text()
    page.get_by_label("Map over picture").fill("20")
    assert page.locator("#strength-number").inner_text() == "20 %"
    assert page.locator("#overlay").evaluate("canvas => canvas.style.opacity") == "0.2"
    assert not visit.overflows()
    visit.leave()


def test_it_opens_with_a_map_that_passed_its_test_and_marks_all(browser, served):
    model = served.settle()
    ranked = zip(("rollout", "occlusion"), (True, False), strict=True)
    model["methods"] = [{"name": name, "shows": "?", "faithful": it} for name, it in ranked]
    visit = Visit(browser, served.address)
    visit.page.route("**/api/model", lambda route: route.fulfill(body=json.dumps(model)))
    visit.page.reload()
    visit.page.wait_for_selector("#file:enabled", state="attached")
    visit.give(draw())
    visit.mapped()
    assert visit.page.locator(".method").all_inner_texts() == ["rollout ✓", "occlusion"]
    assert "✓ Tested" in visit.page.locator("#shows").inner_text()
    visit.page.get_by_label("occlusion").check()
    visit.mapped()
    assert "not passed" in visit.page.locator("#shows").inner_text()
    visit.leave()


def test_it_works_below_a_path_of_a_proxy(browser, served):
    with proxied(served.port, "/vit", strips=True) as proxy:
        visit = Visit(browser, f"{proxy}/vit/")
        visit.give(draw())
        visit.answered()
        visit.mapped()
        visit.page.get_by_role("link", name="Ask from a program").click()
        visit.page.wait_for_selector(".api >> nth=4")
        assert f"{proxy}/vit/api/predict" in visit.page.inner_text("#operations")
        visit.page.get_by_role("link", name="Back to the page").click()
        visit.page.wait_for_selector("#file:enabled", state="attached")
        visit.leave()


def test_a_bad_file_is_a_friendly_sentence_and_the_next_picture_works(browser, served, tmp_path):
    visit = Visit(browser, served.address)
    page = visit.page
    alert = page.get_by_role("alert")
    visit.give(b"this is no picture")
    page.wait_for_function("() => document.getElementById('problem').textContent")
    assert "not a PNG, JPEG or WebP" in alert.inner_text()
    # A browser tells its console of every response that is an error; that one is meant.
    assert all("422" in line for line in visit.complaints)
    visit.complaints.clear()
    visit.give(b"GIF89a", kind="image/gif")
    assert alert.inner_text() == "This is not a PNG, JPEG or WebP picture."
    visit.page.evaluate(LARGE)
    assert "30 MB are the most" in alert.inner_text()
    visit.give(draw(), "paste")
    visit.answered()
    assert not alert.is_visible()
    assert page.locator("b").count() == 0, "a file's name became markup"
    visit.leave()


def test_a_proxy_that_answers_in_html_is_told_of_in_words(browser, served):
    visit = Visit(browser, served.address)
    visit.page.route(
        "**/api/predict*", lambda route: route.fulfill(status=413, body="<html>Too Large</html>")
    )
    visit.give(draw())
    visit.page.wait_for_function("() => document.getElementById('problem').textContent")
    assert "too large for the proxy" in visit.page.get_by_role("alert").inner_text()
    visit.complaints.clear()  # the browser's own, of the response
    visit.leave()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_on_a_phone(browser, served, boat, scheme):
    visit = Visit(
        browser, served.address, viewport={"width": 360, "height": 740}, color_scheme=scheme
    )
    assert not visit.overflows()
    visit.choose(boat)
    visit.answered()
    visit.mapped()
    assert not visit.overflows()
    visit.page.goto(f"{visit.base}/docs")
    visit.page.wait_for_selector(".api >> nth=4")
    assert not visit.overflows()
    visit.leave()


def test_everything_is_reached_with_the_keyboard_and_has_a_name(browser, served, boat):
    visit = Visit(browser, served.address)
    page = visit.page
    visit.choose(boat)
    visit.mapped()
    reached = []
    page.locator("body").press("Home")
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.type"))
        outlined = page.evaluate(
            "[document.activeElement, document.activeElement.nextElementSibling,"
            " document.activeElement.closest('label')].some(one => one && "
            "getComputedStyle(one).outlineStyle !== 'none')"
        )
        assert outlined, reached
        if reached[-1] == "strength":
            break
    assert {"another", "radio", "strength"} <= set(reached)
    chosen = page.evaluate("document.querySelector('.method input:checked').value")
    page.locator(".method input:checked").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.querySelector('.method input:checked').value") != chosen
    for role, name in (("slider", "Map over picture"), ("list", "Likeliest classes")):
        assert page.get_by_role(role, name=name).count() == 1
    assert page.get_by_role("status").count() >= 2
    assert page.locator("img:not([alt])").count() == 0
    visit.leave()
