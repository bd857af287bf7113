"""A head fitted to the features of a frozen network: logistic regression, to its minimum.

What `optim.optimizer=lbfgs` means. The loss is that of every training, the mean cross-entropy over
the images, each with its weight, and half of `optim.weight_decay` times the squared norm of the
head's matrix. Every image is looked at once, as it is.

N images   D numbers that describe an image   K classes
"""

import time
from functools import partial

import numpy as np
import torch

from vitlab.data.sampling import class_weights
from vitlab.device import enough_memory
from vitlab.frozen import Frozen
from vitlab.inference import last_layer
from vitlab.metrics.tasks import TASKS, Task
from vitlab.run import Run
from vitlab.training.energy import EnergyMeter
from vitlab.training.evaluation import update_best
from vitlab.training.logging import ConsoleLogger, MetricsLogger
from vitlab.training.memory import out_of_memory
from vitlab.training.setup import TrainingSetup

ITERATIONS = 1_000
"""Most steps of L-BFGS; it usually stops after some dozens."""


def fit_head(run: Run, setup: TrainingSetup, logger: ConsoleLogger, tensorboard: bool) -> None:
    """Fit the last layer of a frozen model and finish its run; nothing before it moves."""
    config, state, examples = setup.config, setup.state, setup.dataset.examples
    training, validation = setup.dataset.split
    energy = EnergyMeter(setup.device)
    begun = time.perf_counter()
    frozen = Frozen(state.model, setup.mean, setup.std, state.image_size)
    out_of = partial(out_of_memory, config, setup.device)
    with enough_memory(out_of), MetricsLogger(run, tensorboard) as metrics:
        quiet = logger.console.quiet
        features = frozen.features(examples, training, quiet=quiet, what="training images")
        held_out = frozen.features(examples, validation, quiet=quiet) if len(validation) else None
        labels, classes = examples.labels, config.data.classes
        assert classes is not None
        weights = np.ones(len(training))
        if config.data.task == "multiclass":
            each = class_weights(labels[training], classes, config.train.class_weights)
            weights = each[labels[training]]
        if examples.weights is not None:
            weights = weights * examples.weights[training]
        matrix, bias = REGRESSIONS[config.data.task](
            features, labels[training], weights, classes, config.optim.weight_decay
        )
        head = last_layer(state.model)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(matrix))
            head.bias.copy_(torch.from_numpy(bias))
        state.step = setup.batches.steps
        state.add_step_time(time.perf_counter() - begun)
        task = TASKS[config.data.task]
        numbers = {"train_clean": _evaluate(task, frozen.logits(features), labels[training])}
        if held_out is not None:
            numbers["validation"] = _evaluate(task, frozen.logits(held_out), labels[validation])
        state.evaluation = numbers
        update_best(state, config.data.score)
        at = {"step": state.step, "epoch": 1.0}
        speed = len(training) / state.recent_seconds
        metrics.log(
            {**at, "split": "train", "loss": numbers["train_clean"]["loss"], "lr": 0.0,
             "grad_norm": 0.0, "images_per_second": speed}
        )  # fmt: skip
        for split, values in numbers.items():
            metrics.log({**at, "split": split, **values})
        logger.evaluation(1.0, numbers, best=False, score=config.data.score)
        state.recent, state.recent_seconds = [], 0.0
        state.clock.tick(energy.read())
        state.save(run)


def logistic_regression(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    classes: int,
    weight_decay: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The linear layer, (K, D) and (K,), that classifies features (N, D) best.

    Features are centred and brought to one scale first, so that one weight decay serves every
    network; the layer takes features as they are. A class without images gets the lowest logit.

    Args:
        labels: (N,) into the classes.
        weights: how much an image counts, (N,).
        weight_decay: above 0.
    """
    from sklearn.linear_model import LogisticRegression

    features = features.astype(np.float64)
    center = np.average(features, axis=0, weights=weights)
    scaled = features - center
    scale = np.sqrt(np.average((scaled**2).mean(axis=1), weights=weights)) or 1.0
    scaled /= scale
    model = LogisticRegression(C=1 / (weight_decay * weights.sum()), max_iter=ITERATIONS)
    model.fit(scaled, labels, sample_weight=weights)
    matrix = np.zeros((classes, features.shape[1]))
    bias = np.full(classes, -100.0)
    learned, intercept = model.coef_, model.intercept_
    if len(learned) == 1:  # of two classes it has the difference
        learned = np.concatenate((-learned, learned)) / 2
        intercept = np.concatenate((-intercept, intercept)) / 2
    matrix[model.classes_] = learned / scale
    bias[model.classes_] = intercept - matrix[model.classes_] @ center
    return matrix.astype(np.float32), bias.astype(np.float32)


def regression_of_each(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    classes: int,
    weight_decay: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The linear layer, (K, D) and (K,), that says yes or no to each label best.

    A `logistic_regression` for each column of the labels (N, K). A label that all images have, or
    none, is given by its frequency alone.
    """
    matrix = np.zeros((classes, features.shape[1]), np.float32)
    bias = np.empty(classes, np.float32)
    for k, column in enumerate(labels.T):
        if column.min() == column.max():
            bias[k] = np.log(len(column) + 1) * (1 if column.max() else -1)
            continue
        rows, both = logistic_regression(features, column, weights, 2, weight_decay)
        matrix[k], bias[k] = rows[1] - rows[0], both[1] - both[0]
    return matrix, bias


REGRESSIONS = {"multiclass": logistic_regression, "multilabel": regression_of_each}
"""What fits the head, by `data.task`."""


def _evaluate(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Loss and score of logits (N, K)."""
    return {
        "loss": task.loss(logits, labels),
        task.score: task.measure(logits, labels),
        "images": len(labels),
    }
