"""How good the model is during its training, and whether that is reason to warn or to stop."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitlab.config import Config
from vitlab.data.batches import DeviceImages
from vitlab.device import enough_memory, to_device
from vitlab.inference import BATCH, compute_logits
from vitlab.metrics.multilabel import mean_average_precision
from vitlab.training.distributed import ProcessGroup
from vitlab.training.memory import out_of_memory_evaluating
from vitlab.training.setup import TrainingSetup
from vitlab.training.state import TrainState


def evaluate(setup: TrainingSetup) -> dict[str, dict[str, float]]:
    """Loss and score of the final model on clean training and on validation images.

    Processes share the images without padding, so each is counted once.

    Returns:
        split -> {"loss", `data.score`, "images"}, for splits that have images.
    """
    sets = {
        "train_clean": (setup.images, setup.clean),
        "validation": (setup.validation, np.arange(len(setup.validation))),
    }
    with enough_memory(partial(out_of_memory_evaluating, setup.device)):
        return {
            split: _evaluate(setup, images, index)
            for split, (images, index) in sets.items()
            if len(index)
        }


def _evaluate(setup: TrainingSetup, images: DeviceImages, index: np.ndarray) -> dict[str, float]:
    data = setup.config.data
    assert data.classes is not None
    mine = index[setup.group.slice(len(index))]
    logits = [torch.empty(0, data.classes, device=setup.device)]
    logits += [
        compute_logits(
            setup.state.final_model,
            images[mine[first : first + BATCH]],
            mean=setup.mean,
            std=setup.std,
            size=setup.state.image_size,
            precision=setup.settings.precision.value,
        )
        for first in range(0, len(mine), BATCH)
    ]
    labels = images.labels[to_device(mine, setup.device)]
    return MEASURES[data.task](torch.cat(logits), labels, len(index), setup.group)


def of_classes(logits: Tensor, labels: Tensor, count: int, group: ProcessGroup) -> dict[str, float]:
    """Loss and accuracy of one class an image.

    Args:
        logits, labels: (n, K) and (n,) of this process's images.
        count: images of all processes.
    """
    losses = F.cross_entropy(logits, labels, reduction="none").double()
    correct = all_right(logits, labels).double()
    loss, right = group.all_reduce_sum(torch.stack((losses.sum(), correct.sum()))).tolist()
    return {"loss": loss / count, "accuracy": right / count, "images": count}


def of_labels(logits: Tensor, labels: Tensor, count: int, group: ProcessGroup) -> dict[str, float]:
    """Loss and mean average precision of several labels an image; labels are (n, K)."""
    classes = logits.shape[1]
    # Precision is of a ranking of all images: each process adds the rows that it knows.
    both = torch.zeros(count, 2 * classes, dtype=torch.float64, device=logits.device)
    both[group.slice(count)] = torch.cat((logits, labels), dim=1).double()
    logits, labels = group.all_reduce_sum(both).split(classes, dim=1)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    score = mean_average_precision(logits.cpu().numpy(), labels.cpu().numpy())
    return {"loss": losses.item() / count, "mean_average_precision": score, "images": count}


MEASURES: dict[str, Callable[[Tensor, Tensor, int, ProcessGroup], dict[str, float]]] = {
    "multiclass": of_classes,
    "multilabel": of_labels,
}
"""What is measured of each `data.task`."""


def all_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Which images (n,) are given their class, or all of their labels (n, K) and no other."""
    if labels.ndim == 2:
        return ((logits > 0) == labels.bool()).all(dim=1)
    return logits.argmax(1) == labels


def update_best(state: TrainState, score: str) -> bool:
    """Remember the evaluation of this step if its validation score is the highest so far."""
    validation = state.evaluation.get("validation", {score: -1.0, "loss": math.nan})
    if not math.isfinite(validation["loss"]):
        return False
    if validation[score] <= state.best.get(score, -1):
        return False
    state.best = {"step": state.step, **validation}
    return True


def reason_to_stop(config: Config, state: TrainState, steps_per_epoch: int) -> str | None:
    """Why a training should end at this step by its own config, or None.

    It depends on nothing but what a checkpoint holds, so a resumed run stops at the same step.
    """
    if "validation" not in state.evaluation:
        return None
    train, validation = config.train, state.evaluation["validation"]
    if train.stop_accuracy and validation["accuracy"] >= train.stop_accuracy:
        return f"validation accuracy {validation['accuracy']:.4f} reached {train.stop_accuracy:g}"
    waited = (state.step - state.best.get("step", 0)) / steps_per_epoch
    if train.stop_patience and waited >= train.stop_patience:
        return f"no better validation {config.data.score.replace('_', ' ')} for {waited:g} epochs"
    return None


class Chance(NamedTuple):
    """The loss and the score of whoever answers without having seen the image."""

    loss: float
    score: float

    @classmethod
    def of(cls, config: Config, labels: np.ndarray) -> "Chance":
        """Chance among the classes of a resolved config, or of labels (N, K) by their frequency."""
        classes = config.data.classes
        assert classes is not None
        if config.data.task == "multilabel":
            return cls(classes * math.log(2), float(labels.mean()))
        return cls(math.log(classes), 1 / classes)


def alarm(config: Config, epoch: float, loss: float, score: float, chance: Chance) -> str | None:
    """Name a training that is not going anywhere, or None.

    Args:
        epoch: epochs done.
        loss, score: on clean training images.
    """
    patience = max(2.0, config.optim.warmup_epochs + 1, 0.1 * config.train.epochs)
    if epoch <= patience:
        return None
    if loss > 2 * chance.loss:
        return (
            f"diverging: training loss {loss:.2f} is far above chance ({chance.loss:.2f}) "
            f"after {epoch:g} epochs; lower optim.lr={config.optim.lr:g}"
        )
    if score < min(1.3 * chance.score, (1 + chance.score) / 2):
        return (
            f"stuck at chance: {score:.1%} on training images after {epoch:g} epochs; "
            "try --overfit-one-batch, a lower learning rate or a warm-up"
        )
    return None
