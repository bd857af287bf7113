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
from vitlab.data.labelled import Joined
from vitlab.data.loading import why_unreadable
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
        return self.file or f"{self.split} image {self.row}"


@dataclass(frozen=True, eq=False)
class Subject:
    """The images that are judged, those of the test split beside them, and a network.

    A set that comes without a test split is judged whole; of a run only what it was trained and
    validated on.
    """

    name: str
    dataset: Dataset
    judged: Mapping[Split, LabelledImages]
    """By the split that they are of."""
    beside: Mapping[Split, LabelledImages]
    """Test images that are only compared with the others, where the set comes with some."""
    frozen: Frozen
    backbone: str | None
    """The pretrained network that describes images; None for the run's own body."""
    run: Run | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        return next(iter(self.judged.values())).class_names

    @cached_property
    def images(self) -> Joined:
        """The images that are judged, uint8 (N, H, W, C)."""
        return Joined([part.images for part in self.judged.values()])

    @cached_property
    def labels(self) -> np.ndarray:
        """Their labels, (N,)."""
        return np.concatenate([part.labels for part in self.judged.values()])

    @cached_property
    def keys(self) -> np.ndarray:
        """Their keys, uint64 (N,)."""
        return np.concatenate([part.keys for part in self.judged.values()])

    def features(self, quiet: bool) -> np.ndarray:
        """What the network makes of them: float32 (N, D)."""
        return np.concatenate(
            [
                self.frozen.features(part, np.arange(len(part.labels)), quiet=quiet)
                for part in self.judged.values()
            ]
        )

    @cached_property
    def named(self) -> list[Image]:
        """The images that are judged, in order."""
        return [image for split, part in self.judged.items() for image in self._named(split, part)]

    @cached_property
    def named_beside(self) -> list[Image]:
        """The images beside them, in order."""
        return [image for split, part in self.beside.items() for image in self._named(split, part)]

    def _named(self, split: Split, part: LabelledImages) -> list[Image]:
        rows, names = part.places, part.class_names
        assert rows is not None, "whoever opens the images knows where they were"
        files = self.files(split)
        return [
            Image(split, index, row, files[row] if files else None, names[label])
            for index, (row, label) in enumerate(
                zip(rows.tolist(), part.labels.tolist(), strict=True)
            )
        ]

    def files(self, split: Split) -> Sequence[str]:
        """The files of a split of the source, all of them where it has no other; none of others."""
        items, _ = self._items(split)
        return [str(item) for item in items] if isinstance(items[0], Path) else ()

    def _items(self, split: Split) -> tuple[Any, np.ndarray]:
        if self.dataset.config.dataset == ARRAYS:
            return [None], np.empty(0)
        return self.dataset.source.read(split if self.dataset.has_test else "train")

    @property
    def has_splits(self) -> bool:
        """Whether some of its images are for testing, whatever is trained on it later."""
        return self.dataset.has_test or self.run is not None

    def every(self) -> Iterator[Image]:
        """All images of the source that have a file, those of a run's test split among them."""
        yield from self.named
        yield from self.named_beside
        unread = [image for image, _ in self.unreadable]
        yield from unread
        if self.run and not self.dataset.has_test:
            files, (_, labels) = self.files("test"), self._items("test")
            known = [image.row for image in (*self.named, *unread)]
            for row in np.setdiff1d(np.arange(len(labels)), known).tolist():
                yield Image("test", None, row, files[row], self.class_names[labels[row]])

    @cached_property
    def unreadable(self) -> list[tuple[Image, str]]:
        """Images that were left out as they cannot be read, and why."""
        parts, found = {**self.judged, **self.beside}, []
        # Without a test split of its own, the source has its images in one list.
        groups = [[split] for split in parts] if self.dataset.has_test else [list(parts)]
        for group in groups:
            items, labels = self._items(group[0])
            rows = np.concatenate([parts[split].places for split in group])
            for row in np.setdiff1d(np.arange(len(labels)), rows).tolist():
                if why := why_unreadable(items[row], self.dataset.config):
                    file = str(items[row]) if isinstance(items[row], Path) else None
                    label = self.class_names[labels[row]]
                    found.append((Image(group[0], None, row, file, label), why))
        return found

    def pixels(self, image: Image) -> np.ndarray:
        """An image, uint8 (H, W, C)."""
        return {**self.judged, **self.beside}[image.split].images[image.index]


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
    name = Path(dataset.config.dataset).stem
    parts: dict[Split, LabelledImages] = {"train": dataset.examples}
    if dataset.config.dataset == ARRAYS:
        return Subject(name, dataset, parts, {}, frozen, network, None)
    test: dict[Split, LabelledImages] = {"test": load_test(dataset)}
    judged, beside = (parts, test) if dataset.has_test else ({**parts, **test}, {})
    return Subject(name, dataset, judged, beside, frozen, network, None)


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
    beside: dict[Split, LabelledImages] = {"test": load_test(dataset)} if dataset.has_test else {}
    return Subject(run.name, dataset, {"train": examples}, beside, frozen, backbone, run)


def _refuse_multilabel(data: DataConfig) -> None:
    refuse_multilabel(
        data,
        "audit looks for images whose one label is wrong",
        "audit each label by itself, a CSV file with one column of labels",
    )
