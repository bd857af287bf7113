"""A data set becomes pictures of what is in it, and the numbers behind them.

    data set -> samples, class counts, intensities, patches, augmentations, near-duplicates, maps

Everything is made of the training split, as a training would see it. Test images are opened for one
question only: how many of them have a near copy among the training images.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitlab.config import AugmentConfig, DataConfig, refuse_multilabel
from vitlab.data import LabelledImages, Subset, load_test, open_dataset, statistics
from vitlab.data.augment import RngKey, augment
from vitlab.data.duplicates import near_duplicates
from vitlab.data.labelled import value_counts
from vitlab.data.operations import OPERATIONS, magnitudes
from vitlab.data.splits import draw
from vitlab.device import choose_device
from vitlab.embeddings import Separation, pca, separation, tsne
from vitlab.fields import text
from vitlab.figures import exploration
from vitlab.figures.exploration import Tile
from vitlab.figures.maps import Map, maps
from vitlab.files import write_json, write_text
from vitlab.formatting import markdown_name, table
from vitlab.frozen import open_backbone

PER_CLASS = 10
"""Images shown of each class."""

REPEATS = 10
"""How often each augmentation is shown."""

MAPPED = 2_000
"""Images in a map, or all where there are fewer."""

MAPPED_NUMBERS = 1 << 25
"""Pixels, each of every channel, of the images in a map: large images are fewer."""

PAIRS = 10
"""Most pairs of near-duplicates shown, evenly from the nearest to the farthest."""

STRENGTHS = {"randaugment": (-9, 9), "trivialaugment": (-20, -10, 10, 20)}
"""Strengths, up to 30, at which operations are shown by policy; below 0 they go the other way."""


@dataclass(frozen=True)
class Exploration:
    """The images that are explored, and the folder of their figures."""

    name: str
    examples: LabelledImages
    split: tuple[np.ndarray, np.ndarray]
    """Index of the training and of the validation images."""
    folder: Path

    @property
    def train(self) -> np.ndarray:
        """Index of the training images."""
        return self.split[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.examples.class_names

    def sample(self, count: int) -> list[np.ndarray]:
        """Index of up to `count` training images of each class, always the same ones."""
        order = np.random.default_rng(0).permutation(self.train)
        labels = self.examples.labels[order]
        return [order[labels == k][:count] for k in range(len(self.classes))]

    @cached_property
    def one_of_each(self) -> np.ndarray:
        """One training image of each class, uint8 (K, H, W, C)."""
        return self.examples.images[np.concatenate(self.sample(1))]

    @cached_property
    def shown(self) -> int:
        """The class whose image shows augmentations and patches: that of most contrast."""
        return int(self.one_of_each.std(axis=(1, 2, 3)).argmax())


def explore(
    config: DataConfig,
    *,
    out: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Look at a data set: figures, numbers.json, and an index.md that ties them together.

    Args:
        config: which images, in which form; `DataConfig(dataset="cifar10")` for a set as it is.
        out: folder to write; default explore/NAME.
        backbone: a pretrained model (see `pretrained.backbones`) whose features are mapped as well.
        device: where the backbone runs: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.

    Returns:
        What numbers.json holds. `images` counts images and near-duplicates by split. `separation`
        has the distances within and between classes (`embeddings.separation`): in the features'
        own space, where they speak of the features, and in 2-D maps, where they speak of a map.
        Pixels are in 0..1.

    Raises:
        DataError: no such data set or backbone.
    """
    refuse_multilabel(
        config,
        "explore shows a data set class by class",
        "the header of `vitlab train` counts images by label",
    )
    dataset = open_dataset(config, root=data_root)
    config, examples = dataset.config, dataset.examples
    data = Exploration(
        name=default_folder(config).name,
        examples=examples,
        split=dataset.split,
        folder=Path(out) if out is not None else default_folder(config),
    )
    # First, because a backbone may be missing, which should not take minutes to find out.
    apart = _separation(data, backbone, device)
    test = load_test(dataset)
    numbers = {
        "dataset": data.name,
        "fingerprint": examples.fingerprint,
        "class_names": list(data.classes),
        **_describe(data, test.labels),
        "patches": _patches(data),
        "images": _near_duplicates(data, test.images),
        "backbone": backbone,
        "separation": apart,
    }
    _augmentations(data, numbers["mean"], numbers["std"])
    _operations(data)
    write_text(data.folder / "index.md", "\n".join(_index(numbers)))
    write_json(data.folder / "numbers.json", numbers)
    return numbers


def default_folder(config: DataConfig) -> Path:
    """Where the exploration of a data set lies: explore/NAME."""
    return Path("explore") / Path(config.dataset).resolve().name


def _describe(data: Exploration, test: np.ndarray) -> dict[str, Any]:
    """Samples, class counts and intensities; `test` has the labels of the test split."""
    examples, folder = data.examples, data.folder
    places = data.sample(PER_CLASS)
    train, validation = data.split
    splits = {
        "training": examples.labels[train],
        "validation": examples.labels[validation],
        "test": test,
    }
    counts = {
        name: np.bincount(labels, minlength=len(data.classes)).tolist()
        for name, labels in splits.items()
        if len(labels)
    }
    images = Subset(examples.images, data.train)
    mean, std = statistics(images)
    values = value_counts(images)
    exploration.samples(
        [list(examples.images[index]) for index in places],
        [index.tolist() for index in places],
        data.classes,
        folder / "samples",
        title=f"{data.name}: training images of each class",
    )
    exploration.class_counts(
        counts, data.classes, folder / "class-counts", title=f"{data.name}: images by class"
    )
    exploration.intensities(
        values / values.sum(axis=1, keepdims=True),
        mean,
        std,
        folder / "intensities",
        title=f"{data.name}: intensities",
    )
    return {
        "shape": list(images.shape[1:]),
        "class_counts": counts,
        "mean": list(mean),
        "std": list(std),
    }


def _patches(data: Exploration) -> dict[str, int]:
    """Images cut into patches, and one of them as the numbers that a ViT gets."""
    images, name, folder = data.one_of_each, data.name, data.folder
    _, height, width, channels = images.shape
    side = patch_side(height, width)
    rows, columns, numbers = height // side, width // side, side * side * channels
    title = f"{name}: patches of {side} x {side} pixels"
    exploration.patches(images, side, data.classes, folder / "patches", title=title)
    title = f"{name}: an image becomes {rows * columns} patches of {numbers} numbers"
    exploration.tokens(images[data.shown], side, folder / "tokens", title=title)
    return {"side": side, "rows": rows, "columns": columns, "numbers": numbers}


def patch_side(height: int, width: int) -> int:
    """Pixels on a side of the patches shown: about eight of them along the shorter edge."""
    shorter = min(height, width)
    return min(shorter, max(2, round(shorter / 8)))


def _augmentations(data: Exploration, mean: Sequence[float], std: Sequence[float]) -> None:
    """Every technique of AugmentConfig on one image, REPEATS times."""
    count = len(data.classes)
    # Mixing needs partners: the image shown is the first of a batch of one of each class.
    labels = np.roll(np.arange(count), -data.shown)
    batch = torch.from_numpy(data.one_of_each[labels]).permute(0, 3, 1, 2)
    rows = {}
    for config in techniques(min(batch.shape[2:])):
        row = rows[_fields(config)] = [Tile(data.one_of_each[data.shown])]
        for step in range(REPEATS):
            key = RngKey(seed=0, step=step, epoch=step, index=labels, size=count)
            own = torch.from_numpy(labels)
            images, targets = augment(batch, own, config, [key], mean=mean, std=std, classes=count)
            share, k = targets[0].max(dim=0)
            words = "" if share == 1 else f"{100 * share:.0f} % {data.classes[k]}"
            row.append(Tile(_pixels(images[0], mean, std), words))
    title = f"{data.name}: an image, and {REPEATS} results of each augmentation"
    exploration.tiles(rows, data.folder / "augmentations", title=title)


def techniques(side: int) -> tuple[AugmentConfig, ...]:
    """One config per technique, strong enough to be seen on images of `side` pixels."""
    return (
        AugmentConfig(crop_padding=max(1, side // 8)),
        AugmentConfig(crop_padding=max(1, side // 8), crop_fill="reflect"),
        AugmentConfig(resized_crop=0.5),
        AugmentConfig(flip="random"),
        AugmentConfig(flip="alternating"),
        AugmentConfig(policy="randaugment"),
        AugmentConfig(policy="trivialaugment"),
        AugmentConfig(erasing=1.0),
        AugmentConfig(erasing=1.0, erasing_fill="zero"),
        AugmentConfig(cutout=max(1, 3 * side // 8)),
        AugmentConfig(mixup=1.0),
        AugmentConfig(cutmix=1.0),
        AugmentConfig(label_smoothing=0.1),
    )


def _fields(config: AugmentConfig) -> str:
    """The fields that a config switches on, one a line."""
    off = vars(AugmentConfig())
    on = (f"{name} {text(value)}" for name, value in vars(config).items() if value != off[name])
    return "\n".join(on)


def _pixels(image: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """A normalised image (C, H, W) as uint8 (H, W, C) again."""
    pixels = image.permute(1, 2, 0).numpy() * std + mean
    return (255 * pixels).clip(0, 255).round().astype(np.uint8)


def _operations(data: Exploration) -> None:
    """Each of the policies' operations on one image, at several strengths."""
    image = data.one_of_each[data.shown]
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]  # (1, C, H, W)
    shown = [(policy, strength) for policy in STRENGTHS for strength in STRENGTHS[policy]]
    tables = {policy: magnitudes(policy, *image.shape[:2]) for policy in STRENGTHS}
    rows = {}
    for number, (name, operation) in enumerate(OPERATIONS.items()):
        rows[name] = [Tile(image)]
        for policy, strength in shown:
            amount = tables[policy][number, int(strength < 0), abs(strength)]
            changed = operation(batch, np.array([amount]))
            rows[name].append(Tile(changed[0].permute(1, 2, 0).numpy()))
    title = f"{data.name}: operations of RandAugment (R) and TrivialAugment (T), and their strength"
    columns = ["image", *(f"{policy[0].upper()} {strength}" for policy, strength in shown)]
    exploration.tiles(rows, data.folder / "operations", title=title, columns=columns, panels=2)


def _near_duplicates(data: Exploration, test: np.ndarray) -> list[dict[str, Any]]:
    """Images by split, and how many have a near copy among the training images; some are drawn."""
    images, labels = data.examples.images, data.examples.labels
    train, validation = data.split
    trained = Subset(images, train)
    pairs = near_duplicates(trained, Subset(images, validation))
    if pairs:
        shown = np.linspace(0, len(pairs) - 1, min(PAIRS, len(pairs))).round().astype(int)
        rows: dict[str, list[Tile]] = {"training": [], "validation": []}
        for pair in (pairs[place] for place in shown):
            a, b = train[pair.a], validation[pair.b]
            rows["training"].append(Tile(images[a], data.classes[labels[a]]))
            rows["validation"].append(Tile(images[b], f"{pair.distance:.3f}"))
        title = f"{data.name}: near-duplicates, with class and distance"
        exploration.tiles(rows, data.folder / "near-duplicates", title=title)
    counts = {
        "training": (len(train), None),
        "validation": (len(validation), len(pairs)),
        "test": (len(test), len(near_duplicates(trained, test))),
    }
    return [
        {"split": split, "images": count, "near_duplicates": copies}
        for split, (count, copies) in counts.items()
    ]


def _separation(data: Exploration, backbone: str | None, device: str) -> list[dict[str, Any]]:
    """How far apart classes lie in pixels, and in the features of a backbone if one is named."""
    pixels = math.prod(data.examples.images.shape[1:])
    share = min(1.0, min(MAPPED, MAPPED_NUMBERS / pixels) / len(data.train))
    keys, labels = data.examples.keys[data.train], data.examples.labels[data.train]
    index = data.train[draw(keys, labels, share, 0, "train")]
    images, labels = data.examples.images[index], data.examples.labels[index]
    features = {"pixels": images.reshape(len(images), -1) / np.float32(255)}
    if backbone is not None:
        network = open_backbone(backbone, images.shape[-1], choose_device(device))
        features["backbone"] = network.features(data.examples, index)
    rows = []
    for name, vectors in features.items():
        spaces = {"own": vectors, "PCA": pca(vectors), "t-SNE": tsne(vectors)}
        found = {space: separation(points, labels) for space, points in spaces.items()}
        for space, points in spaces.items():
            row = {"features": name, "space": space, "dimensions": points.shape[1]}
            rows.append({**row, "images": len(index), **found[space]._asdict()})
        panels = [Map(_ratio(space, found[space]), spaces[space]) for space in ("PCA", "t-SNE")]
        of = backbone if name == "backbone" else name
        title = _ratio(f"{data.name}, {of} in {vectors.shape[1]:,} dimensions", found["own"])
        maps([panels], labels, data.classes, data.folder / f"maps-{name}", title=title)
    return rows


def _ratio(name: str, found: Separation) -> str:
    """A title with the distances of a separation, where there are any."""
    if found.ratio is None:
        return name
    return (
        f"{name}: within {found.within:.2f}, between {found.between:.2f}, ratio {found.ratio:.3f}"
    )


def _index(numbers: dict[str, Any]) -> Iterator[str]:
    """The lines of index.md."""
    height, width, channels = numbers["shape"]
    patches = numbers["patches"]
    side = patches["side"]
    yield f"# {markdown_name(numbers['dataset'])}\n"
    yield (
        f"Images of {height} x {width} x {channels} in {len(numbers['class_names'])} classes. "
        "Figures lie here as PNG, SVG and CSV, and numbers.json has the numbers of this page.\n"
    )
    sections = {
        "samples": f"Up to {PER_CLASS} training images of each class, drawn once.",
        "class-counts": "Validation images are split off the training images.",
        "intensities": "Of the training images; means and standard deviations are in 0 to 1.",
        "patches": f"A ViT gets {patches['rows']} x {patches['columns']} patches of {side} x "
        f"{side} pixels.",
        "tokens": f"Each patch is a row of {patches['numbers']} numbers, and then a token.",
        "augmentations": "Each technique with the fields of the config that switch it on. Where "
        "targets are mixed or smoothed, the largest share stands below.",
        "operations": "What the two policies choose from, by strengths of up to 30; below 0 they "
        "go the other way, where there is one.",
    }
    for name, sentence in sections.items():
        yield f"## {name.replace('-', ' ').capitalize()}\n\n{sentence}\n\n![{name}]({name}.png)\n"
    yield "## Near-duplicates\n\nImages with a near copy among the training images.\n"
    yield _table(numbers["images"])
    if numbers["images"][1]["near_duplicates"]:
        yield "![near-duplicates](near-duplicates.png)\n"
    yield (
        "## Separation\n\nMean Euclidean distance over pairs of training images of one class "
        "(within) and of different classes (between). Their ratio is 1 where labels mean nothing. "
        "In their own space it speaks of the features, in a map of two dimensions of the map.\n"
    )
    if numbers["backbone"]:
        yield f"The backbone is {markdown_name(numbers['backbone'])}.\n"
    yield _table(numbers["separation"])
    for name in dict.fromkeys(row["features"] for row in numbers["separation"]):
        yield f"![{name}](maps-{name}.png)\n"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with equal keys as a table in Markdown."""
    texts = (["-" if cell is None else f"{cell:.3f}" if isinstance(cell, float) else str(cell)
              for cell in row.values()] for row in rows)  # fmt: skip
    return table((name.replace("_", " ") for name in rows[0]), texts) + "\n"
