"""The splits on which a run is evaluated: validation freely, and test, of which each use counts.

A line of the ledger beside the runs is one use of the test split. Whatever shows or measures
anything on test images opens them here, and writes the line before the first of them is used.
"""

import fcntl
import json
import os
import time
import warnings

import numpy as np

from vitlab.data import (
    ARRAYS,
    KNOWN,
    Data,
    LabelledImages,
    from_arrays,
    load_test,
    open_dataset,
    relocate,
)
from vitlab.errors import DataError, RunError
from vitlab.inference import open_examples
from vitlab.records import Split
from vitlab.run import Checkpoint, Run

LEDGER = "test-ledger.jsonl"


def open_split(
    run: Run, split: Split, data: Data = None, data_root: str | os.PathLike[str] | None = None
) -> tuple[LabelledImages, np.ndarray]:
    """The images that a split of a run is part of, and the split's index into them.

    Args:
        data: images and labels in memory instead of `config.data.dataset`: for validation
            everything that the run was given to train on, for test the test images.
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.

    Raises:
        RunError: an unfinished run before its test, or no validation split.
        DataError: images that are not those of the run, or not of its kind.
    """
    if split == "test":
        examples = _test(run, data, data_root)
        return examples, np.arange(len(examples.labels))
    examples = open_examples(run, data, data_root)
    _, index = run.split.index
    if not len(index):
        raise RunError(
            f"{run.path} has no validation split: it was trained with --data.validation_fraction 0"
        )
    return examples, index


def _test(run: Run, data: Data, data_root: str | os.PathLike[str] | None) -> LabelledImages:
    """The test images, of the classes and the form that the run learned."""
    if run.finished is None:
        raise RunError(
            f"{run.path} is not finished, and the test split is opened at the end: look at "
            f"validation, or finish it with `vitlab train --resume {run.path}`"
        )
    config, classes = run.config.data, run.provenance["data"]["class_names"]
    test_drawn = False
    if isinstance(data, LabelledImages):
        examples = data.canonical()
    elif data is not None:
        examples = from_arrays(*data, class_names=classes, task=config.task)
    elif config.dataset == ARRAYS:
        raise DataError(f"{run.path} was trained on arrays in memory: hand them in as data=")
    else:
        dataset = open_dataset(relocate(config, data_root), root=data_root)
        examples, test_drawn = load_test(dataset), not dataset.has_test
    assert config.image_size
    form = (*config.image_size, config.channels)
    if examples.images.shape[1:] != form:
        raise DataError(f"test images are {examples.images.shape[1:]}, but {run.path} takes {form}")
    if list(examples.class_names) != classes:
        raise DataError(
            f"test images are of the classes {', '.join(examples.class_names)}, but {run.path} "
            f"knows {', '.join(classes)}: the same names in the same order are needed"
        )
    if test_drawn:
        # Which images are its test split is decided by all of them.
        open_examples(run, data_root=data_root)
        _refuse_seen(run, examples)
    elif config.dataset not in KNOWN and (
        copies := np.isin(examples.keys, run.split.trained).sum()
    ):
        warnings.warn(
            f"{copies:,} of {len(examples.labels):,} test images are copies of images that "
            f"{run.path} was trained on: its test accuracy will look better than it is",
            stacklevel=3,
        )
    return examples


def _refuse_seen(run: Run, test: LabelledImages) -> None:
    """Refuse test images that the weights which a run started from were trained on."""
    split = run.split
    seen = int((np.isin(test.keys, split.before) & ~np.isin(test.keys, split.keys)).sum())
    if seen and run.config.train.overlap == "refuse":
        raise DataError(
            f"{run.config.train.weights}, which {run.path} started from, was trained on {seen:,} "
            f"of its {len(test.labels):,} test images: train again with the data.split_seed and "
            "data.test_fraction of that run, or with --train.overlap=allow, which every table "
            "then states"
        )


def record_opening(run: Run, checkpoint: Checkpoint, fingerprint: str) -> int:
    """Add a use of test images to the ledger beside the runs.

    Processes that arrive together wait for each other.

    Args:
        fingerprint: of the test images, which tells one data set and split from another.

    Returns:
        How often these images were used according to this ledger, this time included. A line that
        does not say which images it speaks of, as those of earlier versions, may be of these.
    """
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "run": run.name,
        "config_sha256": run.config.sha256,
        "checkpoint_sha256": checkpoint.sha256,
        "split": "test",
        "fingerprint": fingerprint,
    }
    with open(run.path.resolve().parent / LEDGER, "a+", encoding="utf-8") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        ledger.seek(0)
        before = ledger.read()
        # A line that a crash cut short is an opening too.
        start = "\n" if before and not before.endswith("\n") else ""
        ledger.write(start + json.dumps(entry) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())
    return 1 + sum(_may_be_of(line, fingerprint) for line in before.splitlines())


def _may_be_of(line: str, fingerprint: str) -> bool:
    try:
        return json.loads(line).get("fingerprint", fingerprint) == fingerprint
    except (ValueError, AttributeError):  # cut short, or no entry at all
        return True
