"""How a run was chosen: every way to a model that was tried on the same pictures."""

from collections.abc import Iterator, Sequence
from typing import Any

from vitlab.formatting import between, count, minutes, percent, points, scaled, signed
from vitlab.report.document import Bullets, Name, Number, Panel, Table, say
from vitlab.report.subject import Subject
from vitlab.run import SELECTION

COLUMNS = {
    "accuracy": ("accuracy", percent),
    "95 % interval": ("interval", lambda value: between(value, points)),
    "pictures": ("pictures", lambda value: f"{value:,}"),
    "difference, pp": ("difference", signed),
    "took": ("seconds", minutes),
    "MB": ("megabytes", lambda value: scaled(value, 1, "", 1)),
    "ms a picture": ("milliseconds", lambda value: scaled(value, 1, "", 1)),
}
"""Columns of numbers: the field of a candidate, and how it is written."""


def selections(found: Sequence[Subject]) -> Iterator[Panel]:
    """What was tried before each run was chosen, of those that `vitlab fit` chose."""
    for place, one in enumerate(found, 1):
        if (selection := one.run.selection) is not None:
            yield panel(one, selection, f"selection-{place}" if len(found) > 1 else "selection")


def panel(one: Subject, selection: dict[str, Any], key: str) -> Panel:
    """The table of candidates of a run, and what follows from it."""

    def at(field: str, words: str) -> Number:
        return Number(words, (one.at(SELECTION, field),))

    rows, left = [], []
    for candidate in selection["candidates"]:
        if not candidate["pictures"] and candidate["verdict"] != "chosen":
            left.append(candidate)
            continue
        numbers = [
            "-" if candidate[field] is None else at(f"candidates.{field}", form(candidate[field]))
            for field, form in COLUMNS.values()
        ]
        rows.append(
            [Name(candidate["candidate"]), *numbers, candidate["verdict"],
             candidate["license"] or "-"]
        )  # fmt: skip
    sentences = [
        say(
            "{n} ways to a model were considered for {pictures}, {held} of them held out in turn, "
            "in {folds} folds, in {time}.",
            n=Number(str(len(selection["candidates"])), (one.at(SELECTION, "candidates"),)),
            pictures=at("pictures", count(selection["pictures"], "picture")),
            held=at("held_out", f"{selection['held_out']:,}"),
            folds=at("folds", str(selection["folds"])),
            time=at("took_seconds", minutes(selection["took_seconds"])),
        ),
        say(
            "Differences are to the chosen one, on the pictures that both classified; a verdict is "
            "McNemar's test, corrected by Holm."
        ),
    ]
    if selection.get("labels"):
        more = at("labels.sentence", selection["labels"]["sentence"])
        sentences.append(say("{more}", more=more))
    sentences += [
        say(
            "{name}: {note}.",
            name=Name(candidate["candidate"]),
            note=at("candidates.note", one_note),
        )
        for candidate in left
        if (one_note := candidate["note"])
    ]
    advice, _, rest = selection["advice"].partition(" On these pictures ")
    if rest:
        sentences.insert(0, say("{more}", more=at("advice", f"On these pictures {rest}")))
    return Panel(
        key,
        "How it was chosen",
        say("{advice}", advice=at("advice", advice)),
        [Table(["candidate", *COLUMNS, "verdict", "licence"], rows, "Every way that was tried.")],
        [Bullets(sentences)],
        weight=8,
    )
