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

from vitlab.device import choose_device
from vitlab.errors import DataError
from vitlab.predict import compute_logits, open_model
from vitlab.recipes import recipe
from vitlab.run import Run
from vitlab.train import train


class ViTClassifier(ClassifierMixin, BaseEstimator):
    """Classify images by a model that is trained on them from scratch.

    Images are (N, H, W) or (N, H, W, C): whole numbers from 0 to 255, or floats from 0 to 1, which
    are rounded to 256 steps. Anything else is refused, because a guess at the scale would be wrong
    for somebody. Labels may be of any type.

    Args:
        recipe: the name of a recipe (`vitlab recipes`). The default is a tiny ViT with patches of
            2x2 pixels, made for images of about 8x8.
        epochs: passes over the images; None is the recipe's own.
        overrides: fields of the config by their dotted names, as in {"model.patch_size": 4}.
        random_state: seed of weights, order and augmentation; an int gives the same model again.
        device: auto, cpu, cuda, ...
        folder: where the run is kept, under a name of its own; None keeps none.

    Attributes:
        classes_: labels in the order of the columns of `predict_proba`, (K,).
        image_shape_: H, W and C of the images it was fitted on.
        model_: the trained model, on the CPU.
        metrics_: the lines of the run's metrics.
        run_: path of the run, None without a folder.

    All of X is trained on: unless `overrides` sets `data.validation_fraction`, nothing is held
    out, and `metrics_` judges on clean training images alone.
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
    ):
        self.recipe = recipe
        self.epochs = epochs
        self.overrides = overrides
        self.random_state = random_state
        self.device = device
        self.folder = folder

    def fit(self, X: Any, y: Any) -> Self:
        """Train on images X and labels y (N,).

        Raises:
            ConfigError: a recipe, a field or an image size that does not fit.
            DataError: images or labels that are not what they should be.
        """
        images = as_images(X)
        y = column_or_1d(y, warn=True)
        check_consistent_length(images, y)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise DataError(f"y has one class, {classes[0]}: a classifier needs at least two")
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        fields = {"data.validation_fraction": 0.0, **(self.overrides or {}), "train.seed": seed}
        if self.epochs is not None:
            fields["train.epochs"] = self.epochs
        config = recipe(self.recipe).override(fields)
        with tempfile.TemporaryDirectory() as passing:
            # A name of its own: several processes may fit into one folder at once.
            name = f"{config.recipe}-{uuid.uuid4().hex[:8]}"
            where = {"out": self.folder or passing, "name": name, "device": self.device}
            run = train(config, data=(images, labels), quiet=True, **where)
            self._remember(run)
        self.classes_ = classes
        self.image_shape_ = images.shape[1:]
        return self

    def _remember(self, run: Run) -> None:
        """Take from a run what predictions need."""
        checkpoint, statistics = run.checkpoint(), run.origin["data"]
        self.model_ = open_model(run, checkpoint, torch.device("cpu"))
        self.statistics_: dict[str, Any] = {
            "mean": tuple(statistics["mean"]),
            "std": tuple(statistics["std"]),
            "size": tuple(checkpoint.state["image_size"]),
        }
        self.metrics_ = run.metrics
        self.run_ = run.path if self.folder else None

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, (N, K), each row of which adds up to 1.

        Raises DataError for images of another shape than those it was fitted on.
        """
        check_is_fitted(self)
        images = as_images(X)
        if images.shape[1:] != self.image_shape_:
            raise DataError(
                f"X has images of {images.shape[1:]}, but {type(self).__name__} was fitted on "
                f"images of {self.image_shape_}: resize them first"
            )
        where = choose_device(self.device)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(where)
        try:
            logits = compute_logits(self.model_.to(where), pixels, **self.statistics_)
        finally:
            self.model_.to("cpu")
        return logits.double().softmax(dim=1).cpu().numpy()

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
    array = np.asarray(X)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise DataError(
            f"X has the shape {np.shape(X)}: images are (N, H, W), or (N, H, W, C) with 1 or 3 "
            "channels. Reshape your data, as in X.reshape(-1, 8, 8)"
        )
    if 0 in array.shape:
        raise DataError(f"X has the shape {np.shape(X)}: there are no images in it")
    whole = array.dtype.kind in "iu"
    if not whole and array.dtype.kind != "f":
        raise DataError(
            f"X is of {array.dtype}: give whole numbers from 0 to 255, or floats from 0 to 1"
        )
    if not np.isfinite(array).all():
        raise DataError("X holds NaN or infinity, and a pixel has neither: replace them first")
    low, high = array.min(), array.max()
    if low < 0 or high > (255 if whole else 1):
        scale = "whole numbers from 0 to 255" if whole else "floats from 0 to 1"
        raise DataError(
            f"X reaches from {low:g} to {high:g}: {scale} are needed; divide by the largest value "
            "that a pixel can have"
        )
    return np.ascontiguousarray(array if whole else np.rint(255 * array), dtype=np.uint8)
