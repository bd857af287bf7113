"""Images per second of the training step: ours beside the same architecture of others."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.bench.measure import interleaved, matrix_peak
from vitlab.bench.peers import PEERS, missing
from vitlab.config import Config, ViTConfig
from vitlab.device import DTYPES, autocast, choose_precision, multiplies_bf16
from vitlab.models import build_model
from vitlab.models.cost import cost
from vitlab.recipes import recipe
from vitlab.training.autotune import Combination, contenders, measure, noise, noise_step, rules

Step = Callable[[], object]

OURS = "vitlab"

DROPOUT = 0.1
"""Dropout of the step that has any, as in the recipe `vit-tiny`."""

RECIPES = (
    "vit-d6-w128", "vit-d9-w192", "vit-d6-w256", "vit-tiny", "cnn6", "resnet18", "cpu", "cpu-cnn",
)  # fmt: skip
"""Recipes whose step is measured under every setting."""


def training(config: Config, device: torch.device, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure training steps of one architecture, all in this process and interleaved.

    With and without dropout, and everybody in each of the `precisions`, so that each can be taken
    at its best. Eager everywhere; on a GPU ours also as a CUDA graph and compiled, and the fastest
    eager peer compiled. Peers are stepped as their users do: autocast, backward, torch's AdamW.

    Returns:
        {"variants": {"dropout 0.1" | "no dropout": {"images_per_second": {row: {median, lowest,
        highest}}, "best": our fastest row, "ratios": {row of another: how many times faster that
        is}, "share_of_peak": {row: ...}, "dropouts": {row: ...}}}, "matrix_peak": {precision:
        FLOP/s}, ...}, where a row is a name and a precision
    """
    model = config.model
    assert isinstance(model, ViTConfig)
    peaks = {word: matrix_peak(device, DTYPES[word]) for word in precisions(config, device)}
    variants = {}
    for dropout in (DROPOUT, 0.0):
        one = replace(config, model=replace(model, dropout=dropout))
        name = f"dropout {dropout:g}" if dropout else "no dropout"
        variants[name] = variant(one, device, peaks, rounds, seconds)
    return {
        "device": str(device),
        "batch_size": config.train.batch_size,
        "rounds": rounds,
        "matrix_peak": peaks,
        "parameters": cost(config).parameters,
        "missing": {name: package for name in PEERS if (package := missing(name))},
        "variants": variants,
    }


def precisions(config: Config, device: torch.device) -> list[str]:
    """On a CPU fp32 and, where it is native, bf16; on a GPU what a training there takes."""
    if device.type != "cpu":
        return [choose_precision(config.train, device).value]
    return ["fp32", "bf16"] if multiplies_bf16(device) else ["fp32"]


def variant(
    config: Config, device: torch.device, peaks: Mapping[str, float], rounds: int, seconds: float
) -> dict[str, Any]:
    """Measure everybody's step of one config."""
    steps, batch = {}, noise(config, device)
    drops = {OURS: dropouts(build_model(config).to(device), batch[0][:2])}
    for word in peaks:
        steps[f"{OURS}, {word}"] = noise_step(config, device, words(config, device, word))
        for name, (build, _) in PEERS.items():
            if not missing(name):
                model = build(config).to(device)
                drops[name] = dropouts(model, batch[0][:2])
                steps[f"{name}, {word}"] = their_step(model, config, word, batch)
    timings = interleaved(steps, device=device, rounds=rounds, seconds=seconds)
    if device.type == "cuda":
        (word,) = peaks
        ours = words(config, device, word)
        row = min((row for row in timings if OURS not in row), key=lambda row: timings[row].median)
        compiled = torch.compile(PEERS[row.rpartition(", ")[0]][0](config).to(device))
        steps |= {
            f"{OURS}, {word}, graph": noise_step(config, device, ours, "graph"),
            f"{OURS}, {word}, compiled": noise_step(config, device, ours, "on"),
            f"{row}, compiled": their_step(compiled, config, word, batch),  # type: ignore[arg-type]
        }
        timings = interleaved(steps, device=device, rounds=rounds, seconds=seconds)
    size = config.train.batch_size
    flops = 6 * cost(config).macs * size  # two per multiply-add; backward costs two forwards
    best = min((row for row in timings if OURS in row), key=lambda row: timings[row].median)
    return {
        "images_per_second": {row: timing.rate(size) for row, timing in timings.items()},
        "best": best,
        "ratios": {row: timings[best].ratio(timings[row]) for row in timings if row != best},
        "share_of_peak": {
            row: flops / timing.median / peaks[row.split(", ")[1]]
            for row, timing in timings.items()
        },
        "dropouts": {row: drops[row.split(", ")[0]] for row in timings},
    }


def dropouts(model: nn.Module, images: Tensor) -> int:
    """How many layers of dropout images (B, C, H, W) pass, those in modules of their own."""
    passed, hooks = [], []
    for module in model.modules():
        if getattr(module, "p", 0) or getattr(module, "rate", 0):
            hooks.append(module.register_forward_hook(lambda *_: passed.append(1)))
    model.train()(images)
    for hook in hooks:
        hook.remove()
    return len(passed)


def words(config: Config, device: torch.device, precision: str) -> Combination:
    """How our step is computed in a precision."""
    return rules(replace(config, train=replace(config.train, precision=precision)), device).values


def their_step(
    model: nn.Module, config: Config, precision: str, batch: tuple[Tensor, Tensor]
) -> Step:
    """A training step as a tutorial writes it, on a fixed batch."""
    optim, (images, targets) = config.optim, batch
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay
    )
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        with autocast(images.device, precision):
            loss = F.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()

    return step


def recipes(device: torch.device, names: tuple[str, ...] = RECIPES) -> dict[str, Any]:
    """Measure the step of recipes at their batch size, under every setting of a trial.

    Returns:
        recipe -> {"batch_size", "images_per_second": {"precision, attention, layout": ...}}
    """
    found = {}
    for name in names:
        start = recipe(name)
        data = replace(start.data, image_size=(32, 32), channels=3, classes=10)
        config = replace(start, data=data)
        size = config.train.batch_size
        rates = measure(config, device, contenders(config, device), images=size)
        found[name] = {
            "batch_size": size,
            "images_per_second": {", ".join(words): rate for words, rate in rates.items()},
        }
    return found
