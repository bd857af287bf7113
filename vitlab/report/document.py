"""What a report is made of: panels, each a claim and its evidence, and where every number is from.

A panel is a section of the page and a slide of the deck, so that both say the same. A number knows
the run, the file and the field it was read from; a sentence knows those of its numbers, and so do
tables and figures. `Notes` counts them.
"""

import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from markupsafe import Markup


class Source(NamedTuple):
    """Where a number was read."""

    run: str
    """Name of the run or study."""
    file: str
    """File in its folder."""
    field: str
    """Field of that file; several have commas between."""


Sources = tuple[Source, ...]


class Number(NamedTuple):
    """A number in words, and where it was read or what it was computed from."""

    text: str
    sources: Sources = ()

    def __str__(self) -> str:
        return self.text


class Name(NamedTuple):
    """What somebody called a run, a class or a file: shown letter by letter, and never obeyed."""

    text: str

    def __str__(self) -> str:
        return self.text


Piece = str | Number | Name


class Sentence(NamedTuple):
    """Words with numbers and names among them."""

    pieces: tuple[Piece, ...]

    @property
    def sources(self) -> Sources:
        """Where its numbers are from, in order."""
        return merged(piece.sources for piece in self.pieces if isinstance(piece, Number))

    def __str__(self) -> str:
        return "".join(map(str, self.pieces))


def say(words: str, **parts: Piece | Sentence) -> Sentence:
    """Put numbers, names and sentences in the places that `words` names in braces."""
    pieces: list[Piece] = []
    for text, name, _, _ in string.Formatter().parse(words):
        if text:
            pieces.append(text)
        if name is not None:
            part = parts[name]
            pieces += part.pieces if isinstance(part, Sentence) else [part]
    return Sentence(tuple(pieces))


def join(sentences: Iterable[Sentence], between: str = " ") -> Sentence:
    """Sentences one after another."""
    pieces: list[Piece] = []
    for place, sentence in enumerate(sentences):
        pieces += [between] if place else []
        pieces += sentence.pieces
    return Sentence(tuple(pieces))


def merged(sources: Iterable[Sources]) -> Sources:
    """Sources without repetitions, in order."""
    return tuple(dict.fromkeys(source for group in sources for source in group))


def gathered_in(thing: Any) -> Iterator[Source]:
    """Every source in a block, a sentence or a cell, however deep."""
    if isinstance(thing, Source):
        yield thing
    elif isinstance(thing, Block):
        yield from gathered_in(list(vars(thing).values()))
    elif isinstance(thing, tuple | list):
        for part in thing:
            yield from gathered_in(part)


class Block:
    """A part of a panel; `kind` is how the templates know it."""

    kind: str

    @property
    def sources(self) -> Sources:
        """Where everything in it is from."""
        return merged([tuple(gathered_in(self))])


@dataclass(frozen=True)
class Text(Block):
    """Sentences as a paragraph."""

    sentence: Sentence
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Bullets(Block):
    """Sentences one below another; `label` stands before each, such as Hypothesis."""

    sentences: Sequence[Sentence]
    label: str = ""
    kind: Literal["bullets"] = "bullets"


class Word(NamedTuple):
    """A technique: what it belongs to, what it is called and how it works."""

    axis: str
    word: str
    how: str


@dataclass(frozen=True)
class Words(Block):
    """Techniques, each in two sentences."""

    words: Sequence[Word]
    drawn_from: Sources = ()
    kind: Literal["words"] = "words"


Cell = str | Number | Name | Sentence


@dataclass(frozen=True)
class Table(Block):
    """Rows under a head. The first column names the row; `caption` says what is in it."""

    head: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Figure(Block):
    """A drawing with its caption; `alt` says in words what it shows."""

    drawing: Markup
    alt: str
    caption: Sentence
    drawn_from: Sources = ()
    tall: bool = False
    """Higher than wide: it stands beside words."""
    kind: Literal["figure"] = "figure"


class Picture(NamedTuple):
    """An image, as the address that holds it."""

    data: Markup
    alt: str
    caption: str = ""
    good: bool | None = None
    """Whether the model is right about it."""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Pictures(Block):
    """Images: small ones side by side, or large ones below one another."""

    pictures: Sequence[Picture]
    caption: Sentence
    drawn_from: Sources = ()
    large: bool = False
    kind: Literal["pictures"] = "pictures"


class Tile(NamedTuple):
    """One number that stands for itself."""

    number: Number
    what: str
    more: Sentence


@dataclass(frozen=True)
class Tiles(Block):
    """A few numbers side by side."""

    tiles: Sequence[Tile]
    kind: Literal["tiles"] = "tiles"


@dataclass(frozen=True)
class Missing(Block):
    """What is not there, and the command that makes it."""

    what: str
    command: str
    kind: Literal["missing"] = "missing"


@dataclass(frozen=True)
class Panel:
    """A claim and its evidence: a section of the page, and a slide."""

    key: str
    """Its address within the page."""
    topic: str
    headline: Sentence
    shown: Sequence[Block]
    """What stands on the page and on the slide."""
    more: Sequence[Block] = ()
    """What stands on the page only."""
    weight: int = 1
    """Of many panels, those of least weight are no slides; 0 never is."""

    @property
    def sources(self) -> Sources:
        """Where everything on its slide is from."""
        return merged((self.headline.sources, *(block.sources for block in self.shown)))


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    question: Sentence
    cover: Tiles
    about: Sentence
    panels: Sequence[Panel]
    subjects: int = 1
    """How many reports it was put together from."""


@dataclass
class Notes:
    """Footnotes: the same sources have the same number wherever they are used."""

    groups: dict[Sources, int] = field(default_factory=dict)

    def number(self, sources: Sources) -> int:
        """The number of the note that names these sources."""
        return self.groups.setdefault(sources, len(self.groups) + 1)

    def __iter__(self):
        return iter((number, gathered(sources)) for sources, number in self.groups.items())


def gathered(sources: Sources) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Sources by run, then by file: [(run, [(file, fields)])]."""
    runs: dict[str, dict[str, dict[str, None]]] = {}
    for source in sources:
        runs.setdefault(source.run, {}).setdefault(source.file, {})[source.field] = None
    return [
        (run, [(file, list(fields)) for file, fields in files.items()])
        for run, files in runs.items()
    ]


def traced(words: str, *sources: Source) -> Sentence:
    """Words of another verb, computed from what the sources name."""
    return Sentence((Number(words, sources),))


def listed(names: Sequence[str]) -> Sentence:
    """Names with commas between, the first ones of many."""
    pieces: list[Piece] = []
    for place, name in enumerate(names[:12]):
        pieces += [", "] if place else []
        pieces.append(Name(name))
    if len(names) > 12:
        pieces.append(f" and {len(names) - 12} more")
    return Sentence(tuple(pieces))


def whole(value: float) -> str:
    """A whole number."""
    return f"{value:,.0f}"


def millions(value: float) -> str:
    """A count in millions or in billions, and as it is where it is small."""
    if value < 1e5:
        return whole(value)
    return f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.2f} M"


def tenth(share: float) -> str:
    """A share in percent, to a tenth."""
    return f"{100 * share:.1f} %"
