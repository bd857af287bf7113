"""A report becomes HTML: one page, or a deck of slides. Nothing in it asks for another file.

Whatever a report shows goes through `plain` and Jinja's escaping, and what the page may do is said
in its content security policy: no address but its own, no script but the deck's, known by its hash.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from vitlab import __version__
from vitlab.figures.style import COLOURS
from vitlab.formatting import JOINER, plain
from vitlab.report.document import Notes, Number, Panel, Report, Sentence, gathered

SLIDES, MORE = 16, 8
"""Most slides beside the cover, of one subject and for each further one: a minute each."""


def finalize(value: Any) -> Any:
    """Text without what a page might obey; drawings are made of such text already."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def exact(words: str) -> Markup:
    """Words between numbers, with the spaces at their ends."""
    safe = (
        sign if sign.isprintable() or sign == JOINER else " " if sign.isspace() else "\ufffd"
        for sign in words
    )
    return together(escape("".join(safe)))


@functools.cache
def environment() -> Environment:
    """The templates, which escape everything."""
    made = Environment(
        loader=PackageLoader("vitlab.report"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"version": __version__, "gathered": gathered, "exact": exact, "glued": glued}
    made.tests |= {
        "number": lambda piece: isinstance(piece, Number),
        "sentence": lambda cell: isinstance(cell, Sentence),
        "text": lambda piece: isinstance(piece, str),
    }
    return made


def together(words: Markup) -> Markup:
    """Escaped words in which a percent sign stays on the line of its number."""
    return Markup(re.sub(r"(?<=\d) %", "&nbsp;%", words))


def glued(words: str) -> Markup:
    """Numbers or a caption as one line of text."""
    return together(escape(plain(words)))


def source(name: str) -> Markup:
    """A style sheet or script of the package, as it stands."""
    loader = environment().loader
    assert loader
    return Markup(loader.get_source(environment(), name)[0])


def sha(words: str) -> str:
    """The hash by which a policy knows an inline style or script."""
    return base64.b64encode(hashlib.sha256(words.encode()).digest()).decode()


def page(report: Report) -> str:
    """A report as one page."""
    return _render("page.html", report, panels=report.panels, script="")


def deck(report: Report) -> str:
    """A report as slides: those of least weight are left out where there are too many."""
    ranked = sorted((panel for panel in report.panels if panel.weight), key=lambda p: -p.weight)
    kept = ranked[: SLIDES + MORE * (report.subjects - 1)]
    panels = [panel for panel in report.panels if panel in kept]
    return _render("deck.html", report, panels=panels, script=source("deck.js"))


def _render(template: str, report: Report, *, panels: Sequence[Panel], script: str) -> str:
    style = Markup(COLOURS) + source("style.css") + source("deck.css" if script else "page.css")
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{sha(style)}'"
    policy += f"; script-src 'sha256-{sha(script)}'" if script else ""
    return (
        environment()
        .get_template(template)
        .render(
            report=report,
            panels=panels,
            notes=Notes(),
            style=style,
            script=script,
            policy=policy,
        )
    )
