"""How numbers and names are written, in a terminal, in Markdown and in CSV.

A name may come from anywhere: a class is called after a folder, a run after a whim. Here it becomes
text that does nothing where it is shown: no markup, no formula, no escape sequence.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

JOINER = "\u200d"
"""Joins several emoji to one; the only character without a shape that a name may keep."""

FORMULA = ("=", "+", "-", "@", "|", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the start of a formula; the last four are full-width."""


def plain(name: str) -> str:
    """A name on one line; what a terminal would obey and what turns text around becomes U+FFFD."""
    line = " ".join(name.split())
    return "".join(sign if sign.isprintable() or sign == JOINER else "\ufffd" for sign in line)


def csv_cell(value: Any) -> Any:
    """A value as a cell of a CSV file; text that a spreadsheet would run starts with a quote."""
    if not isinstance(value, str):
        return value
    words = "".join(
        sign if sign.isprintable() or sign in (JOINER, "\n") else "\ufffd" for sign in value
    )
    if not words.lstrip().startswith(FORMULA):
        return words
    try:
        float(words)
    except ValueError:
        return f"'{words}"
    return words


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as the text of a CSV file that no spreadsheet runs."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(csv_cell, row) for row in rows)
    return text.getvalue()


def markdown_name(name: str) -> str:
    """A name as Markdown that shows it letter by letter."""
    return re.sub(r"([\\`*_\[\]<>&|#~!$])", r"\\\1", plain(name))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; whatever is in a cell stays in it."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, cells)) + " |" for cells in lines)


def cell(words: str) -> str:
    """Words on one line, without the sign that ends a cell."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(words.split()))


def bullets(sentences: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {' '.join(sentence.split())}" for sentence in sentences)


def count(number: int, thing: str) -> str:
    """A number of things: 1 seed, 3 seeds."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def percent(fraction: float | None) -> str:
    """A fraction as a percentage of two decimals."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def points(fraction: float | None) -> str:
    """A fraction as a number of percentage points."""
    return "-" if fraction is None else f"{100 * fraction:.2f}"


def signed(fraction: float | None) -> str:
    """A difference in percentage points, with its sign."""
    return "-" if fraction is None else f"{100 * fraction:+.2f}"


def between(interval: Sequence[float] | None, form: Callable[[float], str] = percent) -> str:
    """An interval in words."""
    return "-" if interval is None else f"{form(interval[0])} to {form(interval[1])}"


def p_value(p: float | None) -> str:
    """A p-value of four decimals."""
    return "-" if p is None else "<0.0001" if p < 1e-4 else f"{p:.4f}"


def scaled(value: float | None, unit: float, name: str, digits: int) -> str:
    """A quantity in a unit."""
    return "-" if value is None else f"{value / unit:,.{digits}f}{name}"


def minutes(seconds: float) -> str:
    """Seconds as minutes, or as seconds below two minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def duration(seconds: float) -> str:
    """Seconds in words: 41 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"
