"""How good the model is during its training, and whether that is reason to warn or to stop."""

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from vitlab.config import Config
from vitlab.data.batches import DeviceImages
from vitlab.device import enough_memory, to_device
from vitlab.inference import BATCH, compute_logits
from vitlab.training.memory import out_of_memory_evaluating
from vitlab.training.setup import TrainingSetup
from vitlab.training.state import TrainState


def evaluate(setup: TrainingSetup) -> dict[str, dict[str, float]]:
    """Loss and accuracy of the final model on clean training and on validation images.

    Processes share the images without padding, so each is counted once.

    Returns:
        split -> {"loss", "accuracy", "images"}, for splits that have images.
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
    mine = index[setup.group.slice(len(index))]
    numbers = torch.zeros(3, dtype=torch.float64, device=setup.device)
    if len(mine):
        logits = torch.cat(
            [
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
        )
        labels = images.labels[to_device(mine, setup.device)]
        losses = F.cross_entropy(logits, labels, reduction="none").double()
        correct = (logits.argmax(1) == labels).double()
        numbers = torch.stack((losses.sum(), correct.sum(), torch.ones_like(losses).sum()))
    loss, correct, count = setup.group.all_reduce_sum(numbers).tolist()
    return {"loss": loss / count, "accuracy": correct / count, "images": int(count)}


def update_best(state: TrainState) -> bool:
    """Remember the evaluation of this step if its validation accuracy is the highest so far."""
    validation = state.evaluation.get("validation", {"accuracy": -1.0, "loss": math.nan})
    if not math.isfinite(validation["loss"]):
        return False
    if validation["accuracy"] <= state.best.get("accuracy", -1):
        return False
    state.best = {"step": state.step, **validation}
    return True


def reason_to_stop(config: Config, state: TrainState, steps_per_epoch: int) -> str | None:
    """Why a training should end at this step by its own config, or None.

    It depends on nothing but what a checkpoint holds, so a resumed run stops at the same step.
    """
    if "validation" not in state.evaluation:
        return None
    train, accuracy = config.train, state.evaluation["validation"]["accuracy"]
    if train.stop_accuracy and accuracy >= train.stop_accuracy:
        return f"validation accuracy {accuracy:.4f} reached {train.stop_accuracy:g}"
    waited = (state.step - state.best.get("step", 0)) / steps_per_epoch
    if train.stop_patience and waited >= train.stop_patience:
        return f"no better validation accuracy for {waited:g} epochs"
    return None


def alarm(config: Config, epoch: float, loss: float, accuracy: float) -> str | None:
    """Name a training that is not going anywhere, or None.

    Args:
        epoch: epochs done.
        loss: cross-entropy on clean training images.
        accuracy: share of clean training images classified correctly.
    """
    classes = config.data.classes
    assert classes is not None
    chance = 1 / classes
    patience = max(2.0, config.optim.warmup_epochs + 1, 0.1 * config.train.epochs)
    if epoch <= patience:
        return None
    if loss > 2 * math.log(classes):
        return (
            f"diverging: training loss {loss:.2f} is far above chance ({math.log(classes):.2f}) "
            f"after {epoch:g} epochs; lower optim.lr={config.optim.lr:g}"
        )
    if accuracy < 1.3 * chance:
        return (
            f"stuck at chance: {accuracy:.1%} on training images after {epoch:g} epochs; "
            "try --overfit-one-batch, a lower learning rate or a warm-up"
        )
    return None
