"""Weights that a training starts from instead of random ones, and the images they have seen."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from safetensors.torch import save
from torch import Tensor, nn

from vitlab.config import BackboneConfig, Config
from vitlab.data import Dataset
from vitlab.errors import ConfigError, RunError
from vitlab.models.weights import LoadReport, load_weights
from vitlab.pretrained.backbones import read_backbone
from vitlab.pretrained.weights import data_of, read_class_names, read_weights, trained_on


@dataclass
class InitialWeights:
    """Weights from elsewhere, and what becomes of them in a model."""

    source: str
    """As `train.weights` names it."""
    sha256: str
    """Hash of the tensors by name, in the form of safetensors."""
    trained_keys: np.ndarray
    """Keys of the images that they were trained on, uint64 (M,)."""
    validation_seen: int
    """Validation images among these."""
    tensors: dict[str, Tensor]
    """By name, until a model has them."""
    headless: bool = False
    """True for those of a backbone, which come without a head."""
    report: LoadReport | None = None
    """What became of each tensor, once a model has them."""

    @classmethod
    def read(cls, config: Config, dataset: Dataset) -> "InitialWeights | None":
        """The weights that a config names for the training of a data set, if it does."""
        source = config.train.weights
        if source is None and isinstance(config.model, BackboneConfig):
            tensors, none = read_backbone(config.model.name), np.empty(0, np.uint64)
            return cls(config.model.name, _sha256(tensors), none, 0, tensors, headless=True)
        if source is None:
            return None
        keys, seen = seen_before(config, dataset)
        tensors = {name: tensor.contiguous() for name, tensor in read_weights(source).items()}
        return cls(source, _sha256(tensors), keys, seen, tensors)

    def fill(self, model: nn.Module, class_names: Sequence[str]) -> None:
        """Take them over into a model for classes of these names."""
        known = None if self.headless else read_class_names(self.source)
        self.report = load_weights(model, self.tensors, known, class_names)
        self.tensors = {}


def _sha256(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(save(tensors)).hexdigest()


def seen_before(config: Config, dataset: Dataset) -> tuple[np.ndarray, int]:
    """Images that the weights to start from were trained on, and how many are to validate.

    Of the validation images those do not count of which the training images hold a copy anyway.

    Returns:
        Their keys, uint64 (M,), and the number of validation images among them.

    Raises:
        ConfigError: there are such validation images, and `train.overlap` does not allow it.
    """
    assert config.train.weights is not None
    try:
        keys = trained_on(config.train.weights)
    except RunError:  # of an earlier vitlab, which did not store it
        if config.train.overlap == "allow":
            return np.empty(0, np.uint64), 0
        raise
    training, validation = (dataset.examples.keys[index] for index in dataset.split)
    seen = int((np.isin(validation, keys) & ~np.isin(validation, training)).sum())
    if not seen or config.train.overlap == "allow":
        return keys, seen
    ways = ["--train.overlap=allow, which every table will tell"]
    if (source := data_of(config.train.weights)) is not None:
        same = ("validation_fraction", "test_fraction", "train_fraction", "split_seed")
        differing = [name for name in same if getattr(source, name) != getattr(config.data, name)]
        if source.dataset == config.data.dataset and differing:
            ways.insert(0, " ".join(f"--data.{name}={getattr(source, name)}" for name in differing))
    raise ConfigError(
        [
            f"train.weights={config.train.weights} were trained on {seen:,} of the "
            f"{len(validation):,} validation images, so that the validation accuracy would say "
            f"nothing about new images: {', or '.join(ways)}"
        ]
    )
