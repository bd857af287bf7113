"""What a model sees, and whether the picture of it is true.

    run, images -> maps of what the model looks at and what its answer rests on
    run, split  -> which of these maps to believe

`METHODS` holds the ways to make a map by name. A page that shows maps and the verb `explain` use
the same ones, and neither has to name a layer or a grid.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vitlab.card import grey_range, temperature
from vitlab.data import LabelledImages, index_sha256
from vitlab.data.augment import normalize
from vitlab.data.batches import resize
from vitlab.data.images import decode, header
from vitlab.device import choose_device, enough_memory
from vitlab.errors import ConfigError, RunError
from vitlab.explain.attention import distances, every_head, mean_distance, position_similarity
from vitlab.explain.faithfulness import SEED, measure, to_markdown
from vitlab.explain.filters import feature_maps, first_filters
from vitlab.explain.methods import BATCH, METHODS, batch, choose, compute_maps
from vitlab.figures import explanation
from vitlab.figures.style import short
from vitlab.files import write_json, write_text
from vitlab.formatting import plain
from vitlab.inference import Data, at_once, open_model
from vitlab.ledger import Split, open_split, record_opening
from vitlab.metrics import certainty
from vitlab.models import ViT, build_model
from vitlab.pretrained import open_run
from vitlab.run import Checkpoint, Run

__all__ = ["METHODS", "choose", "compute_maps", "explain"]

MEASURED = 256
"""Images on which maps are judged."""

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


class Subject(NamedTuple):
    """A run's model, how it wants its images, and the methods to use."""

    run: Run
    checkpoint: Checkpoint
    model: nn.Module
    device: torch.device
    methods: list[str]

    def prepare(self, images: np.ndarray) -> Tensor:
        """Images uint8 (N, H, W, C) to normalised ones (N, C, height, width) on the device."""
        origin = self.run.provenance["data"]
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device)
        height, width = self.checkpoint.state["image_size"]
        return resize(normalize(pixels, origin["mean"], origin["std"]), (height, width))

    def logits(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, height, width) to logits (N, K)."""
        with torch.no_grad():
            count = at_once(self.model, images.shape[1:], BATCH)
            return torch.cat([self.model(part) for part in images.split(count)])


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
) -> dict[str, Any]:
    """Draw what a run's model sees, and measure which of its maps are true.

    Args:
        run: a Run, its path, or the name of a shipped model, of which a copy is explained.
        images: picture files of any size. Without any, `count` images of the split are drawn at
            random with a fixed seed, and the maps are judged.
        split: validation, or test, which needs a finished run and enters the ledger.
        methods: words of METHODS; default all that the model has.
        data: images and labels in memory instead of `config.data.dataset`.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.

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
    checkpoint = run.checkpoint()
    where = choose_device(device)
    model = open_model(run, checkpoint, where)
    subject = Subject(run, checkpoint, model, where, choose(model, methods))
    folder = run.explanations / split if split == "test" else run.explanations
    if images:
        for _ in _files(run, images):
            pass  # what cannot be read is refused before anything is written
        pictures, judged = _files(run, images), None
    else:
        examples, index = open_split(run, split, data, data_root)
        if split == "test":
            record_opening(run, checkpoint)
        places = np.random.default_rng(SEED).permutation(index)
        pictures = _drawn(examples, places[:count], split)
        judged = examples, np.sort(places[:MEASURED])
    _make(folder)
    result = None
    with enough_memory(partial(_memory, subject)):
        answers = [_explain(subject, picture, folder) for picture in pictures]
        if judged is not None:
            _look_inside(subject, subject.prepare(judged[0].images[judged[1]]), folder)
            result = _judge(subject, *judged, split, folder)
    return {"folder": str(folder), "pictures": answers, "faithfulness": result}


def _memory(subject: Subject) -> str:
    """What to say if memory runs out."""
    height, width = subject.checkpoint.state["image_size"]
    return (
        f"out of memory on {subject.device} while explaining images of {height} x {width} pixels, "
        f"{BATCH} at a time or fewer: stop what else uses this memory, ask for fewer --methods "
        f"(now {', '.join(subject.methods)}), or choose another --device"
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}") from error


def _files(run: Run, files: Sequence[str | os.PathLike[str]]) -> Iterator[Picture]:
    """Picture files, each under a name of its own that any file system takes."""
    config = run.config.data
    assert config.image_size and config.channels
    taken = set()
    for path in map(Path, files):
        (height, width), *_ = header(path, config.max_pixels)
        shrink = min(1, LONGEST / max(height, width))
        own = max(1, round(height * shrink)), max(1, round(width * shrink))
        name = stem = re.sub(r"[^\w.-]+", "-", path.stem)[:80].strip("-.") or "image"
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        form = config.fit, config.max_pixels, grey_range(run)
        pixels = decode(path, config.image_size, config.channels, *form)
        yield Picture(name, short(plain(path.name), 60), decode(path, own, 3, *form), pixels)


def _drawn(examples: LabelledImages, places: np.ndarray, split: str) -> list[Picture]:
    """Images of a split, named by their place in the data set."""
    pictures = []
    for place in places.tolist():
        true = examples.class_names[examples.labels[place]]
        title = f"{split} image {place}, drawn at random (seed {SEED}), in truth {true}"
        image = examples.images[place]
        own = np.broadcast_to(image, (*image.shape[:2], 3))
        pictures.append(Picture(f"{split}-{place:05d}", title, own, image))
    return pictures


def _explain(subject: Subject, picture: Picture, folder: Path) -> dict[str, Any]:
    """Draw one picture's maps, attention and feature maps; return the model's answer to it."""
    model, run, path = subject.model, subject.run.name, folder / picture.name
    image = subject.prepare(picture.pixels[None])
    scale = temperature(subject.run, subject.checkpoint) or 1.0
    probabilities = (subject.logits(image)[0].cpu().double() / scale).softmax(dim=-1).numpy()
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    names = subject.run.provenance["data"]["class_names"]
    answer = [(names[k], float(probabilities[k])) for k in order]
    sure = certainty(answer[0][1])
    chosen = torch.tensor(order[:1], device=subject.device)
    heats = {word: compute_maps(word, model, image, chosen)[0] for word in subject.methods}
    shown = {"seen": picture.pixels.shape[:2], "fit": subject.run.config.data.fit}
    title = f"{run}: {picture.title}"
    explanation.maps(picture.image, heats, answer, sure, path, title=title, **shown)
    if isinstance(model, ViT):
        attention = every_head(model, image)[0].cpu().numpy()
        title = f"{run}, attention of {picture.title}"
        explanation.heads(attention, path.with_name(f"{path.name}-attention"), title=title)
    stages = {name: maps[0].cpu().numpy() for name, maps in feature_maps(model, image).items()}
    title = f"{run}, feature maps of {picture.title}"
    explanation.feature_maps(stages, path.with_name(f"{path.name}-features"), title=title)
    top = [{"class": name, "probability": probability} for name, probability in answer]
    return {"name": picture.name, "image": picture.title, "certainty": sure, "top": top}


def _look_inside(subject: Subject, images: Tensor, folder: Path) -> None:
    """Draw what belongs to the model: its first filters, and how a ViT's heads and positions are.

    Images are normalised (N, C, height, width); distances are means over them.
    """
    model, name = subject.model, subject.run.name
    title = f"{name}: filters of the first layer"
    explanation.filters(first_filters(model).cpu().numpy(), folder / "filters", title=title)
    if not isinstance(model, ViT):
        return
    count = batch(model, images)
    parts = [mean_distance(model, part) * len(part) for part in images.split(count)]
    means = torch.stack(parts).sum(dim=0) / len(images)
    even = float(distances(model, subject.device).mean())
    title = f"{name}: how far attention reaches, mean over {len(images)} images"
    explanation.distance(means.cpu().numpy(), even, folder / "distance", title=title)
    similarity = position_similarity(model)
    if similarity is not None:
        title = f"{name}: similarity of each patch's position to all others"
        explanation.positions(similarity.cpu().numpy(), folder / "positions", title=title)


def _judge(
    subject: Subject, examples: LabelledImages, index: np.ndarray, split: str, folder: Path
) -> dict[str, Any]:
    """Measure which maps are true and write what was found, unless it is written already."""
    facts = {
        "run": subject.run.name,
        "checkpoint_sha256": subject.checkpoint.sha256,
        "data_fingerprint": examples.fingerprint,
        "split": split,
        "seed": SEED,
        "index_sha256": index_sha256(index),
    }
    file = folder / "faithfulness.json"
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    tested = {one["method"] for one in stored.get("methods", ()) if "similarity" in one}
    if facts.items() <= stored.items() and tested == set(subject.methods):
        result = stored
    else:
        images = subject.prepare(examples.images[index])
        classes = subject.logits(images).argmax(dim=-1)
        found = measure(subject.model, _fresh(subject), images, classes, subject.methods)
        result = {**facts, **found, "indices": index.tolist()}
    title = f"{subject.run.name}: which maps are true, on {result['images']} {split} images"
    explanation.faithfulness(result, folder / "faithfulness", title=title)
    write_text(folder / "faithfulness.md", to_markdown(result))
    write_json(file, result)
    return result


def _fresh(subject: Subject) -> nn.Module:
    """The run's model with random weights, the same ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = build_model(subject.run.config)
    model.resize(subject.checkpoint.state["image_size"])
    return model.to(subject.device).eval()
