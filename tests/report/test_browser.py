"""Pages and decks in a real browser: they ask for nothing, fit, show all, and print one by one."""

import re
from pathlib import Path
from typing import Any

import pytest

from vitlab.report import report

SUBJECTS = ("cpu-plain", "cpu-cnn", "study", "both")

TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

UNSEEN = """[...document.images].filter(i => !i.complete || !i.naturalWidth || !i.alt).length
    + [...document.querySelectorAll('svg[role=img]')].filter(
        s => !s.getAttribute('aria-label') || !s.getBoundingClientRect().height).length"""

UNTRACED = """[...document.querySelectorAll('main .n[title], header .n[title]')].filter(
    n => !n.closest('li, p, h1, h2, figure, table').querySelector('.mark')
).map(n => n.textContent)"""

DANGLING = """[...document.querySelectorAll('.mark a')].filter(
    a => !document.querySelector(a.getAttribute('href'))).length"""

CUT_OFF = """[...document.querySelectorAll('.slide')].filter(slide => {
    const foot = slide.querySelector('.foot').getBoundingClientRect().top;
    if (slide.id === 'cover' && slide.getBoundingClientRect().height > innerHeight + 1) return true;
    const box = slide.getBoundingClientRect();
    return slide.scrollWidth > slide.clientWidth + 1 || [...slide.querySelectorAll(
        'h1, h2, .tiles, .evidence li, .evidence dd, figcaption, svg[role=img], img, tr, .missing')]
        .some(part => { const own = part.getBoundingClientRect();
            return own.bottom > foot + 1 || own.top < box.top; });
}).map(slide => slide.id)"""


@pytest.fixture
def subjects(runs, study) -> dict[str, list[Any]]:
    return {
        "cpu-plain": [runs["cpu-plain"]],
        "cpu-cnn": [runs["cpu-cnn"]],
        "study": [study],
        "both": [runs["cpu-plain"], runs["cpu-cnn"]],
    }


def opened(browser, file: Path, complaints: list[str], **look) -> Any:
    """A page that notes whatever it should not do."""
    page = browser.new_page(**look)
    page.on("console", lambda message: complaints.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (complaints.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: noted(request, file, complaints))
    page.goto(file.as_uri())
    return page


def noted(request, file: Path, complaints: list[str]) -> None:
    if request.url != file.as_uri() and not request.url.startswith("data:"):
        complaints.append(f"request: {request.url}")


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_page_asks_for_nothing_fits_and_traces_every_number(name, subjects, browser, tmp_path):
    file = report(subjects[name], out=tmp_path / "out")
    complaints: list[str] = []
    for width, scheme in ((360, "light"), (1440, "dark")):
        look = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
        page = opened(browser, file, complaints, **look)
        assert page.evaluate(TOO_WIDE) <= 0
        assert page.evaluate(UNSEEN) == 0
        assert page.locator("svg[role=img]").count() >= 3
        assert page.evaluate(UNTRACED) == []
        assert page.evaluate(DANGLING) == 0
        page.close()
    assert complaints == []


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_deck_fits_and_prints_one_slide_a_page(name, subjects, browser, tmp_path):
    file = report(subjects[name], slides=True, out=tmp_path / "out")
    complaints: list[str] = []
    size = {"width": 1440, "height": 810}
    page = opened(browser, file, complaints, viewport=size)
    slides = page.locator(".slide").count()
    assert 10 <= slides <= 17
    assert page.evaluate(UNSEEN) == 0
    assert page.evaluate(CUT_OFF) == []
    printed = page.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == slides
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate(TOO_WIDE) <= 0
    page.close()
    assert complaints == []


def test_keys_walk_through_a_deck(subjects, browser, tmp_path):
    file = report(subjects["study"], slides=True, out=tmp_path)
    size = {"width": 1280, "height": 720}
    page = opened(browser, file, [], viewport=size, reduced_motion="reduce")
    ids = page.evaluate("[...document.querySelectorAll('.slide')].map(s => s.id)")
    for key, place in (("ArrowRight", 1), (" ", 2), ("ArrowLeft", 1), ("End", -1), ("Home", 0)):
        page.keyboard.press("Space" if key == " " else key)
        assert page.evaluate("location.hash") == f"#{ids[place]}"
        top = page.evaluate(f"document.getElementById('{ids[place]}').getBoundingClientRect().top")
        assert abs(top) < 2
    page.close()


def test_a_deck_without_scripts_is_a_scroll(subjects, browser, tmp_path):
    file = report(subjects["study"], slides=True, out=tmp_path)
    page = browser.new_page(java_script_enabled=False, viewport={"width": 1280, "height": 720})
    page.goto(file.as_uri())
    last = page.locator(".slide").last
    last.scroll_into_view_if_needed()
    assert last.bounding_box()["y"] < 720
    page.close()


@pytest.mark.parametrize("slides", [False, True])
def test_names_that_carry_markup_do_nothing(slides, hostile, browser, tmp_path):
    file = report([hostile], slides=slides, out=tmp_path / "out")
    complaints: list[str] = []
    page = opened(browser, file, complaints, viewport={"width": 360, "height": 740})
    assert page.evaluate("typeof window.harmed") == "undefined"
    assert (
        page.evaluate("document.querySelectorAll('img:not([src^=\"data:\"]), [onerror]').length")
        == 0
    )
    assert page.locator("script").count() == (1 if slides else 0)
    assert page.evaluate(TOO_WIDE) <= 0
    text = page.evaluate("document.body.textContent")
    assert "{{7*7}}" in text and "<img src=x onerror=harmed=1>" in text and "=HYPERLINK" in text
    page.close()
    assert complaints == []
