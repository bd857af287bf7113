"""The numbers of a trained model: accuracies with their intervals, parameters, data.

They travel with an exported model as JSON. A number that was never measured is None.
"""

from pathlib import Path
from typing import Any

from vitlab.config import Config
from vitlab.run import Checkpoint, Run

NUMBERS = {
    "multiclass": ("accuracy", "accuracy_interval", "images", "top3_accuracy"),
    "multilabel": (
        "mean_average_precision", "mean_average_precision_interval", "images", "micro_f1",
        "mean_f1",
    ),
}  # fmt: skip
"""What of each split stands on the card, by `data.task`."""


def card(run: Run, checkpoint: Checkpoint) -> dict[str, Any]:
    """The numbers of a run's checkpoint, fractions from 0 to 1; None for what was not measured."""
    config, origin, finished = run.config, run.provenance, run.finished or {}
    numbers: dict[str, Any] = {
        "name": run.name,
        "recipe": config.recipe,
        "model": config.model.kind,
        # A folder of one's own is nobody else's business, but for its name.
        "dataset": Path(config.data.dataset).name or config.data.dataset,
        "task": config.data.task,
        "classes": config.data.classes,
        "weights": starting_weights(config),
        "training_images": origin["data"].get("train_images"),
        "epochs": finished.get("epochs"),
        "seed": config.train.seed,
        "parameters": finished.get("parameters"),
        "multiply_adds": finished.get("macs"),
    }
    validation, test = (_result(run, checkpoint, split) for split in ("validation", "test"))
    for split, result in (("validation", validation), ("test", test)):
        for number in NUMBERS[config.data.task]:
            numbers[f"{split}_{number}"] = result.get(number)
    if config.data.task == "multilabel":
        # Of probabilities, in the order of the classes, as evaluate tuned them.
        rows = validation.get("per_class")
        numbers["label_separator"] = config.data.label_separator
        numbers["thresholds"] = rows and [row["threshold"] for row in rows]
    return numbers | {
        # Of the validation images, those that the weights it started from were trained on.
        "validation_seen": validation.get("validation_seen"),
        # Folds, where each of the validation images was held out in turn.
        "cross_validated": validation.get("cross_validated"),
        "calibration_error": validation.get("calibration_error"),
        "scaled_calibration_error": validation.get("scaled_calibration_error"),
        # What logits are divided by, as evaluate fitted it on validation images.
        "temperature": validation.get("temperature"),
        # How images that are unlike the training images are told, as `metrics.ood` does it.
        "ood": validation.get("ood"),
        # What sets of classes hold, and the thresholds they are made with, as `metrics.conformal`
        # has them.
        "prediction_sets": test.get("prediction_sets") or validation.get("prediction_sets"),
        "conformal_thresholds": validation.get("conformal_thresholds"),
        "checkpoint_sha256": checkpoint.sha256,
        "vitlab": origin.get("vitlab"),
    }


def starting_weights(config: Config) -> str | None:
    """The weights that a training started from, without the folders of a path."""
    source = config.train.weights
    return source if source is None or source.startswith("hf:") else Path(source).name


def _result(run: Run, checkpoint: Checkpoint, split: str) -> dict[str, Any]:
    """A split's result if it is of exactly this checkpoint, else nothing."""
    results = run.results
    for stored in (results, results.get("best", {})):
        result = stored.get(split, {})
        if result.get("checkpoint_sha256") == checkpoint.sha256:
            return result
    return {}
