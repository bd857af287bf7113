"""A run and a split become results: numbers, stored logits and pictures.

The validation split belongs to the run and may be looked at freely. The test split is opened
when the run is finished, here and nowhere else, and every opening is a line of the ledger
beside the runs. A checkpoint that was evaluated before is not evaluated again: its stored
result is returned, and no byte of the run changes.
"""

import fcntl
import io
import json
import os
import time
from typing import Any, Literal

import numpy as np

from vitlab import figures
from vitlab.data import (
    ARRAYS,
    Examples,
    from_arrays,
    index_sha256,
    load_test,
    load_train,
    train_validation,
)
from vitlab.data.batches import Images
from vitlab.device import choose_device, choose_precision
from vitlab.errors import DataError, RunError
from vitlab.files import write_bytes
from vitlab.metrics import roc, summarize
from vitlab.predict import compute_logits, open_model
from vitlab.run import Checkpoint, Run, Which

Split = Literal["validation", "test"]
Data = Examples | tuple[np.ndarray, np.ndarray] | None

LEDGER = "test-ledger.jsonl"
NAMES: dict[Which, str] = {"last": "{}", "best": "best-{}"}
"""How the files of a split are called, for the last checkpoint and for the best."""

PICTURES = ("per-class", "confusion", "roc", "reliability")


def evaluate(
    run: Run | str | os.PathLike[str],
    split: Split = "validation",
    *,
    checkpoint: Which = "last",
    data: Data = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Judge a run's model on a split and store what was found in the run.

    Args:
        run: a Run or its path.
        split: "test" needs a finished run and enters the ledger.
        checkpoint: "last" is the headline. Results of "best", the checkpoint of the highest
            validation accuracy, are kept under that word.
        data: images and labels in memory instead of `config.data.dataset`: for validation
            everything that the run was given to train on, for test the test images.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.

    Returns:
        `metrics.summarize`, with the checkpoint, images and precision it speaks of. A test
        result has `test_openings`: the lines of the ledger, this opening included.

    Raises:
        RunError: no sound checkpoint, an unfinished run before its test, no validation split.
        DataError: images that are not those of the run.
    """
    run = run if isinstance(run, Run) else Run(run)
    chosen = run.checkpoint(checkpoint)
    name = NAMES[checkpoint].format(split)
    source = _stored(run, split, checkpoint, chosen.sha256)
    drawn = all((run.figures / f"{name}-{picture}.png").exists() for picture in PICTURES)
    if source == checkpoint and drawn:
        return _shelf(run.results, checkpoint)[split]
    with run.evaluation_lock():
        if source is None:
            result = _measure(run, split, chosen, name, _open(run, split, data, data_root), device)
        else:
            result = _shelf(run.results, source)[split]
            logits = run.predictions(NAMES[source].format(split)).read_bytes()
            write_bytes(run.predictions(name), logits)
        _draw(run, name, result)
        # Last, so that a result never speaks of predictions and pictures not yet there.
        results = run.results
        _shelf(results, checkpoint)[split] = result
        run.write_results(results)
    return result


def record_opening(run: Run, checkpoint: Checkpoint) -> int:
    """Add an opening of the test split to the ledger beside the runs; return how many it counts.

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
        before = ledger.read()
        # A line that a crash cut short is an opening too.
        start = "\n" if before and not before.endswith("\n") else ""
        ledger.write(start + json.dumps(entry) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())
    return len(before.splitlines()) + 1


def _shelf(results: dict[str, Any], checkpoint: Which) -> dict[str, Any]:
    return results if checkpoint == "last" else results.setdefault("best", {})


def _stored(run: Run, split: Split, checkpoint: Which, sha256: str) -> Which | None:
    """Under which word the run holds a result of exactly this checkpoint, the given word first.

    The best checkpoint may be the last: it is no reason to open the test split again.
    """
    results = run.results
    for word in sorted(NAMES, key=checkpoint.__ne__):
        result = _shelf(results, word).get(split, {})
        same = result.get("checkpoint_sha256") == sha256
        if same and run.predictions(NAMES[word].format(split)).exists():
            return word
    return None


def _open(
    run: Run, split: Split, data: Data, root: str | os.PathLike[str] | None
) -> tuple[Examples, np.ndarray]:
    """The images that a split is part of, and the split's index into them."""
    config, origin = run.config.data, run.origin["data"]
    if split == "test" and run.finished is None:
        raise RunError(
            f"{run.path} is not finished, and the test split is opened at the end: evaluate "
            f"validation, or finish it with `vitlab train --resume {run.path}`"
        )
    if data is None:
        if config.dataset == ARRAYS:
            raise DataError(f"{run.path} was trained on arrays in memory: hand them in as data=")
        examples = load_test(config, root) if split == "test" else load_train(config, root)
    elif isinstance(data, Examples):
        examples = data
    else:
        examples = from_arrays(*data, class_names=origin["class_names"])
    if split == "test":
        _check_kind(run, examples)
        return examples, np.arange(len(examples.labels))
    if examples.fingerprint != origin["fingerprint"]:
        raise DataError(
            f"these are not the images that {run.path} was trained on (fingerprint "
            f"{examples.fingerprint[:12]}, not {origin['fingerprint'][:12]}): point --data-root "
            "at the original"
        )
    index = train_validation(examples.labels, config)[1]
    if not len(index):
        raise RunError(f"{run.path} has no validation split: data.validation_fraction=0")
    return examples, index


def _check_kind(run: Run, examples: Examples) -> None:
    """Refuse test images of other classes or another form than the run learned."""
    assert run.config.data.image_size
    form = (*run.config.data.image_size, run.config.data.channels)
    if examples.images.shape[1:] != form:
        raise DataError(f"test images are {examples.images.shape[1:]}, but {run.path} takes {form}")
    classes = run.origin["data"]["class_names"]
    if list(examples.class_names) != classes:
        raise DataError(
            f"test images are of the classes {', '.join(examples.class_names)}, but {run.path} "
            f"knows {', '.join(classes)}: the same names in the same order are needed"
        )


def _measure(
    run: Run,
    split: Split,
    checkpoint: Checkpoint,
    name: str,
    images: tuple[Examples, np.ndarray],
    device: str,
) -> dict[str, Any]:
    """Classify a split, store the logits and return the result."""
    examples, index = images
    where = choose_device(device)
    precision = choose_precision(run.config.train, where).word
    model = open_model(run, checkpoint, where)
    opening = {"test_openings": record_opening(run, checkpoint)} if split == "test" else {}
    logits = compute_logits(
        model,
        Images(examples, index, where)[:],
        mean=tuple(run.origin["data"]["mean"]),
        std=tuple(run.origin["data"]["std"]),
        size=tuple(checkpoint.state["image_size"]),
        precision=precision,
    )
    arrays = {"logits": logits.cpu().numpy(), "labels": examples.labels[index], "indices": index}
    summary = summarize(arrays["logits"], arrays["labels"], examples.class_names)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    write_bytes(run.predictions(name), file.getvalue())
    return {
        "step": checkpoint.step,
        "checkpoint_sha256": checkpoint.sha256,
        "data_fingerprint": examples.fingerprint,
        "index_sha256": index_sha256(index),
        "precision": precision,
        **opening,
        **summary,
    }


def _draw(run: Run, name: str, result: dict[str, Any]) -> None:
    """Draw the pictures of a result, and the curves of the run, from stored numbers alone."""
    with np.load(run.predictions(name), allow_pickle=False) as arrays:
        points = roc(arrays["logits"], arrays["labels"])
    names = [one["class"] for one in result["per_class"]]
    accuracies = [one["accuracy"] for one in result["per_class"]]
    areas = [one["auc"] for one in result["per_class"]]
    of = name.replace("best-", "best checkpoint, ")
    title = f"{run.name}, {of}: {100 * result['accuracy']:.2f} % of {result['images']:,} images"
    if "test_openings" in result:
        title += f" (opening {result['test_openings']} of the test split)"
    files = {picture: run.figures / f"{name}-{picture}" for picture in PICTURES}
    figures.curves(run.metrics, run.figures / "curves", title=run.name)
    figures.per_class_bars(accuracies, names, files["per-class"], title=title)
    figures.confusion(result["confusion"], names, files["confusion"], title=title)
    figures.roc(points, areas, names, files["roc"], title=title)
    title += f", calibration error {100 * result['calibration_error']:.2f} %"
    figures.reliability(result["reliability"], files["reliability"], title=title)
