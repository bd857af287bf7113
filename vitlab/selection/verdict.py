"""Which candidate is taken, and what the others are beside it: on the pictures that both answered.

From the simplest on, a candidate takes the place of the one before it if it is more accurate. A
larger one must earn it: by more than one standard error of their paired difference (Breiman et al.,
1984). To be more accurate on few pictures proves nothing, and is still the better guess.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitlab.formatting import between, count, minutes, percent, points, scaled, signed
from vitlab.selection.candidates import Candidate
from vitlab.stats import LEVEL, bootstrap, holm, mcnemar, wilson

HEAD = ("candidate", "accuracy", "interval", "pictures", "pp to chosen", "verdict", "took", "MB",
        "ms", "licence")  # fmt: skip
"""Columns of the table."""


UNDECIDED = "no evidence of a difference"


@dataclass(frozen=True)
class Verdict:
    """The chosen candidate, and a row for each that was tried or left out."""

    chosen: Candidate
    rows: list[dict[str, Any]]
    """In the order in which they were given; fractions from 0 to 1, None where nothing is known."""

    def advice(self) -> str:
        """Which one to use, in a sentence or two."""
        row = next(row for row in self.rows if row["candidate"] == self.chosen.name)
        if not row["pictures"]:
            return f"Use {self.chosen.name}: with one picture of a class nothing was measured."
        sentence = (
            f"Use {self.chosen.name}: right on {percent(row['accuracy'])} of "
            f"{count(row['pictures'], 'picture')} that it was not trained on (95 % interval "
            f"{between(row['interval'])})."
        )
        equal = [row["candidate"] for row in self.rows if row["verdict"] == UNDECIDED]
        if equal:
            sentence += f" On these pictures it is not told apart from {'; '.join(equal)}."
        return sentence


def cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of a verdict as a table shows them, under HEAD."""
    return [
        [
            row["candidate"],
            percent(row["accuracy"]),
            between(row["interval"], points),
            f"{row['pictures']:,}",
            signed(row["difference"]),
            row["verdict"],
            minutes(row["seconds"]),
            scaled(row["megabytes"], 1, "", 1),
            scaled(row["milliseconds"], 1, "", 1),
            row["license"] or "-",
        ]
        for row in rows
    ]


def judge(candidates: Sequence[Candidate]) -> Verdict:
    """Choose among candidates, the simplest first; those without a config are never chosen."""
    able = [one for one in candidates if one.config is not None]
    chosen = able[0]
    for one in able[1:]:
        larger = (one.megabytes or 0.0) > (chosen.megabytes or 0.0)
        if one.answered.any() and (not chosen.answered.any() or _gain(one, chosen) > larger):
            chosen = one
    rows = [_row(one, chosen) for one in candidates]
    tested = [row for row in rows if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p"] = p
        word = "better" if row["difference"] > 0 else "worse"
        row["verdict"] = word if p < LEVEL else UNDECIDED
    return Verdict(chosen, rows)


def _gain(one: Candidate, other: Candidate) -> float:
    """How many standard errors of their paired difference one is more accurate than another.

    Those of McNemar's test: only pictures that one of the two is wrong about count.
    """
    both = one.answered & other.answered
    more = int((one.right & ~other.right & both).sum())
    fewer = int((other.right & ~one.right & both).sum())
    return (more - fewer) / math.sqrt(more + fewer) if more + fewer else 0.0


def _row(one: Candidate, chosen: Candidate) -> dict[str, Any]:
    """What is known of a candidate, and its difference to the chosen one."""
    answered, right = one.answered, one.right
    pictures, correct = int(answered.sum()), int(right.sum())
    row: dict[str, Any] = {
        "candidate": one.name,
        "pictures": pictures,
        "correct": correct,
        "accuracy": correct / pictures if pictures else None,
        "interval": list(wilson(correct, pictures)) if pictures else None,
        "difference": None,
        "difference_interval": None,
        "p": None,
        "verdict": "chosen" if one is chosen else one.note or "not measured",
        "seconds": one.seconds,
        "megabytes": one.megabytes,
        "milliseconds": one.milliseconds,
        "license": one.license,
        "note": one.note,
        "config_sha256": one.config.sha256 if one.config is not None else None,
    }
    both = answered & chosen.answered
    if one is not chosen and both.any():
        mine, theirs = right[both], chosen.right[both]
        row["difference"] = float(mine.mean() - theirs.mean())
        row["difference_interval"] = list(bootstrap(mine[None], theirs[None]))
        row["p"] = mcnemar(int((mine & ~theirs).sum()), int((~mine & theirs).sum()))
    return row
