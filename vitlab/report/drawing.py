"""Numbers become drawings: SVG that takes its colours from the page, so that it reads in the dark.

Every drawing is WIDE units wide, as a phone is: on a wide page two stand side by side. Colours are
classes (s1, s2, ...), whose meaning the style sheet knows.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from vitlab.figures.style import short
from vitlab.formatting import plain

WIDE = 400
"""Units that a drawing is wide."""

TIMES = "\u00d7"
"""The sign between the sides of a shape."""

LOOKS = ("s1", "s2", "s3", "s4", "s5", "s6")
"""Classes of the colours, in the order in which they are given out."""

LETTER = 6.6
"""Units that a letter of a label is wide, more or less."""


def tag(name: str, *inside: str, **attributes: object) -> Markup:
    """An element; text and attributes are escaped. `class_` is class, `text_anchor` text-anchor."""
    words = []
    for key, value in attributes.items():
        if value is not None:
            shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
            words.append(f' {key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    return Markup(f"<{name}{''.join(words)}>{''.join(map(escape, inside))}</{name}>")


def text(x: float, y: float, words: str, look: str = "", anchor: str | None = None) -> Markup:
    """A line of text, in which a name is only ever text."""
    return tag(
        "text", plain(words), x=float(x), y=float(y), class_=look or None, text_anchor=anchor
    )


def group(*inside: Markup, **attributes: object) -> Markup:
    """Elements together."""
    return tag("g", *inside, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, look: str) -> Markup:
    """A straight line."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=look)


def rect(x: float, y: float, width: float, height: float, look: str, rounded: float = 0) -> Markup:
    """A rectangle."""
    return tag(
        "rect",
        x=float(x),
        y=float(y),
        width=float(width),
        height=float(height),
        class_=look,
        rx=float(rounded) if rounded else None,
    )


def dot(x: float, y: float, radius: float, look: str) -> Markup:
    """A filled circle."""
    return tag("circle", cx=float(x), cy=float(y), r=float(radius), class_=look)


def drawing(inside: Iterable[Markup], height: float, alt: str) -> Markup:
    """The whole drawing, with the words that stand for it where it cannot be seen."""
    return tag(
        "svg", *inside, viewBox=f"0 0 {WIDE} {math.ceil(height)}", role="img", aria_label=plain(alt)
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` round numbers from `low` to `high`."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10 ** math.floor(math.log10(span / most))
    step = next(s * power for s in (1, 2, 5, 10) if span / (s * power) <= most)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


class Series(NamedTuple):
    """A line of a chart."""

    look: str
    points: Sequence[tuple[float, float]]
    marks: bool = False
    """Dots at its points."""


Form = Callable[[float], str]


def percent_tick(value: float) -> str:
    """A fraction at an axis."""
    return f"{100 * value:.4g} %"


def plain_tick(value: float) -> str:
    """A number at an axis."""
    return f"{value:.4g}"


def lines(
    series: Sequence[Series],
    *,
    alt: str,
    across: str,
    form: Form = plain_tick,
    low: float | None = None,
    high: float | None = None,
    diagonal: bool = False,
    height: float = 250,
) -> Markup:
    """Lines over one another. `across` names the horizontal axis, `form` writes the vertical."""
    points = [point for one in series for point in one.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    bottom = low if low is not None else min(ys)
    top = high if high is not None else max(ys)
    top = top if top > bottom else bottom + 1
    start, end = (0.0, 1.0) if diagonal else (min(0.0, *xs), max(xs))
    end = end if end > start else start + 1
    left, right, up, down = 48, WIDE - 20, 10, height - 40

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (right - left) * (x - start) / (end - start),
            down - (down - up) * (min(max(y, bottom), top) - bottom) / (top - bottom),
        )

    parts = []
    for value in ticks(bottom, top, 5):
        y = at(start, value)[1]
        parts += [
            line(left, y, right, y, "grid"),
            text(left - 8, y + 4, form(value), "tick", "end"),
        ]
    across_form = form if diagonal else plain_tick
    for value in ticks(start, end, 6):
        parts.append(text(at(value, bottom)[0], down + 18, across_form(value), "tick", "middle"))
    parts.append(line(left, down, right, down, "axis"))
    parts.append(text((left + right) / 2, height - 4, across, "name", "middle"))
    if diagonal:
        parts.append(line(*at(0, 0), *at(1, 1), "ideal"))
    for one in series:
        placed = [at(*point) for point in one.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        parts.append(tag("path", d=path, class_=f"line {one.look}"))
        if one.marks or len(placed) == 1:
            parts += [dot(x, y, 3.4, f"dot {one.look}") for x, y in placed]
    return drawing(parts, height, alt)


class Row(NamedTuple):
    """A line of a dot chart: what it is, its value with its interval, and the same in words."""

    name: str
    value: float
    interval: Sequence[float] | None
    words: str
    look: str = "s1"
    hollow: bool = False
    points: Sequence[float] = ()
    """Single measurements behind the value."""


def dots(
    rows: Sequence[Row],
    *,
    alt: str,
    form: Form = percent_tick,
    zero: float | None = None,
    low: float | None = None,
    high: float | None = None,
    most: int = 34,
) -> Markup:
    """Values below one another, each with its interval; `zero` is a line to be on one side of."""
    numbers = [number for row in rows for number in (row.value, *(row.interval or ()), *row.points)]
    numbers += [] if zero is None else [zero]
    least = min(numbers) if low is None else low
    largest = max(numbers) if high is None else high
    margin = 0.04 * (largest - least or 1)
    least, largest = (
        (least - margin if low is None else least),
        (largest + margin if high is None else largest),
    )
    step, top = 38, 4
    bottom = top + step * len(rows)

    def at(value: float) -> float:
        return 8 + (WIDE - 16) * (min(max(value, least), largest) - least) / (largest - least)

    parts = []
    for value in ticks(least, largest, 6):
        parts += [
            line(at(value), top, at(value), bottom, "grid"),
            text(at(value), bottom + 18, form(value), "tick", "middle"),
        ]
    if zero is not None:
        parts.append(line(at(zero), top, at(zero), bottom, "axis"))
    for place, row in enumerate(rows):
        y = top + step * place
        parts += [
            text(8, y + 12, short(row.name, most), "label halo"),
            text(WIDE - 8, y + 12, row.words, "value halo", "end"),
            line(8, y + 23, WIDE - 8, y + 23, "track"),
            *(dot(at(point), y + 23, 2.4, f"point {row.look}") for point in row.points),
        ]
        if row.interval:
            parts.append(
                line(
                    at(row.interval[0]), y + 23, at(row.interval[1]), y + 23, f"interval {row.look}"
                )
            )
        parts.append(
            dot(at(row.value), y + 23, 5, f"{'hollow' if row.hollow else 'dot'} {row.look}")
        )
    return drawing(parts, bottom + 24, alt)


def confusion(counts: Sequence[Sequence[int]], names: Sequence[str], *, alt: str) -> Markup:
    """Counts of true class (row) by predicted class (column), shaded by the share of the row."""
    left = min(110, 14 + LETTER * max(len(short(name, 14)) for name in names))
    side = (WIDE - left - 4) / len(names)
    slant = 0.78 * left
    size = "c10" if len(names) <= 10 else "c14" if len(names) <= 14 else "c20"
    parts = []
    for column, name in enumerate(names):
        x = left + side * (column + 0.5)
        turned = text(0, 0, short(name, 14), "label")
        parts.append(group(turned, transform=f"translate({x + 2:.1f} {slant - 4:.1f}) rotate(-52)"))
    for row, name in enumerate(names):
        y = slant + side * row
        parts.append(text(left - 8, y + side / 2 + 4, short(name, 14), "label", "end"))
        total = sum(counts[row]) or 1
        for column, count in enumerate(counts[row]):
            share = count / total
            look = "right" if row == column else "wrong"
            cell = rect(left + side * column + 1, y + 1, side - 2, side - 2, "empty", 2)
            shade = tag(
                "rect",
                x=left + side * column + 1,
                y=y + 1,
                width=side - 2,
                height=side - 2,
                rx=2,
                class_=look,
                fill_opacity=float(min(1, share if row == column else 4 * share)),
            )
            parts += [cell, shade]
            if count:
                strong = " strong" if (share if row == column else 4 * share) > 0.55 else ""
                number = tag(
                    "text",
                    str(count),
                    x=left + side * (column + 0.5),
                    y=y + side / 2 + 3.6,
                    class_=f"count {size}{strong}",
                    text_anchor="middle",
                )
                parts.append(number)
    bottom = slant + side * len(names)
    parts.append(text(left, bottom + 18, "columns: what the model says", "name"))
    parts.append(text(left - 8, bottom + 18, "rows: true class", "name", "end"))
    return drawing(parts, bottom + 26, alt)


def scatter(
    points: Sequence[tuple[float, float, str, str]],
    *,
    alt: str,
    across: str,
    across_form: Form,
    form: Form = percent_tick,
    height: float = 250,
) -> Markup:
    """Dots at (x, y, look, label), x on a logarithmic axis."""
    logs = [math.log10(x) for x, *_ in points]
    ys = [y for _, y, *_ in points]
    span = max(max(logs) - min(logs), 0.3)
    start, end = min(logs) - 0.12 * span, max(logs) + 0.12 * span
    margin = 0.1 * (max(ys) - min(ys) or 0.01)
    bottom, top = min(ys) - margin, max(ys) + margin
    left, right, up, down = 48, WIDE - 20, 10, height - 40

    def at(log: float, y: float) -> tuple[float, float]:
        return (
            left + (right - left) * (log - start) / (end - start),
            down - (down - up) * (y - bottom) / (top - bottom),
        )

    parts = []
    for value in ticks(bottom, top, 5):
        y = at(start, value)[1]
        parts += [
            line(left, y, right, y, "grid"),
            text(left - 8, y + 4, form(value), "tick", "end"),
        ]
    marks = [m * 10**p for p in range(math.floor(start), math.ceil(end) + 1) for m in (1, 2, 5)]
    for mark in marks:
        if start <= math.log10(mark) <= end:
            x = at(math.log10(mark), bottom)[0]
            parts.append(text(x, down + 18, across_form(mark), "tick", "middle"))
    parts.append(line(left, down, right, down, "axis"))
    parts.append(text((left + right) / 2, height - 4, across, "name", "middle"))
    placed = [
        (*at(log, y), look, label) for (_, y, look, label), log in zip(points, logs, strict=True)
    ]
    taken: list[tuple[float, float]] = []
    for x, y, look, label in sorted(placed, key=lambda one: one[1]):
        low = max([y, *(other + 15 for there, other in taken if abs(x - there) < 130)])
        taken.append((x, low))
        side = -1 if x > WIDE / 2 else 1
        if low > y + 2:
            parts.append(line(x + 6 * side, y, x + 16 * side, low, "leader"))
        parts.append(
            text(x + 19 * side, low + 4, short(label, 24), "label", "end" if side < 0 else None)
        )
        parts.append(dot(x, y, 5, f"dot {look}"))
    return drawing(parts, height, alt)
