"""The images that are left without what was found, as a CSV file that training takes."""

import os
from pathlib import Path

from vitlab.auditing.findings import Audit
from vitlab.auditing.subject import Subject
from vitlab.errors import ConfigError, DataError
from vitlab.files import write_text
from vitlab.formatting import FORMULA, csv_cell, csv_text


def check_target(path: Path, subject: Subject) -> None:
    """Refuse a file that training would not read, or that is the data set's own.

    And DataError where images have no files of their own, or some that a CSV file cannot name.
    """
    if path.suffix.lower() != ".csv":
        raise ConfigError([f"--write {path}: training reads it by its suffix: call it .csv"])
    if not subject.files("train"):
        raise DataError(
            f"--write lists files, and the images of {subject.dataset.config.dataset} have none of "
            "their own: save each in a folder named like its class, or leave --write out and take "
            "the rows from audit.json"
        )
    if path.resolve() in (file.resolve() for file in subject.dataset.source.files("train")[:1]):
        raise ConfigError([f"--write {path} is the data set itself, which stays as it is"])
    for file in (*subject.files("train"), *subject.files("test")):
        _relative(file, path)


def write_cleaned(found: Audit, subject: Subject, path: Path) -> dict[str, int]:
    """Write a CSV of path and label, and of split where the set is not all for training.

    Returns:
        How many images are `kept`, and how many are left out by reason, each by the first it has.
    """
    reasons = left_out(found)
    counts = {"kept": 0, **dict.fromkeys(reasons.values(), 0)}
    lines = []
    for image in subject.every():
        reason = reasons.get((image.split, image.row), "kept")
        counts[reason] += 1
        if reason == "kept":
            assert image.file
            lines.append((_relative(image.file, path), image.label, image.split))
    columns = 3 if subject.has_splits else 2
    head = ("path", "label", "split")
    write_text(path, csv_text(line[:columns] for line in (head, *sorted(lines))))
    return counts


def left_out(found: Audit) -> dict[tuple[str, int], str]:
    """Why images are left out, by their split and row.

    Of two copies it is the second, of a training and a test image that of training, and both where
    their labels differ.
    """
    reasons: dict[tuple[str, int], str] = {}
    lists = {
        "cannot be read": found.unreadable,
        "nearly empty": found.empty,
        "probable label errors": found.label_errors,
        "copies": found.copies,
    }
    for reason, findings in lists.items():
        for one in findings:
            reasons.setdefault((one.image.split, one.image.row), reason)
    tested = {one.image for one in found.copies if one.other and one.other.split == "test"}
    for one in found.copies:
        assert one.other
        both = one.image.label != one.other.label
        # The first of two copies stays, unless the second is a copy of a test image, as both are.
        if both or (one.image in tested and one.other.split != "test"):
            reasons.setdefault((one.other.split, one.other.row), "copies")
    return reasons


def _relative(file: str, table: Path) -> str:
    """The path of a file from the folder of a table, written so that it is no formula."""
    path = os.path.relpath(file, table.parent)
    path = os.path.join(os.curdir, path) if path.startswith(FORMULA) else path
    if csv_cell(path) != path:
        raise DataError(f"{path!r} cannot be written into a CSV file: rename it")
    return path
