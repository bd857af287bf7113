"""A data set of a config: found once, read once, split once.

Training and test images leave by separate doors, `Dataset.examples` and `load_test`, in an order
that depends on their pixels alone, whatever file or folder they came from.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from vitlab.config import DataConfig
from vitlab.data.find import Root, as_path, data_roots, find_source
from vitlab.data.known import KNOWN, KnownSet
from vitlab.data.labelled import LabelledImages, check_classes, from_arrays, statistics
from vitlab.data.loading import load, survey
from vitlab.data.source import Source
from vitlab.data.splits import Split
from vitlab.errors import DataError

Given = LabelledImages | tuple[np.ndarray, np.ndarray]

Data = Given | None
"""Images and labels in memory, instead of those that `DataConfig.dataset` names."""

ARRAYS = "arrays"
"""What `config.data.dataset` says of images that were handed in as arrays."""


class Dataset:
    """The images of a config: what they are, how they are split, and all but its test images.

    Args:
        config: which images; `Dataset.config` is the same with nothing left open.
        data: training images in memory instead.
        root: folder of data sets; default $VITLAB_DATA, else the cache.

    Raises:
        DataError: for what is missing, damaged or contradictory, naming the files. Headers are read
            at once, pixels when they are first asked for. A known set is neither read nor fetched
            before it is asked for.
    """

    def __init__(self, config: DataConfig, data: Data = None, root: Root = None):
        self.root = root
        self._given = None
        if data is None and config.dataset == ARRAYS:
            raise DataError("the images were arrays in memory: hand them in again as data=")
        self._asked = config
        self.config = self._resolve(config) if data is None else self._adopt(config, data)

    def _adopt(self, config: DataConfig, data: Given) -> DataConfig:
        """Take images in memory; their config."""
        if isinstance(data, LabelledImages):
            examples = data.canonical()
        else:
            examples = from_arrays(*data, task=config.task)
        if (examples.labels.ndim == 2) != (config.task == "multilabel"):
            raise DataError(
                f"data.task={config.task}, but the labels given are of the shape "
                f"{examples.labels.shape}: (N,) is for multiclass, (N, K) of 0 and 1 for multilabel"
            )
        height, width, channels = examples.images.shape[1:]
        found = {
            "image_size": (height, width),
            "channels": channels,
            "classes": len(examples.class_names),
        }
        for name, value in found.items():
            if getattr(config, name) not in (None, value):
                raise DataError(
                    f"data.{name}={getattr(config, name)} does not fit the images given: {value}"
                )
        self._given = examples
        return replace(config, dataset=ARRAYS, **found)

    def _resolve(self, config: DataConfig) -> DataConfig:
        """Fill in the image size, channels and classes that are None, from facts or headers."""
        known = KNOWN.get(config.dataset)
        if known and config.task == "multiclass":
            classes, size, channels = known.classes, known.image_size, known.channels
        else:
            check_classes(config.dataset, self.source.class_names)
            classes, size, channels = len(self.source.class_names), None, None
            if config.image_size is None or config.channels is None:
                size, channels = survey(config, self.source)
        if config.classes not in (None, classes):
            raise DataError(
                f"data.classes={config.classes}, but {config.dataset} has {classes} classes: "
                "leave data.classes out"
            )
        return replace(
            config,
            classes=classes,
            image_size=config.image_size or size,
            channels=config.channels or channels,
        )

    @cached_property
    def source(self) -> Source:
        """What the images are read from; a known set is looked for, or fetched, here."""
        return find_source(self._asked, self.root)

    @cached_property
    def examples(self) -> LabelledImages:
        """All images but the test images, those for validation included, in canonical order.

        A set that comes without a test split gives up `test_fraction` of every class first. Warns
        if a known set is unlike the published one.
        """
        return _load(self, "train") if self._given is None else self._given

    @cached_property
    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Index of the training and of the validation images."""
        return self.examples.split(self.config)

    @property
    def has_test(self) -> bool:
        """True if the set comes with test images; else they are drawn from all its images."""
        return self._given is None and self.source.has_test

    @property
    def description(self) -> list[str]:
        """What is used for what, and a sentence for each thing that is not; nothing of arrays."""
        if self._given is not None:
            return []
        source, config = self.source, self.config
        drawn = f", test images drawn: {100 * config.test_fraction:g} % of every class"
        lines = [source.uses + ("" if source.has_test else drawn), *source.notes]
        if config.dataset in KNOWN:
            used = [path.resolve() for path in source.files("train")[:1]]
            folders = Path(config.dataset), *(f / config.dataset for f in data_roots(self.root))
            lines += [
                f"the folder {folder} is not used: for it give {as_path(folder)}"
                for folder in dict.fromkeys(folders)
                if folder.is_dir() and not any(one.is_relative_to(folder.resolve()) for one in used)
            ]
        return lines

    @property
    def train_count(self) -> int:
        """Number of training images; before they are read at most that number, and at least 1."""
        if self._given is not None or "examples" in vars(self):
            return len(self.split[0])
        known, config = KNOWN.get(self.config.dataset), self.config
        if not known and config.unreadable == "skip":
            return 1
        fraction = (1 - config.validation_fraction) * config.train_fraction
        if known:
            return max(1, int(known.train * fraction))
        labels = self.source.read("train")[1]
        fraction *= 1 if self.has_test else 1 - config.test_fraction
        # Shares are rounded in each class.
        return max(1, int(len(labels) * fraction) - len(self.source.class_names))


def open_dataset(config: DataConfig, data: Data = None, root: Root = None) -> Dataset:
    """Open the training and validation images of a config; see `Dataset`."""
    return Dataset(config, data, root)


def load_test(dataset: Dataset) -> LabelledImages:
    """Read the test images of a data set, in its config's form; the one door to them."""
    return _load(dataset, "test")


def _load(dataset: Dataset, split: Split) -> LabelledImages:
    examples = load(dataset.config, dataset.source, split)
    if known := KNOWN.get(dataset.config.dataset):
        _compare(dataset.config, examples, known, split)
    return examples


def _compare(config: DataConfig, examples: LabelledImages, known: KnownSet, split: Split) -> None:
    """Warn where a known set does not hold the published images."""
    if known.mean is None or known.std is None or known.content.get(split) == examples.content:
        return
    found = f"{len(examples.labels):,} images"
    published = f"{known.train if split == 'train' else known.test:,} images"
    as_published = (config.image_size, config.channels) == (known.image_size, known.channels)
    if split == "train" and as_published:
        found += _statistics_text(*statistics(examples.images))
        published += _statistics_text(known.mean, known.std)
    if split in known.content or found != published:
        warnings.warn(
            f"{config.dataset}: the {split} split is not the published one: {found}; published: "
            f"{published}. Results will not compare; a JPEG copy, for one, costs 2 to 3 %",
            stacklevel=4,
        )


def _statistics_text(mean: Sequence[float], std: Sequence[float]) -> str:
    means, stds = (" ".join(f"{value:.4f}" for value in values) for values in (mean, std))
    return f", mean {means}, std {stds}"
