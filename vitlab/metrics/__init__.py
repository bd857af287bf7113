"""What logits say about labels: pure functions from arrays to numbers.

    N images   K classes   logits (N, K)   labels (N,), whole numbers from 0 to K - 1

Every share is a fraction from 0 to 1. A class without images has no recall, no F1 and no
AUC: these are NaN in arrays and null in JSON, and a mean over classes is a mean over the
classes that have images. A class with images that is never predicted has precision and F1 0.
In terms of scikit-learn: average="macro" over the labels that have images, zero_division=0.
Logits that are not finite give NaN, which no comparison calls good.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vitlab.errors import VitlabError
from vitlab.records import Confusion, EpochsToAccuracy, MetricsLine, ReliabilityBin, Summary
from vitlab.stats import wilson

BINS = 15

THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Accuracies whose number of epochs is reported."""

SHOWN, GALLERY_SEED = 16, 42
"""Images in a gallery, and the seed of those that are drawn at random."""


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities (N, K) in float64; exact for differences that overflow an exponential."""
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, and meant to be
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def top_accuracy(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of images whose label is among the k highest logits; of equals the lower class wins."""
    if not np.isfinite(logits).all():
        return float("nan")
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]  # (N, k)
    return float((best == labels[:, None]).any(axis=1).mean())


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose label has the highest logit."""
    return top_accuracy(logits, labels, 1)


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts (K, K): row is the true class, column the predicted one."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, logits.argmax(axis=1), labels=np.arange(logits.shape[1]))


@dataclass(frozen=True)
class PerClass:
    """One number per class, each (K,)."""

    images: np.ndarray
    accuracy: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    auc: np.ndarray
    confidence: np.ndarray


def per_class(logits: np.ndarray, labels: np.ndarray) -> PerClass:
    """Numbers of every class by itself; NaN for a class without images.

    The accuracy of a class is the share of its images that are recognised, which is its
    recall. The precision of a class that is never predicted is 0. AUC is one-vs-rest, by
    probability. Confidence is the mean highest probability over the images of the class.
    """
    from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

    classes = np.arange(logits.shape[1])
    scores = log_softmax(logits)
    precision, recall, f1, images = precision_recall_fscore_support(
        labels,
        logits.argmax(axis=1),
        labels=classes,
        zero_division=0.0,  # type: ignore[arg-type] - its stub knows "warn" only
    )
    images = np.asarray(images)
    present = images > 0
    precision, recall, f1 = np.where(present, (precision, recall, f1), np.nan)
    defined = present & (images < len(labels))  # a curve needs images of the class and others
    auc = [roc_auc_score(labels == k, scores[:, k]) if defined[k] else np.nan for k in classes]
    confidence = np.exp(scores.max(axis=1))
    means = [confidence[labels == k].mean() if present[k] else np.nan for k in classes]
    return PerClass(images, recall, precision, recall, f1, np.array(auc), np.array(means))


def roc(logits: np.ndarray, labels: np.ndarray) -> list[np.ndarray | None]:
    """One-vs-rest curve of every class: (false positive rate, true positive rate) rows (M, 2).

    Points are rounded to a thousandth, finer than a figure shows, and repeats left out. None
    where no curve is defined.
    """
    from sklearn.metrics import roc_curve

    scores = log_softmax(logits)
    curves: list[np.ndarray | None] = []
    for k in range(logits.shape[1]):
        if 0 < (labels == k).sum() < len(labels):
            false, true, _ = roc_curve(labels == k, scores[:, k])
            curves.append(np.unique(np.stack([false, true], axis=1).round(3), axis=0))
        else:
            curves.append(None)
    return curves


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in bins of equal width, each array (BINS,); NaN in empty bins."""

    edges: np.ndarray
    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def calibration_error(self) -> float:
        """Expected calibration error (Guo et al., 2017): mean gap, weighted by images."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float(np.nansum(self.images * gaps) / self.images.sum())

    def rows(self) -> list[ReliabilityBin]:
        """The bins as JSON values, lowest confidence first."""
        return [
            {
                "above": float(self.edges[b]),
                "to": float(self.edges[b + 1]),
                "images": int(self.images[b]),
                "confidence": _json(self.confidence[b]),
                "accuracy": _json(self.accuracy[b]),
            }
            for b in range(len(self.images))
        ]


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Sort images by their highest probability into bins closed on the right, so 1.0 has a place.

    Edges are (bins + 1,). Logits must be finite.
    """
    confidence = np.exp(log_softmax(logits).max(axis=1))
    correct = logits.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges, confidence, side="left") - 1
    images = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: an empty bin has no accuracy
        return Reliability(
            edges=edges,
            images=images,
            confidence=np.bincount(place, confidence, bins) / images,
            accuracy=np.bincount(place, correct, bins) / images,
        )


FEW_FOR_TEMPERATURE = 200
"""Images; a temperature that was fitted on fewer is a guess, and said to be one."""


def fit_temperature(
    logits: np.ndarray,
    labels: np.ndarray,
    loss: Callable[[np.ndarray, np.ndarray], float] = loss,
) -> float:
    """The number by which logits are divided for the least cross-entropy (Guo et al., 2017).

    Between 1/20 and 20. No prediction changes, only its confidence.

    Args:
        loss: what is made least, of logits and labels.
    """
    from scipy.optimize import minimize_scalar

    exact = logits.astype(np.float64)
    found = minimize_scalar(
        lambda power: loss(exact / np.exp(power), labels),
        bounds=(-np.log(20), np.log(20)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def certainty(probability: float) -> str:
    """How sure a model is of an answer: sure, fairly sure or unsure."""
    return "sure" if probability > 0.9 else "fairly sure" if probability > 0.7 else "unsure"


def random_order(images: int) -> np.ndarray:
    """Places of all images (N,), shuffled with GALLERY_SEED."""
    return np.random.default_rng(GALLERY_SEED).random(images).argsort()


def galleries(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Places of the images that are shown, at most SHOWN of each kind.

    `random` and `mistakes` are drawn with GALLERY_SEED, one from all images and one from those
    classified wrongly; `confident-mistakes` are the mistakes of highest confidence, highest first.
    """
    wrong = logits.argmax(axis=1) != labels
    order = random_order(len(labels))
    surest = np.argsort(-log_softmax(logits).max(axis=1), kind="stable")
    return {
        "random": order[:SHOWN],
        "mistakes": order[wrong[order]][:SHOWN],
        "confident-mistakes": surest[wrong[surest]][:SHOWN],
    }


def epochs_to_accuracy(
    lines: Iterable[MetricsLine], thresholds: Sequence[float] = THRESHOLDS
) -> list[EpochsToAccuracy]:
    """When each accuracy was first reached, on clean training and on validation images.

    Args:
        lines: those of metrics.jsonl, in order.

    Returns:
        A threshold each, and the first epoch at which it was measured, which is as exact as the
        training was evaluated often; None where it was not reached.
    """
    evaluations = [line for line in lines if line["split"] != "train"]

    def first(split: Literal["train_clean", "validation"], threshold: float) -> float | None:
        reached = (x for x in evaluations if x["split"] == split and x["accuracy"] >= threshold)
        return next((x["epoch"] for x in reached), None)

    return [
        {
            "accuracy": threshold,
            "train_clean": first("train_clean", threshold),
            "validation": first("validation", threshold),
        }
        for threshold in thresholds
    ]


def top_confusions(
    matrix: np.ndarray, class_names: Sequence[str], count: int = 10
) -> list[Confusion]:
    """The most frequent mistakes of a confusion matrix, most frequent first.

    `share` is the part of all errors that the mistake makes, `pair_share` the part that it
    makes together with its reverse.
    """
    wrong = matrix - np.diag(np.diag(matrix))
    errors = wrong.sum()
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    places: list[tuple[int, int]] = [divmod(place, len(matrix)) for place in order.tolist()]
    return [
        {
            "true": class_names[true],
            "predicted": class_names[predicted],
            "count": int(wrong[true, predicted]),
            "share": float(wrong[true, predicted] / errors),
            "pair_share": float((wrong[true, predicted] + wrong[predicted, true]) / errors),
        }
        for true, predicted in places
        if wrong[true, predicted]
    ]


def require_finite(logits: np.ndarray) -> None:
    """Raise a VitlabError that names the first images whose logits are not finite."""
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise VitlabError(
            f"{len(broken)} of {len(logits)} images have logits that are not finite "
            f"(first: {broken[:5].tolist()}): the weights have diverged or the precision is "
            "too small; evaluate an earlier checkpoint or train with train.precision=fp32"
        )


def summarize(
    logits: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    temperature: float | None = None,
) -> Summary:
    """What logits say of a split, as JSON values; VitlabError if a logit is not finite."""
    require_finite(logits)
    matrix = confusion_matrix(logits, labels)
    classes = per_class(logits, labels)
    bins = reliability(logits, labels)
    scaled = None if temperature is None else logits.astype(np.float64) / temperature
    scaled_bins = None if scaled is None else reliability(scaled, labels)
    correct = int(np.trace(matrix))
    return {
        "images": len(labels),
        "loss": loss(logits, labels),
        "accuracy": correct / len(labels),
        "accuracy_interval": list(wilson(correct, len(labels))),
        "balanced_accuracy": _mean(classes.recall),
        "top3_accuracy": top_accuracy(logits, labels, 3),
        "mean_precision": _mean(classes.precision),
        "mean_recall": _mean(classes.recall),
        "mean_f1": _mean(classes.f1),
        "mean_auc": _mean(classes.auc),
        "mean_confidence": float(np.exp(log_softmax(logits).max(axis=1)).mean()),
        "calibration_error": bins.calibration_error,
        "temperature": temperature,
        "scaled_loss": None if scaled is None else loss(scaled, labels),
        "scaled_calibration_error": scaled_bins and scaled_bins.calibration_error,
        "absent_classes": [
            name for name, images in zip(class_names, classes.images, strict=True) if not images
        ],
        "per_class": [
            {
                "class": name,
                "images": int(classes.images[k]),
                "accuracy": _json(classes.accuracy[k]),
                "precision": _json(classes.precision[k]),
                "recall": _json(classes.recall[k]),
                "f1": _json(classes.f1[k]),
                "auc": _json(classes.auc[k]),
                "confidence": _json(classes.confidence[k]),
            }
            for k, name in enumerate(class_names)
        ],
        "top_confusions": top_confusions(matrix, class_names),
        "confusion": matrix.tolist(),
        "reliability": bins.rows(),
        "scaled_reliability": scaled_bins and scaled_bins.rows(),
    }


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _json(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
