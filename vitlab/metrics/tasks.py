"""What each `data.task` makes of logits: one class of an image, or every label that fits it.

N images   K classes   logits (N, K)   labels (N,) into the classes, or multi-hot (N, K)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vitlab import metrics
from vitlab.metrics import multilabel

Fitted = tuple[np.ndarray, np.ndarray] | None
"""Logits and labels of validation images, where there are any to fit to."""


@dataclass(frozen=True)
class Task:
    """What a model is trained for, as functions; those of each task stand below."""

    score: Literal["accuracy", "mean_average_precision"]
    """The number by which a model is judged, as records name it."""
    title: str
    """What that number is called."""
    measure: Callable[[np.ndarray, np.ndarray], float]
    """Logits and labels to that number."""
    loss: Callable[[np.ndarray, np.ndarray], float]
    """Logits and labels to the mean loss in nats."""
    reached: str
    """A sentence on the number in the place {}, which goes on with the images."""
    unanswered: dict[str, Any]
    """What stands for the answer to a file that is no picture."""
    probabilities: Callable[[np.ndarray], np.ndarray]
    """Logits, divided by the temperature, to probabilities (N, K)."""
    answer: Callable[[np.ndarray, Sequence[str], Sequence[float] | None, int], dict[str, Any]]
    """Probabilities of an image (K,), class names, thresholds and how many to name to an answer."""
    summarize: Callable[[np.ndarray, np.ndarray, Sequence[str], Fitted], dict[str, Any]]
    """Logits, labels and class names of a split to JSON values; VitlabError if not finite."""
    galleries: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
    """Logits and labels to the places of images that are shown, by kind."""


def probabilities_of_classes(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) that add up to 1: the softmax."""
    return np.exp(metrics.log_softmax(logits))


def answer_class(
    probabilities: np.ndarray,
    class_names: Sequence[str],
    thresholds: Sequence[float] | None,
    top: int,
) -> dict[str, Any]:
    """The likeliest classes of an image, and how sure the model is; there are no thresholds."""
    return {
        "top": likeliest(probabilities, class_names)[:top],
        "certainty": metrics.certainty(float(probabilities.max())),
    }


def answer_labels(
    probabilities: np.ndarray,
    class_names: Sequence[str],
    thresholds: Sequence[float] | None,
    top: int,
) -> dict[str, Any]:
    """The labels whose probability is at least their threshold, and the likeliest of all."""
    known = thresholds or [multilabel.UNTUNED] * len(class_names)
    least = dict(zip(class_names, known, strict=True))
    every = [
        {**one, "threshold": least[one["class"]]} for one in likeliest(probabilities, class_names)
    ]
    given = [one for one in every if one["probability"] >= one["threshold"]]
    return {"labels": given, "top": every[:top]}


def likeliest(probabilities: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Classes with their probabilities (K,), highest first."""
    order = np.argsort(-probabilities, kind="stable")
    return [{"class": class_names[k], "probability": float(probabilities[k])} for k in order]


def brief(answer: dict[str, Any]) -> str:
    """How sure the model is of an answer, or the labels that it gives, in words."""
    if "certainty" in answer:
        return answer["certainty"]
    return ", ".join(one["class"] for one in answer["labels"]) or "no label"


def summarize_classes(
    logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str], fitted: Fitted
) -> dict[str, Any]:
    """`metrics.summarize`, at the temperature that fits validation images best."""
    temperature = None if fitted is None else metrics.fit_temperature(*fitted)
    return {**metrics.summarize(logits, labels, class_names, temperature)}


def summarize_labels(
    logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str], fitted: Fitted
) -> dict[str, Any]:
    """`multilabel.summarize`, at the temperature and thresholds that fit validation images best."""
    if fitted is None:
        untuned = np.full(len(class_names), multilabel.UNTUNED)
        return multilabel.summarize(logits, labels, class_names, None, untuned)
    known, has = fitted
    temperature = metrics.fit_temperature(known, has, multilabel.loss)
    probabilities = multilabel.probabilities(known.astype(np.float64) / temperature)
    thresholds = multilabel.tune_thresholds(probabilities, has)
    return multilabel.summarize(logits, labels, class_names, temperature, thresholds)


def drawn_images(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Places of images that are drawn at random, at most SHOWN."""
    return {"random": metrics.random_order(len(labels))[: metrics.SHOWN]}


TASKS = {
    "multiclass": Task(
        score="accuracy",
        title="accuracy",
        measure=metrics.accuracy,
        loss=metrics.loss,
        reached="right on {} of",
        unanswered={"top": [], "certainty": ""},
        probabilities=probabilities_of_classes,
        answer=answer_class,
        summarize=summarize_classes,
        galleries=metrics.galleries,
    ),
    "multilabel": Task(
        score="mean_average_precision",
        title="mean average precision",
        measure=multilabel.mean_average_precision,
        loss=multilabel.loss,
        reached="mean average precision {} on",
        unanswered={"labels": [], "top": []},
        probabilities=multilabel.probabilities,
        answer=answer_labels,
        summarize=summarize_labels,
        galleries=drawn_images,
    ),
}
"""By `data.task`."""
