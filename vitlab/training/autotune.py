"""Which precision, attention and layout are fastest on this CPU: a few steps are timed.

What is best differs from CPU to CPU and from model to model: bf16 is three times as fast as fp32
on one CPU, and a tenth as fast on the next. A GPU, several processes and what the config fixes
need no trial, and a short training does not repay one: then a rule decides.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import Config, ViTConfig
from vitlab.data.batches import memory
from vitlab.device import LAYOUTS, Choice, autocast, choose_precision, multiplies_bf16
from vitlab.models import build_model
from vitlab.models.attention import EXPLICIT_TOKENS, set_attention_backend
from vitlab.models.cost import activation_bytes, cost, training_macs
from vitlab.training.cuda_graph import build_step
from vitlab.training.optim import freeze
from vitlab.training.state import TrainState

REPAID = 3e13
"""Floating-point operations of a training that repays a trial: some minutes of two cores."""

IMAGES, ROUNDS, SECONDS = 64, 3, 5.0
"""A trial takes rounds of a step of so many images; after so many seconds it begins no more."""

LONG = 3e11
"""Floating-point operations of the longest step that is tried: some seconds of two cores."""

MEMORY_SHARE = 0.125
"""Part of the memory that a step may take to be tried."""

HOPELESS = 1.5
"""Times the fastest's seconds after which a contender is not tried again."""

MARGIN = 1.1
"""Times faster than the rule's choice that a contender must be, so that noise decides little."""

AUTOMATIC = ("fp32",)
"""Precisions that auto takes on a CPU. bf16 is tried where it is native, so that a run can say what
it would gain, but it has not been shown to cost no accuracy (docs/log.md)."""

Combination = tuple[str, str, str]
"""Precision, attention and layout."""


class Settings(NamedTuple):
    """How a training step is computed."""

    precision: Choice
    attention: Choice
    layout: Choice

    @property
    def values(self) -> Combination:
        """The choices without their reasons."""
        return self.precision.value, self.attention.value, self.layout.value


def rules(config: Config, device: torch.device) -> Settings:
    """How a resolved config is trained without a trial."""
    model, train = config.model, config.train
    precision = choose_precision(train, device)
    if not isinstance(model, ViTConfig):
        attention = Choice("none", "the model has none")
    elif model.attention_dropout:
        attention = Choice("explicit", "dropout on attention weights needs them in memory")
    elif train.attention != "auto":
        attention = Choice(train.attention, "asked for")
    elif device.type == "cpu" and precision.value == "bf16" and tokens(config) <= EXPLICIT_TOKENS:
        attention = Choice("explicit", "a CPU's kernel for bf16 has a slow way back")
    else:
        attention = Choice("fused", "no weights in memory")
    layout = Choice(train.layout, "asked for")
    if train.layout == "auto":
        layout = Choice("channels_last", "convolutions are often faster so, the rest as fast")
    return Settings(precision, attention, layout)


def stored_settings(provenance: Mapping[str, Any], device: torch.device) -> Settings | None:
    """How a run has been computed so far; None if that was on another type of device.

    Before there was a choice, attention was fused and channels came last.
    """
    if provenance["device_type"] != device.type:
        return None
    before = {"attention": Choice("fused", ""), "layout": Choice("channels_last", "")}
    return Settings(
        *(
            Choice(**provenance[name]) if name in provenance else before[name]
            for name in Settings._fields
        )
    )


def choose(
    config: Config, device: torch.device, images: int
) -> tuple[Settings, dict[Combination, float]]:
    """Decide how so many images are trained on, by a trial where one repays itself.

    Returns:
        The settings, and images per second of every contender of the trial.
    """
    default, rivals = rules(config, device), contenders(config, device)
    work = 2 * training_macs(config, config.train.epochs, images)
    if device.type != "cpu" or len(rivals) == 1 or work < REPAID:
        return default, {}
    if not step_images(config, device, IMAGES):
        why = "no trial: a step on one image is too large for it"
        choices = [
            Choice(choice.value, f"{choice.reason}; {why}") if len(set(values)) > 1 else choice
            for choice, values in zip(default, zip(*rivals, strict=True), strict=True)
        ]
        return Settings(*choices), {}
    with torch.random.fork_rng(devices=[]):
        speeds = measure(config, device, rivals)
    fastest = max(speeds, key=speeds.__getitem__)
    allowed = [tried for tried in speeds if tried[0] in (*AUTOMATIC, config.train.precision)]
    best = max(allowed, key=speeds.__getitem__)
    if speeds[best] < MARGIN * speeds[default.values]:
        best = default.values

    def explained(place: int) -> Choice:
        if place == 0 and fastest not in allowed:
            return Choice(
                best[0],
                f"{speeds[best]:,.0f} images/s in a trial; {fastest[0]} has "
                f"{speeds[fastest]:,.0f}, but is not known to be as accurate: "
                f"--train.precision {fastest[0]}",
            )
        for other, speed in speeds.items():
            if [i for i in range(3) if other[i] != best[i]] == [place]:
                reason = (
                    f"{speeds[best]:,.0f} images/s in a trial, {speed:,.0f} with {other[place]}"
                )
                return Choice(best[place], reason)
        return default[place]

    return Settings(*(explained(place) for place in range(3))), speeds


def contenders(config: Config, device: torch.device) -> list[Combination]:
    """What may be tried: all that the config leaves open and this CPU can be good at."""
    model, train = config.model, config.train
    precision, attention, layout = ([value] for value in rules(config, device).values)
    if train.precision == "auto" and multiplies_bf16(device):
        precision = ["fp32", "bf16"]
    free = isinstance(model, ViTConfig) and not model.attention_dropout
    if free and train.attention == "auto" and tokens(config) <= EXPLICIT_TOKENS:
        attention = ["fused", "explicit"]
    if train.layout == "auto" and has_convolutions(config):
        layout = list(LAYOUTS)
    return list(itertools.product(precision, attention, layout))


def tokens(config: Config) -> int:
    """Tokens of a ViT at the full image size."""
    assert isinstance(config.model, ViTConfig) and config.data.image_size is not None
    return config.model.prefix + math.prod(config.model.grid(config.data.image_size))


def has_convolutions(config: Config) -> bool:
    """True if a model has convolutions whose squares overlap; others are linear layers."""
    with torch.device("meta"):
        model = build_model(config)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return any(each.stride != each.kernel_size for each in convolutions)


def measure(
    config: Config, device: torch.device, rivals: list[Combination], images: int = IMAGES
) -> dict[Combination, float]:
    """Images per second of a step of at most so many images under each of some settings."""
    most = min(images, math.ceil(config.train.batch_size / config.train.accumulate))
    count = max(1, step_images(config, device, most))
    part = replace(config, train=replace(config.train, batch_size=count, accumulate=1))
    steps = {rival: noise_step(part, device, rival) for rival in rivals}
    for step in steps.values():
        step()  # the first one allocates
    begun, seconds = time.perf_counter(), dict.fromkeys(rivals, math.inf)
    for _ in range(ROUNDS):
        for rival, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[rival] = min(seconds[rival], time.perf_counter() - start)
        limit = HOPELESS * min(seconds.values())
        steps = {rival: step for rival, step in steps.items() if seconds[rival] <= limit}
        if time.perf_counter() - begun > SECONDS:
            break
    return {rival: count / each for rival, each in seconds.items()}


def step_images(config: Config, device: torch.device, most: int) -> int:
    """Images of a step on trial: `most`, or fewer where images are large, or none."""
    operations = (12 if config.optim.sam else 6) * cost(config).macs
    room = MEMORY_SHARE * memory(device)
    return int(min(most, LONG / operations, room / training_bytes(config)))


@lru_cache
def training_bytes(config: Config, attention: str = "auto") -> int:
    """Bytes that one image takes inside a model in training, in fp32; see `activation_bytes`."""
    data, model = config.data, without_numbers(config)
    set_attention_backend(model, attention)
    assert data.image_size and data.channels
    shape = (2, data.channels, *data.image_size)  # of one pixel batch norm would learn nothing
    return activation_bytes(model, shape, gradients=True) // 2


def without_numbers(config: Config) -> nn.Module:
    """The model that a config trains, on the meta device."""
    with torch.device("meta"):
        model = build_model(config)
    freeze(model, config.optim.freeze)
    return model


def noise_step(
    config: Config, device: torch.device, settings: Combination, compilation: str = "off"
) -> Callable[[], Tensor]:
    """A training step of a resolved config on noise: speed does not depend on pixels."""
    precision, attention, layout = settings
    size = config.data.image_size
    assert size is not None
    model = build_model(config).to(device)
    set_attention_backend(model, attention)
    model = model.to(memory_format=LAYOUTS[layout]).train()  # type: ignore[call-overload]
    state = TrainState.build(model, config.optim, size, precision)
    step = build_step(state, config, precision, compilation)
    batch = noise(config, device)

    def take() -> Tensor:
        step.set_scalars(lr_scale=1.0, seed=0)
        return step(*batch)

    return take


def noise(config: Config, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) and one-hot targets (B, K) in the shape of a config's batches."""
    data, count = config.data, config.train.batch_size
    assert data.image_size and data.channels and data.classes
    labels = torch.randint(data.classes, (count,), device=device)
    images = torch.randn(count, data.channels, *data.image_size, device=device)
    return images, F.one_hot(labels, data.classes).float()


def estimate_seconds(
    config: Config,
    model: nn.Module,
    device: torch.device,
    precision: str,
    steps_per_epoch: int,
    world_size: int = 1,
) -> float:
    """Seconds that a whole training will take, from trial steps on a copy of its model.

    Where a step would take long, it is tried with fewer images; of them, a long one once.
    """
    seconds = 0.0
    whole = math.ceil(config.train.batch_size / (config.train.accumulate * world_size))
    parts = config.train.accumulate * (2 if config.optim.sam else 1)
    for size, epochs in (
        (config.train.small_size, config.train.small_epochs),
        (config.data.image_size, config.train.epochs - config.train.small_epochs),
    ):
        if size is None:
            continue
        part = whole
        if device.type == "cpu":
            sized = replace(config, data=replace(config.data, image_size=size))
            # Batch norm on maps of one pixel needs two images.
            part = min(whole, max(2, step_images(sized, device, whole)))
        with torch.random.fork_rng():
            trial = copy.deepcopy(model)
            trial.resize(size)  # type: ignore[operator]
            images = torch.zeros((part, config.data.channels or 0, *size), device=device)
            for _ in range(2):  # the first one warms up
                start = time.perf_counter()
                with autocast(device, precision):
                    loss = trial(images).float().sum()
                loss.backward()
                loss.item()  # waits for the device
                last = time.perf_counter() - start
                if last > SECONDS:
                    break
        once = last / 3 if config.optim.optimizer == "lbfgs" else last  # nothing goes back
        seconds += parts * once * whole / part * steps_per_epoch * epochs
    return seconds
