"""What cannot work, and what tends to go wrong with small Vision Transformers, in plain words."""

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from vitlab.config import AugmentConfig, Config, TrainConfig, ViTConfig, fields_of, text
from vitlab.data import KNOWN, Dataset, LabelledImages, Subset, class_counts
from vitlab.data.duplicates import duplicates_warning
from vitlab.device import choose_threads, enough_memory
from vitlab.diagnosis import FEW_IMAGES, SMALL_BATCH
from vitlab.errors import ConfigError
from vitlab.formatting import count, duration
from vitlab.models import build_model
from vitlab.recipes import shortened
from vitlab.run import Run
from vitlab.training.autotune import estimate_seconds
from vitlab.training.distributed import ProcessGroup
from vitlab.training.logging import ConsoleLogger
from vitlab.training.memory import (
    described,
    many_tokens,
    out_of_memory_reading,
    refuse_excess,
    tight,
)
from vitlab.training.optim import blocks_of, is_frozen
from vitlab.training.provenance import determinism, device_name
from vitlab.training.scaling import scale_to_images
from vitlab.training.setup import TrainingSetup
from vitlab.training.teacher import teacher_config

SAFE_RATES = {
    "adamw": (1e-4, 4e-3),
    "adam": (1e-4, 2e-3),
    "sgd": (0.01, 0.3),
    "muon": (1e-4, 1e-2),
    "lbfgs": (0.0, math.inf),
}
"""Peak learning rates between which our recipes of each optimiser are known to train."""


def check(
    config: Config,
    dataset: Dataset,
    device: torch.device,
    group: ProcessGroup,
    logger: ConsoleLogger,
    scaled: Collection[str] = (),
) -> Config:
    """Read the images, and refuse what cannot be trained on them before anything is written.

    Args:
        config: a resolved config, its teacher's included.
        dataset: its training and validation images.
        scaled: fields that are scaled to the number of images, as `scale_to_images` has them.

    Returns:
        The config to train, scaled.

    Raises:
        ConfigError: a step cannot fit into memory, or there is no way to train.
        DataError: for images that cannot be read.
    """
    logger.header([("device", device_name(device)), ("threads", choose_threads(device))])
    # Of the images that were counted; those that cannot be read are known once all were read.
    expected = scale_to_images(config, dataset.train_count, scaled)
    logger.header(described(expected, device, group.world_size))
    for warning in many_tokens(expected):
        logger.warn(warning)
    for each in _with_teacher(expected):
        refuse_excess(each, device, dataset.train_count, group.world_size)
    read_images(dataset)
    recipe, config = config, scale_to_images(config, dataset.train_count, scaled)
    if config != recipe:
        logger.header(scaling(recipe, config, dataset.train_count))
    for each in _with_teacher(config):
        if problems := list(problems_of(each, dataset.train_count, group.world_size)):
            raise ConfigError(problems)
        refuse_excess(each, device, dataset.train_count, group.world_size)
    for warning in tight(config, device, dataset.train_count, group.world_size):
        logger.warn(warning)
    return config


def scaling(recipe: Config, config: Config, images: int) -> list[tuple[str, str]]:
    """What was scaled to the number of images, for the header."""
    before, now = fields_of(recipe), fields_of(config)
    return [
        ("scaled", f"to {images:,} training images, as these fields were not given:"),
        *(
            ("", f"{name}={brief(value)}, {brief(before[name])} in the recipe")
            for name, value in now.items()
            if value != before[name]
        ),
    ]


def _with_teacher(config: Config) -> list[Config]:
    return [config] if config.train.teacher is None else [config, teacher_config(config)]


def read_images(dataset: Dataset) -> LabelledImages:
    """The images of a data set; VitlabError says what to do where they do not fit into memory."""
    with enough_memory(partial(out_of_memory_reading, dataset.config)):
        return dataset.examples


def introduce(run: Run, setup: TrainingSetup, logger: ConsoleLogger) -> None:
    """Say what was chosen for a new run, how long it will take and what may go wrong."""
    config, batches, examples = run.config, setup.batches, setup.dataset.examples
    lines: list[tuple[str, object]] = [
        ("run", run.path),
        *setup.settings._asdict().items(),
        ("compilation", setup.compilation),
        ("determinism", determinism(setup)),
    ]
    if setup.group.world_size > 1:
        lines.append(("processes", setup.group.world_size))
    counts = class_counts(examples.labels, examples.class_names)
    lines += [
        (
            "data",
            f"{config.data.dataset}: {len(setup.images):,} training and "
            f"{len(setup.validation):,} validation images, {config.data.classes} classes",
        ),
        ("classes", f"{counts}, validation images included"),
        *(("" if place else "files", x) for place, x in enumerate(setup.dataset.description)),
    ]
    if examples.grey_range:
        low, high = examples.grey_range
        lines.append(
            ("", f"16-bit grey levels {low:,} to {high:,} become 0 to 255: data.grey_range")
        )
    lines.append(
        (
            "steps",
            f"{batches.steps:,}: {count(config.train.epochs, 'epoch')} of "
            f"{count(batches.steps_per_epoch, 'batch', 'batches')} of {config.train.batch_size}",
        )
    )
    for name, (usual, value) in shortened(config).items():
        lines.append(("", f"{name}={brief(value)} in proportion, {brief(usual)} in the recipe"))
    seconds = estimate_seconds(
        config,
        setup.state.model,
        setup.device,
        setup.settings.precision.value,
        batches.steps_per_epoch,
        setup.group.world_size,
    )
    lines.append(("time", f"about {duration(seconds)}, from two trial steps"))
    if setup.weights is not None:
        report = str(setup.weights.report).splitlines()
        lines += [("weights", setup.weights.source), *(("", line) for line in report)]
    logger.header(lines)
    for warning in warnings_of_setup(setup):
        logger.warn(warning)


def warnings_of_setup(setup: TrainingSetup) -> Iterator[str]:
    """Yield what may go wrong with a training that was set up."""
    config, images = setup.config, setup.dataset.examples.images
    training, validation = setup.dataset.split
    if setup.weights is not None and setup.weights.validation_seen:
        yield (
            f"{setup.weights.validation_seen:,} of the {len(validation):,} validation images were "
            f"trained on by {config.train.weights}: the validation accuracy says little about new "
            "images"
        )
    if config.train.precision not in ("auto", setup.settings.precision.value):
        yield f"train.precision is {setup.settings.precision}"
    yield from warnings_for(config, len(training))
    if config.data.dataset not in KNOWN:  # nobody has looked for copies there
        warning = duplicates_warning(Subset(images, training), Subset(images, validation))
        if warning is not None:
            yield warning


def brief(value: Any) -> str:
    """A value of a config in words, a fraction to three digits."""
    return f"{value:.3g}" if isinstance(value, float) else text(value)


def problems_of(config: Config, images: int, world_size: int = 1) -> Iterator[str]:
    """Yield what makes it impossible to train a config on so many images."""
    train, optim = config.train, config.optim
    if train.drop_last and images < train.batch_size:
        yield (
            f"train.drop_last=True leaves no batch: {images} training images are fewer than "
            f"train.batch_size={train.batch_size}: set train.batch_size={images} or less, or "
            "train.drop_last=off"
        )
    with torch.device("meta"):
        model = build_model(config)
    if not has_pairs(train, images, world_size) and not takes_one_image(model, config):
        yield (
            f"{images} images in batches of {train.batch_size} end in parts of one image, and one "
            "image is too few for batch norm on maps of one pixel: "
            f"{' or '.join(ways_to_pairs(train, images, world_size)) or 'more images are needed'}"
        )
    names = [name for name, _ in model.named_parameters()]
    for prefix in optim.freeze:
        if not any(is_frozen(name, [prefix]) for name in names):
            # cls_token, patch_embed, blocks.0: what one would want to freeze; longer names work.
            parts = dict.fromkeys(re.findall(r"^\w+(?:\.\d+)?", "\n".join(names), re.MULTILINE))
            yield f"optim.freeze={prefix!r} is no parameter: choose from {', '.join(parts)}"
    if all(is_frozen(name, optim.freeze) for name in names):
        yield f"optim.freeze={','.join(optim.freeze)} leaves nothing to train: name fewer"
    if optim.layer_decay < 1 and not blocks_of(model):
        yield (
            f"optim.layer_decay={optim.layer_decay:g} goes from block to block, and "
            f"model.kind={config.model.kind!r} has none: set optim.layer_decay=1"
        )


def has_pairs(train: TrainConfig, images: int, world_size: int) -> bool:
    """Whether each part that a batch is computed in has at least two images."""
    last = 0 if train.drop_last else images % train.batch_size
    return (last or train.batch_size) >= 2 * train.accumulate * world_size


def ways_to_pairs(train: TrainConfig, images: int, world_size: int) -> Iterator[str]:
    """Yield what could be set so that each part has at least two images."""
    for size in sorted(range(2, images + 1), key=lambda size: abs(size - train.batch_size)):
        if size < train.accumulate:  # parts cannot be more than images
            continue
        if has_pairs(replace(train, batch_size=size), images, world_size):
            yield f"set train.batch_size={size}"
            break
    if images >= train.batch_size and has_pairs(replace(train, drop_last=True), images, world_size):
        yield "set train.drop_last=on"
    if train.accumulate > 1 and has_pairs(replace(train, accumulate=1), images, world_size):
        yield "set train.accumulate=1"


def takes_one_image(model: nn.Module, config: Config) -> bool:
    """Whether a model on the meta device can train on a single image."""
    size = config.train.small_size or config.data.image_size
    assert size is not None and config.data.channels is not None
    resize = model.resize
    assert callable(resize)
    resize(size)
    try:
        model.train()(torch.empty(1, config.data.channels, *size, device="meta"))
    except ValueError:
        return False
    return True


def warnings_for(config: Config, images: int) -> Iterator[str]:
    """Yield what a person with experience would remark on a config.

    Args:
        config: a resolved config.
        images: number of training images.
    """
    optim, model, data, train = config.optim, config.model, config.data, config.train
    low, high = SAFE_RATES[optim.optimizer]
    if not low <= optim.lr <= high:
        yield (
            f"optim.lr={optim.lr:g} is outside {low:g} to {high:g}, "
            f"where {optim.optimizer} is known to train"
        )
    if optim.optimizer == "muon" and not 0.002 <= optim.muon_lr <= 0.05:
        yield f"optim.muon_lr={optim.muon_lr:g} is outside 0.002 to 0.05, where Muon trains"
    if train.batch_size > max(images, SMALL_BATCH):  # the least that is scaled to
        yield f"train.batch_size={train.batch_size} is more than all {images} images"
    if optim.warmup_epochs >= train.epochs:
        yield (
            f"optim.warmup_epochs={optim.warmup_epochs:g} leaves none of "
            f"train.epochs={train.epochs} at the full rate"
        )
    if 0 < train.stop_patience < train.evaluate_epochs:
        yield (
            f"train.stop_patience={train.stop_patience:g} ends before the second validation: "
            f"train.evaluate_epochs={train.evaluate_epochs:g}"
        )
    falls = optim.schedule in ("cosine", "linear")
    if falls and (train.stop_accuracy or train.stop_patience):
        yield (
            f"a run that stops early misses the low rates at the end of optim.schedule="
            f"{optim.schedule!r}, which are worth some accuracy"
        )
    augment = config.augment
    plain = augment.flip == "none" and augment.policy == "none" and not augment.mixes
    plain = plain and not (augment.crop_padding or augment.resized_crop)
    if optim.optimizer == "lbfgs":
        if augment != AugmentConfig():
            yield "optim.optimizer='lbfgs' looks at images as they are: augment.* is not used"
    elif plain and images < FEW_IMAGES:
        yield f"no augmentation on {images:,} training images: the model will learn them by heart"
    if isinstance(model, ViTConfig):
        assert data.image_size is not None
        grid = model.grid(data.image_size)
        if math.prod(grid) <= 4:
            yield (
                f"a grid of {grid[0]} x {grid[1]} patches leaves attention nothing to do: "
                f"make model.patch_size={model.patch_size} smaller"
            )
        if optim.warmup_epochs == 0 and optim.optimizer != "sgd":
            yield "optim.warmup_epochs=0: attention learns better after a few epochs of warm-up"
        if model.head_width % 2:
            yield f"an odd head width of {model.head_width} is slow and rare: change width or heads"
