"""Fields of a config: a type and bounds each, read from Python, JSON and the command line.

A section of a config is a frozen dataclass whose annotations say all there is to say:

    @dataclass(frozen=True, kw_only=True)
    class ModelConfig(Section):
        width: Annotated[int, Bounds(ge=1, le=65_536)] = 192
        \"\"\"Numbers per token; this string is the `--help` text of the field.\"\"\"

Types are a small closed set: bool, int, float, str, Literal, tuples of these and unions. Every
value is parsed and checked once, when its section is made.
"""

import ast
import contextlib
import difflib
import functools
import inspect
import itertools
import math
import reprlib
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from vitlab.errors import ConfigError


@dataclass(frozen=True)
class Bounds:
    """What a number must be beyond finite: `Annotated[float, Bounds(ge=0, lt=1)]`.

    The names are those of comparisons: greater or equal, greater than, less or equal, less than.
    """

    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf
    lt: float = math.inf

    def check(self, number: float) -> float:
        """Return a number within the bounds; raise ValueError for another."""
        # Where no bound is given an infinite one excludes infinity, and NaN fails all.
        if self.ge <= number <= self.le and self.gt < number < self.lt:
            return number
        limits = {"at least": self.ge, "above": self.gt, "at most": self.le, "below": self.lt}
        rules = [f"{side} {limit}" for side, limit in limits.items() if math.isfinite(limit)]
        if isinstance(number, float) and not math.isfinite(number):
            rules.insert(0, "finite")
        raise ValueError(f"must be {' and '.join(rules)}")


PositiveInt = Annotated[int, Bounds(ge=1)]
NonNegativeInt = Annotated[int, Bounds(ge=0)]
PositiveFloat = Annotated[float, Bounds(gt=0)]
NonNegativeFloat = Annotated[float, Bounds(ge=0)]
Probability = Annotated[float, Bounds(ge=0, le=1)]
Share = Annotated[float, Bounds(gt=0, le=1)]
"""A part of something, which is never nothing and may be all of it."""
Fraction = Annotated[float, Bounds(ge=0, lt=1)]
"""A part of something, which may be nothing and is never all: dropout, momentum."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A group of fields that parses and checks its values, then the rules between them.

    Raises:
        ConfigError: one sentence for everything that is wrong.
    """

    def __post_init__(self):
        problems: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            try:
                value = parse(value, hints(type(self))[field.name])
            except (TypeError, ValueError) as error:
                number = isinstance(error, ValueError) and isinstance(value, str)
                problems.append(f"{field.name}={value if number else reprlib.repr(value)} {error}")
                # Its default stands in, so that rules between the others are still checked.
                made = field.default_factory
                value = field.default if made is MISSING else made()
            object.__setattr__(self, field.name, value)
        problems += self._problems()
        if problems:
            raise ConfigError(problems)

    def _problems(self) -> Iterator[str]:
        """Yield one sentence per rule that the fields break together."""
        yield from ()


@functools.cache
def hints(section: type[Section]) -> dict[str, Any]:
    """Field names and types of a section, in order."""
    resolved = typing.get_type_hints(section, include_extras=True)
    return {field.name: resolved[field.name] for field in fields(section)}


def bare(hint: Any) -> Any:
    """A field's type without its bounds."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def parse(value: Any, hint: Any) -> Any:
    """Turn a value, as Python, JSON or the command line has it, into one of a field's type.

    Raises:
        TypeError: it is of another type.
        ValueError: it is beyond the bounds. Both messages continue `name=value`.
    """
    try:
        return _parse(value, hint)
    except TypeError:
        raise TypeError(f"is not {describe(hint)}") from None


def _parse(value: Any, hint: Any) -> Any:
    kind, args = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        return args[1].check(_parse(value, args[0]))
    if kind in (typing.Union, types.UnionType):
        return _parse_union(value, args)
    if kind is tuple:
        return _parse_tuple(value, args)
    if kind is Literal:
        for choice in args:
            if value == str(choice) or (value == choice and type(value) is type(choice)):
                return choice
        raise TypeError
    if kind is bool and isinstance(value, str):
        value = BOOLEANS.get(value.lower())
    elif kind in (int, float):
        value = _parse_number(value, kind)
    if not isinstance(value, kind):
        raise TypeError
    return value


def _parse_union(value: Any, args: tuple[Any, ...]) -> Any:
    if NoneType in args and (value is None or str(value).lower() == "none"):
        return None
    for arg in args:
        with contextlib.suppress(TypeError):
            return _parse(value, arg)
    raise TypeError


def _parse_tuple(value: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [part for part in value.split(",") if part]
    if not isinstance(value, list | tuple):
        raise TypeError
    items = typing.cast(Sequence[Any], value)
    if args[-1] is not Ellipsis and len(items) != len(args):
        raise TypeError
    return tuple(_parse(item, args[0]) for item in items)


BOOLEANS = {"true": True, "on": True, "yes": True, "1": True,
            "false": False, "off": False, "no": False, "0": False}  # fmt: skip


def _parse_number(value: Any, kind: type[int] | type[float]) -> Any:
    if isinstance(value, bool):  # to Python a whole number
        raise TypeError
    if isinstance(value, str) or (kind is float and isinstance(value, int)):
        try:
            return kind(value)
        except ValueError:
            raise TypeError from None
        except OverflowError:  # beyond the largest float
            return math.inf
    return value


def text(value: Any) -> str:
    """A field's value as one would type it at a command line; `parse` reads it back."""
    if isinstance(value, tuple):
        return ",".join(map(text, typing.cast(tuple[Any, ...], value)))
    return value if isinstance(value, str) else str(value).lower()


def describe(hint: Any) -> str:
    """A field's type in plain English: 'a number', 'one of layer, rms'."""
    hint = bare(hint)
    kind, args = get_origin(hint), get_args(hint)
    if kind is Literal:
        return "one of " + ", ".join(map(str, args))
    if kind in (typing.Union, types.UnionType):
        return " or ".join("none" if arg is NoneType else describe(arg) for arg in args)
    if kind is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        return f"{count}numbers with commas between"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def placeholder(hint: Any) -> str:
    """What a field's value looks like, in a usage line: N, X, on|off, layer|rms, N,N."""
    hint = bare(hint)
    kind, args = get_origin(hint), get_args(hint)
    if kind is Literal:
        return "|".join(map(str, args))
    if kind in (typing.Union, types.UnionType):
        return "|".join("none" if arg is NoneType else placeholder(arg) for arg in args)
    if kind is tuple:
        return ",".join("..." if arg is Ellipsis else placeholder(arg) for arg in args)
    return {bool: "on|off", int: "N", float: "X", str: "TEXT"}[hint]


@functools.cache
def field_help(section: type[Section]) -> dict[str, str]:
    """The string under each field of a section, those of the sections it extends included."""
    parent = section.__base__
    inherited = field_help(parent) if parent and issubclass(parent, Section) else {}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    body = typing.cast(ast.ClassDef, tree).body
    return inherited | {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, if one is like it."""
    # Whoever types `lr` means optim.lr, so last parts are compared as well.
    parts = {part: full for full in known for part in (full.rpartition(".")[2], full)}
    close = difflib.get_close_matches(name, parts, n=1, cutoff=0.5)
    return parts[close[0]] if close else None


def unknown(name: str, known: Iterable[str], kind: str = "name") -> str:
    """Say that a name is unknown, and which known one was probably meant."""
    known = list(known)
    meant = nearest(name, known)
    way_out = f"did you mean {meant}?" if meant else f"choose from {', '.join(sorted(known))}"
    return f"unknown {kind} {name}: {way_out}"
