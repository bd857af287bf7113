"""An audit from beginning to end: open, describe, judge, list, write."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vitlab.auditing import cleaned, findings, page
from vitlab.auditing.findings import Audit
from vitlab.auditing.subject import Subject, open_subject
from vitlab.data import Data, Root
from vitlab.metrics import log_softmax
from vitlab.run import Run
from vitlab.selection.folds import NEVER, assign_folds, linear_logits

DECAY = 0.1
"""Weight decay of the linear classifiers that judge labels: of 0.03 to 1, that of the smallest or
nearly the smallest log loss out of fold on 200 to 10,000 images of CIFAR-10 with planted errors."""


def audit(
    source: Run | str | os.PathLike[str] | Data,
    *,
    out: str | os.PathLike[str] | None = None,
    write: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    fields: Mapping[str, Any] | None = None,
    device: str = "auto",
    data_root: Root = None,
    quiet: bool = False,
) -> Audit:
    """Find what may be wrong with labelled images; nothing of them is changed.

    Probable label errors by confident learning (Northcutt et al., 2021), near-duplicates, images
    unlike the rest, unreadable and nearly empty ones, and classes that cannot be told apart. They
    are written as a page, index.html, as contact sheets, CSV files and audit.json.

    Args:
        source: a run, its folder or the name of one that ships; or a data set: a folder of class
            folders, a CSV, Parquet, a known name, or images and labels.
        out: folder to write; default `audit` in a run, audit/NAME of a data set.
        write: CSV file to write of the images that are left without those found, for training.
        backbone: pretrained network that describes images, as `pretrained.backbones` names it;
            default efficientnet-lite0, of a run its own body.
        fields: fields of the config's `data`, by their dotted names, of a data set.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.
        quiet: show no progress.

    Raises:
        ConfigError: images with several labels; fields beside a run; `write` that is no .csv file.
        DataError: no such data set or backbone; `write` where images are no files.
    """
    subject = open_subject(source, backbone, fields or {}, device, data_root)
    if write is not None:
        cleaned.check_target(Path(write), subject)
    found = judge(subject, quiet)
    if write is not None:
        found = replace(found, cleaned=cleaned.write_cleaned(found, subject, Path(write)))
    folder = Path(out) if out is not None else default_folder(subject.name, subject.run)
    page.write(found, subject, folder)
    return found


def default_folder(name: str, run: Run | None) -> Path:
    """Where an audit lies: in the run, where its report finds it, else audit/NAME."""
    return Path("audit") / name if run is None or run.ships else run.audit


def judge(subject: Subject, quiet: bool) -> Audit:
    """Everything that is found."""
    examples, labels, names = subject.examples, subject.examples.labels, subject.class_names
    features = subject.frozen.features(examples, np.arange(len(labels)), quiet=quiet)
    folds = assign_folds(examples.keys, labels, seed=0)
    logits = linear_logits(features, labels, folds, len(names), DECAY)
    probabilities = np.exp(log_softmax(logits))
    known = ~np.isnan(logits[:, 0])
    right = logits[known].argmax(axis=1) == labels[known]
    distances = findings.neighbor_distances(features, quiet)
    bound = findings.fence(distances)
    single = np.setdiff1d(np.arange(len(names)), labels[folds != NEVER])
    return Audit(
        source=subject.name,
        features=subject.backbone or subject.name,
        own_body=subject.backbone is None,
        fingerprint=examples.fingerprint,
        class_names=names,
        images=len(labels),
        test_images=len(subject.named_test),
        predicted=int(known.sum()),
        agreement=float(right.mean()) if len(right) else None,
        not_judged=tuple(names[label] for label in single.tolist()),
        label_errors=tuple(findings.wrong_labels(subject, probabilities)),
        copies=tuple(findings.copies(subject)),
        unlike=tuple(findings.unlike(subject, distances, bound)),
        unlike_bound=bound,
        unreadable=tuple(findings.unreadable(subject)),
        empty=tuple(findings.empty(subject)),
        confusions=tuple(findings.confusions(probabilities, labels, names)),
    )
