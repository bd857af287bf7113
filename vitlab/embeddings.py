"""What a cloud of vectors shows: maps of it, how far classes lie apart, what can be read from it.

features (N, D) -> a map (N, 2), by principal components or t-SNE
features, labels -> distances within and between classes
training features, features -> accuracy of a linear probe and of nearest neighbours

Everything is deterministic: the same features give the same numbers.
"""

from typing import NamedTuple

import numpy as np

NEIGHBORS = 20
"""How many nearest training images vote."""

TSNE_COMPONENTS = 50
"""Principal components that t-SNE is given: more only slow it down."""

ALPHAS = tuple(10.0**power for power in range(-1, 6))
"""Strengths of regularisation a linear probe chooses from, by leaving one training image out."""


class Separation(NamedTuple):
    """Mean Euclidean distances over pairs of images; None where there is no such pair."""

    within: float | None
    """Over all pairs of two images of one class."""
    between: float | None
    """Over all pairs of two images of different classes."""
    ratio: float | None
    """`between / within`: 1 where labels mean nothing, more the further classes lie apart."""


def pca(
    features: np.ndarray, components: int = 2, *, others: np.ndarray | None = None
) -> np.ndarray:
    """Project features (N, D) on the directions in which they vary most: (N, components).

    Where there are fewer directions the rest is zero. Others (M, D) are projected on the directions
    of the features instead: (M, components).
    """
    from sklearn.decomposition import PCA

    least = min(components, *features.shape)
    # Randomised is a matter of seconds where thousands of pixels would take a minute.
    model = PCA(least, svd_solver="randomized", random_state=0)
    with np.errstate(invalid="ignore"):  # equal features have no variance to be shared out
        model.fit(features.astype(np.float64))
    projected = model.transform((features if others is None else others).astype(np.float64))
    return np.pad(projected, ((0, 0), (0, components - least)))


def tsne(features: np.ndarray) -> np.ndarray:
    """Map features (N, D) to a plane (N, 2) that keeps neighbours together (van der Maaten, 2008).

    Distances between far points of the map mean little. It takes seconds for 2,000 points.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if (features == features[0]).all():  # a CLS token before the first block, for one
        return np.zeros((len(features), 2))
    reduced = pca(features, TSNE_COMPONENTS)
    perplexity = min(30.0, (len(features) - 1) / 3)
    # Sums over several threads have no fixed order, and t-SNE magnifies the last digit.
    with threadpool_limits(1):
        return TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(reduced)


def separation(features: np.ndarray, labels: np.ndarray) -> Separation:
    """How far apart the classes of features (N, D) lie, by labels (N,).

    In a 2-D map this is a number about the map; about the features it is honest only in their
    own space.
    """
    from scipy.spatial.distance import pdist

    distances = pdist(features.astype(np.float64))  # every pair once
    first, second = np.triu_indices(len(labels), 1)
    same = labels[first] == labels[second]
    within, between = _mean(distances[same]), _mean(distances[~same])
    return Separation(within, between, between / within if within and between else None)


def _mean(distances: np.ndarray) -> float | None:
    return float(distances.mean()) if len(distances) else None


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, features: np.ndarray, labels: np.ndarray
) -> float:
    """Accuracy on features (N, D) of a linear classifier that was fitted on `train` (M, D).

    A ridge regression on the classes (Alain and Bengio, 2017): features are brought to mean 0
    and deviation 1 on the training images, which also choose the regularisation.
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(ALPHAS))
    probe.fit(train.astype(np.float64), train_labels)
    return float(probe.score(features.astype(np.float64), labels))


def neighbor_accuracy(
    train: np.ndarray, train_labels: np.ndarray, features: np.ndarray, labels: np.ndarray
) -> float:
    """Accuracy on features (N, D) of the vote of the nearest of `train` (M, D), by cosine."""
    from sklearn.neighbors import KNeighborsClassifier

    vote = KNeighborsClassifier(min(NEIGHBORS, len(train)), metric="cosine", algorithm="brute")
    return float(vote.fit(train, train_labels).score(features, labels))
