"""The page of an audit, its contact sheets and its CSV files: one of each for every list."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image as Picture

from vitlab.auditing.findings import CONFUSED, FENCE, FLAT, NEIGHBORS, Audit, Finding, two_labels
from vitlab.auditing.subject import Subject
from vitlab.data.duplicates import THRESHOLD
from vitlab.figures import style
from vitlab.figures.auditing import contact_sheet
from vitlab.figures.exploration import Tile as Shown
from vitlab.files import write_json, write_text
from vitlab.formatting import count, csv_text, percent
from vitlab.report import render
from vitlab.report.document import (
    Block,
    Name,
    Number,
    Panel,
    Pictures,
    Report,
    Sentence,
    Source,
    Table,
    Text,
    Tile,
    Tiles,
    join,
    listed,
    say,
    whole,
)
from vitlab.report.pictures import small
from vitlab.run import AUDIT

PAGE = "index.html"

SHOWN = 50
"""Most images of a list on the page and on its sheet; its CSV file has all."""

SIDE = 96
"""Most pixels of an image on a sheet, in width and height."""


class FindingList(NamedTuple):
    """One of the lists: where it is and what it means."""

    field: str
    """Of `Audit`."""
    title: str
    one: str
    many: str
    """What its images are called."""
    means: str
    """What is in it, and what to do with it."""

    @property
    def file(self) -> str:
        """Its name in the folder."""
        return self.field.replace("_", "-")


LISTS = (
    FindingList(
        "label_errors", "Probable label errors",
        "image probably carries a wrong label", "images probably carry wrong labels",
        "Each image was judged by a linear classifier that was not trained on it; confident "
        "learning (Northcutt et al., 2021) says how many labels of each class are wrong and which "
        "most probably are. The score is the probability of the given label less that of the "
        "likeliest other: -1 is surest. Look at each, and correct it or leave it.",
    ),
    FindingList(
        "copies", "Near-duplicates", "near copy of another image", "near copies of other images",
        "Those of two different labels come first: if both show the same, one label is wrong. A "
        "copy of a test image makes a test accuracy look too good. The score is the distance, 0 "
        f"for equal pixels and at most {THRESHOLD:g}; towards that, look-alikes are among them.",
    ),
    FindingList(
        "unlike", "Images unlike the rest",
        "image is unlike the rest", "images are unlike the rest",
        f"The score is the mean cosine distance to the {NEIGHBORS} nearest images; listed is what "
        f"lies more than {FENCE:g} interquartile ranges above the upper quartile. They may be of "
        "no class, of a class of their own, or only rare: rare ones are worth keeping.",
    ),
    FindingList(
        "unreadable", "Unreadable files", "file cannot be read", "files cannot be read",
        "Training refuses them, or leaves them out with data.unreadable=skip.",
    ),
    FindingList(
        "empty", "Nearly empty images", "image is nearly empty", "images are nearly empty",
        f"The score is the standard deviation of the pixels, at most {FLAT:g} of 255.",
    ),
)  # fmt: skip

CONFUSIONS = FindingList(
    "confusions", "Classes that cannot be told apart",
    "class is often taken for another", "classes are often taken for another",
    "The share of images of one class that were given to the other while they were held out, "
    f"where the 95 % interval lies above {100 * CONFUSED:g} %. Either many labels are wrong, or "
    "the two look alike to the network that describes the images.",
)  # fmt: skip

HEAD = ("image", "split", "label", "proposed", "copy of", "label of that", "score", "why")


def write(found: Audit, subject: Subject, folder: Path) -> Path:
    """Write audit.json, a CSV file and a sheet for each list, and the page; return its path."""
    write_json(folder / AUDIT, found.to_dict())
    for one in LISTS:
        findings: Sequence[Finding] = getattr(found, one.field)
        write_text(folder / f"{one.file}.csv", csv_text([HEAD, *map(_line, findings)]))
        for old in (folder / f"{one.file}.png", folder / f"{one.file}.svg"):
            old.unlink(missing_ok=True)  # of an earlier audit
        if tiles := [_tile(each, subject) for each in findings[:SHOWN] if _is_seen(each)]:
            contact_sheet(tiles, folder / one.file, title=f"{found.source}: {one.title.lower()}")
    rows = [
        (one.label, one.taken_for, one.images, one.of, one.share, *one.interval)
        for one in found.confusions
    ]
    head = ("class", "taken for", "images", "of", "share", "low", "high")
    write_text(folder / f"{CONFUSIONS.file}.csv", csv_text([head, *rows]))
    write_text(folder / PAGE, render.page(report(found, subject)))
    return folder / PAGE


def _line(one: Finding) -> tuple[object, ...]:
    other = one.other
    copy = (str(other), other.label) if other else (None, None)
    image = one.image
    return (str(image), image.split, image.label, one.proposed, *copy, one.score, one.why)


def _is_seen(one: Finding) -> bool:
    return one.image.index is not None


def _pixels(one: Finding, subject: Subject) -> np.ndarray:
    """The image, or two copies above one another: uint8 (H, W, C)."""
    image = subject.pixels(one.image)
    if one.other is None:
        return image
    return style.mosaic([[image], [subject.pixels(one.other)]], max(1, len(image) // 32))


def _tile(one: Finding, subject: Subject) -> Shown:
    pixels = _pixels(one, subject)
    picture = Picture.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((SIDE, 2 * SIDE if one.other else SIDE))
    return Shown(np.atleast_3d(np.asarray(picture)), said(one, "\n"))


def said(one: Finding, between: str = " ") -> str:
    """The label of an image, and what it should perhaps be or what its copy's is."""
    if one.proposed:
        return f"{one.image.label}{between}→ {one.proposed}"
    if two_labels(one) and one.other:
        return f"{one.image.label}{between}/ {one.other.label}"
    return one.image.label


def report(found: Audit, subject: Subject) -> Report:
    """The page as a report, whose numbers are those of audit.json."""

    def at(words: str, field: str) -> Number:
        return Number(words, (Source(found.source, AUDIT, field),))

    tiles, panels = [], []
    for one in LISTS:
        findings = getattr(found, one.field)
        number = at(whole(len(findings)), one.field)
        tiles.append(Tile(number, one.title.lower(), worst(findings)))
        panels.append(Panel(one.file, one.title, _headline(one, findings, at),
                            list(_shown(one, findings, subject, found)),
                            list(_table(one, findings, at))))  # fmt: skip
    number = at(whole(len(found.confusions)), CONFUSIONS.field)
    pairs = [say("{a} → {b}", a=Name(c.label), b=Name(c.taken_for)) for c in found.confusions[:1]]
    tiles.append(Tile(number, CONFUSIONS.title.lower(), join(pairs or [say("none")])))
    panels.append(_confusions(found, at))
    total = sum(len(getattr(found, one.field)) for one in LISTS)
    return Report(
        title=f"Audit of {found.source}",
        question=say(
            "{n} to look at among {images} of {name}",
            n=at(count(total, "finding"), ", ".join(one.field for one in LISTS)),
            images=at(count(found.images, "image"), "images"),
            name=Name(found.source),
        ),
        cover=Tiles(tiles),
        about=join(list(_about(found, at))),
        panels=panels,
    )


def _about(found: Audit, at: Callable[[str, str], Number]) -> Iterator[Sentence]:
    """What was done, and what it cannot see."""
    yield say("Nothing was changed: a person decides.")
    described = say("Images are described by {features}.", features=Name(found.features))
    if found.own_body:
        described = say(
            "Images are described by the run itself, which saw the labels of its training images: "
            "a wrong one that it has learned by heart may look right here."
        )
    yield described
    if found.agreement is not None:
        yield say(
            "Of {n} images, held out in turn, {share} have the label that is likeliest.",
            n=at(whole(found.predicted), "predicted"),
            share=at(percent(found.agreement), "agreement"),
        )
    if found.not_judged:
        yield say(
            "Labels of these classes were not judged, as they have fewer than two different "
            "images: {names}.",
            names=listed(found.not_judged),
        )
    if found.test_images:
        yield say(
            "{n} test images were only compared with the others to find copies.",
            n=at(whole(found.test_images), "test_images"),
        )


def worst(findings: Sequence[Finding]) -> Sentence:
    """The first of a list in words; none of an empty one."""
    if not findings:
        return say("none")
    return say("{image}: {said}", image=Name(str(findings[0].image)), said=Name(said(findings[0])))


def _headline(
    one: FindingList, findings: Sequence[Finding], at: Callable[[str, str], Number]
) -> Sentence:
    number = at(whole(len(findings)) if findings else "No", one.field)
    sentence = say("{n} {what}", n=number, what=one.one if len(findings) == 1 else one.many)
    if differ := sum(map(two_labels, findings)):
        more = say(", {n} of them with another label", n=at(whole(differ), one.field))
        return join([sentence, more], "")
    return sentence


def _shown(
    one: FindingList, findings: Sequence[Finding], subject: Subject, found: Audit
) -> Iterator[Block]:
    yield Text(say(one.means))
    pictures = []
    for place, each in enumerate(findings[:SHOWN], 1):
        if _is_seen(each):
            largest = (128, 256) if each.other else (128, 128)
            alt, good = f"{each.image}: {each.why}", False if two_labels(each) else None
            words = f"{place}. {said(each)}"
            pictures.append(small(_pixels(each, subject), alt, words, good, largest))
    if pictures:
        below = {"label_errors": "Below each: the given label → the proposed one. ",
                 "copies": "Below each: what it is a copy of. "}  # fmt: skip
        caption = say(f"{below.get(one.field, '')}Numbers are those of the table.")
        yield Pictures(pictures, caption, (Source(found.source, AUDIT, one.field),))


def _table(
    one: FindingList, findings: Sequence[Finding], at: Callable[[str, str], Number]
) -> Iterator[Block]:
    """The same images with their files and reasons."""
    if not findings:
        return
    columns = {
        "": lambda place, each: str(place),
        "label": lambda place, each: Name(said(each)),
        "why": lambda place, each: Name(each.why),
        "score": lambda place, each: at(f"{each.score:.3f}", one.field),
        "image": lambda place, each: Name(str(each.image)),
        "copy of": lambda place, each: Name(str(each.other or "")),
    }
    if one.field != "copies":
        del columns["copy of"]
    if one.field == "unreadable":
        del columns["score"]
    rows = [
        [cell(place, each) for cell in columns.values()]
        for place, each in enumerate(findings[:SHOWN], 1)
    ]
    yield Table(list(columns), rows, _caption(one, len(findings)))


def _caption(one: FindingList, number: int) -> str:
    first = f"The first {SHOWN} of {number:,}. " if number > SHOWN else ""
    return f"{first}All of them: {one.file}.csv."


def _confusions(found: Audit, at: Callable[[str, str], Number]) -> Panel:
    rows = [
        [
            Name(one.label),
            Name(one.taken_for),
            at(f"{one.images:,} of {one.of:,}", CONFUSIONS.field),
            at(percent(one.share), CONFUSIONS.field),
            at(f"{percent(one.interval[0])} to {percent(one.interval[1])}", CONFUSIONS.field),
        ]
        for one in found.confusions[:SHOWN]
    ]
    head = ("class", "taken for", "images", "share", "95 % interval")
    blocks: list[Block] = [Text(say(CONFUSIONS.means))]
    if rows:
        blocks.append(Table(head, rows, _caption(CONFUSIONS, len(found.confusions))))
    headline = say(
        "{n} {what}",
        n=at(whole(len(found.confusions)) if rows else "No", CONFUSIONS.field),
        what=CONFUSIONS.one if len(found.confusions) == 1 else CONFUSIONS.many,
    )
    return Panel(CONFUSIONS.file, CONFUSIONS.title, headline, blocks)


def summary(found: Audit) -> list[tuple[str, int, str]]:
    """The lists by name, how long each is, and what is first in it."""
    rows = [
        (one.title, len(findings), str(worst(findings)))
        for one in LISTS
        for findings in [getattr(found, one.field)]
    ]
    pairs = [f"{one.label} taken for {one.taken_for}: {one.why}" for one in found.confusions]
    return [*rows, (CONFUSIONS.title, len(pairs), pairs[0] if pairs else "none")]
