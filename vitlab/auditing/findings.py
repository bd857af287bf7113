"""The lists of an audit, and what is said of each image in them.

N images   D numbers that describe an image   K classes
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from vitlab.auditing.confident import label_errors
from vitlab.auditing.subject import Image, Subject
from vitlab.data.duplicates import Pair, earlier_copies, near_duplicates
from vitlab.formatting import between, percent
from vitlab.progress import tracked
from vitlab.stats import wilson

NEIGHBORS = 10
"""Nearest images whose mean distance says how much an image is unlike the rest."""

FENCE = 3.0
"""Interquartile ranges above the upper quartile beyond which an image is unlike the rest: Tukey's
(1977) outer fence, beyond which lie one in 850,000 numbers of a normal distribution. Quartiles do
not move with the images that are looked for."""

MOST_UNLIKE = 200
"""Most images unlike the rest that are listed."""

FLAT = 3.0
"""Standard deviation of an image's pixels, of 255, up to which it is nearly empty: a black dot on
white paper that takes more than one pixel in 7,000 exceeds it, noise of a covered lens does not."""

CONFUSED = 0.1
"""Share of a class that is taken for another from which the two are listed: it must be the lower
end of the interval."""

BLOCK = 256
"""Images handled at once: bounds the memory."""


@dataclass(frozen=True)
class Finding:
    """An image, and why a person should look at it."""

    image: Image
    why: str
    score: float | None = None
    """What the list is sorted by; None for images that cannot be read."""
    proposed: str | None = None
    """The class that it is likelier of."""
    other: Image | None = None
    """The image that it is a copy of."""


@dataclass(frozen=True)
class Confusion:
    """A class of which many images are taken for another."""

    label: str
    taken_for: str
    images: int
    of: int
    share: float
    interval: tuple[float, float]
    """95 % interval of the share (Wilson)."""

    @property
    def why(self) -> str:
        """The numbers in words."""
        return (
            f"{self.images:,} of {self.of:,} images, {percent(self.share)} "
            f"({between(self.interval)})"
        )


@dataclass(frozen=True)
class Audit:
    """What was found; the lists are sorted, what to look at first in front."""

    source: str
    features: str
    """What describes the images."""
    own_body: bool
    """Whether that is the run itself, which saw the labels of its training images."""
    fingerprint: str
    """Of the images that were judged (`LabelledImages.fingerprint`)."""
    class_names: tuple[str, ...]
    images: int
    """How many were judged."""
    test_images: int
    """How many were only compared with them."""
    predicted: int
    """How many of the images were held out, so that their labels could be judged."""
    agreement: float | None
    """Share of those whose label is the likeliest class; None without any."""
    not_judged: tuple[str, ...]
    """Classes with fewer than two different images: none can be held out."""
    label_errors: tuple[Finding, ...]
    copies: tuple[Finding, ...]
    unlike: tuple[Finding, ...]
    unlike_bound: float
    """Distance from which an image is unlike the rest."""
    unreadable: tuple[Finding, ...]
    empty: tuple[Finding, ...]
    confusions: tuple[Confusion, ...]
    cleaned: dict[str, int] | None = None
    """Images that were written as the rest, `kept`, and that were left out, by reason."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def wrong_labels(subject: Subject, probabilities: np.ndarray) -> Iterator[Finding]:
    """Probable label errors; the score is the normalised margin, -1 for the surest.

    Args:
        probabilities: out of fold, (N, K); NaN where an image was never held out.
    """
    known = np.flatnonzero(~np.isnan(probabilities[:, 0]))
    found = label_errors(probabilities[known], subject.examples.labels[known])
    for place, proposed, margin in zip(*map(np.ndarray.tolist, found), strict=True):
        row = probabilities[known[place]].tolist()
        image, given = subject.named[known[place]], row[subject.examples.labels[known[place]]]
        name = subject.class_names[proposed]
        why = f"{image.label} {share(given)}, {name} {share(row[proposed])}"
        yield Finding(image, why, margin, proposed=name)


def copies(subject: Subject) -> Iterator[Finding]:
    """Images that have a near copy; the score is the distance, those of two labels in front."""
    named, pairs = subject.named, earlier_copies(subject.examples.images)
    found = [_copy(named[pair.b], named[pair.a], pair) for pair in pairs]
    if subject.test is not None:
        pairs = near_duplicates(subject.examples.images, subject.test.images)
        found += [
            _copy(named[pair.a], subject.named_test[pair.b], pair, "the other is a test image")
            for pair in pairs
        ]
    yield from sorted(found, key=lambda one: (not two_labels(one), one.score))


def _copy(image: Image, other: Image, pair: Pair, more: str = "") -> Finding:
    near = "equal pixels" if pair.distance == 0 else f"nearly equal, distance {pair.distance:.3f}"
    labels = f"labelled {image.label} and {other.label}" if image.label != other.label else ""
    why = "; ".join(filter(None, (labels, near, more)))
    return Finding(image, why, pair.distance, other=other)


def two_labels(one: Finding) -> bool:
    """Whether two copies carry different labels, of which one is wrong."""
    return one.other is not None and one.image.label != one.other.label


def unlike(subject: Subject, distances: np.ndarray, bound: float) -> Iterator[Finding]:
    """Images unlike the rest, the most unlike first; the score is their distance (N,)."""
    typical = float(np.median(distances))
    for place in np.argsort(-distances, kind="stable")[:MOST_UNLIKE].tolist():
        distance = float(distances[place])
        if distance > bound:
            why = f"distance {distance:.3f} to its neighbours; the median is {typical:.3f}"
            yield Finding(subject.named[place], why, distance)


def fence(values: np.ndarray) -> float:
    """What values (N,) have to exceed to be far from the others."""
    low, high = np.quantile(values, (0.25, 0.75))
    return float(high + FENCE * (high - low))


def neighbor_distances(features: np.ndarray, quiet: bool = False) -> np.ndarray:
    """Mean cosine distance of each image to the nearest others: (N, D) to (N,)."""
    unit = torch.nn.functional.normalize(torch.from_numpy(features).float())
    nearest, found = min(NEIGHBORS, len(unit) - 1), []
    for start in tracked(range(0, len(unit), BLOCK), "nearest images", quiet=quiet):
        own = unit[start : start + BLOCK]
        cosine = own @ unit.T
        cosine[:, start:].fill_diagonal_(-torch.inf)
        found.append(1 - cosine.topk(nearest).values.mean(dim=1))
    return torch.cat(found).clamp(min=0).double().numpy()


def empty(subject: Subject) -> Iterator[Finding]:
    """Images whose pixels hardly vary, the emptiest first; the score is their deviation, of 255."""
    deviations = pixel_deviations(subject.examples.images)
    for place in np.argsort(deviations, kind="stable").tolist():
        if deviations[place] > FLAT:
            break
        deviation = float(deviations[place])
        why = f"the standard deviation of its pixels is {deviation:.1f} of 255"
        yield Finding(subject.named[place], why, deviation)


def pixel_deviations(images: np.ndarray) -> np.ndarray:
    """Standard deviation of an image's pixels about its mean colour: uint8 (N, H, W, C) to (N,)."""
    found = [
        images[start : start + BLOCK].astype(np.float32).var(axis=(1, 2)).mean(axis=1) ** 0.5
        for start in range(0, len(images), BLOCK)
    ]
    return np.concatenate(found)


def unreadable(subject: Subject) -> Iterator[Finding]:
    """Images that cannot be read, with the reason."""
    for image, why in sorted(subject.unreadable, key=lambda one: str(one[0])):
        yield Finding(image, why)


def confusions(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Iterator[Confusion]:
    """Classes that cannot be told apart: the most often confused first.

    Args:
        probabilities: out of fold, (N, K); NaN where an image was never held out.
        labels: (N,).
    """
    known = ~np.isnan(probabilities[:, 0])
    table = np.zeros((len(class_names),) * 2, int)
    np.add.at(table, (labels[known], probabilities[known].argmax(axis=1)), 1)
    found = []
    for i, j in np.argwhere(table):
        images, of = int(table[i, j]), int(table[i].sum())
        if i != j and images > CONFUSED * of:
            interval = wilson(images, of)
            names = class_names[int(i)], class_names[int(j)]
            found.append(Confusion(*names, images, of, images / of, interval))
    yield from sorted(
        (one for one in found if one.interval[0] > CONFUSED), key=lambda one: -one.interval[0]
    )


def share(probability: float) -> str:
    """A probability in whole percent."""
    return f"{100 * probability:.0f} %"
