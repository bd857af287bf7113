"""What logits say about several labels an image: pure functions from arrays to numbers.

    N images   K labels   logits (N, K)   labels multi-hot (N, K)

Each label is a question of its own: its probability is the sigmoid of its logit, and it is given to
an image where that is at least the label's threshold. As in `vitlab.metrics`, a label that no image
has is NaN in arrays and null in JSON, and left out of means over labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitlab.errors import VitlabError
from vitlab.metrics import require_finite
from vitlab.stats import LEVEL

UNTUNED = 0.5
"""The threshold of a label for which none was found: on no validation image, or never evaluated."""

DRAWS = 500
"""Times that images are drawn anew for the interval of the mean average precision."""


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Probability (N, K) of each label by itself, float64."""
    from scipy.special import expit

    return expit(logits.astype(np.float64))


def loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Binary cross-entropy in nats: summed over the labels, the mean over the images."""
    exact = logits.astype(np.float64)
    return float((np.logaddexp(0, exact) - exact * labels).sum(axis=1).mean())


def average_precision(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision (K,) of the ranking of images by each label."""
    from sklearn.metrics import average_precision_score

    columns = zip(labels.T, logits.T, strict=True)
    return np.array([average_precision_score(*one) if one[0].any() else np.nan for one in columns])


def mean_average_precision(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean of the average precision over labels; NaN for logits that are not finite."""
    if not np.isfinite(logits).all():
        return float("nan")
    return _mean(average_precision(logits, labels))


def mean_average_precision_interval(
    logits: np.ndarray, labels: np.ndarray, draws: int = DRAWS, level: float = 1 - LEVEL
) -> list[float]:
    """Interval of the mean average precision over images drawn anew (bootstrap by percentiles)."""
    rng, images = np.random.default_rng(0), len(labels)
    found = []
    for part in np.array_split(np.arange(draws), -(-draws * images // (1 << 22))):
        counts = rng.multinomial(images, np.full(images, 1 / images), len(part))  # (draws, N)
        precisions = np.full((logits.shape[1], len(part)), np.nan)
        for k in np.flatnonzero(labels.any(axis=0)):
            order = np.argsort(-logits[:, k], kind="stable")
            drawn = counts[:, order]
            hits = drawn * labels[order, k]
            right = hits.cumsum(axis=1)
            precision = right / np.maximum(drawn.cumsum(axis=1), 1)
            with np.errstate(invalid="ignore"):  # 0 / 0 where no image of the label was drawn
                precisions[k] = (hits * precision).sum(axis=1) / right[:, -1]
        known = ~np.isnan(precisions)
        found.append(np.nansum(precisions, axis=0)[known.any(axis=0)] / known.sum(axis=0).clip(1))
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def tune_thresholds(chances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The thresholds (K,) of the highest F1 of each label on the images given.

    Each lies halfway between two probabilities of `chances` (N, K); of equals the highest is taken.
    """
    thresholds = np.full(labels.shape[1], UNTUNED)
    for k in np.flatnonzero(labels.any(axis=0)):
        order = np.argsort(-chances[:, k], kind="stable")
        chance, has = chances[order, k], labels[order, k].astype(np.int64)
        # Giving the label to the first n images: F1 = 2 right / (n given + those that have it).
        f1 = 2 * has.cumsum() / (np.arange(1, len(has) + 1) + has.sum())
        below = np.append(chance[1:], 0.0)
        f1[chance == below] = -1.0  # no threshold lies between equals
        best = int(f1.argmax())
        thresholds[k] = (chance[best] + below[best]) / 2
    return thresholds


def summarize(
    logits: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    temperature: float | None,
    thresholds: np.ndarray,
) -> dict[str, Any]:
    """What logits say of a split, as JSON values.

    VitlabError if a logit is not finite, or no image has a label.

    Args:
        temperature: what logits are divided by before the sigmoid; None is 1.
        thresholds: of the probabilities, (K,).
    """
    require_finite(logits)
    if not labels.any():
        raise VitlabError(f"none of the {len(labels)} images has a label: there is nothing to rank")
    scaled = logits.astype(np.float64) / (temperature or 1.0)
    given, has = probabilities(scaled) >= thresholds, labels.astype(bool)
    right = (given & has).sum(axis=0)
    precision, recall = right / given.sum(axis=0).clip(1), right / has.sum(axis=0).clip(1)
    f1 = 2 * right / (given.sum(axis=0) + has.sum(axis=0)).clip(1)
    present = np.asarray(has.any(axis=0))
    by_label = {
        "average_precision": average_precision(logits, labels),
        "threshold": thresholds,
        "precision": np.where(present, precision, np.nan),
        "recall": np.where(present, recall, np.nan),
        "f1": np.where(present, f1, np.nan),
    }
    means = {name: _mean(by_label[name]) for name in ("precision", "recall", "f1")}
    return {
        "images": len(labels),
        "loss": loss(logits, labels),
        "mean_average_precision": _mean(by_label["average_precision"]),
        "mean_average_precision_interval": mean_average_precision_interval(logits, labels),
        "micro_f1": float(2 * right.sum() / max(1, given.sum() + has.sum())),
        **{f"mean_{name}": value for name, value in means.items()},
        "exact_match": float((given == has).all(axis=1).mean()),
        "temperature": temperature,
        "scaled_loss": None if temperature is None else loss(scaled, labels),
        "absent_classes": [name for name, one in zip(class_names, present, strict=True) if not one],
        "per_class": [
            {
                "class": name,
                "images": int(has[:, k].sum()),
                **{
                    key: None if np.isnan(values[k]) else float(values[k])
                    for key, values in by_label.items()
                },
            }
            for k, name in enumerate(class_names)
        ],
    }


def _mean(values: np.ndarray) -> float:
    """The mean of what is known; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
