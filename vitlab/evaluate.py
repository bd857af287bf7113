"""A run and a split become results: numbers, stored logits and pictures.

The validation split belongs to the run and may be looked at freely. The test split is opened
once the run is finished, here and nowhere else, and every opening is a line of the ledger
beside the runs. A checkpoint that was evaluated before is not evaluated again: its stored
result is returned, and no byte of the run changes.
"""

import fcntl
import io
import json
import os
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitlab import figures
from vitlab.data import Examples, index_sha256, load_test, load_train, train_validation
from vitlab.data.batches import Images
from vitlab.device import choose_device, choose_precision
from vitlab.errors import DataError, RunError
from vitlab.files import Lock, write_bytes, write_json
from vitlab.metrics import roc, summarize
from vitlab.predict import compute_logits, open_model
from vitlab.run import Checkpoint, Run, Which

Split = Literal["validation", "test"]

LEDGER = "test-ledger.jsonl"


def evaluate(
    run: Run | str | os.PathLike[str],
    split: Split = "validation",
    *,
    checkpoint: Which = "last",
    data: Examples | None = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Judge a run's model on a split and store what was found in the run.

    Args:
        run: a Run or its path.
        split: "test" needs a finished run and enters the ledger.
        checkpoint: "last" is the headline; results of "best", the highest validation accuracy,
            are kept under that word.
        data: the images in memory instead of `config.data.dataset`: all that the run was
            trained on with its validation images, or the test images.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.

    Returns:
        `metrics.summarize`, and which checkpoint, images and precision it speaks of. A test
        result has `test_openings`: how often any run beside this one had opened the test split.

    Raises:
        RunError: without a sound checkpoint, or for the test split of an unfinished run.
        DataError: where the images are not those the run was trained on.
    """
    run = run if isinstance(run, Run) else Run(run)
    chosen = run.checkpoint(checkpoint)
    name = split if checkpoint == "last" else f"best-{split}"
    result = _stored(run, split, checkpoint)
    if result is None or result["checkpoint_sha256"] != chosen.sha256:
        with Lock(run.path / ".evaluate.lock"):
            examples, index = _open(run, split, data, data_root)
            opening = {}
            if split == "test":
                opening["test_openings"] = enter(run, chosen)
            logits, precision = _logits(run, chosen, examples, index, device)
            labels = examples.labels[index]
            result = {
                "checkpoint": checkpoint,
                "step": chosen.step,
                "checkpoint_sha256": chosen.sha256,
                "data_fingerprint": examples.fingerprint,
                "index_sha256": index_sha256(index),
                "precision": precision,
                **opening,
                **summarize(logits, labels, examples.class_names),
            }
            arrays = io.BytesIO()
            np.savez(arrays, logits=logits, labels=labels, indices=index)
            write_bytes(run.predictions(name), arrays.getvalue())
            _draw(run, name, result)
            _store(run, split, checkpoint, result)
    return result


def enter(run: Run, checkpoint: Checkpoint) -> int:
    """Write an opening of the test split into the ledger beside the runs; return how many it holds.

    Processes that arrive together wait for each other.
    """
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "run": run.name,
        "config_sha256": run.config.sha256,
        "checkpoint_sha256": checkpoint.sha256,
        "split": "test",
    }
    with open(run.path.resolve().parent / LEDGER, "a+", encoding="utf-8") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        ledger.seek(0)
        lines = ledger.read().splitlines()
        ledger.write(json.dumps(entry) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())
    return len(lines) + 1


def _open(
    run: Run, split: Split, data: Examples | None, root: str | os.PathLike[str] | None
) -> tuple[Examples, np.ndarray]:
    """The images a split is part of, and the split's index into them."""
    origin = run.origin["data"]
    if data is None and run.config.data.dataset == "arrays":
        raise DataError(f"{run.path} was trained on arrays in memory: hand the images in as data=")
    if split == "test":
        if run.finished is None:
            raise RunError(
                f"{run.path} is not finished, and the test split is opened once, at the end: "
                f"evaluate validation, or finish it with `vitlab train --resume {run.path}`"
            )
        examples = data or load_test(run.config.data, root)
        if list(examples.class_names) != origin["class_names"]:
            raise DataError(
                f"the test images are of the classes {', '.join(examples.class_names)}, but "
                f"{run.path} knows {', '.join(origin['class_names'])}"
            )
        return examples, np.arange(len(examples.labels))
    examples = data or load_train(run.config.data, root)
    if examples.fingerprint != origin["fingerprint"]:
        raise DataError(
            f"these are not the images {run.path} was trained on (fingerprint "
            f"{examples.fingerprint[:12]}, not {origin['fingerprint'][:12]}): point --data-root "
            "at the original"
        )
    index = train_validation(examples.labels, run.config.data)[1]
    if not len(index):
        raise RunError(f"{run.path} has no validation split: data.validation_fraction=0")
    return examples, index


def _logits(
    run: Run, checkpoint: Checkpoint, examples: Examples, index: np.ndarray, device: str
) -> tuple[np.ndarray, str]:
    """Logits (N, K) of the images at an index, and the precision they were computed with."""
    where = choose_device(device)
    precision = choose_precision(run.config.train, where).word
    statistics = run.origin["data"]
    logits = compute_logits(
        open_model(run, checkpoint, where),
        Images(examples, index, where)[:],
        mean=tuple(statistics["mean"]),
        std=tuple(statistics["std"]),
        size=tuple(checkpoint.state["image_size"]),
        precision=precision,
    )
    return logits.cpu().numpy(), precision


