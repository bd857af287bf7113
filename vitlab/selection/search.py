"""Pictures become the best model that can be found in the time given, with the evidence for it.

    pictures -> folds -> every candidate's answers to pictures it has not seen -> a table, a verdict
             -> the chosen one, trained on all of them: a run

The test images are not looked at. What each candidate answered is compared on the same pictures.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitlab.config import BackboneConfig, Config, DataConfig, refuse_multilabel
from vitlab.data import ARRAYS, Data, Dataset, Root, open_dataset
from vitlab.device import choose_device, multiplies_bf16
from vitlab.errors import ConfigError, DataError, Interrupted, RunError
from vitlab.evaluate import store_cross_validation
from vitlab.formatting import duration
from vitlab.models import build_model
from vitlab.pretrained import names, shipped
from vitlab.pretrained.backbones import at_hand, facts, resolve
from vitlab.recipes import recipe
from vitlab.run import Run
from vitlab.selection.candidates import Candidate, FineTuned, Linear, Network, Pool, Trained
from vitlab.selection.folds import FOLDS, majority_logits, neighbor_logits
from vitlab.selection.labels import label_curve
from vitlab.selection.verdict import Verdict, judge
from vitlab.training import new_path
from vitlab.training.logging import ConsoleLogger
from vitlab.training.optim import blocks_of, layer_numbers

FEATURES_SHARE = 0.6
"""Part of the time for features of frozen networks."""

MOST = 10_000
"""Pictures on which a linear classifier is fitted; with more a network of its own pays."""

FEWEST = 10
"""Pictures of a class that are described whatever the time."""

LEAST_EPOCHS = 3
"""Passes over the pictures below which a training says nothing."""

SIDE = 32
"""Pixels on a side that networks of ours see: those that they were made for."""

LAST_BLOCKS = 3
"""Blocks that are trained where only the last ones are."""

SHIPPED, OURS = "cpu", "mit"
"""The most accurate model that ships, and the licence of its weights."""


def fit(
    data: str | os.PathLike[str] | Data,
    *,
    minutes: float = 10.0,
    backbones: Sequence[str] | None = None,
    fields: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    name: str | None = None,
    labels_per_class: int | None = None,
    device: str = "auto",
    data_root: Root = None,
    seed: int = 0,
    quiet: bool = False,
) -> Run:
    """Train the best model of some labelled pictures that can be found in the time given.

    Args:
        data: a folder of class folders, a CSV, Parquet, a known name; or images and labels.
        minutes: how long it may take; what has begun is finished.
        backbones: pretrained networks to try, as `pretrained.backbones` names them; default those
            that are here. What is not here is fetched, after its size and licence were shown.
        fields: fields of the config's `data`, by their dotted names. Unless `data.image_size` is
            given, pictures are brought to what the first backbone sees, or stay smaller.
        out: folder of runs; default $VITLAB_RUNS, else `runs`.
        name: name of the run; default that of the pictures and `-fit`.
        labels_per_class: also say what so many labelled pictures of each class would reach.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.
        seed: of the folds and of every training.
        quiet: print nothing.

    Returns:
        The run of the chosen candidate. `Run.selection` has what was found. It is validated by
        cross-validation: each picture by a model that was not trained on it; unless
        `data.validation_fraction` holds pictures out.

    Raises:
        ConfigError, DataError: before anything is written.
        RunError: a name that is taken.
        Interrupted: after a signal. Features are kept, so that the same command goes on from them.
    """
    refuse_multilabel(
        DataConfig(task=(fields or {}).get("data.task", "multiclass")),
        "fit compares accuracies",
        "`vitlab train linear --data.task multilabel` fits a linear classifier on a backbone",
    )
    if not minutes > 0:
        raise ConfigError([f"minutes={minutes:g} is no time: give more than 0"])
    begun = time.monotonic()
    where, logger = choose_device(device), ConsoleLogger(quiet)
    networks = list(backbones) if backbones is not None else at_hand()
    licenses = {each: introduce(each, logger) for each in networks}
    config, dataset = open_pictures(data, networks, fields or {}, data_root)
    examples = dataset.examples
    config = replace(config, train=replace(config.train, seed=seed))
    path = new_path(config, out, name or f"{Path(config.data.dataset).stem}-fit")
    if path.exists():
        raise RunError(f"{path} is there already: choose another --name, or move it away")
    pool = Pool(examples, config, seed)
    measured = int((pool.folds >= 0).sum())
    logger.header(
        [
            ("pictures", f"{len(pool):,} of {len(pool.class_names)} classes"),
            ("held out", f"{measured:,} of them in turn, in {FOLDS} folds"),
        ]
    )
    if not networks:
        logger.warn("no pretrained network is here: pip install 'vitlab[backbone]' brings one")
    if not measured:
        logger.warn("there is one picture of each class: none can be held out to compare anything")
    deadline = begun + 60 * minutes
    candidates = [majority(pool)]
    for network in frozen_networks(pool, config, licenses, where):
        if measured:
            share = FEATURES_SHARE * 60 * minutes / max(1, len(licenses))
            candidates.append(try_frozen(network, pool, share, logger, quiet))
        candidates.append(network)
    linear = [one for one in candidates if isinstance(one, Linear)]
    if measured:
        trained = list(trainings(pool, config, linear, where))
        candidates += trained
        try_trainings(trained, path.parent, deadline, logger)
    verdict = judge(candidates)
    labels = None
    if labels_per_class is not None and linear:
        best = judge(linear).chosen
        assert isinstance(best, Linear)
        labels = label_curve(best, labels_per_class, quiet)
    run = train_chosen(verdict, pool, path, data_root, logger)
    run.write_selection(
        {
            "pictures": len(pool),
            "held_out": measured,
            "folds": FOLDS,
            "seed": seed,
            "minutes": minutes,
            "took_seconds": time.monotonic() - begun,
            "chosen": verdict.chosen.name,
            "advice": verdict.advice(),
            "candidates": verdict.rows,
            "labels": labels,
        }
    )
    return run


def introduce(name: str, logger: ConsoleLogger) -> str:
    """Say what a backbone is before any of it is fetched; return its licence."""
    found = facts(name)
    size = "of unknown size" if found.megabytes is None else f"{found.megabytes:.0f} MB"
    way = "" if found.here else ", is fetched now"
    logger.header([("backbone", f"{name}: {size}, licence {found.license}{way}")])
    return found.license


def open_pictures(
    data: str | os.PathLike[str] | Data,
    networks: Sequence[str],
    fields: Mapping[str, Any],
    root: Root,
) -> tuple[Config, Dataset]:
    """The pictures, and a linear classifier's config on the first network.

    Pictures as large as the network's input, or of several sizes, are brought to that; smaller
    ones stay as they are, and are enlarged inside the network.
    """
    config = recipe("linear").override({"data.validation_fraction": 0.0, **fields})
    if networks:
        config = replace(config, model=BackboneConfig(name=networks[0]))
    if not isinstance(data, str | os.PathLike):
        dataset = open_dataset(config.data, data)
        return replace(config, data=dataset.config), dataset
    config = config.override({"data.dataset": os.fspath(data)})
    model = resolve(config).model if networks else None
    size = (SIDE, SIDE) if model is None else getattr(model, "input_size", None)
    if config.data.image_size is None and size is not None:
        found = None
        with suppress(DataError):  # pictures of several sizes; whatever else is wrong shows below
            found = open_dataset(config.data, root=root).config.image_size
        if found is None or found[0] > size[0] or found[1] > size[1]:
            crop = {} if "data.fit" in fields else {"data.fit": "crop"}
            config = config.override({"data.image_size": size, **crop})
    return config, open_dataset(config.data, root=root)


def majority(pool: Pool) -> Candidate:
    """The most frequent class."""
    found = Candidate("most frequent class", pool)
    found.logits = majority_logits(pool.labels, pool.folds, len(pool.class_names))
    return found


def frozen_networks(
    pool: Pool, config: Config, licenses: Mapping[str, str], device: torch.device
) -> Iterator[Linear]:
    """Linear classifiers on every backbone, and on the shipped model that is the most accurate.

    Args:
        config: a linear classifier's, on the pictures.
    """
    for name, license in licenses.items():
        one = replace(config, model=BackboneConfig(name=name))
        yield Linear(f"linear classifier on {name}", pool, one, license, device)
    run = shipped(SHIPPED)
    if not overlap(pool, run) and run.config.data.channels == pool.channels:
        one = replace(
            config,
            data=replace(config.data, image_size=(SIDE, SIDE)),
            model=run.config.model,
            train=replace(config.train, weights=SHIPPED),
        )
        yield Linear(f"linear classifier on the shipped {SHIPPED}", pool, one, OURS, device)


def overlap(pool: Pool, run: Run) -> int:
    """How many of the pictures a run was trained on."""
    return int(np.isin(pool.keys, run.split.trained).sum())


def try_frozen(
    network: Linear, pool: Pool, seconds: float, logger: ConsoleLogger, quiet: bool
) -> Candidate:
    """Let a frozen network answer, on as many pictures as so many seconds allow.

    Returns:
        The vote of neighbours by the same features.
    """
    share = min(1.0, MOST / len(pool))
    whole = pool.part(network.size, np.arange(len(pool)))
    new = network.frozen.missing(whole, np.arange(len(pool)))
    affordable = seconds / network.seconds_per_image()
    if new > affordable:
        least = FEWEST * len(pool.class_names)
        share = min(share, max(affordable, least) / len(pool))
    if share < 1:
        network.keep(share)
        network.note = f"on {len(network.places):,} pictures, as time allows"
    places, features = network.answer(quiet)
    vote = Candidate(network.name.replace("linear classifier", "nearest neighbours"), pool)
    vote.license, vote.milliseconds = network.license, network.milliseconds
    begun = time.perf_counter()
    vote.logits[places] = neighbor_logits(
        features, pool.labels[places], pool.folds[places], len(pool.class_names)
    )
    vote.seconds = time.perf_counter() - begun
    for one in (vote, network):
        logger.say(tried(one))
    return vote


def tried(one: Candidate) -> str:
    """A candidate in a line."""
    answered = int(one.answered.sum())
    share = f"{one.right.sum() / answered:7.2%} of {answered:,}" if answered else one.note
    return f"{one.name:<48}{share}"


def trainings(
    pool: Pool, config: Config, linear: Sequence[Linear], device: torch.device
) -> Iterator[Trained]:
    """Trainings from scratch, from shipped models and from the best frozen network.

    Args:
        config: a linear classifier's, on the pictures.
        linear: the linear classifiers that were tried.
    """
    small = replace(config.data, image_size=(SIDE, SIDE))
    seed = {"train.seed": config.train.seed}
    for kind, name in (("ViT", "cpu"), ("CNN", "cpu-cnn")):
        scratch = replace(recipe(name).override(seed), data=small)
        yield Trained(f"{kind} {name} from scratch", pool, scratch, "", device)
    for name in names():
        run = shipped(name)
        fine = replace(recipe(name).override({**seed, "train.weights": name}), data=small)
        if run.config.data.channels != pool.channels:
            continue
        one = Trained(f"shipped {name}, fine-tuned", pool, fine, OURS, device)
        if seen := overlap(pool, run):
            one.note = f"not tried: it was trained on {seen:,} of these pictures"
        yield one
    on_backbones = [one for one in linear if isinstance(one.config.model, BackboneConfig)]
    if not on_backbones:
        return
    best = judge(on_backbones).chosen
    assert isinstance(best, Linear) and isinstance(best.config.model, BackboneConfig)
    # What fewer digits cost is in the answers that it is judged by.
    fast = {"train.precision": "bf16"} if multiplies_bf16(device) else {}
    whole = recipe("finetune").override({**seed, **fast})
    whole = replace(whole, data=best.config.data, model=best.config.model)
    backbone = best.config.model.name
    resolved, _ = best.of(np.arange(len(pool)))
    early = early_layers(replace(whole, data=resolved.data, model=resolved.model))
    last = replace(whole, optim=replace(whole.optim, freeze=early))
    yield FineTuned(f"{backbone}, last blocks fine-tuned", pool, last, best)
    yield FineTuned(f"{backbone}, fine-tuned", pool, whole, best)


def early_layers(config: Config) -> tuple[str, ...]:
    """Names of all layers of a backbone before its last blocks, as `optim.freeze` takes them."""
    with torch.device("meta"):
        model = build_model(config)
    last = blocks_of(model) - LAST_BLOCKS
    early = [name for name, depth in layer_numbers(model).items() if depth <= last]
    path = f"{getattr(model, 'blocks_path', '')}."
    short = [
        path + name.removeprefix(path).partition(".")[0]
        if name.startswith(path)
        else name.rpartition(".")[0]
        for name in early
    ]
    return tuple(dict.fromkeys(short))


def try_trainings(
    candidates: Sequence[Trained], folder: Path, deadline: float, logger: ConsoleLogger
) -> None:
    """Train candidates fold by fold until a deadline, by `time.monotonic`.

    Each has its share of the time for a fold and for the run, should it be chosen; the last, all of
    a backbone, has what is left. The rest goes to folds of those that are not clearly behind.
    """
    waiting = [one for one in candidates if not one.note]
    # Both ways to train a backbone on share a part.
    kinds = [type(one) for one in waiting]
    sharing, trained = kinds.count(Trained) + (FineTuned in kinds), []

    def seconds_left() -> float:
        last = max((one.seconds_of_all for one in trained), default=0.0)
        return deadline - time.monotonic() - last

    with passing_folder(folder) as passing:
        for place, one in enumerate(waiting):
            allowed = seconds_left() / max(1, sharing - place)
            if allowed <= 0:
                one.note = "not tried: no time was left"
            elif one.shorten(allowed, LEAST_EPOCHS):
                one.answer(passing)
                trained.append(one)
            else:
                epoch = duration(one.seconds_per_epoch)
                one.note = f"not tried: no time for {LEAST_EPOCHS} passes of {epoch} each"
            logger.say(tried(one))
        while trained:
            best, left = judge(trained).chosen, seconds_left()
            able = [
                one
                for one in trained
                if not one.done and one.seconds_per_fold < left and near(one, best)
            ]
            if not able:
                return
            one = min(able, key=lambda each: int(each.answered.sum()))
            one.answer(passing)
            logger.say(tried(one))


@contextmanager
def passing_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder for runs of which only the answers are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".fit-", dir=folder) as passing:
            yield Path(passing)
    except Interrupted as stopped:
        raise Interrupted(
            "stopped before a run was made; the same command goes on with the features that it had",
            stopped.exit_code - 128,
        ) from None


def near(one: Candidate, best: Candidate) -> bool:
    """Whether a candidate may still prove to be as good as another: within two standard errors."""
    both = one.answered & best.answered
    behind = best.right[both].astype(float) - one.right[both]
    return float(behind.mean()) <= 2 * float(behind.std()) / np.sqrt(max(1, both.sum()))


def train_chosen(
    verdict: Verdict, pool: Pool, path: Path, root: Root, logger: ConsoleLogger
) -> Run:
    """Train the chosen candidate on all pictures into a run, validated by its answers so far."""
    chosen = verdict.chosen
    assert isinstance(chosen, Network)
    logger.say(f"{chosen.name}: trained on all of its pictures")
    config = chosen.config
    given = pool.all_at(chosen.size) if config.data.dataset == ARRAYS else None
    run = chosen.run(config, path.parent, path.name, given, root)
    if not config.data.validation_fraction and chosen.answered.any():
        places = np.flatnonzero(chosen.answered)
        examples, index = pool.all_at(chosen.size), pool.index[places]
        store_cross_validation(run, chosen.logits[places], examples, index, FOLDS)
    return run
