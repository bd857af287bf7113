"""Is the map true? What a map calls important is covered, and the model answers again.

Every map is brought to the same G x G cells, so that no method gains by how sharp it is. The cells
are then covered with the mean colour, most important first (deletion), or uncovered in that order
on an empty image (insertion), and the probability of the explained class is recorded
(Petsiuk et al., 2018). The area under insertion less that under deletion is a map's gain: above 0
it points at what the answer rests on. A random map gains nothing, and one that says "the
middle" without having seen the image shows what is had for free.

A map that explains the model must also change when the model does: the randomisation check
replaces the weights, from the head down, and compares the maps (Adebayo et al., 2018).

    N images   K classes   G x G cells   S = STEPS + 1 points of a curve
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.explain.methods import batch_size, compute_maps
from vitlab.inference import at_once
from vitlab.progress import tracked
from vitlab.records import PASSED
from vitlab.stats import LEVEL, holm, t_interval

SEED = 42
"""Of the images that are measured, of the random map and of the random weights."""

CELLS = 8
"""Cells on a side, G; fewer where an image has fewer pixels."""

STEPS = 16
"""Steps in which an image is covered or uncovered."""

RANDOMISED = (0.25, 0.5, 0.75, 1.0)
"""Fractions of the weights, counted in tensors from the head down, that are randomised."""

CHECKED = 32
"""Images of the randomisation check."""

SIMILAR = 0.5
"""Similarity to a map of random weights above which a map says little of the model."""

BATCH = 256
"""Images that go through the model at once, or fewer that `at_once` allows."""

RANDOM, CENTRE = "random map", "centre map"


def measure(
    model: nn.Module,
    fresh: nn.Module,
    images: Tensor,
    classes: Tensor,
    methods: Sequence[str],
    *,
    task: str = "multiclass",
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure methods on normalised images (N, C, height, width) and the classes (N,) explained.

    Args:
        model: a trained model in evaluation mode.
        fresh: the same model with random weights.
        task: `data.task`, which says how logits become probabilities.
        quiet: show no progress.

    Returns:
        JSON values: `methods`, highest gain first, the random and the centre map among them.
    """
    side = min(CELLS, *images.shape[2:])
    noise = np.random.default_rng(SEED).standard_normal((2, len(images), side, side))
    size = batch_size(model, images)
    parts = list(zip(images.split(size), classes.split(size), strict=True))
    maps = {
        name: np.concatenate(
            [
                to_cells(compute_maps(name, model, *part), side)
                for part in tracked(parts, f"{name}: images by {size}", quiet=quiet)
            ]
        )
        for name in methods
    }
    maps |= {RANDOM: noise[0], CENTRE: np.broadcast_to(centre(side), noise[0].shape)}
    curves = {
        name: curve(
            model,
            images,
            classes,
            rank(cells, noise[1]),
            task=task,
            words=f"{name}, deletion and insertion: images",
            quiet=quiet,
        )
        for name, cells in maps.items()
    }
    gains = {
        name: area(insertion) - area(deletion) for name, (deletion, insertion) in curves.items()
    }
    checked = images[:CHECKED], classes[:CHECKED]
    similarities = randomise(model, fresh, *checked, maps, methods, quiet=quiet)
    p_values = [superior(gains[name], gains[than]) for name in methods for than in (RANDOM, CENTRE)]
    adjusted = iter(holm(p_values))
    rows = []
    for name, (deletion, insertion) in curves.items():
        row = {"method": name, "gain": estimate(gains[name])}
        row |= {"deletion": estimate(area(deletion)), "insertion": estimate(area(insertion))}
        if name in methods:
            for key, than in (("over_random", RANDOM), ("over_centre", CENTRE)):
                difference = estimate(gains[name] - gains[than])
                row[key] = difference | {"p_adjusted": next(adjusted)}
            row["similarity"] = [estimate(values) for values in similarities[name]]
            row["verdict"] = verdict(row)
        row["deletion_curve"] = deletion.mean(axis=0).tolist()
        row["insertion_curve"] = insertion.mean(axis=0).tolist()
        rows.append(row)
    return {
        "images": len(images),
        "cells": [side, side],
        "steps": STEPS,
        "level": 1 - LEVEL,
        "random_shares": list(RANDOMISED),
        "random_images": len(images[:CHECKED]),
        "methods": sorted(rows, key=lambda row: -row["gain"]["mean"]),
    }


def to_cells(maps: np.ndarray, side: int) -> np.ndarray:
    """Bring maps (N, rows, columns) to cells (N, side, side): means of finer, between coarser."""
    tensor = torch.from_numpy(maps)[:, None]
    if min(maps.shape[1:]) >= side:
        return F.adaptive_avg_pool2d(tensor, side)[:, 0].numpy()
    return F.interpolate(tensor, (side, side), mode="bilinear")[:, 0].numpy()


def centre(side: int) -> np.ndarray:
    """A Gaussian (side, side) in the middle, its deviation a quarter of the side."""
    place = (np.arange(side) + 0.5) / side - 0.5
    bell = np.exp(-8 * place**2)
    return np.outer(bell, bell)


def rank(cells: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Rank the cells (N, G, G) of each map, 0 the highest: (N, G * G).

    Noise of the same shape decides between equals; their place in the image must not.
    """
    flat, noise = cells.reshape(len(cells), -1), noise.reshape(len(noise), -1)
    order = np.lexsort((noise, -flat), axis=1)
    return np.argsort(order, axis=1)


def curve(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    ranks: np.ndarray,
    *,
    task: str = "multiclass",
    words: str = "deletion and insertion: images",
    quiet: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, S) of the classes while cells are deleted, and while they are inserted.

    The progress, in these words, is not shown where `quiet`.
    """
    size = tuple(images.shape[2:])
    side = round(ranks.shape[1] ** 0.5)
    counts = torch.linspace(0, ranks.shape[1], STEPS + 1).round()
    parts = []
    count = at_once(model, images.shape[1:], BATCH)
    step = max(1, count // (2 * len(counts)))
    firsts = range(0, len(images), step)
    for first in tracked(firsts, f"{words} by {step}", quiet=quiet):
        part = slice(first, first + step)
        taken = torch.from_numpy(ranks[part])[:, None] < counts[:, None]  # (B, S, G * G)
        both = torch.stack([~taken, taken]).float().unflatten(-1, (side, side))  # (2, B, S, G, G)
        masks = F.interpolate(both.flatten(0, 2)[:, None], size).to(images.device)
        masks = masks.unflatten(0, (2, -1, len(counts)))  # (2, B, S, 1, height, width)
        covered = (images[part, None] * masks).flatten(0, 2)
        with torch.inference_mode():
            logits = torch.cat([model(each) for each in covered.split(count)])
        chances = logits.sigmoid() if task == "multilabel" else logits.softmax(dim=-1)
        probabilities = chances.unflatten(0, (2, -1, len(counts)))
        index = classes[part, None, None].expand(2, -1, len(counts), 1)
        parts.append(probabilities.gather(-1, index)[..., 0].cpu())  # (2, B, S)
    deletion, insertion = torch.cat(parts, dim=1).double().numpy()
    return deletion, insertion


def area(curves: np.ndarray) -> np.ndarray:
    """Area (N,) under curves (N, S) from 0 to 1, by trapezoids."""
    return np.trapezoid(curves, dx=1 / STEPS, axis=1)


def randomise(
    model: nn.Module,
    fresh: nn.Module,
    images: Tensor,
    classes: Tensor,
    maps: dict[str, np.ndarray],
    methods: Sequence[str],
    *,
    quiet: bool = False,
) -> dict[str, list[np.ndarray]]:
    """Similarity (N,) of each method's maps to those of models with ever more random weights.

    It is Spearman's correlation over cells (N, G, G), and 0 for a map that is the same everywhere.
    """
    similarities: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    weights = list(model.state_dict())

    def randomised(fraction: float) -> nn.Module:
        network = copy.deepcopy(model)
        last = weights[len(weights) - round(fraction * len(weights)) :]
        network.load_state_dict({key: fresh.state_dict()[key] for key in last}, strict=False)
        return network

    networks = map(randomised, RANDOMISED)  # one at a time is in memory
    turns = ((network, name) for network in networks for name in methods)
    total = len(RANDOMISED) * len(methods)
    for network, name in tracked(turns, "random weights: maps", total, quiet=quiet):
        after = to_cells(compute_maps(name, network, images, classes), maps[name].shape[1])
        similarities[name].append(correlate(maps[name][: len(images)], after))
    return similarities


def correlate(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's correlation (N,) of maps (N, G, G) with others; 0 where one of them is flat."""
    from scipy.stats import rankdata

    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (one, other)]
    x, y = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return (x * y).sum(axis=1) / np.where(scale > 0, scale, 1)


def superior(gains: np.ndarray, others: np.ndarray) -> float:
    """Two-sided p of a paired t-test over images that two maps gain alike."""
    from scipy.stats import ttest_1samp

    differences = gains - others
    if np.ptp(differences) < 1e-12:  # the same for every image: nothing is left to chance
        return float(abs(differences.mean()) < 1e-12)
    _, p = ttest_1samp(differences, 0)
    return float(p)  # type: ignore[arg-type] - scipy's stub knows a tuple of objects


def estimate(values: np.ndarray) -> dict[str, Any]:
    """A mean over images and its interval of Student."""
    return {"mean": float(values.mean()), "interval": list(t_interval(values.tolist()))}


def verdict(row: Mapping[str, Any]) -> str:
    """What the numbers of a method come to, in words."""
    wins = {
        name: row[f"over_{name}"]["p_adjusted"] < LEVEL and row[f"over_{name}"]["mean"] > 0
        for name in ("random", "centre")
    }
    if row["over_random"]["p_adjusted"] < LEVEL and row["over_random"]["mean"] < 0:
        text = "worse than a random map"
    elif not wins["random"]:
        text = "no evidence that it beats a random map"
    else:
        text = PASSED if wins["centre"] else "beats a random map, not the centre"
    if row["similarity"][-1]["interval"][0] > SIMILAR:
        text += "; hardly depends on the weights"
    return text


def to_markdown(result: Mapping[str, Any]) -> str:
    """A page of what `measure` found and the facts stored with it."""
    rows = []
    for place, one in enumerate(result["methods"], start=1):
        low, high = one["gain"]["interval"]
        numbers = [one["deletion"]["mean"], one["insertion"]["mean"]]
        cells = [
            str(place),
            one["method"],
            f"{one['gain']['mean']:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
        ]
        cells += [f"{number:.3f}" for number in numbers]
        similar = one["similarity"][-1]["mean"] if "similarity" in one else None
        cells += ["" if similar is None else f"{similar:+.2f}", one.get("verdict", "")]
        rows.append(f"| {' | '.join(cells)} |")
    side, _ = result["cells"]
    return f"""# Which maps of {result["run"]} are true

| | map | gain | {result["level"]:.0%} interval | deletion | insertion | random weights | verdict |
|--:|---|--:|---|--:|--:|--:|---|
{chr(10).join(rows)}

![curves, gains and the randomisation check](faithfulness.png)

Measured on {result["images"]} {result["split"]} images drawn at random (seed {result["seed"]},
listed in `faithfulness.json`), for the class that the model finds likeliest in each. Every map is
brought to {side} x {side} cells. **Deletion** is the area under the probability of that class while
cells are covered with the mean colour in {result["steps"]} steps, most important first: lower is
better. **Insertion** is the area while they are uncovered in the same order: higher is better.
**Gain** is insertion less deletion. The random map and a Gaussian in the centre know neither image
nor model; a verdict says which of them a method beats, image by image, after Holm's correction over
all comparisons. **Random weights** is Spearman's correlation with the map of the same model after
all of its weights were drawn anew, over {result["random_images"]} images: near 0, the map depends
on what was learned.
"""
