"""Picture files to answers: found, read, classified and printed, batch by batch.

    arguments -> a model and picture files -> an answer each -> lines, CSV or JSON

Only one batch is in memory, so there may be any number of pictures. A file that cannot be read is
an answer too, which says why; the others go on.
"""

import glob
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitlab.classifier import Classifier, is_source
from vitlab.data.folder import list_files
from vitlab.errors import ConfigError, DataError, PartialError
from vitlab.formatting import count, csv_text, plain

BATCH = 64
"""Pictures that are classified at once."""

UNKNOWN = "unlike anything it was trained on"
"""What is said of such a picture."""


class Answer(NamedTuple):
    """What became of one picture."""

    path: Path
    said: dict[str, Any]
    """As `Classifier.answer` has it; empty where the file is no picture."""
    problem: str | None
    """Why the file could not be read."""


def split_source(names: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """The model that the first of some names means, None where it means none; and the pictures.

    ConfigError if there are no pictures.
    """
    source, pictures = (names[0], names[1:]) if names and is_source(names[0]) else (None, names)
    if not pictures:
        raise ConfigError(["no pictures: give files, folders or patterns, after the run if any"])
    return source, pictures


def find_pictures(names: Iterable[str]) -> list[Path]:
    """Files, folders and patterns to picture files, in order; a folder's are sorted.

    What is not there, and a folder that holds no picture, stays in the list: its answer says so.
    """
    found = []
    for name in names:
        path = Path(name)
        matches = (
            [path] if path.exists() else [Path(p) for p in sorted(glob.glob(name, recursive=True))]
        )
        for match in matches or [path]:
            found += (list_files(match).images if match.is_dir() else None) or [match]
    return found


def answers(
    classifier: Classifier, paths: Sequence[Path], top: int = 3, coverage: int | None = None
) -> Iterator[Answer]:
    """Classify picture files; an answer each, in order.

    Args:
        paths: any number of files.
        top: classes to name.
        coverage: percent of pictures whose class is to be in a set of classes; None for no sets.

    Raises:
        ConfigError: less than one class to name, or no such coverage.
        VitlabError: the model's logits are not finite, or no sets were calibrated.
    """
    if top < 1:
        raise ConfigError([f"top={top}: name at least one class"])
    unanswered = {**classifier.task.unanswered, "unknown": None}
    if coverage is not None:
        unanswered["set"] = []
    for start in range(0, len(paths), BATCH):
        read = [_read(classifier, path) for path in paths[start : start + BATCH]]
        images = [pixels for pixels in read if not isinstance(pixels, str)]
        found = iter(classifier.predict(np.stack(images)) if images else ())
        for path, pixels in zip(paths[start : start + BATCH], read, strict=True):
            if isinstance(pixels, str):
                yield Answer(path, unanswered, pixels)
            else:
                yield Answer(path, classifier.answer(next(found), top, coverage), None)


def _read(classifier: Classifier, path: Path) -> np.ndarray | str:
    """A file's pixels (H, W, C), or why there are none."""
    if path.is_dir():
        return "a folder without a PNG, JPEG or WebP image"
    if not path.exists():
        return "there is no such file"
    if not path.is_file():
        return "not a file"  # a pipe would be waited for, and a device never ends
    try:
        return classifier.preprocessing.read(path)
    except DataError as error:
        return str(error).removeprefix(f"{str(path)!r}: ")


def lines(
    answers: Iterable[Answer], classifier: Classifier, paths: Iterable[Path], top: int
) -> Iterator[str]:
    """Answers as lines for people; none for a file that could not be read."""
    from rich.cells import cell_len

    width = min(60, max((cell_len(plain(str(path))) for path in paths), default=0))
    for answer in answers:
        if answer.problem is None:
            name = plain(str(answer.path))
            name += " " * (width - cell_len(name))
            yield f"{name}  {in_words(answer.said)}\n"


def in_words(said: dict[str, Any]) -> str:
    """How sure the model is and the likeliest classes; or every label above its threshold."""

    def named(found: list[dict[str, Any]]) -> str:
        return ", ".join(f"{plain(one['class'])} {one['probability']:.1%}" for one in found)

    if "labels" not in said:
        words = f"{said['certainty']:<11}  {named(said['top'])}"
    elif said["labels"]:
        words = named(said["labels"])
    else:
        words = f"no label (likeliest {named(said['top'][:1])})"
    if "set" in said:
        words += f"; set: {', '.join(map(plain, said['set'])) or 'empty'}"
    return f"{words}; {UNKNOWN}" if said["unknown"] else words


def csv_lines(
    answers: Iterable[Answer], classifier: Classifier, paths: Iterable[Path], top: int
) -> Iterator[str]:
    """Answers as the lines of a CSV file, in which no name is a formula."""
    places = range(1, min(top, len(classifier.class_names)) + 1)
    classes = [f"{name}_{place}" for place in places for name in ("class", "probability")]
    first = next(name for name in classifier.task.unanswered if name != "top")
    separator = classifier.card.get("label_separator", ";")
    head = None
    for answer in answers:
        said = answer.said
        if head is None:
            more = ["set"] * ("set" in said)
            head = ["path", first, *classes, "unknown", *more, "problem"]
            yield csv_text([head])
        cells = [cell for one in said["top"] for cell in (one["class"], one["probability"])]
        cells += [""] * (len(classes) - len(cells))
        word = said[first]
        if first == "labels":
            word = separator.join(one["class"] for one in word)
        unknown = "" if said.get("unknown") is None else str(said["unknown"]).lower()
        sets = [separator.join(said.get("set", ()))] * ("set" in head)
        row = [str(answer.path), word, *cells, unknown, *sets, answer.problem or ""]
        yield csv_text([row])


def json_lines(
    answers: Iterable[Answer], classifier: Classifier, paths: Iterable[Path], top: int
) -> Iterator[str]:
    """Answers as the lines of one JSON object: the model, and an object per picture."""
    model = {
        "name": classifier.name,
        "engine": classifier.engine,
        "temperature": classifier.card["temperature"],
        "checkpoint_sha256": classifier.card["checkpoint_sha256"],
    }
    yield f'{{"model": {json.dumps(model)},\n"answers": ['
    before = "\n"
    for answer in answers:
        yield before + json.dumps(
            {"path": str(answer.path), **answer.said, "problem": answer.problem}
        )
        before = ",\n"
    yield "\n]}\n"


FORMATS = {"lines": lines, "csv": csv_lines, "json": json_lines}
"""How answers are printed."""


class Tally:
    """Counts answers that pass by, and reports files that could not be read at once.

    Args:
        report: prints a line to whoever waits.
    """

    def __init__(self, report: Callable[[str], None]):
        self._report = report
        self.read: list[Path] = []
        """Pictures that were answered."""
        self.unsure = 0
        """Those of which the model is unsure."""
        self.failed = 0
        """Files that could not be read."""

    def counted(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """Pass answers on."""
        for answer in answers:
            if answer.problem is None:
                self.read.append(answer.path)
                self.unsure += answer.said.get("certainty") == "unsure"
            else:
                self.failed += 1
                self._report(f"{str(answer.path)!r}: {answer.problem}")
            yield answer

    def close(self) -> None:
        """Raise PartialError if some files could not be read, DataError if none could."""
        if self.failed and not self.read:
            raise DataError(f"{count(self.failed, 'file')}, and none could be read")
        if self.failed:
            raise PartialError(
                f"{self.failed:,} of {self.failed + len(self.read):,} files could not be read; "
                "the others are answered"
            )
