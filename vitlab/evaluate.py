"""A run and a split become results: numbers, stored logits and pictures.

    evaluate              how good the model is, as a whole and for every class, and how sure
    evaluate_robustness   what is left of it when the images are corrupted or attacked

The validation split belongs to the run and may be looked at freely. The test split is opened
when the run is finished, and every opening is a line of the ledger beside the runs. A checkpoint
that was evaluated before is not evaluated again: its stored result is returned, and no byte of
the run changes. Everything but the logits and the images shown is made from stored files, so lost
pictures come back without the images.
"""

import io
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from vitlab.data import LabelledImages, index_sha256
from vitlab.data.batches import DeviceImages
from vitlab.device import choose_device, enough_memory
from vitlab.figures import evaluation, training
from vitlab.files import write_bytes
from vitlab.formatting import csv_text
from vitlab.inference import BATCH, WORKING, Data, compute_logits, inference_precision, open_model
from vitlab.ledger import Split, open_split, record_opening
from vitlab.metrics import (
    GALLERY_SEED,
    epochs_to_accuracy,
    fit_temperature,
    galleries,
    log_softmax,
    require_finite,
    roc,
    summarize,
)
from vitlab.pretrained import open_run
from vitlab.records import CheckpointChoice, Results, Timing
from vitlab.robustness import EPSILON, View, predictions
from vitlab.run import Checkpoint, Run
from vitlab.stats import wilson

NAMES: dict[CheckpointChoice, str] = {"last": "{}", "best": "best-{}"}
"""How the files of a split are called, for the last checkpoint and for the best."""

PICTURES = (
    "per-class",
    "precision-recall",
    "confidence",
    "confusion",
    "confusions",
    "roc",
    "reliability",
)
"""What is drawn from logits alone."""

GALLERIES = {
    "random": "{shown} images drawn at random (seed {seed})",
    "mistakes": "{shown} of {wrong:,} mistakes, drawn at random (seed {seed})",
    "confident-mistakes": "the {shown} most confident of {wrong:,} mistakes",
}
"""What is drawn from the images that were kept when the split was open, and its title."""

FACTS = (
    "step",
    "checkpoint_sha256",
    "data_fingerprint",
    "index_sha256",
    "precision",
    "validation_seen",
    "test_openings",
)
"""What a result says of its logits, and the logits cannot say themselves."""

WARM_UP, TIMED = 5, 25
"""Single images that are answered before time is taken, and those whose median time is."""

ROBUSTNESS_IMAGES, ROBUSTNESS_SEED = 2_000, 0
"""Images that are corrupted and attacked, and the seed that draws them from a split."""


def evaluate(
    run: Run | str | os.PathLike[str],
    split: Split = "validation",
    *,
    checkpoint: CheckpointChoice = "last",
    data: Data = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
    pictures: bool = True,
) -> dict[str, Any]:
    """Judge a run's model on a split and store what was found in the run.

    Args:
        run: a Run, its path, or the name of a shipped model, of which a copy is judged.
        split: "test" needs a finished run and enters the ledger. Validation is judged first,
            because the temperature of the logits is fitted there.
        checkpoint: "last" is the headline. Results of "best", the checkpoint of the highest
            validation accuracy, are kept under that word.
        data: images and labels in memory instead of `config.data.dataset`: for validation
            everything that the run was given to train on, for test the test images.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.
        pictures: draw them now; else `draw`, or this function called again, makes up for it.

    Returns:
        `metrics.summarize`, with the checkpoint, images and precision it speaks of, and what the
        run's own record says of its time, its convergence and the accuracy on clean training
        images. A test result has `test_openings`: the lines of the ledger, this opening included.

    Raises:
        RunError: no sound checkpoint, an unfinished run before its test, no validation split, a
            folder that cannot be written.
        DataError: images that are not those of the run.
        VitlabError: logits that are not finite, or too little memory.
    """
    run = open_run(run)
    chosen = run.checkpoint(checkpoint)
    name = NAMES[checkpoint].format(split)
    source = _stored(run, split, checkpoint, chosen)
    if source == checkpoint and (_drawn(run, name) or not pictures):
        return _shelf(run.results, checkpoint)[split]
    images = None
    if source is None:
        images = open_split(run, split, data, data_root)
        if split == "test" and data is None and run.config.data.validation_fraction:
            where = {"device": device, "data_root": data_root}
            evaluate(run, checkpoint=checkpoint, pictures=pictures, **where)
    with run.evaluating():
        if images is not None:
            facts = _classify(run, split, chosen, name, images, device)
        else:
            assert source is not None
            facts = _take_over(run, split, source, name)
        temperature = _temperature(run, split, checkpoint, chosen)
        result = {**facts, **_judge(run, name, chosen, temperature)}
        if pictures:
            draw(run, name, result)
        _keep(run, split, checkpoint, result)
    return result


def evaluate_robustness(
    run: Run | str | os.PathLike[str],
    split: Split = "validation",
    *,
    checkpoint: CheckpointChoice = "last",
    data: Data = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Judge a run's model on corrupted and attacked images, and store what was found in the run.

    The images are 2,000 of the split, the same for every run that shares it; all of them where
    there are fewer. Arguments and errors are those of `evaluate`; on the test split this is an
    opening of its own.

    Returns:
        `conditions`, one object for the images as they are, each corruption at each severity and
        each attack, with its accuracy and Wilson interval; their mean over the corruptions; and
        the facts of `evaluate`.
    """
    run = open_run(run)
    chosen = run.checkpoint(checkpoint)
    key = f"{split}-robustness"
    name = NAMES[checkpoint].format(key)
    source = _stored(run, key, checkpoint, chosen)
    if source == checkpoint and (run.figures / f"{name}.png").exists():
        return _shelf(run.results, checkpoint)[key]
    images = open_split(run, split, data, data_root) if source is None else None
    with run.evaluating():
        if images is not None:
            result = _withstand(run, split, chosen, name, images, device)
        else:
            assert source is not None
            _take_over(run, key, source, name)
            result = _shelf(run.results, source)[key]
        title = f"{run.name}, {_words(name)}: {result['images']:,} images, 95 % intervals; "
        title += f"attacks move a pixel by at most {255 * result['epsilon']:g}/255"
        evaluation.robustness(result["conditions"], run.figures / name, title=title)
        _keep(run, key, checkpoint, result)
    return result


def _shelf(results: Results, checkpoint: CheckpointChoice) -> dict[str, Any]:
    shelf = results if checkpoint == "last" else results.setdefault("best", {})
    return cast(dict[str, Any], shelf)  # its keys are put together


def _stored(
    run: Run, key: str, checkpoint: CheckpointChoice, chosen: Checkpoint
) -> CheckpointChoice | None:
    """Under which word the run holds a result of exactly this checkpoint, the given word first.

    The best checkpoint may be the last: it is no reason to open the test split again.
    """
    results = run.results
    for word in sorted(NAMES, key=checkpoint.__ne__):
        result = _shelf(results, word).get(key, {})
        same = result.get("checkpoint_sha256") == chosen.sha256
        if same and run.predictions(NAMES[word].format(key)).exists():
            return word
    return None


def _drawn(run: Run, name: str) -> bool:
    """True if no picture that can be drawn from stored files is missing."""
    kept = run.predictions(f"{name}-gallery").exists()
    pictures = (*PICTURES, *GALLERIES) if kept else PICTURES
    return all((run.figures / f"{name}-{picture}.png").exists() for picture in pictures)


def _take_over(run: Run, key: str, source: CheckpointChoice, name: str) -> dict[str, Any]:
    """Copy the predictions of an equal checkpoint to this one's name; return their facts."""
    for tail in ("", "-gallery"):
        theirs = run.predictions(NAMES[source].format(key) + tail)
        if theirs.exists() and theirs != run.predictions(name + tail):
            write_bytes(run.predictions(name + tail), theirs.read_bytes())
    stored = _shelf(run.results, source)[key]
    return {fact: stored[fact] for fact in FACTS if fact in stored}


def _keep(run: Run, key: str, checkpoint: CheckpointChoice, result: dict[str, Any]) -> None:
    """Store a result: last, so that it never speaks of files that are not yet there."""
    results = run.results
    _shelf(results, checkpoint)[key] = result
    rows: list[tuple[Any, ...]] = [("checkpoint", "result", "class", "metric", "value")]
    shelves: dict[str, Any] = {"last": results, "best": results.get("best", {})}
    for word, shelf in shelves.items():
        for name, one in shelf.items():
            if name != "best":
                rows += ((word, name, *row) for row in _numbers(one))
    run.write_results(results, csv_text(rows))


def _numbers(result: dict[str, Any]) -> Iterator[tuple[str, str, float | None]]:
    """The numbers of a result as rows: class or nothing, metric, value."""
    for metric, value in result.items():
        if isinstance(value, int | float):
            yield "", metric, value
    if "accuracy_interval" in result:
        low, high = result["accuracy_interval"]
        yield from (("", "accuracy_low", low), ("", "accuracy_high", high))
    for line in result.get("epochs_to_accuracy", ()):
        for split in ("train_clean", "validation"):
            yield "", f"epochs_to_{line['accuracy']:g}_{split}", line[split]
    for line in result.get("conditions", ()):
        yield "", f"accuracy_{line['condition']}_{line['severity']}", line["accuracy"]
    for line in result.get("per_class", ()):
        yield from ((line["class"], metric, line[metric]) for metric in list(line)[1:])


@contextmanager
def _ready(
    run: Run,
    split: Split,
    checkpoint: Checkpoint,
    images: tuple[LabelledImages, np.ndarray],
    device: str,
) -> Iterator[tuple[nn.Module, View, dict[str, Any]]]:
    """The run's model, how it wants its images, and the facts of what follows.

    From here on the test split counts as opened.
    """
    examples, index = images
    where = choose_device(device)
    precision = inference_precision(run, where)
    data = run.provenance["data"]
    size = checkpoint.state["image_size"]
    with enough_memory(partial(_memory, examples.images.shape[1:3], len(index), where)):
        model = open_model(run, checkpoint, where)
        facts = {
            "step": checkpoint.step,
            "checkpoint_sha256": checkpoint.sha256,
            "data_fingerprint": examples.fingerprint,
            "index_sha256": index_sha256(index),
            "precision": precision,
        }
        if seen := data.get("validation_seen", 0) if split == "validation" else 0:
            facts["validation_seen"] = seen
        if split == "test":
            facts["test_openings"] = record_opening(run, checkpoint)
        yield model, View(tuple(data["mean"]), tuple(data["std"]), size, precision), facts


def _memory(size: tuple[int, int], images: int, device: torch.device) -> str:
    """What to say if memory runs out, for images of (height, width) pixels."""
    return (
        f"out of memory on {device} while judging {images:,} images of {size[0]} x {size[1]} "
        f"pixels, {BATCH} at a time or fewer, as few as go into {WORKING / 1e6:,.0f} MB: stop what "
        "else uses this memory, or choose another --device"
    )


def _classify(
    run: Run,
    split: Split,
    checkpoint: Checkpoint,
    name: str,
    images: tuple[LabelledImages, np.ndarray],
    device: str,
) -> dict[str, Any]:
    """Classify a split, store its logits and the images that are shown, and return the facts."""
    examples, index = images
    with _ready(run, split, checkpoint, images, device) as (model, view, facts):
        pixels = DeviceImages(examples, index, next(model.parameters()).device)
        parts = [
            compute_logits(model, pixels[first : first + BATCH], **view._asdict())
            for first in range(0, len(index), BATCH)
        ]
        logits = torch.cat(parts).cpu().numpy()
        seconds = _latency(model, pixels, view)
    timing: Timing = {
        "inference_ms": 1000 * seconds,
        "device": str(pixels.device),
        "threads": torch.get_num_threads(),
        "step": checkpoint.step,
    }
    run.write_timing(timing)
    require_finite(logits)
    labels = examples.labels[index]
    places = np.unique(np.concatenate(list(galleries(logits, labels).values())))
    _save(run, name, logits=logits, labels=labels, indices=index)
    _save(run, f"{name}-gallery", places=places, images=examples.images[index[places]])
    return facts


def _latency(model: nn.Module, pixels: DeviceImages, view: View) -> float:
    """Median seconds from one image to its logits, on the device of the images."""
    seconds = []
    for turn in range(WARM_UP + TIMED):
        place = turn % len(pixels)
        image = pixels[place : place + 1]
        start = time.perf_counter()
        compute_logits(model, image, **view._asdict()).cpu()  # waits for a GPU to be done
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[WARM_UP:]))


def _save(run: Run, name: str, **arrays: np.ndarray) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    write_bytes(run.predictions(name), file.getvalue())


def _load(run: Run, name: str) -> dict[str, np.ndarray]:
    with np.load(run.predictions(name), allow_pickle=False) as arrays:
        return dict(arrays)


def _temperature(
    run: Run, split: Split, checkpoint: CheckpointChoice, chosen: Checkpoint
) -> float | None:
    """The temperature of a checkpoint's validation logits, None where there are none."""
    word = checkpoint if split == "validation" else _stored(run, "validation", checkpoint, chosen)
    if word is None:
        return None
    arrays = _load(run, NAMES[word].format("validation"))
    return fit_temperature(arrays["logits"], arrays["labels"])


def _judge(
    run: Run, name: str, checkpoint: Checkpoint, temperature: float | None
) -> dict[str, Any]:
    """What stored logits, metrics and final numbers say."""
    arrays = _load(run, name)
    names = run.provenance["data"]["class_names"]
    summary = summarize(arrays["logits"], arrays["labels"], names, temperature)
    lines = [line for line in run.metrics if line["step"] <= checkpoint.step]
    clean = [line["accuracy"] for line in lines if line["split"] == "train_clean"]
    finished = run.finished or {}
    return {
        **summary,
        "train_accuracy": clean[-1] if clean else None,
        "generalisation_gap": clean[-1] - summary["accuracy"] if clean else None,
        "seconds_per_epoch": finished.get("seconds_per_epoch"),
        "seconds_per_step": finished.get("seconds_per_step"),
        "epochs_to_accuracy": epochs_to_accuracy(lines),
    }


def _withstand(
    run: Run,
    split: Split,
    checkpoint: Checkpoint,
    name: str,
    images: tuple[LabelledImages, np.ndarray],
    device: str,
) -> dict[str, Any]:
    """Classify corrupted and attacked images; store the predictions and return the result."""
    examples, index = images
    drawn = np.random.default_rng(ROBUSTNESS_SEED).random(len(index)).argsort()
    index = np.sort(index[drawn[:ROBUSTNESS_IMAGES]])
    pixels, labels = np.ascontiguousarray(examples.images[index]), examples.labels[index]
    with _ready(run, split, checkpoint, (examples, index), device) as (model, view, facts):
        found = list(predictions(model, pixels, labels, index, view))
    conditions = []
    for condition, severity, predicted in found:
        correct = int((predicted == labels).sum())
        conditions.append(
            {
                "condition": condition,
                "severity": severity,
                "images": len(labels),
                "correct": correct,
                "accuracy": correct / len(labels),
                "accuracy_interval": list(wilson(correct, len(labels))),
            }
        )
    corrupted = [one["accuracy"] for one in conditions if one["severity"]]
    _save(run, name, indices=index, labels=labels, predicted=np.array([x[2] for x in found]))
    return {
        **facts,
        "images": len(index),
        "mean_corrupted_accuracy": float(np.mean(corrupted)),
        "epsilon": EPSILON,
        "conditions": conditions,
    }


def _words(name: str) -> str:
    return name.replace("best-", "best checkpoint, ").replace("-", ", ")


def draw(run: Run, name: str, result: Mapping[str, Any]) -> None:
    """Draw the pictures of a result, and the curves of the run, from stored files alone.

    Args:
        name: of its predictions, as `test` or `best-validation`.
    """
    arrays = _load(run, name)
    logits, labels = arrays["logits"], arrays["labels"]
    classes = result["per_class"]
    names = [one["class"] for one in classes]
    numbers = {key: [one[key] for one in classes] for key in list(classes[0])[2:]}
    title = f"{run.name}, {_words(name)}: {100 * result['accuracy']:.2f} % of "
    title += f"{result['images']:,} images"
    if "test_openings" in result:
        title += f" (opening {result['test_openings']} of the test split)"
    files = {picture: run.figures / f"{name}-{picture}" for picture in (*PICTURES, *GALLERIES)}
    training.curves(run.metrics, run.figures / "curves", title=run.name)
    evaluation.per_class_bars(numbers["accuracy"], names, files["per-class"], title=title)
    for picture, keys in (
        ("precision-recall", {"precision": "precision", "recall": "recall", "F1": "f1"}),
        ("confidence", {"accuracy": "accuracy", "mean confidence": "confidence"}),
    ):
        series = {word: numbers[key] for word, key in keys.items()}
        evaluation.grouped_bars(series, names, files[picture], title=title)
    evaluation.confusion(result["confusion"], names, files["confusion"], title=title)
    evaluation.confusions(result["top_confusions"], files["confusions"], title=title)
    evaluation.roc(roc(logits, labels), numbers["auc"], names, files["roc"], title=title)
    evaluation.reliability(
        result["reliability"],
        files["reliability"],
        scaled=result["scaled_reliability"],
        heads=_heads(result),
        title=title,
    )
    if run.predictions(f"{name}-gallery").exists():
        _draw_galleries(run, name, arrays, names, title)


def _heads(result: Mapping[str, Any]) -> tuple[str, str]:
    """What stands over the reliability of logits as they are and scaled."""
    before = f"as trained: calibration error {100 * result['calibration_error']:.2f} %"
    if result["temperature"] is None:
        return before, ""
    error = f"calibration error {100 * result['scaled_calibration_error']:.2f} %"
    return before, f"at temperature {result['temperature']:.3f}: {error}"


def _draw_galleries(
    run: Run, name: str, arrays: dict[str, np.ndarray], names: list[str], title: str
) -> None:
    logits, labels = arrays["logits"], arrays["labels"]
    kept = _load(run, f"{name}-gallery")
    predicted, confidence = logits.argmax(axis=1), np.exp(log_softmax(logits).max(axis=1))
    wrong = int((predicted != labels).sum())
    for kind, places in galleries(logits, labels).items():
        shown = [
            {
                "index": int(arrays["indices"][place]),
                "true": names[labels[place]],
                "predicted": names[predicted[place]],
                "confidence": float(confidence[place]),
            }
            for place in places
        ]
        words = GALLERIES[kind].format(shown=len(shown), wrong=wrong, seed=GALLERY_SEED)
        images = kept["images"][np.searchsorted(kept["places"], places)]
        file = run.figures / f"{name}-{kind}"
        evaluation.gallery(images, shown, file, title=f"{title}: {words}")
