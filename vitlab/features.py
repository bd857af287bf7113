"""What the layers of a model represent: one run, or two compared on the same images.

    run -> features of every layer -> maps, distances between classes, probes, sentences

Three vectors describe an image in every layer: the CLS token where there is one, the mean of the
patch tokens, and one patch token, at a place drawn for that image. The patch tokens of a CNN are
the places of its maps. Probes are fitted on training images, and everything is measured on
validation images.

B, N images  P patch tokens = rows * columns  D width of a layer
"""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitlab.config import ViTConfig, refuse_multilabel
from vitlab.data import Data, LabelledImages, index_sha256
from vitlab.data.splits import draw
from vitlab.embeddings import linear_probe, neighbor_accuracy, pca, separation, tsne
from vitlab.errors import RunError
from vitlab.figures import features as figures
from vitlab.figures.maps import Map, maps
from vitlab.files import write_json
from vitlab.inference import TrainedModel, at_once, load, open_examples
from vitlab.pretrained import open_run
from vitlab.progress import tracked
from vitlab.records import CheckpointChoice
from vitlab.run import Run

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
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure what a run's layers represent; store it as figures and features.json.

    Args:
        run: a Run, its path, or the name of a shipped model, of which a copy is used.
        other: a second one, of the same images and splits, to compare it with.
        out: folder to write; default RUN/features, and for two features/RUN-OTHER beside the first.
        checkpoint: last, or best by validation accuracy.
        data: what the runs were trained on, where that was images and labels in memory.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.
        quiet: show no progress.

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
    for each in runs:
        refuse_multilabel(
            each.config.data,
            f"features probes {each.name} for the class of an image",
            "`vitlab explain` shows what its labels rest on",
        )
    folder = Path(out) if out is not None else default_folder(runs)
    names = _names(runs)
    examples = open_examples(runs[0], data, data_root)
    fitted, measured = _sample(runs, examples)
    models = {
        name: load(each, checkpoint=checkpoint, device=device)
        for name, each in zip(names, runs, strict=True)
    }
    labels = examples.labels[measured]
    found, layers_of = [], []
    for name, model in models.items():
        train, _ = _features(model, examples.images, fitted, quiet)
        layers, logits = _features(model, examples.images, measured, quiet)
        facts = {
            "run": name,
            "model": model.run.config.model.kind,
            "step": model.checkpoint.step,
            "checkpoint_sha256": model.checkpoint.sha256,
            "image": "cls" if _reads_cls(model) else "pooled",
            "accuracy": float((logits.argmax(axis=1) == labels).mean()),
        }
        measures = _measure(name, train, examples.labels[fitted], layers, labels, quiet)
        found.append({**facts, "layers": measures})
        layers_of.append(layers)
    result = {
        "images": {"fitted": len(fitted), "measured": len(measured)},
        "index_sha256": {"fitted": index_sha256(fitted), "measured": index_sha256(measured)},
        "runs": found,
        "sentences": list(_sentences(found)),
    }
    title = f"{' and '.join(models)}, {len(measured):,} validation images"
    figures.layers(found, folder / "layers", title=title)
    _draw_maps(found, layers_of, labels, examples.class_names, folder, title, quiet)
    _draw_components(models, layers_of, examples, measured, folder)
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
        raise RunError(f"{paths[0]} is given twice: give another run, or only this one")
    return names if len(set(names)) == len(runs) else paths


def _sample(runs: Sequence[Run], examples: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
    """Places of the training images to fit on and of the validation images to measure on."""
    splits = []
    for run in runs:
        if run.provenance["data"]["fingerprint"] != examples.fingerprint:
            raise RunError(
                f"{runs[0].name} and {run.name} were trained on different images: "
                "only runs of the same data.* can be compared"
            )
        splits.append(run.split.index)
    train, validation = splits[0]
    same = (np.array_equal(train, a) and np.array_equal(validation, b) for a, b in splits)
    if not all(same):
        raise RunError(
            f"{runs[0].name} and {runs[1].name} have different splits: one was trained on images "
            "that the other is evaluated on. Give both the same validation_fraction and split_seed"
        )
    if not len(validation):
        raise RunError(
            f"{runs[0].path} has no validation split: train with data.validation_fraction above 0"
        )
    return _some(train, examples, FITTED), _some(validation, examples, MEASURED)


def _some(index: np.ndarray, examples: LabelledImages, count: int) -> np.ndarray:
    """At most about `count` of an index, the same share of every class."""
    share = min(1.0, count / len(index))
    return index[draw(examples.keys[index], examples.labels[index], share, 0, "train")]


def _reads_cls(model: TrainedModel) -> bool:
    """True if the head reads the CLS token."""
    config = model.run.config.model
    return isinstance(config, ViTConfig) and "cls" in config.pool


def _features(
    model: TrainedModel, images: np.ndarray, index: np.ndarray, quiet: bool
) -> tuple[list[Layer], np.ndarray]:
    """Features of every layer, first to last, and logits (N, K), of some images."""
    # A place as fractions of height and width, so that it is the same for every grid.
    places = np.random.default_rng(0).random((len(images), 2))[index]
    parts: dict[tuple[str, Kind], list[np.ndarray]] = {}
    grids, logits = {}, []
    shape = (images.shape[3], *model.preprocessing.input_size)
    count = at_once(model.module, shape, BATCH, traced=True)
    words = f"{model.name}: {len(index):,} images by {count}"
    for start in tracked(range(0, len(index), count), words, quiet=quiet):
        trace, outputs = model.trace(images[index[start : start + count]])
        logits.append(outputs.float().cpu().numpy())
        for name, values in trace.items():
            if name.endswith(".attention"):
                continue
            patches, cls, grids[name] = _tokens(model, values)
            for kind, vectors in _vectors(patches, cls, grids[name], places[start : start + count]):
                parts.setdefault((name, kind), []).append(vectors.float().cpu().numpy())
    found = [
        Layer(
            name,
            grid,
            {kind: np.concatenate(parts[name, kind]) for kind in KINDS if (name, kind) in parts},
        )
        for name, grid in grids.items()
    ]
    return found, np.concatenate(logits)


def _tokens(model: TrainedModel, values: Tensor) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
    """The patch tokens (B, P, D) of a traced layer, its CLS tokens (B, D), rows and columns."""
    config = model.run.config.model
    if values.ndim == 4:  # (B, D, rows, columns)
        rows, columns = values.shape[2:]
        return values.flatten(2).mT, None, (rows, columns)
    assert isinstance(config, ViTConfig)
    cls = values[:, 0] if config.cls_token else None
    return values[:, config.prefix :], cls, config.grid(model.preprocessing.input_size)


def _vectors(
    patches: Tensor, cls: Tensor | None, grid: tuple[int, int], places: np.ndarray
) -> Iterator[tuple[Kind, Tensor]]:
    """The vectors (B, D) that describe images in one layer."""
    yield "pooled", patches.mean(dim=1)
    if cls is not None:
        yield "cls", cls
    row, column = (places * grid).astype(int).T
    chosen = torch.from_numpy(row * grid[1] + column).to(patches.device)
    yield "patch", patches[torch.arange(len(chosen), device=chosen.device), chosen]


def _measure(
    name: str,
    train: Sequence[Layer],
    train_labels: np.ndarray,
    layers: Sequence[Layer],
    labels: np.ndarray,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Distances, probes and neighbours of every layer."""
    rows = []
    pairs = list(zip(train, layers, strict=True))
    for place, (known, layer) in enumerate(tracked(pairs, f"{name}: layers", quiet=quiet)):
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
    layers_of: Sequence[Sequence[Layer]],
    labels: np.ndarray,
    names: Sequence[str],
    folder: Path,
    title: str,
    quiet: bool,
) -> None:
    """PCA and t-SNE of every kind of feature: a row of layers for each run that has it."""
    methods = {"pca": (MANY_LAYERS, pca), "tsne": (FEW_LAYERS, tsne)}
    drawn = list(itertools.product(KINDS, methods))
    for kind, method in tracked(drawn, "maps", quiet=quiet):
        most, mapped = methods[method]
        rows = []
        for facts, layers in zip(found, layers_of, strict=True):
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
            what = f"{title}: {'PCA' if method == 'pca' else 't-SNE'} of {KINDS[kind]}"
            maps(rows, labels, names, folder / f"{method}-{kind}", title=what)


def _heading(facts: dict[str, Any], place: int, kind: Kind) -> str:
    layer = facts["layers"][place]
    ratio = layer[kind]["ratio"]
    name = f"{facts['run']}, {layer['layer']}"
    return name if ratio is None else f"{name}: ratio {ratio:.2f}"


def _draw_components(
    models: Mapping[str, TrainedModel],
    layers_of: Sequence[Sequence[Layer]],
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
    for (name, model), layers in zip(models.items(), layers_of, strict=True):
        trace, _ = model.trace(images)
        for place in _spread(len(layers), FEW_LAYERS):
            layer = layers[place]
            patches = _tokens(model, trace[layer.name])[0].float().cpu().numpy()
            # Directions and colours come from all images, so that they mean the same in each.
            low, high = np.percentile(pca(layer.features["patch"], 3), (2, 98), axis=0)
            own = pca(layer.features["patch"], 3, others=patches.reshape(-1, patches.shape[-1]))
            colours = (own - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
            found[name, layer.name] = colours.reshape(len(images), *layer.grid, 3)
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
        for what, read in COMPARED.items():
            one, other = map(read, found)
            yield (
                f"{what}: {_percent(one)} in {found[0]['run']}, {_percent(other)} in "
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
"""What two runs are compared by, and how it is read off the facts of one."""


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _points(one: float, other: float) -> str:
    return f"{100 * (one - other):+.1f} points"
