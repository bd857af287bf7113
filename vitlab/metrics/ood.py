"""Out-of-distribution detection: whether an image is unlike all that a model was trained on.

The score is the Mahalanobis distance of an image's features to the nearest class mean, under one
covariance for all classes (Lee et al., A simple unified framework for detecting out-of-distribution
samples, 2018). On the sets of docs/unknown.md it does better than the maximum softmax probability,
and better on average than energy and nearest neighbours.

N images   D numbers that enter a model's last layer, its features   M class means
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitlab.files import replacing
from vitlab.records import OodResult

ACCEPTED = 0.95
"""Share of validation images that are taken for known."""

FITTED, SEED = 2_000, 0
"""Most training images whose features a detector is fitted to, and the seed that draws them."""

FOLDS = 5
"""Parts of the images that are measured in turn where none were held out."""


class Detector(NamedTuple):
    """Tells images that are unlike the training images by their features."""

    means: np.ndarray
    """Of the features of each class, (M, D) float32; of several labels an image a single one."""
    whitening: np.ndarray
    """(D, D) float32, lower triangular: the squared length of a difference times this is its
    squared distance."""
    threshold: float
    """Squared distance up to which an image is taken for known."""
    held_out: bool
    """False where the threshold is of images that the model was trained on."""

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance of features (N, D) to the nearest class mean: (N,)."""
        white = features.astype(np.float64) @ self.whitening.astype(np.float64)
        means = self.means.astype(np.float64) @ self.whitening.astype(np.float64)
        every = [((white - mean) ** 2).sum(axis=1) for mean in means]
        return np.min(every, axis=0)


def fit_detector(
    features: np.ndarray, labels: np.ndarray, held_out: np.ndarray | None = None
) -> tuple[Detector, np.ndarray]:
    """Fit a detector to the features of training images.

    Args:
        features: (N, D).
        labels: (N,), or multi-hot (N, K), of which no class means are taken.
        held_out: features of validation images, of which 95 % are to be known, (V, D). Where there
            are none, the training images are measured in turn, each by the others.

    Returns:
        The detector, and the distances by which its threshold was set.
    """
    detector = _fit(features, labels)
    if held_out is not None:
        distances = detector.distances(held_out)
    else:
        part = np.random.default_rng(SEED).permutation(len(features)) % FOLDS
        distances = np.concatenate(
            [
                _fit(features[part != fold], labels[part != fold]).distances(features[part == fold])
                for fold in range(FOLDS)
                if (part == fold).any() and (part != fold).any()
            ]
        )
    limit = float(np.quantile(distances, ACCEPTED))
    return detector._replace(threshold=limit, held_out=held_out is not None), distances


def write_detector(file: Path, detector: Detector, checkpoint_sha256: str) -> None:
    """Store the detector of a checkpoint, as npz."""
    with replacing(file) as opened:
        np.savez_compressed(opened, checkpoint_sha256=checkpoint_sha256, **detector._asdict())


def read_detector(file: Path, checkpoint_sha256: str) -> Detector | None:
    """The detector in a file; None where there is none of this checkpoint."""
    if not file.exists():
        return None
    with np.load(file, allow_pickle=False) as stored:
        if str(stored["checkpoint_sha256"]) != checkpoint_sha256:
            return None
        return Detector(
            stored["means"],
            stored["whitening"],
            float(stored["threshold"]),
            bool(stored["held_out"]),
        )


def _fit(features: np.ndarray, labels: np.ndarray) -> Detector:
    from sklearn.covariance import ledoit_wolf

    features = features.astype(np.float64)
    if labels.ndim == 2 or len(features) < 2 * len(np.unique(labels)):
        labels = np.zeros(len(features), int)  # too few to know a class by
    classes, which = np.unique(labels, return_inverse=True)
    means = np.stack([features[which == place].mean(axis=0) for place in range(len(classes))])
    # Shrunk, so that fewer images than features are enough (Ledoit & Wolf, 2004).
    covariance = np.eye(features.shape[1])
    if len(features) > 1:
        covariance, _ = ledoit_wolf(features - means[which], assume_centered=True)
    values, directions = np.linalg.eigh(covariance)
    floor = max(1e-6 * values.max(), np.finfo(np.float32).tiny)
    precision = directions / np.maximum(values, floor) @ directions.T
    whitening = np.linalg.cholesky(precision)
    return Detector(means.astype(np.float32), whitening.astype(np.float32), np.inf, False)


def summarize(detector: Detector, distances: np.ndarray) -> OodResult:
    """What a result says of the distances (N,) of its images."""
    return {
        "score": "mahalanobis",
        "threshold": detector.threshold,
        "held_out": detector.held_out,
        "unknown": float((distances > detector.threshold).mean()),
    }
