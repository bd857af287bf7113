"""What the layers of a model know: one run, or two beside each other on the same images.

    run -> features of every layer -> maps, distances between classes, probes, sentences

Three things are looked at in every layer: the CLS token where there is one, the mean of the patch
tokens, and one patch token of each image, at a place drawn for that image. The patch tokens of a
CNN are the places of its maps. Probes are fitted on training images, and everything is measured on
validation images.

B, N images  P patch tokens = rows * columns  D width of a layer
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vitlab.config import ViTConfig
from vitlab.data import LabelledImages, index_sha256
from vitlab.data.augment import normalize
from vitlab.data.batches import resize
from vitlab.data.splits import draw
from vitlab.device import choose_device
from vitlab.embeddings import linear_probe, neighbor_accuracy, pca, separation, tsne
from vitlab.errors import RunError
from vitlab.figures import features as figures
from vitlab.figures.maps import Map, maps
from vitlab.files import write_json
from vitlab.inference import Data, at_once, open_examples, open_model
from vitlab.pretrained import open_run
from vitlab.records import CheckpointChoice
from vitlab.run import Checkpoint, Run

Kind = Literal["pooled", "cls", "patch"]
KINDS: dict[Kind, str] = {
    "pooled": "the mean of the patch tokens",
    "cls": "the CLS token",
    "patch": "one patch token of each image",
}

FITTED, MEASURED = 5_000, 2_000
"""Training images that probes are fitted on, and validation images that all is measured on."""

MANY_LAYERS, FEW_LAYERS = 6, 3
"""Most layers shown, evenly from the first to the last: by PCA, and by what takes time or room."""

PICTURED = 10
"""Most classes whose patch tokens are shown as pictures."""

BATCH = 250
"""Images at once, or fewer where they are large: all layers of them are in memory."""


class Tokens(NamedTuple):
    """What one layer makes of images."""

    patches: Tensor
    """(B, P, D)"""
    cls: Tensor | None
    """(B, D)"""
    grid: tuple[int, int]
    """Rows and columns of the patches."""


class Model(NamedTuple):
    """A run's model, and how it wants its images."""

    name: str
    run: Run
    checkpoint: Checkpoint
    module: nn.Module
    device: torch.device

    @property
    def reads_cls(self) -> bool:
        """True if the head reads the CLS token."""
        cfg = self.run.config.model
        return isinstance(cfg, ViTConfig) and "cls" in cfg.pool

    @torch.inference_mode()
    def look(self, images: np.ndarray) -> tuple[dict[str, Tokens], Tensor]:
        """Images uint8 (B, H, W, C) to the tokens of every layer, first to last, and logits."""
        origin, cfg = self.run.provenance["data"], self.run.config.model
        height, width = self.checkpoint.state["image_size"]
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        pixels = resize(normalize(pixels, origin["mean"], origin["std"]), (height, width))
        trace: dict[str, Tensor] = {}
        logits = self.module(pixels, trace)
        layers = {}
        for name, values in trace.items():
            if values.ndim == 3:  # (B, T, D)
                assert isinstance(cfg, ViTConfig)
                cls = values[:, 0] if cfg.cls_token else None
                layers[name] = Tokens(values[:, cfg.prefix :], cls, cfg.grid((height, width)))
            elif not name.endswith(".attention"):  # (B, D, rows, columns)
                rows, columns = values.shape[2:]
                layers[name] = Tokens(values.flatten(2).mT, None, (rows, columns))
        return layers, logits


class Layer(NamedTuple):
    """Features (N, D) of images in one layer, by kind; no `cls` where there is no such token."""

    name: str
    grid: tuple[int, int]
    features: dict[Kind, np.ndarray]


def features(
    run: Run | str | os.PathLike[str],
    other: Run | str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    checkpoint: CheckpointChoice = "last",
    data: Data = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Find out what a run's layers know; store it as figures and features.json.

    Args:
        run: a Run, its path, or the name of a shipped model, of which a copy is looked at.
        other: a second one, of the same images and splits, to stand beside it.
        out: folder to write; default RUN/features, and for two features/RUN-OTHER beside the first.
        checkpoint: last, or best by validation accuracy.
        data: what the runs were trained on, where that was images and labels in memory.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.

    Returns:
        What features.json holds. Every layer of every run has, by kind, the distances within and
        between classes with their ratio (`embeddings.separation`, in the layer's own space), and
        the accuracy of a linear probe and of nearest neighbours. `image` is the kind that comes
        nearest to what the head reads. `sentences` puts the numbers in words.

    Raises:
        RunError: no sound checkpoint, no validation split, or two runs of different splits.
        DataError: images that are not those of the runs.
    """
    runs = [open_run(each) for each in (run, other) if each is not None]
    folder = Path(out) if out is not None else default_folder(runs)
    examples = open_examples(runs[0], data, data_root)
    fitted, measured = _sample(runs, examples)
    where = choose_device(device)
    models = []
    for name, each in zip(_names(runs), runs, strict=True):
        chosen = each.checkpoint(checkpoint)
        models.append(Model(name, each, chosen, open_model(each, chosen, where), where))
    labels = examples.labels[measured]
    found, seen = [], []
    for model in models:
        train, _ = _features(model, examples.images, fitted)
        layers, logits = _features(model, examples.images, measured)
        facts = {
            "run": model.name,
            "model": model.run.config.model.kind,
            "step": model.checkpoint.step,
            "checkpoint_sha256": model.checkpoint.sha256,
            "image": "cls" if model.reads_cls else "pooled",
            "accuracy": float((logits.argmax(axis=1) == labels).mean()),
        }
        measures = _measure(train, examples.labels[fitted], layers, labels)
        found.append({**facts, "layers": measures})
        seen.append(layers)
    result = {
        "images": {"fitted": len(fitted), "measured": len(measured)},
        "index_sha256": {"fitted": index_sha256(fitted), "measured": index_sha256(measured)},
        "runs": found,
        "sentences": list(_sentences(found)),
    }
    names = " and ".join(model.name for model in models)
    title = f"{names}, {len(measured):,} validation images"
    figures.layers(found, folder / "layers", title=title)
    _draw_maps(found, seen, labels, examples.class_names, folder, title)
    _draw_components(models, seen, examples, measured, folder)
    write_json(folder / "features.json", result)
    return result


def default_folder(runs: Sequence[Run]) -> Path:
    """RUN/features, and for two runs features/RUN-OTHER beside the first."""
    if len(runs) == 1:
        return runs[0].features
    return runs[0].path.resolve().parent / "features" / "-".join(run.name for run in runs)


def _names(runs: Sequence[Run]) -> list[str]:
    """What the runs are called: their paths, where their names are the same."""
    names, paths = [run.name for run in runs], [str(run.path.resolve()) for run in runs]
    if len(set(paths)) < len(runs):
        raise RunError(f"{paths[0]} would stand beside itself: give another run, or only this one")
    return names if len(set(names)) == len(runs) else paths


def _sample(runs: Sequence[Run], examples: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
    """Places of the training images to fit on and of the validation images to measure on."""
    splits = []
    for run in runs:
        if run.provenance["data"]["fingerprint"] != examples.fingerprint:
            raise RunError(
                f"{runs[0].name} and {run.name} were trained on different images: "
                "only runs of the same data.* can stand beside each other"
            )
        splits.append(run.split.index)
    train, validation = splits[0]
    same = (np.array_equal(train, a) and np.array_equal(validation, b) for a, b in splits)
    if not all(same):
        raise RunError(
            f"{runs[0].name} and {runs[1].name} have different splits: what one was trained on the "
            "other is judged by. Give both the same validation_fraction and split_seed"
        )
    if not len(validation):
        raise RunError(f"{runs[0].path} has no validation split: data.validation_fraction=0")
    return _some(train, examples, FITTED), _some(validation, examples, MEASURED)


def _some(index: np.ndarray, examples: LabelledImages, count: int) -> np.ndarray:
    """At most about `count` of an index, the same share of every class."""
    share = min(1.0, count / len(index))
    return index[draw(examples.keys[index], examples.labels[index], share, 0, "train")]


def _features(
    model: Model, images: np.ndarray, index: np.ndarray
) -> tuple[list[Layer], np.ndarray]:
    """Features of every layer, first to last, and logits (N, K), of some images."""
    # A place as shares of height and width, so that it is the same for every grid.
    places = np.random.default_rng(0).random((len(images), 2))[index]
    parts: dict[tuple[str, Kind], list[np.ndarray]] = {}
    grids, logits = {}, []
    size = model.checkpoint.state["image_size"]
    count = at_once(model.module, (images.shape[3], *size), BATCH, traced=True)
    for start in range(0, len(index), count):
        batch = index[start : start + count]
        layers, answers = model.look(images[batch])
        logits.append(answers.float().cpu().numpy())
        for name, tokens in layers.items():
            grids[name] = tokens.grid
            for kind, values in _kinds(tokens, places[start : start + count]):
                parts.setdefault((name, kind), []).append(values.float().cpu().numpy())
    found = [
        Layer(
            name,
            grid,
            {kind: np.concatenate(parts[name, kind]) for kind in KINDS if (name, kind) in parts},
        )
        for name, grid in grids.items()
    ]
    return found, np.concatenate(logits)


def _kinds(tokens: Tokens, places: np.ndarray) -> Iterator[tuple[Kind, Tensor]]:
    """The vectors (B, D) that stand for images in one layer."""
    yield "pooled", tokens.patches.mean(dim=1)
    if tokens.cls is not None:
        yield "cls", tokens.cls
    row, column = (places * tokens.grid).astype(int).T
    chosen = torch.from_numpy(row * tokens.grid[1] + column).to(tokens.patches.device)
    yield "patch", tokens.patches[torch.arange(len(chosen), device=chosen.device), chosen]


def _measure(
    train: Sequence[Layer], train_labels: np.ndarray, layers: Sequence[Layer], labels: np.ndarray
) -> list[dict[str, Any]]:
    """What is known in every layer."""
    rows = []
    for place, (known, layer) in enumerate(zip(train, layers, strict=True)):
        row: dict[str, Any] = {
            "layer": layer.name,
            "depth": place / max(1, len(layers) - 1),
            "grid": list(layer.grid),
            "width": layer.features["pooled"].shape[1],
        }
        for kind in KINDS:
            vectors = layer.features.get(kind)
            row[kind] = None
            if vectors is not None:
                sets = (known.features[kind], train_labels, vectors, labels)
                row[kind] = {
                    **separation(vectors, labels)._asdict(),
                    "linear_probe": linear_probe(*sets),
                    "neighbors": neighbor_accuracy(*sets),
                }
        rows.append(row)
    return rows


def _draw_maps(
    found: Sequence[dict[str, Any]],
    seen: Sequence[Sequence[Layer]],
    labels: np.ndarray,
    names: Sequence[str],
    folder: Path,
    title: str,
) -> None:
    """PCA and t-SNE of every kind of feature: a row of layers for each run that has it."""
    ways = {"pca": (MANY_LAYERS, pca), "tsne": (FEW_LAYERS, tsne)}
    for kind, words in KINDS.items():
        for way, (most, mapped) in ways.items():
            rows = []
            for facts, layers in zip(found, seen, strict=True):
                # Before the first block a CLS token is the same for all images.
                known = [
                    place
                    for place, layer in enumerate(facts["layers"])
                    if layer[kind] and layer[kind]["between"]
                ]
                chosen = [known[place] for place in _spread(len(known), most)]
                row = [
                    Map(_heading(facts, place, kind), mapped(layers[place].features[kind]))
                    for place in chosen
                ]
                rows += [row] if row else []
            if rows:
                what = f"{title}: {'PCA' if way == 'pca' else 't-SNE'} of {words}"
                maps(rows, labels, names, folder / f"{way}-{kind}", title=what)


def _heading(facts: dict[str, Any], place: int, kind: Kind) -> str:
    layer = facts["layers"][place]
    ratio = layer[kind]["ratio"]
    words = f"{facts['run']}, {layer['layer']}"
    return words if ratio is None else f"{words}: ratio {ratio:.2f}"


def _draw_components(
    models: Sequence[Model],
    seen: Sequence[Sequence[Layer]],
    examples: LabelledImages,
    measured: np.ndarray,
    folder: Path,
) -> None:
    """The first three principal components of the patch tokens of an image of each class."""
    labels = examples.labels[measured]
    classes = np.unique(labels)
    classes = classes[_spread(len(classes), PICTURED)]
    images = examples.images[[measured[labels == k][0] for k in classes]]
    found = {}
    for model, layers in zip(models, seen, strict=True):
        tokens, _ = model.look(images)
        for place in _spread(len(layers), FEW_LAYERS):
            layer = layers[place]
            patches = tokens[layer.name].patches.float().cpu().numpy()
            # Directions and colours come from all images, so that they mean the same in each.
            low, high = np.percentile(pca(layer.features["patch"], 3), (2, 98), axis=0)
            own = pca(layer.features["patch"], 3, others=patches.reshape(-1, patches.shape[-1]))
            colours = (own - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
            found[model.name, layer.name] = colours.reshape(len(images), *layer.grid, 3)
    names = [examples.class_names[k] for k in classes]
    title = "first three principal components of the patch tokens, as red, green and blue"
    figures.components(images, found, names, folder / "components", title=title)


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly from the first to the last."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})


def _sentences(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What the numbers of one or two runs say."""
    for facts in found:
        first, last, image = facts["layers"][0], facts["layers"][-1], facts["image"]
        start, end = first["pooled"], last[image]
        yield (
            f"{facts['run']}: a linear probe is right on {_percent(start['linear_probe'])} from "
            f"{KINDS['pooled']} in {first['layer']}, and on {_percent(end['linear_probe'])} from "
            f"{KINDS[image]} in {last['layer']}; the model itself on "
            f"{_percent(facts['accuracy'])}."
        )
        alone = last["patch"]["linear_probe"]
        yield (
            f"{facts['run']}: {KINDS['patch']} alone gives {_percent(alone)} in {last['layer']}, "
            f"{_points(alone, end['linear_probe'])}."
        )
        if start["ratio"] and end["ratio"]:
            yield (
                f"{facts['run']}: images of different classes are {start['ratio']:.2f} times as "
                f"far apart as images of one class in {first['layer']}, {end['ratio']:.2f} times "
                f"in {last['layer']}."
            )
    if len(found) == 2:
        for words, read in COMPARED.items():
            one, other = map(read, found)
            yield (
                f"{words}: {_percent(one)} in {found[0]['run']}, {_percent(other)} in "
                f"{found[1]['run']}, {_points(one, other)}."
            )


def _at(facts: dict[str, Any], depth: float, kind: Kind) -> float:
    """Accuracy of a linear probe at a depth between 0 and 1, on the line through the layers."""
    depths = [layer["depth"] for layer in facts["layers"]]
    accuracies = [layer[kind]["linear_probe"] for layer in facts["layers"]]
    return float(np.interp(depth, depths, accuracies))


COMPARED = {
    f"Linear probe on {KINDS['pooled']}, first layer": lambda facts: _at(facts, 0, "pooled"),
    f"Linear probe on {KINDS['pooled']}, halfway": lambda facts: _at(facts, 0.5, "pooled"),
    "Linear probe on what stands for the image, last layer": lambda facts: _at(
        facts, 1, facts["image"]
    ),
    f"Linear probe on {KINDS['patch']}, halfway": lambda facts: _at(facts, 0.5, "patch"),
    f"Linear probe on {KINDS['patch']}, last layer": lambda facts: _at(facts, 1, "patch"),
}
"""What two runs are compared by, in words."""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(one: float, other: float) -> str:
    return f"{100 * (one - other):+.1f} points"
