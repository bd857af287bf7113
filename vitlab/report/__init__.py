"""One page, or a deck of slides, from runs and studies.

    RUN | STUDY [...] -> report.html or slides.html, which needs no other file

`document` is what a report is made of, `runs` and `study` say what the numbers say, charts are
those of `vitlab.figures`, `architecture` draws models, `render` writes HTML. Nothing here runs a
model: a report reads what other verbs left in the folders, and names the command where there is
nothing.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vitlab.errors import RunError
from vitlab.files import write_text
from vitlab.pretrained import open_run
from vitlab.run import Run

if TYPE_CHECKING:
    from vitlab.report.document import Report
    from vitlab.report.study import Study

__all__ = ["report"]

LONGEST = 80
"""Most letters of the name of a folder of several."""


def report(
    subjects: Sequence[str | os.PathLike[str] | Run],
    *,
    slides: bool = False,
    out: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a report of runs and studies.

    Args:
        subjects: runs, their paths or the names of shipped models, and folders of studies.
        slides: a deck instead of a page.
        out: folder to write into; default `report` in the run or study, and of several
            `report/NAME-NAME` beside the first.

    Returns:
        The path of report.html or slides.html.

    Raises:
        RunError: neither run nor study, or a file of theirs that is damaged; a folder that cannot
            be written.
    """
    from vitlab.report import render, runs, study
    from vitlab.report.study import Study
    from vitlab.report.subject import Subject

    opened: list[Run] = []
    studies: list[Study] = []
    for each in subjects:
        if not isinstance(each, Run) and Study.found(Path(each)):
            studies.append(Study(Path(each)))
        else:
            opened.append(open_run(each))
    if not opened and not studies:
        raise RunError("a report needs a run or a study: give the path of one")
    found = Subject.of(opened)
    made = [runs.report(found)] if found else []
    made += [study.report(one) for one in studies]
    whole = joined(made)
    folder = Path(out) if out is not None else default_folder(opened, studies)
    target = folder / ("slides.html" if slides else "report.html")
    html = render.deck(whole) if slides else render.page(whole)
    try:
        write_text(target, html)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}; choose another --out") from error
    return target


def default_folder(runs: Sequence[Run], studies: Sequence["Study"]) -> Path:
    """`report` in a run or study; of several, report/NAME-NAME beside the first."""
    if len(runs) + len(studies) == 1:
        return runs[0].reports if runs else studies[0].folder / "report"
    folders = [one.path.resolve() for one in runs] + [one.folder.resolve() for one in studies]
    names = "-".join(folder.name for folder in folders)
    if len(names) > LONGEST:
        names = f"{folders[0].name[:LONGEST]}-and-{len(folders) - 1}-more"
    return folders[0].parent / "report" / names


def joined(reports: Sequence["Report"]) -> "Report":
    """Reports one after another, each panel with an address of its own."""
    from vitlab.report.document import Panel, Report, Tiles, join

    if len(reports) == 1:
        return reports[0]
    panels: list[Panel] = []
    for place, one in enumerate(reports, start=1):
        panels += [
            replace(panel, key=f"{panel.key}-of-{place}", topic=f"{panel.topic}: {one.title}")
            for panel in one.panels
        ]
    return Report(
        title=" and ".join(one.title for one in reports),
        question=join([one.question for one in reports]),
        cover=Tiles([tile for one in reports for tile in one.cover.tiles]),
        about=join([one.about for one in reports]),
        panels=panels,
        subjects=len(reports),
    )
