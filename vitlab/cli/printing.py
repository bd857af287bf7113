"""What verbs print: JSON, or aligned tables."""

import json
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import Any

from vitlab.formatting import plain


def note(*messages: str) -> None:
    """Print lines for whoever waits; nothing for an empty one."""
    for message in filter(None, messages):
        print(message, file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2))


def print_rows(header: Sequence[str], rows: Iterable[Sequence[Any]], args: Namespace) -> None:
    """Print a table, or as JSON a list of objects."""
    if args.json:
        print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        print_table(header, rows)


def print_table(header: Iterable[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print aligned columns, numbers to the right; whole lines where nobody reads a terminal."""
    from rich.console import Console
    from rich.table import Table

    header, rows = list(header), list(rows)
    table = Table(box=None, pad_edge=False, show_header=any(header))
    for place, name in enumerate(header):
        words = any(isinstance(row[place], str) for row in rows)
        table.add_column(name, justify="left" if words else "right")
    for row in rows:
        table.add_row(*map(number, row))
    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)


def print_paragraph(sentences: str) -> None:
    """Print sentences in lines of at most 100 columns, and an empty line."""
    print(textwrap.fill(sentences, 100, subsequent_indent="  "), end="\n\n")


def number(value: Any) -> str:
    """A value as a table shows it: 12,345, 0.8671, or - for nothing."""
    if isinstance(value, bool | str):
        return plain(str(value))
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:z.4f}"


def times(shape: Iterable[int]) -> str:
    """A shape in words: 64 x 192."""
    return " x ".join(map(str, shape))
