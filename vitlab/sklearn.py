"""A vision transformer as scikit-learn knows classifiers.

    from vitlab.sklearn import ViTClassifier

    ViTClassifier(epochs=20, random_state=0).fit(images, labels).score(others, their_labels)

It goes into a Pipeline, a GridSearchCV and a cross_val_score. What is trained is a recipe like any
other, as a run like any other; a fitted classifier holds its model in memory and needs no files.

N images   H, W height and width   C channels, 1 or 3   K classes
"""

import os
import tempfile
import uuid
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from vitlab.config import DataConfig, refuse_multilabel
from vitlab.data import LabelledImages
from vitlab.data.arrays import channels_last, refuse_types, written
from vitlab.device import choose_device
from vitlab.errors import DataError
from vitlab.inference import load
from vitlab.metrics import log_softmax, ood
from vitlab.preprocessing import to_tensor
from vitlab.recipes import recipe
from vitlab.selection import fit
from vitlab.training import train


class ViTClassifier(ClassifierMixin, BaseEstimator):
    """Classify images by a model that is trained on them from scratch.

    Images are (N, H, W) or (N, H, W, C): whole numbers from 0 to 255, or floats from 0 to 1, which
    are rounded to 256 steps. Anything else is refused, because a guess at the scale would be wrong
    for somebody. Labels may be of any type.

    Args:
        recipe: the name of a recipe (`vitlab recipes`). The default is a tiny ViT with patches of
            2x2 pixels, made for images of about 8x8. `auto` tries every way that `vitlab.fit` knows
            and takes the best; `linear` is a linear classifier on pretrained features.
        minutes: time that `auto` has.
        epochs: passes over the images; None is the recipe's own.
        overrides: fields of the config by their dotted names, as in {"model.patch_size": 4}.
        random_state: seed of weights, order and augmentation; an int gives the same model again.
        device: auto, cpu, cuda, ...
        folder: where the run is kept, under a name of its own; None keeps none.

    Attributes:
        classes_: labels in the order of the columns of `predict_proba`, (K,).
        image_shape_: H, W and C of the images it was fitted on.
        model_: the trained model, a `vitlab.TrainedModel` on the CPU.
        metrics_: the lines of the run's metrics.
        run_: path of the run, None without a folder.

    All of X is trained on: unless `overrides` sets `data.validation_fraction`, nothing is held
    out, and `metrics_` evaluates on clean training images alone.
    """

    def __init__(
        self,
        recipe: str = "digits",
        *,
        epochs: int | None = None,
        overrides: dict[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
        folder: str | os.PathLike[str] | None = None,
        minutes: float = 10.0,
    ):
        self.recipe = recipe
        self.epochs = epochs
        self.overrides = overrides
        self.random_state = random_state
        self.device = device
        self.folder = folder
        self.minutes = minutes

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on images X and labels y (N,).

        Args:
            X: images, as the class says.
            y: labels of any type.
            sample_weight: how often an image is shown beside others, (N,), at least 0. In an
                epoch, which stays as long as it is without, an image of weight 2 comes in
                expectation twice as often as one of weight 1. Weight 0 is as if the image were
                not there; equal weights are as none. Of `metrics_` nothing is weighted.

        Raises:
            ConfigError: a recipe, a field or an image size that does not fit.
            DataError: images, labels or weights that are not what they should be.
        """
        images = as_images(X)
        y = as_labels(y)
        check_consistent_length(images, y)
        check_classification_targets(y)
        weights = as_weights(sample_weight, len(images))
        if weights is not None:
            seen = weights > 0
            images, y, weights = images[seen], y[seen], weights[seen]
            weights = None if (weights == weights[0]).all() else weights
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise DataError(f"y has one class, {classes[0]}: a classifier needs at least two")
        names = tuple(map(str, classes.tolist()))
        examples = LabelledImages(images, labels.astype(np.int64), names, weights=weights)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        fields = {"data.validation_fraction": 0.0, **(self.overrides or {})}
        if self.epochs is not None:
            fields["train.epochs"] = self.epochs
        task = DataConfig(task=fields.get("data.task", "multiclass"))
        one_class = f"{type(self).__name__} predicts one class of an image"
        refuse_multilabel(task, one_class, "vitlab.train takes arrays with rows of labels")
        with tempfile.TemporaryDirectory() as passing:
            # A name of its own: several processes may fit into one folder at once.
            name = f"{self.recipe}-{uuid.uuid4().hex[:8]}"
            where = {"out": self.folder or passing, "name": name, "device": self.device}
            if self.recipe == "auto":
                if weights is not None or self.epochs is not None:
                    raise DataError("recipe='auto' takes neither sample_weight nor epochs")
                chosen = {"minutes": self.minutes, "seed": seed, "fields": fields}
                run = fit(examples, quiet=True, **chosen, **where)
            else:
                config = recipe(self.recipe).override({**fields, "train.seed": seed})
                run = train(config, data=examples, quiet=True, **where)
            self.model_ = load(run, device="cpu")
            # Answers are the same on every device.
            self.model_.precision = "fp32"
            if self.model_.detector is None:
                self._fit_detector(images, labels)
            self.metrics_ = run.metrics
            self.run_ = run.path if self.folder else None
        self.classes_ = classes
        self.image_shape_ = images.shape[1:]
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, (N, K), each row of which adds up to 1.

        Raises DataError for images of another shape than those it was fitted on.
        """
        images = self._checked(X)
        try:
            logits = self.model_.to(choose_device(self.device)).logits(images)
        finally:
            self.model_.to(torch.device("cpu"))
        return np.exp(log_softmax(logits))

    def _checked(self, X: Any) -> np.ndarray:
        """Images as the model takes them, of the shape of those it was fitted on."""
        check_is_fitted(self)
        one = self.image_shape_[:2] if self.image_shape_[2] == 1 else self.image_shape_
        if getattr(X, "shape", None) == one:
            raise DataError(f"X is a single image: {written(X, 'X')}[None] is an array of one")
        images = as_images(X)
        if images.shape[1:] != self.image_shape_:
            raise DataError(
                f"X has images of {images.shape[1:]}, but {type(self).__name__} was fitted on "
                f"images of {self.image_shape_}: {self._way(X, images)}"
            )
        return images

    def _way(self, X: Any, images: np.ndarray) -> str:
        """What brings images (N, H, W, C), which were given as X, to the shape of the fitted."""
        (height, width, fitted), given, x = self.image_shape_, images.shape[3], written(X, "X")
        if np.shape(X) == (fitted, height, width):
            return f"a single image, channels last, is {x}.transpose(1, 2, 0)[None]"
        if (given, fitted) == (1, 3):
            x = f"{x}[..., None]" if np.ndim(X) == 3 else x
            return f"grey images as colour ones are {x}.repeat(3, axis=-1)"
        if (given, fitted) == (3, 1):
            grey = f"({x} @ [0.299, 0.587, 0.114])"
            return "colour images as grey ones are " + (
                f"{grey}.round().astype(np.uint8)" if np.asarray(X).dtype.kind in "iu" else grey
            )
        return "resize them first"

    def _fit_detector(self, images: np.ndarray, labels: np.ndarray) -> None:
        some = np.random.default_rng(ood.SEED).permutation(len(images))[: ood.FITTED]
        _, features = self.model_.outputs(to_tensor(images[some]))
        self.model_.detector, _ = ood.fit_detector(features.cpu().numpy(), labels[some])

    def predict_ood(self, X: Any) -> np.ndarray:
        """Which images are unlike all it was fitted on: bool (N,).

        Some 5 of 100 images like those that it was fitted on are taken for unlike as well, or more
        where it has learned these by heart.
        """
        images = self._checked(X)
        return self.model_.is_unknown(images)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each image, (N,), as the labels it was fitted on."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def as_images(X: Any) -> np.ndarray:
    """Arrays as images (N, H, W, C), uint8; DataError for what is not clearly images."""
    array = channels_last(X, "X")
    refuse_types(array, X, "X")
    whole = array.dtype.kind in "iu"
    low, high = array.min(), array.max()
    if low < 0 or high > (255 if whole else 1):
        x, scale = written(X, "X"), "whole numbers from 0 to 255" if whole else "floats from 0 to 1"
        way = "divide by the largest value that a pixel can have, as in "
        way += f"{x} / {255 if high <= 255 else 65535}"
        if low < 0:
            way = f"({x} - LOW) / (HIGH - LOW), with the least and the largest value of a pixel"
        raise DataError(f"X reaches from {low:g} to {high:g}: {scale} are needed; {way}")
    return np.ascontiguousarray(array if whole else np.rint(255 * array), dtype=np.uint8)


def as_labels(y: Any) -> np.ndarray:
    """Labels (N,) of any type; DataError for rows of several numbers."""
    shape = np.shape(y)
    if len(shape) == 2 and shape[1] > 1:
        raise DataError(
            f"y of the shape {shape}: give one label of each image, (N,); several of them are "
            "learned by vitlab.train with data.task=multilabel. If these are one-hot rows: "
            f"{written(y, 'y')}.argmax(axis=1)"
        )
    return column_or_1d(y, warn=True)


def as_weights(sample_weight: Any, images: int) -> np.ndarray | None:
    """Weights (N,) of so many images, float64; DataError for what cannot be weights."""
    if sample_weight is None:
        return None
    try:
        weights = np.asarray(sample_weight, np.float64)
    except (TypeError, ValueError):
        raise DataError("sample_weight is no array of numbers: give each image one") from None
    if weights.ndim == 0:
        weights = np.full(images, weights)
    if weights.shape != (images,):
        raise DataError(
            f"sample_weight of the shape {weights.shape}: give each of {images} images one number"
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        places = np.flatnonzero(~(weights >= 0) | np.isinf(weights))[:5]
        raise DataError(
            f"sample_weight is {weights[places].tolist()} at {places.tolist()}: weights are finite "
            "and at least 0; 0 leaves an image out"
        )
    if not weights.any():
        raise DataError("sample_weight is zero everywhere: give some image a weight above 0")
    return weights
