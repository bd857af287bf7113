"""What a training takes of memory: said in the header, refused where it cannot fit.

Figures are lower bounds, so what is refused here would not have run. Every advice is tried on
the config first: it is given only where it makes a training need less.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from vitlab.config import Config, DataConfig, ViTConfig
from vitlab.data.batches import block_steps, memory
from vitlab.device import multiplies_bf16
from vitlab.errors import ConfigError
from vitlab.inference import BATCH, WORKING
from vitlab.models.cost import cost
from vitlab.training.autotune import rules, tokens, training_bytes, without_numbers

MANY_TOKENS = 1_024
"""Tokens from which attention, whose work grows with their square, makes a step take minutes."""

FEW_TOKENS = 256
"""Tokens to which a larger patch is advised, if there is one."""

TIGHT = 0.7
"""Part of the memory from which a person is warned: kernels and the system want some as well."""

SIDE = 32
"""Pixels on a side that are advised, or eight patches where that is more."""


class Need(NamedTuple):
    """Bytes that a training takes at least."""

    image: int
    """For each image of the part of a batch that is computed at once."""
    batch: int
    """For each image of a batch: its pixels, as they are and changed, in each batch of a block."""
    weights: int
    """Weights, gradients, the optimiser's moments and the weight average."""

    def of(self, images: int, parts: int = 1) -> int:
        """Bytes of a step of so many images in so many parts."""
        return math.ceil(images / parts) * self.image + images * self.batch + self.weights


def need(config: Config, device: torch.device) -> Need:
    """What a resolved config needs on a device, by arithmetic."""
    precision, attention, _ = rules(config, device).values
    data, optim = config.data, config.optim
    assert data.image_size and data.channels
    image = training_bytes(config, attention if attention == "explicit" else "fused")
    if precision != "fp32":
        image //= 2
    moments = {"adamw": 2, "adam": 2, "muon": 1, "sgd": bool(optim.momentum)}
    pixels = 4 * data.channels * math.prod(data.image_size) * block_steps(config, device)
    weights = list(without_numbers(config).parameters())
    moving = sum(weight.numel() for weight in weights if weight.requires_grad)
    kept = sum(weight.numel() for weight in weights) * (1 + bool(optim.average_decay))
    return Need(
        image,
        2 * pixels,
        4 * (kept + moving * (1 + moments.get(optim.optimizer, 0) + bool(optim.sam))),
    )


def step_size(config: Config, images: int, world_size: int) -> tuple[int, int]:
    """Images of a process's step where there are so many in all, and its number of parts."""
    batch = min(config.train.batch_size, images)
    return math.ceil(batch / world_size), config.train.accumulate


def described(
    config: Config, device: torch.device, world_size: int = 1
) -> Iterator[tuple[str, str]]:
    """Yield lines of a header: what an image is to the model, the model, and what a step takes."""
    assert config.data.image_size
    height, width = config.data.image_size
    size = f"{height} x {width} pixels"
    if isinstance(config.model, ViTConfig):
        size += f", {math.prod(config.model.grid((height, width))):,} patches each"
    yield "images", size
    whole = cost(config)
    yield (
        "model",
        f"{config.model.kind}: {whole.parameters:,} parameters, "
        f"{whole.macs / 1e6:.1f} M multiply-adds per image",
    )
    batch, parts = step_size(config, config.train.batch_size, world_size)
    once = math.ceil(batch / parts)
    yield (
        "memory",
        f"at least {gigabytes(need(config, device).of(batch, parts))} for a step, "
        f"{once:,} image{'s' * (once > 1)} at once, of {available(device)}",
    )


def many_tokens(config: Config) -> Iterator[str]:
    """Yield a warning where images are cut into more patches than a person may expect."""
    if isinstance(config.model, ViTConfig) and tokens(config) > MANY_TOKENS:
        ways = [way for way, _ in smaller_images(config)]
        yield (
            f"{tokens(config):,} tokens an image: the work of attention grows with the square of "
            f"their number, and a step may take minutes{advised(ways)}"
        )


def tight(config: Config, device: torch.device, images: int, world_size: int = 1) -> Iterator[str]:
    """Yield a warning where a step on so many training images takes nearly all the memory."""
    batch, parts = step_size(config, images, world_size)
    room, needed = int(TIGHT * memory(device)), need(config, device).of(batch, parts)
    if needed > room:
        ways = list(ways_out(config, device, batch, room))
        yield (
            f"a step takes at least {gigabytes(needed)} of {available(device)}, and kernels and "
            f"the system want some as well{advised(ways)}"
        )


def refuse_excess(
    config: Config, device: torch.device, images: int, world_size: int = 1, resumed: bool = False
) -> None:
    """Raise ConfigError where a step on so many training images cannot fit into memory.

    Args:
        config: a resolved config.
        device: where it is trained.
        images: number of training images, or fewer where they are not yet counted.
        world_size: number of processes that train together.
        resumed: the config is that of a run, and can no longer be changed.
    """
    batch, parts = step_size(config, images, world_size)
    room, needed = memory(device), need(config, device)
    if needed.of(batch, parts) <= room:
        return
    message = (
        f"this training would run out of memory: a step of {batch:,} images of "
        f"{'x'.join(map(str, config.data.image_size or ()))} pixels takes at least "
        f"{gigabytes(needed.of(batch, parts))}, more than {available(device)}"
    )
    if resumed:
        raise ConfigError([f"{message}. A run goes on as it began: resume it where there is more"])
    ways = list(ways_out(config, device, batch, room))
    raise ConfigError([message + (advised(ways) or ". Choose a smaller model")])


def out_of_memory_reading(config: DataConfig) -> str:
    """What to say if memory runs out while images are read."""
    height, width = config.image_size or (0, 0)
    return (
        f"out of memory while reading {config.dataset}: an image of {height} x {width} pixels "
        f"takes {height * width * (config.channels or 0):,} bytes. Set a smaller "
        "--data.image_size, or stop what else uses this memory"
    )


def out_of_memory_building(config: Config, images: np.ndarray, device: torch.device) -> str:
    """What to say if memory runs out before the first step."""
    return (
        f"out of memory on {device} before the first step: {len(images):,} images take "
        f"{gigabytes(images.nbytes)} and {cost(config).parameters:,} parameters with what moves "
        f"them {gigabytes(need(config, device).weights)}. Take smaller images (data.image_size), "
        "fewer (data.train_fraction) or a smaller model, or stop what else uses this memory"
    )


def out_of_memory(config: Config, device: torch.device, resumed: bool = False) -> str:
    """What to say if memory runs out in a step."""
    message = f"out of memory with train.batch_size={config.train.batch_size}"
    if resumed:
        return (
            f"{message}: stop what else uses this memory, or resume where there is more, because "
            "a run goes on as it began. Checkpoints so far are intact"
        )
    parts = config.train.accumulate
    now = need(config, device).of(config.train.batch_size, parts)
    ways = list(ways_out(config, device, config.train.batch_size, int(TIGHT * now)))
    if rules(config, device).precision.value == "fp32" and multiplies_bf16(device):
        ways.append("--train.precision bf16")
    return (
        f"{message}{advised(ways) or ': choose a smaller model'}. Or stop what else uses this "
        "memory. Checkpoints so far are intact"
    )


def out_of_memory_evaluating(device: torch.device) -> str:
    """What to say if memory runs out in an evaluation."""
    return (
        f"out of memory on {device} in an evaluation, {BATCH} images at a time or fewer, as few "
        f"as go into {gigabytes(WORKING)}: stop what else uses this memory, or resume where there "
        "is more. Checkpoints so far are intact"
    )


def ways_out(config: Config, device: torch.device, batch: int, room: int) -> Iterator[str]:
    """Yield options that bring a step of so many images into so many bytes."""
    now = config.train.accumulate
    for way, changed in (("", config), *smaller_images(config)):
        needed, parts = need(changed, device), now
        while needed.of(batch, parts) > room and 2 * parts <= batch:
            parts *= 2
        if needed.of(batch, parts) <= room:
            yield f"{way} --train.accumulate {parts}".strip() if parts > now else way


def smaller_images(config: Config) -> Iterator[tuple[str, Config]]:
    """Yield options that leave fewer numbers per image, and the config with each."""
    height, width = config.data.image_size or (0, 0)
    patch = config.model.patch_size if isinstance(config.model, ViTConfig) else 8
    side = math.ceil(max(SIDE, 8 * patch) / patch) * patch
    if side < min(height, width):
        changed = replace(config, data=replace(config.data, image_size=(side, side)))
        yield f"--data.image_size {side},{side}", changed
    best = None
    while isinstance(config.model, ViTConfig) and 2 * patch <= min(height, width):
        patch *= 2
        try:
            larger = config.override({"model.patch_size": patch})
        except ConfigError:  # this kind of patch, or small_size, does not go with it
            continue
        best = f"--model.patch_size {patch}", larger
        if tokens(larger) <= FEW_TOKENS:
            break
    if best is not None:
        yield best


def advised(ways: list[str]) -> str:
    """Ways out as the end of a sentence; nothing if there are none."""
    return f". Way out: {' or '.join(ways)}" if ways else ""


def available(device: torch.device) -> str:
    """The memory that there is, in words."""
    whose = "of this GPU" if device.type == "cuda" else "that this process may have"
    return f"the {gigabytes(memory(device))} {whose}"


def gigabytes(count: float) -> str:
    """Bytes in words."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.0f} MB"
