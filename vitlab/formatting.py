"""How numbers and names are written, in a terminal, in Markdown and in CSV.

A name may come from anywhere: a class is called after a folder, a run after a whim. Here it becomes
text that does nothing where it is shown: no markup, no formula, no escape sequence.
"""

import csv
import io
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

JOINER = "\u200d"
"""Joins several emoji to one; the only character without a shape that a name may keep."""

FORMULA = ("=", "+", "-", "@", "|", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the start of a formula; the last four are full-width."""


def plain(name: str) -> str:
    """A name on one line; what a terminal would obey and what turns text around becomes U+FFFD."""
    line = " ".join(name.split())
    return "".join(sign if sign.isprintable() or sign == JOINER else "\ufffd" for sign in line)


def address(path: Path) -> str:
    """A path as an argument of a command, without the folders of an absolute one."""
    known = path if not path.is_absolute() else Path("…") / path.name
    return shlex.quote(str(known)) if "…" not in str(known) else str(known)


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
    """A name as Markdown that shows it letter by letter; `_` within a word is only a letter."""
    return re.sub(r"([\\`*\[\]<>&|#~!$]|(?<!\w)_|_(?!\w))", r"\\\1", plain(name))


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


def count(number: float, thing: str, things: str = "") -> str:
    """A number of things: 1 seed, 3 seeds; `things` is a plural that does not end in s alone."""
    written = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{written} {thing if number == 1 else things or f'{thing}s'}"


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


def estimate(value: float | None, interval: Sequence[float] | None, over: str = "") -> str:
    """A measured share with its interval: 51.41 % (95 % interval over seeds 51.02 % to 51.81 %)."""
    where = f" over {over}" if over else ""
    return percent(value) + (f" (95 % interval{where} {between(interval)})" if interval else "")


def difference(
    value: float | None,
    interval: Sequence[float] | None,
    p: float | None,
    over: str = "seeds",
    *more: str,
) -> str:
    """A difference, and what it is worth: +6.56 pp (95 % interval over seeds +5.91 to +7.21,
    adjusted p 0.0003). `more` stands beside the interval and the p; of nothing known it is "".
    """
    if value is None:
        return ""
    known = [f"95 % interval over {over} {between(interval, signed)}"] if interval else []
    known += [f"adjusted p {p_value(p)}"] if p is not None else []
    words = ", ".join([*known, *more])
    return f"{signed(value)} pp" + (f" ({words})" if words else "")


def verdict_sentence(
    name: str, against: str, verdict: str, numbers: str, unequal: Sequence[str] = (), mark: str = ""
) -> str:
    """What a comparison says: A is better than B: the numbers. Not equal budget: ...

    Args:
        verdict: that of `vitlab.stats.Difference`; what follows its first `;` becomes a `But`.
        numbers: as `difference` writes them.
        unequal: what one side had more or less of.
        mark: set around the word of a decided verdict, such as `**`.
    """
    word, _, but = verdict.partition("; ")
    if word in ("better", "worse"):
        sentence = f"{name} is {mark}{word}{mark} than {against}: {numbers}."
    else:
        sentence = f"{name} against {against}: {word}{f'; {numbers}' if numbers else ''}."
    lost = f" But {but}." if but else ""
    return f"{sentence}{lost}{unequal_budget(unequal)}"


def unequal_budget(found: Sequence[str]) -> str:
    """A sentence on what one side of a comparison had more or less of; begins with a space."""
    return f" Not equal budget: {', '.join(found)}." if found else ""


def scaled(value: float | None, unit: float, name: str, digits: int) -> str:
    """A quantity in a unit."""
    return "-" if value is None else f"{value / unit:,.{digits}f}{name}"


def minutes(seconds: float) -> str:
    """Seconds as minutes, or as seconds below two minutes."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def duration(seconds: float) -> str:
    """Seconds in words: 41 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"
