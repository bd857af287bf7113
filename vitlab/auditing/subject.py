"""What is audited: the images of a data set or of a run, their files, and their features."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vitlab.config import DataConfig, refuse_multilabel
from vitlab.data import (
    ARRAYS,
    Data,
    Dataset,
    LabelledImages,
    Root,
    load_test,
    open_dataset,
    relocate,
)
from vitlab.data.loading import load as read
from vitlab.data.loading import why_unreadable
from vitlab.data.source import Undivided
from vitlab.data.splits import Split
from vitlab.device import choose_device
from vitlab.errors import ConfigError, DataError
from vitlab.frozen import Frozen, open_backbone
from vitlab.inference import load, open_examples
from vitlab.models.backbone import EFFICIENTNET
from vitlab.run import Run, shipped_names
from vitlab.selection.search import open_pictures


@dataclass(frozen=True)
class Image:
    """An image of the set, as the lists name it."""

    split: Split
    """train or test."""
    index: int | None
    """Place among the images of the split as vitlab sorts them; None if it cannot be read."""
    row: int
    """Place in the source: among the rows of Parquet files, in the arrays, in the list of files."""
    file: str | None
    """Path; None where images have no files of their own."""
    label: str
    """Name of the class that it is labelled with."""

    def __str__(self) -> str:
        return self.file or f"{self.split} row {self.row}"


@dataclass(frozen=True, eq=False)
class Subject:
    """The images that are judged, the test images beside them, and a network.

    A set that comes without a test split is judged whole; of a run only what it was trained and
    validated on.
    """

    name: str
    dataset: Dataset
    examples: LabelledImages
    """The images that are judged."""
    test: LabelledImages | None
    """Test images, which are only compared with the others, where the set comes with some."""
    frozen: Frozen
    backbone: str | None
    """The pretrained network that describes images; None for the run's own body."""
    run: Run | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        return self.examples.class_names

    @property
    def has_splits(self) -> bool:
        """Whether some of its images are for testing, whatever is trained on it later."""
        return self.dataset.has_test or self.run is not None

    @cached_property
    def named(self) -> list[Image]:
        """The images that are judged, in order."""
        return self._named("train", self.examples)

    @cached_property
    def named_test(self) -> list[Image]:
        """The test images beside them, in order."""
        return [] if self.test is None else self._named("test", self.test)

    def _named(self, split: Split, part: LabelledImages) -> list[Image]:
        assert part.places is not None, "whoever reads images knows where they were"
        rows, labels, files = part.places.tolist(), part.labels.tolist(), self.files(split)
        return [
            Image(split, index, row, files[row] if files else None, part.class_names[label])
            for index, (row, label) in enumerate(zip(rows, labels, strict=True))
        ]

    def files(self, split: Split) -> list[str]:
        """The files of a split of the source, or all of a source without; none of other sources."""
        items, _ = self._items(split)
        return [str(item) for item in items] if isinstance(items[0], Path) else []

    def _items(self, split: Split) -> tuple[Any, np.ndarray]:
        if self.dataset.config.dataset == ARRAYS:
            return self.examples.images, self.examples.labels
        return self.dataset.source.read(split if self.dataset.has_test else "train")

    @cached_property
    def unreadable(self) -> list[tuple[Image, str]]:
        """Images that were left out as they cannot be read, and why."""
        found: list[tuple[Image, str]] = []
        parts: dict[Split, list[Image]] = {"train": self.named, "test": self.named_test}
        for split, named in parts.items():
            if not named:
                continue
            files, (items, labels) = self.files(split), self._items(split)
            for row in _missing(len(labels), named):
                if why := why_unreadable(items[row], self.dataset.config):
                    file = files[row] if files else None
                    found.append(
                        (Image(split, None, row, file, self.class_names[labels[row]]), why)
                    )
        return found

    def every(self) -> Iterator[Image]:
        """All images of the source, those of a run's test split and unreadable ones among them."""
        unread = [image for image, _ in self.unreadable]
        yield from (*self.named, *self.named_test, *unread)
        if self.run and not self.dataset.has_test:
            files, (_, labels) = self.files("test"), self._items("test")
            for row in _missing(len(labels), [*self.named, *unread]):
                yield Image("test", None, row, files[row], self.class_names[labels[row]])

    def pixels(self, image: Image) -> np.ndarray:
        """An image, uint8 (H, W, C)."""
        part = self.test if image.split == "test" and self.test else self.examples
        return part.images[image.index]


def _missing(rows: int, named: Sequence[Image]) -> list[int]:
    """Rows of a source that none of some images has."""
    return np.setdiff1d(np.arange(rows), [image.row for image in named]).tolist()


def open_subject(
    source: Run | str | os.PathLike[str] | Data,
    backbone: str | None,
    fields: Mapping[str, Any],
    device: str,
    root: Root,
) -> Subject:
    """Open a run, by its folder or the name of one that ships, or else a data set."""
    is_path = isinstance(source, str | os.PathLike)
    if isinstance(source, Run) or (
        is_path and (Run.exists(Path(source)) or os.fspath(source) in shipped_names())
    ):
        return _of_run(
            source if isinstance(source, Run) else Run(source), backbone, fields, device, root
        )
    _refuse_multilabel(DataConfig(task=fields.get("data.task", "multiclass")))
    network, where = backbone or EFFICIENTNET, choose_device(device)
    _, dataset = open_pictures(source, [network], {"data.unreadable": "skip", **fields}, root)
    frozen = open_backbone(network, dataset.config.channels or 3, where)
    if dataset.config.dataset == ARRAYS:
        examples, test = dataset.examples, None
    elif dataset.has_test:
        examples, test = dataset.examples, load_test(dataset)
    else:
        examples, test = read(dataset.config, Undivided(dataset.source), "train"), None
    name = Path(dataset.config.dataset).resolve().name
    return Subject(name, dataset, examples, test, frozen, network, None)


def _of_run(
    run: Run, backbone: str | None, fields: Mapping[str, Any], device: str, root: Root
) -> Subject:
    if fields:
        raise ConfigError(
            [f"{', '.join(fields)}: a run has its own data, as its config says; audit the data set "
             "by its own name or path to change them"]
        )  # fmt: skip
    _refuse_multilabel(run.config.data)
    if run.config.data.dataset == ARRAYS:
        raise DataError(
            f"{run.path} was trained on arrays in memory: vitlab.audit((images, labels)) takes them"
        )
    dataset = open_dataset(relocate(run.config.data, root), root=root)
    examples = open_examples(run, dataset.examples)
    if backbone is None:
        model = load(run, device=device)
        form = model.preprocessing
        frozen = Frozen(model.module, form.mean, form.std, form.input_size)
    else:
        frozen = open_backbone(backbone, dataset.config.channels or 3, choose_device(device))
    test = load_test(dataset) if dataset.has_test else None
    return Subject(run.name, dataset, examples, test, frozen, backbone, run)


def _refuse_multilabel(data: DataConfig) -> None:
    refuse_multilabel(
        data,
        "audit looks for images whose one label is wrong",
        "audit each label by itself, a CSV file with one column of labels",
    )
