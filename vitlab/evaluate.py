"""A run and a split become results: numbers, stored logits and pictures.

    evaluate              how good the model is, as a whole and for every class, and how sure
    evaluate_robustness   what is left of it when the images are corrupted or attacked

The validation split belongs to the run and may be looked at freely. The test split is opened
when the run is finished, and every opening is a line of the ledger beside the runs. A checkpoint
that was evaluated before is not evaluated again: its stored result is returned, and no byte of
the run changes. Everything but the logits and the images shown is made from stored files, so lost
pictures come back without the images.

    N images   K classes
"""

import io
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from vitlab.config import refuse_multilabel
from vitlab.data import Data, LabelledImages, index_sha256
from vitlab.data.batches import DeviceImages
from vitlab.data.labels import in_words
from vitlab.device import choose_device, enough_memory
from vitlab.errors import VitlabError
from vitlab.figures import evaluation, training
from vitlab.files import write_bytes
from vitlab.formatting import csv_text
from vitlab.frozen import Frozen
from vitlab.inference import BATCH, WORKING, TrainedModel, stored_detector
from vitlab.ledger import open_split, record_opening
from vitlab.metrics import (
    FEW_FOR_TEMPERATURE,
    GALLERY_SEED,
    conformal,
    epochs_to_accuracy,
    galleries,
    log_softmax,
    ood,
    require_finite,
    roc,
)
from vitlab.metrics.tasks import TASKS
from vitlab.pretrained import open_run
from vitlab.progress import tracked
from vitlab.records import CheckpointChoice, OodResult, Split, Timing
from vitlab.robustness import EPSILON, predictions
from vitlab.run import Checkpoint, Run
from vitlab.stats import wilson

PICTURES = (
    "per-class",
    "precision-recall",
    "confidence",
    "confusion",
    "confusions",
    "roc",
    "reliability",
)
"""What is drawn from logits alone; of several labels an image the first two."""

GALLERIES = {
    "random": "{shown} images drawn at random (seed {seed})",
    "mistakes": "{shown} of {wrong:,} mistakes, drawn at random (seed {seed})",
    "confident-mistakes": "the {shown} most confident of {wrong:,} mistakes",
}
"""What is drawn from the images that were kept when the split was open, and its title: of several
labels an image those drawn at random alone."""

FACTS = (
    "ood",
    "step",
    "checkpoint_sha256",
    "data_fingerprint",
    "index_sha256",
    "precision",
    "validation_seen",
    "cross_validated",
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
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate a run's model on a split and store the result in the run.

    Args:
        run: a Run, its path, or the name of a shipped model, of which a copy is evaluated.
        split: "test" needs a finished run and enters the ledger. Validation is evaluated first,
            because the temperature of the logits is fitted there.
        checkpoint: "last" is the headline. Results of "best", the checkpoint of the highest
            validation score, are kept under that name.
        data: images and labels in memory instead of `config.data.dataset`: for validation
            everything that the run was given to train on, for test the test images.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.
        pictures: draw them now; else `draw`, or this function called again, makes up for it.
        quiet: show no progress.

    Returns:
        `metrics.summarize`, or `metrics.multilabel.summarize` of several labels an image, with the
        checkpoint, images and precision it speaks of, and what the run's own record says of its
        time, its convergence and the accuracy on clean training images. A test result has
        `test_openings`: how often the ledger beside the run says that these test images were used,
        this time included.

    Raises:
        RunError: no sound checkpoint, an unfinished run before its test, no validation split, a
            folder that cannot be written.
        DataError: images that are not those of the run.
        VitlabError: logits that are not finite, or too little memory.
    """
    run = open_run(run)
    target = StoredResult(run, split, checkpoint, run.checkpoint(checkpoint))
    stored = target.find()
    images = None
    if split == "validation" and stored and stored_detector(run, target.checkpoint) is None:
        with suppress(VitlabError):  # what an earlier version stored stands without its images
            images = open_split(run, split, data, data_root)
    if images is None and stored == target and (_is_drawn(run, target.name) or not pictures):
        return target.result
    if stored is None:
        images = open_split(run, split, data, data_root)
        if split == "test" and data is None and run.config.data.validation_fraction:
            where = {"device": device, "data_root": data_root, "quiet": quiet}
            evaluate(run, checkpoint=checkpoint, pictures=pictures, **where)
    with run.evaluating():
        if images is not None:
            facts = _compute_logits(target, split, images, device, quiet)
        else:
            assert stored is not None
            target.copy_predictions(stored)
            facts = {fact: stored.result[fact] for fact in FACTS if fact in stored.result}
        result = {**facts, **_summarize(target)}
        if pictures:
            draw(run, target.name, result)
        target.write(result)
    return result


def store_cross_validation(
    run: Run, logits: np.ndarray, examples: LabelledImages, index: np.ndarray, folds: int
) -> dict[str, Any]:
    """Store as validation of a run what models of its config said of images held out in turn.

    Args:
        run: finished, and trained on all of the images.
        logits: (N, K), each by a model that was not trained on the image.
        examples: the images that the run was given.
        index: places of those that were classified, (N,).
        folds: how often a part of the images was held out.
    """
    target = StoredResult(run, "validation", "last", run.checkpoint())
    facts = {
        "step": target.checkpoint.step,
        "checkpoint_sha256": target.checkpoint.sha256,
        "data_fingerprint": examples.fingerprint,
        "index_sha256": index_sha256(index),
        "precision": run.provenance["precision"]["value"],
        "cross_validated": folds,
    }
    with run.evaluating():
        _save_logits(target, logits.astype(np.float32), examples, index)
        model = TrainedModel(run, target.checkpoint, choose_device(run.provenance["device_type"]))
        facts["ood"] = _fit_detector(target, model, examples, index, None, quiet=True)
        result = {**facts, **_summarize(target)}
        target.write(result)
    return result


def evaluate_robustness(
    run: Run | str | os.PathLike[str],
    split: Split = "validation",
    *,
    checkpoint: CheckpointChoice = "last",
    data: Data = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate a run's model on corrupted and attacked images and store the result in the run.

    The images are 2,000 of the split, the same for every run that shares it; all of them where
    there are fewer. Arguments and errors are those of `evaluate`; on the test split this is an
    opening of its own.

    Returns:
        `conditions`, one object for the images as they are, each corruption at each severity and
        each attack, with its accuracy and Wilson interval; their mean over the corruptions; and
        the facts of `evaluate`.
    """
    run = open_run(run)
    refuse_multilabel(
        run.config.data, "robustness counts images whose one class is right", "leave it out"
    )
    target = StoredResult(run, f"{split}-robustness", checkpoint, run.checkpoint(checkpoint))
    stored = target.find()
    if stored == target and (run.figures / f"{target.name}.png").exists():
        return target.result
    images = open_split(run, split, data, data_root) if stored is None else None
    with run.evaluating():
        if images is not None:
            result = _compute_robustness(target, split, images, device, quiet)
        else:
            assert stored is not None
            target.copy_predictions(stored)
            result = stored.result
        title = f"{run.name}, {_title(target.name)}: {result['images']:,} images, 95 % intervals; "
        title += f"attacks move a pixel by at most {255 * result['epsilon']:g}/255"
        evaluation.robustness(result["conditions"], run.figures / target.name, title=title)
        target.write(result)
    return result


class StoredResult(NamedTuple):
    """Where a run keeps a result of one of its checkpoints, and the predictions it is made of."""

    run: Run
    key: str
    """Name of the result: a split, or SPLIT-robustness."""
    which: CheckpointChoice
    checkpoint: Checkpoint

    @property
    def name(self) -> str:
        """What the files of predictions and the pictures are called."""
        return self.key if self.which == "last" else f"best-{self.key}"

    @property
    def result(self) -> dict[str, Any]:
        """The stored result; empty where there is none."""
        results = self.run.results
        return (results if self.which == "last" else results.get("best", {})).get(self.key, {})

    def find(self, key: str | None = None) -> "StoredResult | None":
        """Where there is a result of exactly this checkpoint with its predictions, here first.

        The best checkpoint may be the last: it is no reason to open the test split again.
        `key` asks for another result than this one.
        """
        last, best = (self._replace(key=key or self.key, which=w) for w in ("last", "best"))
        for stored in (last, best) if self.which == "last" else (best, last):
            same = stored.result.get("checkpoint_sha256") == self.checkpoint.sha256
            if same and self.run.predictions(stored.name).exists():
                return stored
        return None

    def save(self, suffix: str = "", **arrays: np.ndarray) -> None:
        """Store predictions, or the images of the galleries."""
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **arrays)
        write_bytes(self.run.predictions(self.name + suffix), file.getvalue())

    def copy_predictions(self, other: "StoredResult") -> None:
        """Copy the predictions of an equal checkpoint here."""
        for suffix in ("", "-gallery"):
            theirs = self.run.predictions(other.name + suffix)
            if theirs.exists() and other != self:
                write_bytes(self.run.predictions(self.name + suffix), theirs.read_bytes())

    def write(self, result: dict[str, Any]) -> None:
        """Store a result: last, so that it never speaks of files that are not yet there."""
        results = self.run.results
        (results if self.which == "last" else results.setdefault("best", {}))[self.key] = result
        rows: list[tuple[Any, ...]] = [("checkpoint", "result", "class", "metric", "value")]
        for which, stored in (("last", results), ("best", results.get("best", {}))):
            for name, one in stored.items():
                if name != "best":
                    rows += ((which, name, *row) for row in _numbers(cast(dict[str, Any], one)))
        self.run.write_results(results, csv_text(rows))


def _load(run: Run, name: str) -> dict[str, np.ndarray]:
    with np.load(run.predictions(name), allow_pickle=False) as arrays:
        return dict(arrays)


def _title(name: str) -> str:
    return name.replace("best-", "best checkpoint, ").replace("-", ", ")


def _numbers(result: dict[str, Any]) -> Iterator[tuple[str, str, float | None]]:
    """The numbers of a result as rows: class or nothing, metric, value."""
    for metric, value in result.items():
        if isinstance(value, int | float):
            yield "", metric, value
    for score in (task.score for task in TASKS.values()):
        if f"{score}_interval" in result:
            low, high = result[f"{score}_interval"]
            yield from (("", f"{score}_low", low), ("", f"{score}_high", high))
    for line in result.get("epochs_to_accuracy", ()):
        for split in ("train_clean", "validation"):
            yield "", f"epochs_to_{line['accuracy']:g}_{split}", line[split]
    for line in result.get("conditions", ()):
        yield "", f"accuracy_{line['condition']}_{line['severity']}", line["accuracy"]
    for line in result.get("per_class", ()):
        yield from ((line["class"], metric, line[metric]) for metric in list(line)[1:])


@contextmanager
def _open_model(
    target: StoredResult, split: Split, images: tuple[LabelledImages, np.ndarray], device: str
) -> Iterator[tuple[TrainedModel, dict[str, Any]]]:
    """The run's model, and the facts of the result to come.

    From here on the test split counts as opened.
    """
    (examples, index), where = images, choose_device(device)
    height, width = examples.images.shape[1:3]

    def too_large() -> str:
        return (
            f"out of memory on {where} while evaluating {len(index):,} images of {height} x "
            f"{width} pixels, {BATCH} at a time or fewer, as few as go into {WORKING / 1e6:,.0f} "
            "MB: stop what else uses this memory, or choose another --device"
        )

    with enough_memory(too_large):
        model = TrainedModel(target.run, target.checkpoint, where)
        facts = {
            "step": target.checkpoint.step,
            "checkpoint_sha256": target.checkpoint.sha256,
            "data_fingerprint": examples.fingerprint,
            "index_sha256": index_sha256(index),
            "precision": model.precision,
        }
        seen = target.run.provenance["data"].get("validation_seen", 0)
        if split == "validation" and seen:
            facts["validation_seen"] = seen
        if split == "test":
            facts["test_openings"] = record_opening(
                target.run, target.checkpoint, examples.fingerprint
            )
        yield model, facts


def _compute_logits(
    target: StoredResult,
    split: Split,
    images: tuple[LabelledImages, np.ndarray],
    device: str,
    quiet: bool,
) -> dict[str, Any]:
    """Classify a split, store its logits and the images that are shown, and return the facts.

    With the validation images comes what tells images that are unlike the training images.
    """
    examples, index = images
    with _open_model(target, split, images, device) as (model, facts):
        logits, features = _outputs(model, examples, index, f"{split} images", quiet)
        require_finite(logits)
        if split == "validation":
            train, _ = target.run.split.index
            facts["ood"] = _fit_detector(target, model, examples, train, features, quiet)
        elif model.detector is not None:
            facts["ood"] = ood.summarize(model.detector, model.detector.distances(features))
        seconds = _latency(model, DeviceImages(examples, index, model.device))
    timing: Timing = {
        "inference_ms": 1000 * seconds,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "step": target.checkpoint.step,
    }
    target.run.write_timing(timing)
    _save_logits(target, logits, examples, index)
    return facts


def _fit_detector(
    target: StoredResult,
    model: TrainedModel,
    examples: LabelledImages,
    train: np.ndarray,
    held_out: np.ndarray | None,
    quiet: bool,
) -> OodResult:
    """Fit and store what tells images that are unlike the training images.

    Args:
        train: places of the training images.
        held_out: features of the validation images (V, D), None where there are none.
    """
    some = np.sort(np.random.default_rng(ood.SEED).permutation(train)[: ood.FITTED])
    _, features = _outputs(model, examples, some, "training images", quiet)
    detector, distances = ood.fit_detector(features, examples.labels[some], held_out)
    ood.write_detector(target.run.detector(target.which), detector, target.checkpoint.sha256)
    return ood.summarize(detector, distances)


def _outputs(
    model: TrainedModel, examples: LabelledImages, index: np.ndarray, what: str, quiet: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, K) and features (N, D) of some of labelled images."""
    form = model.preprocessing
    if model.run.config.optim.optimizer == "lbfgs":  # others of this network know them as well
        frozen = Frozen(model.module, form.mean, form.std, form.input_size)
        features = frozen.features(examples, index, quiet=quiet, what=what)
        return frozen.logits(features), features
    pixels = DeviceImages(examples, index, model.device)
    parts = [
        [part.cpu().numpy() for part in model.outputs(pixels[start : start + BATCH])]
        for start in tracked(range(0, len(index), BATCH), f"{what} by {BATCH}", quiet=quiet)
    ]
    logits, features = map(np.concatenate, zip(*parts, strict=True))
    return logits, features


def _save_logits(
    target: StoredResult, logits: np.ndarray, examples: LabelledImages, index: np.ndarray
) -> None:
    labels = examples.labels[index]
    kinds = TASKS[target.run.config.data.task].galleries(logits, labels)
    shown = np.unique(np.concatenate(list(kinds.values())))
    target.save(logits=logits, labels=labels, indices=index)
    target.save("-gallery", places=shown, images=examples.images[index[shown]])


def _latency(model: TrainedModel, pixels: DeviceImages) -> float:
    """Median seconds from one image to its logits, on the device of the images."""
    seconds = []
    for turn in range(WARM_UP + TIMED):
        number = turn % len(pixels)
        image = pixels[number : number + 1]
        start = time.perf_counter()
        model(image).cpu()  # waits for a GPU to be done
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[WARM_UP:]))


def _summarize(target: StoredResult) -> dict[str, Any]:
    """What stored logits, metrics and final numbers say."""
    run = target.run
    arrays = _load(run, target.name)
    # Temperature and thresholds are always those of validation logits, of just this checkpoint.
    validation = target if target.key == "validation" else target.find("validation")
    known = None if validation is None else _load(run, validation.name)
    fitted = None if known is None else (known["logits"], known["labels"])
    names, task = run.provenance["data"]["class_names"], TASKS[run.config.data.task]
    summary = task.summarize(arrays["logits"], arrays["labels"], names, fitted)
    lines = [line for line in run.metrics if line["step"] <= target.checkpoint.step]
    clean = [line[task.score] for line in lines if line["split"] == "train_clean"]
    finished = run.finished or {}
    more: dict[str, Any] = {}
    if task.score == "accuracy":
        more["epochs_to_accuracy"] = epochs_to_accuracy(lines)
        if known is not None:
            more |= _prediction_sets(target, arrays, known, summary["temperature"])
    return {
        **summary,
        "temperature_images": fitted and len(fitted[1]),
        f"train_{task.score}": clean[-1] if clean else None,
        "generalisation_gap": clean[-1] - summary[task.score] if clean else None,
        "seconds_per_epoch": finished.get("seconds_per_epoch"),
        "seconds_per_step": finished.get("seconds_per_step"),
        **more,
    }


def _prediction_sets(
    target: StoredResult,
    arrays: dict[str, np.ndarray],
    known: dict[str, np.ndarray],
    temperature: float,
) -> dict[str, Any]:
    """Thresholds of prediction sets by validation logits, and what the sets of a split hold."""
    here, held_out = (
        np.exp(log_softmax(each["logits"].astype(np.float64) / temperature))
        for each in (arrays, known)
    )
    thresholds = conformal.calibrate(held_out, known["labels"])
    if target.key == "validation":
        measured = conformal.measure(here, arrays["labels"], None)
        return {"prediction_sets": measured, "conformal_thresholds": thresholds}
    return {"prediction_sets": conformal.measure(here, arrays["labels"], thresholds)}


def _compute_robustness(
    target: StoredResult,
    split: Split,
    images: tuple[LabelledImages, np.ndarray],
    device: str,
    quiet: bool,
) -> dict[str, Any]:
    """Classify corrupted and attacked images; store the predictions and return the result."""
    examples, index = images
    drawn = np.random.default_rng(ROBUSTNESS_SEED).random(len(index)).argsort()
    index = np.sort(index[drawn[:ROBUSTNESS_IMAGES]])
    pixels, labels = np.ascontiguousarray(examples.images[index]), examples.labels[index]
    with _open_model(target, split, (examples, index), device) as (model, facts):
        found = list(predictions(model, pixels, labels, index, quiet=quiet))
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
    target.save(indices=index, labels=labels, predicted=np.array([x[2] for x in found]))
    return {
        **facts,
        "images": len(index),
        "mean_corrupted_accuracy": float(np.mean(corrupted)),
        "epsilon": EPSILON,
        "conditions": conditions,
    }


def _is_drawn(run: Run, name: str) -> bool:
    """True if no picture that can be drawn from stored files is missing."""
    pictures, shown = PICTURES, tuple(GALLERIES)
    if run.config.data.task == "multilabel":
        pictures, shown = pictures[:2], shown[:1]
    if run.predictions(f"{name}-gallery").exists():
        pictures += shown
    return all((run.figures / f"{name}-{picture}.png").exists() for picture in pictures)


def draw(run: Run, name: str, result: Mapping[str, Any]) -> None:
    """Draw the pictures of a result, and the curves of the run, from stored files alone.

    Args:
        name: of its predictions, as `test` or `best-validation`.
    """
    training.curves(run.metrics, run.figures / "curves", title=run.name)
    multilabel = run.config.data.task == "multilabel"
    score = (
        f"mAP {100 * result['mean_average_precision']:.2f} % on"
        if multilabel
        else (f"{100 * result['accuracy']:.2f} % of")
    )
    title = f"{run.name}, {_title(name)}: {score} {result['images']:,} images"
    if "test_openings" in result:
        title += f" (opening {result['test_openings']} in the ledger of its folder)"
    (_draw_labels if multilabel else _draw_classes)(run, name, result, title)


def _draw_labels(run: Run, name: str, result: Mapping[str, Any], title: str) -> None:
    """The pictures of several labels an image."""
    rows = result["per_class"]
    names = [one["class"] for one in rows]
    evaluation.classes(
        {"average precision": [one["average_precision"] for one in rows]},
        names,
        run.figures / f"{name}-per-class",
        heading="Average precision of each label",
        title=title,
    )
    evaluation.classes(
        {key: [one[key.lower()] for one in rows] for key in ("precision", "recall", "F1")},
        names,
        run.figures / f"{name}-precision-recall",
        heading="Precision, recall and F1 of each label at its threshold",
        title=title,
    )
    if run.predictions(f"{name}-gallery").exists():
        arrays, kept = _load(run, name), _load(run, f"{name}-gallery")
        logits, labels = arrays["logits"], arrays["labels"]
        scaled = logits.astype(np.float64) / (result["temperature"] or 1.0)
        task, least = TASKS["multilabel"], np.array([one["threshold"] for one in rows])
        given = task.probabilities(scaled) >= least
        places = task.galleries(logits, labels)["random"]
        shown = [
            {
                "index": int(arrays["indices"][place]),
                "true": in_words(labels[place], names),
                "predicted": in_words(given[place], names),
            }
            for place in places
        ]
        images = kept["images"][np.searchsorted(kept["places"], places)]
        caption = GALLERIES["random"].format(shown=len(shown), seed=GALLERY_SEED)
        file = run.figures / f"{name}-random"
        evaluation.label_gallery(images, shown, file, title=f"{title}: {caption}")


def _draw_classes(run: Run, name: str, result: Mapping[str, Any], title: str) -> None:
    """The pictures of one class an image."""
    arrays = _load(run, name)
    logits, labels = arrays["logits"], arrays["labels"]
    classes = result["per_class"]
    names = [one["class"] for one in classes]
    numbers = {key: [one[key] for one in classes] for key in list(classes[0])[2:]}
    files = {picture: run.figures / f"{name}-{picture}" for picture in (*PICTURES, *GALLERIES)}
    images = [one["images"] for one in classes]
    evaluation.classes(
        {"accuracy": numbers["accuracy"]}, names, files["per-class"], images=images, title=title
    )
    for picture, keys in (
        ("precision-recall", {"precision": "precision", "recall": "recall", "F1": "f1"}),
        ("confidence", {"accuracy": "accuracy", "mean confidence": "confidence"}),
    ):
        series = {label: numbers[key] for label, key in keys.items()}
        heading = f"{', '.join(series).capitalize()} of each class"
        evaluation.classes(series, names, files[picture], heading=heading, title=title)
    evaluation.confusion(result["confusion"], names, files["confusion"], title=title)
    evaluation.confusions(result["top_confusions"], files["confusions"], title=title)
    evaluation.roc(roc(logits, labels), numbers["auc"], names, files["roc"], title=title)
    before, after = f"as trained: calibration error {100 * result['calibration_error']:.2f} %", ""
    if result["temperature"] is not None:
        error = f"calibration error {100 * result['scaled_calibration_error']:.2f} %"
        after = f"at temperature {result['temperature']:.3f}: {error}"
        few = result.get("temperature_images")
        if few and few < FEW_FOR_TEMPERATURE:
            after = f"at temperature {result['temperature']:.3f}, of {few} images only: {error}"
    evaluation.reliability(
        result["reliability"],
        files["reliability"],
        scaled=result["scaled_reliability"],
        heads=(before, after),
        title=title,
    )
    if run.predictions(f"{name}-gallery").exists():
        _draw_galleries(run, name, arrays, names, title)


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
        caption = GALLERIES[kind].format(shown=len(shown), wrong=wrong, seed=GALLERY_SEED)
        images = kept["images"][np.searchsorted(kept["places"], places)]
        file = run.figures / f"{name}-{kind}"
        evaluation.gallery(images, shown, file, title=f"{title}: {caption}")
