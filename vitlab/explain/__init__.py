"""What a model looks at, and which of the maps that show it are true.

    run, images -> maps of what the model looks at and what its answer rests on
    run, split  -> which of these maps to believe

`METHODS` holds the ways to make a map by name. A page that shows maps and the verb `explain` use
the same ones, and neither has to name a layer or a grid.
"""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from vitlab.data import Data, LabelledImages, index_sha256
from vitlab.data.images import decode, header
from vitlab.data.labels import in_words
from vitlab.device import enough_memory
from vitlab.errors import ConfigError, RunError
from vitlab.explain.attention import distances, every_head, mean_distance, position_similarity
from vitlab.explain.faithfulness import SEED, measure, to_markdown
from vitlab.explain.filters import feature_maps, first_filters
from vitlab.explain.methods import BATCH, METHODS, batch_size, choose, compute_maps
from vitlab.figures import explanation
from vitlab.figures.style import short
from vitlab.files import write_json, write_text
from vitlab.formatting import plain
from vitlab.inference import TrainedModel, load, open_examples
from vitlab.ledger import open_split, record_opening
from vitlab.metrics.tasks import brief
from vitlab.models import ViT, build_model
from vitlab.models.cost import cost
from vitlab.pretrained import open_run
from vitlab.progress import tracked
from vitlab.records import Split
from vitlab.run import Run

__all__ = [
    "METHODS",
    "check_maps",
    "choose",
    "compute_maps",
    "explain",
    "open_sample",
    "read_pictures",
]

MEASURED, FEWEST = 256, 16
"""Images on which the faithfulness of maps is measured, and how few do on a CPU."""

MACS = 1.4e10
"""Multiply-adds of one look at all of them on a CPU, at most: hundreds of looks take minutes."""

LONGEST = 1024
"""Most pixels on the longer side of a picture that is drawn."""

TOP = 3
"""Classes named beside a picture, likeliest first."""


class Picture(NamedTuple):
    """An image to explain."""

    name: str
    """What its files are called."""
    title: str
    """What it is, in words."""
    image: np.ndarray
    """uint8 (H, W, 3), at its own resolution."""
    pixels: np.ndarray
    """The same as the model's data has it, uint8 (h, w, C)."""


class Sample(NamedTuple):
    """The images of a split in random order, the same every time."""

    examples: LabelledImages
    places: np.ndarray
    """Into the examples, (N,)."""
    split: str
    """What they are: validation, test, or of a run that held none out training."""


def explain(
    run: Run | str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]] = (),
    *,
    split: Split = "validation",
    methods: Sequence[str] | None = None,
    count: int = 4,
    data: Data = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Draw what a run's model looks at, and measure which of its maps are true.

    Args:
        run: a Run, its path, or the name of a shipped model, of which a copy is explained.
        images: picture files of any size. Without any, `count` images of the split are drawn at
            random with a fixed seed, and the faithfulness of the maps is measured. A run that was
            trained on all its images is shown some of these.
        split: validation, or test, which needs a finished run and enters the ledger.
        methods: keys of METHODS; default all that the model has.
        data: images and labels in memory instead of `config.data.dataset`.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.
        quiet: show no progress.

    Returns:
        `folder`, where all is written; `pictures`, the model's answer to each; `faithfulness`, as
        `faithfulness.measure` has it with the images it speaks of, or None where files were given.

    Raises:
        RunError: no sound checkpoint, no validation split, a folder that cannot be written.
        DataError: a file that is no picture, or images that are not those of the run.
        ConfigError: methods that the model does not have, or fewer than no images.
    """
    if count < 0:
        raise ConfigError([f"count={count} images cannot be drawn: give 0 or more"])
    run = open_run(run)
    model = load(run, device=device)
    methods = choose(model.module, methods)
    folder, sample, total = run.faithfulness_file(split).parent, None, len(images)
    if images:
        for _ in read_pictures(model, images):
            pass  # what cannot be read is refused before anything is written
        pictures = read_pictures(model, images)
    else:
        sample = open_sample(run, split, data, data_root)
        if split == "test":
            record_opening(run, model.checkpoint, sample.examples.fingerprint)
        pictures = _drawn(sample.examples, sample.places[:count], sample.split)
        total = len(pictures)
    _make(folder)
    result = check_maps(model, methods, sample, quiet=quiet) if sample else None
    verdicts = run.map_verdicts(split, model.checkpoint.sha256)
    with _enough_memory(model, methods):
        answers = [
            _explain(model, methods, picture, folder, verdicts)
            for picture in tracked(pictures, "pictures", total, quiet=quiet)
        ]
        if sample:
            _draw_model(model, sample.examples.images[_measured(model, sample)], folder, quiet)
    return {"folder": str(folder), "pictures": answers, "faithfulness": result}


def _make(folder: Path) -> None:
    """Make a folder; RunError where none can be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}") from error


def _enough_memory(model: TrainedModel, methods: Sequence[str]) -> AbstractContextManager[None]:
    """Turn a lack of memory into a VitlabError that says what to do."""

    def too_large() -> str:
        height, width = model.preprocessing.input_size
        return (
            f"out of memory on {model.device} while explaining images of {height} x {width} "
            f"pixels, {BATCH} at a time or fewer: stop what else uses this memory, ask for fewer "
            f"--methods (now {', '.join(methods)}), or choose another --device"
        )

    return enough_memory(too_large)


def open_sample(
    run: Run,
    split: Split = "validation",
    data: Data = None,
    data_root: str | os.PathLike[str] | None = None,
) -> Sample:
    """The images of a split in random order: of a run that held none out, training images.

    Raises DataError or RunError where they cannot be opened, as `open_split` says.
    """
    index, validation = run.split.index
    if split == "validation" and not len(validation):
        examples, name = open_examples(run, data, data_root), "training"
    else:
        (examples, index), name = open_split(run, split, data, data_root), split
    return Sample(examples, np.random.default_rng(SEED).permutation(index), name)


def _measured(model: TrainedModel, sample: Sample) -> np.ndarray:
    """The places of the images on which the faithfulness of a run's maps is measured."""
    count = MEASURED
    if model.device.type == "cpu":
        count = min(MEASURED, max(FEWEST, int(MACS / cost(model.run.config).macs)))
    return np.sort(sample.places[:count])


def read_pictures(
    model: TrainedModel, files: Sequence[str | os.PathLike[str]]
) -> Iterator[Picture]:
    """Picture files, each under a name of its own that any file system takes.

    DataError for a file that is no picture.
    """
    form = model.preprocessing
    taken = set()
    for path in map(Path, files):
        (height, width), *_ = header(path, form.max_pixels)
        shrink = min(1, LONGEST / max(height, width))
        own = max(1, round(height * shrink)), max(1, round(width * shrink))
        name = stem = re.sub(r"[^\w.-]+", "-", path.stem)[:80].strip("-.") or "image"
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        image = decode(path, own, 3, form.fit, form.max_pixels, form.grey_range)
        yield Picture(name, short(plain(path.name), 60), image, form.read(path))


def _drawn(examples: LabelledImages, places: np.ndarray, split: str) -> list[Picture]:
    """Images of a split, named by their place in the data set."""
    pictures = []
    for place in places.tolist():
        true = in_words(examples.labels[place], examples.class_names)
        called = "class" if examples.labels.ndim == 1 else "labels"
        title = f"{split} image {place}, drawn at random (seed {SEED}), true {called}: {true}"
        image = examples.images[place]
        own = np.broadcast_to(image, (*image.shape[:2], 3))
        pictures.append(Picture(f"{split}-{place:05d}", title, own, image))
    return pictures


def _explain(
    model: TrainedModel,
    methods: Sequence[str],
    picture: Picture,
    folder: Path,
    verdicts: Mapping[str, str],
) -> dict[str, Any]:
    """Draw one picture's maps, attention and feature maps; return the model's answer to it."""
    module, path = model.module, folder / picture.name
    (prediction,) = model.predict(picture.pixels)
    answer = model.answer(prediction, TOP)
    top = [(one["class"], one["probability"]) for one in answer["top"]]
    likeliest = torch.tensor([prediction.probabilities.argmax()], device=model.device)
    image = model.prepare(picture.pixels)
    heats = {name: compute_maps(name, module, image, likeliest)[0] for name in methods}
    explanation.maps(
        picture.image,
        heats,
        top,
        brief(answer),
        path,
        seen=picture.pixels.shape[:2],
        fit=model.preprocessing.fit,
        verdicts=verdicts,
        title=f"{model.name}: {picture.title}",
    )
    if isinstance(module, ViT):
        attention = every_head(module, image)[0].cpu().numpy()
        title = f"{model.name}, attention of {picture.title}"
        beside = path.with_name(f"{path.name}-attention")
        explanation.heads(attention, beside, image=picture.pixels, title=title)
    stages = {name: maps[0].cpu().numpy() for name, maps in feature_maps(module, image).items()}
    title = f"{model.name}, feature maps of {picture.title}"
    beside = path.with_name(f"{path.name}-features")
    explanation.feature_maps(stages, beside, image=picture.pixels, title=title)
    return {"name": picture.name, "image": picture.title, **answer}


def _draw_model(model: TrainedModel, images: np.ndarray, folder: Path, quiet: bool) -> None:
    """Draw what belongs to the model: its first filters, and how a ViT's heads and positions are.

    Distances are means over images, uint8 (N, H, W, C).
    """
    module, name = model.module, model.name
    title = f"{name}: principal components of the filters of the first layer"
    explanation.filters(first_filters(module).cpu().numpy(), folder / "filters", title=title)
    if not isinstance(module, ViT):
        return
    pixels = model.prepare(images)
    parts = pixels.split(batch_size(module, pixels))
    seen = tracked(parts, "how far attention reaches", quiet=quiet)
    means = torch.stack([mean_distance(module, part) * len(part) for part in seen]).sum(dim=0)
    even = float(distances(module, model.device).mean())
    title = f"{name}: how far attention reaches, mean over {len(images)} images"
    means = (means / len(images)).cpu().numpy()
    explanation.distance(means, even, folder / "distance", title=title)
    similarity = position_similarity(module)
    if similarity is not None:
        title = f"{name}: similarity of each patch's position to all others"
        explanation.positions(similarity.cpu().numpy(), folder / "positions", title=title)


def check_maps(
    model: TrainedModel, methods: Sequence[str], sample: Sample, *, quiet: bool = False
) -> dict[str, Any]:
    """Measure which maps are true and write what was found into the run, unless it is there.

    What other methods came to stays: they are measured again beside these, as the correction of a
    verdict is over all comparisons.

    Returns:
        What `faithfulness.measure` has, with the images it speaks of.
    """
    examples, index = sample.examples, _measured(model, sample)
    facts = {
        "run": model.name,
        "checkpoint_sha256": model.checkpoint.sha256,
        "data_fingerprint": examples.fingerprint,
        "split": sample.split,
        "seed": SEED,
        "index_sha256": index_sha256(index),
    }
    file = model.run.faithfulness_file("test" if sample.split == "test" else "validation")
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if not facts.items() <= stored.items():
        stored = {}
    tested = [one["method"] for one in stored.get("methods", ()) if "similarity" in one]
    if stored and set(methods) <= set(tested):
        result = stored
    else:
        with _enough_memory(model, methods):
            result = facts | _measure(model, {*methods, *tested}, examples.images[index], quiet)
        result["indices"] = index.tolist()
    _make(file.parent)
    title = f"{model.name}: which maps are true, on {result['images']} {sample.split} images"
    explanation.faithfulness(result, file.with_suffix(""), title=title)
    write_text(file.with_suffix(".md"), to_markdown(result))
    write_json(file, result)
    return result


def _measure(
    model: TrainedModel, methods: Collection[str], images: np.ndarray, quiet: bool
) -> dict[str, Any]:
    """Measure methods on images uint8 (N, H, W, C), for the class likeliest in each."""
    classes = torch.from_numpy(model.logits(images).argmax(axis=1)).to(model.device)
    networks, pixels = (model.module, _untrained(model)), model.prepare(images)
    names = [name for name in METHODS if name in methods]
    task = model.run.config.data.task
    return measure(*networks, pixels, classes, names, task=task, quiet=quiet)


def _untrained(model: TrainedModel) -> nn.Module:
    """The same network with random weights, equal ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        fresh = build_model(model.run.config)
    fresh.resize(model.preprocessing.input_size)
    return fresh.to(model.device).eval()
