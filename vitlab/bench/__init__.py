"""`vitlab bench`: speed, measured beside what a user would pick instead.

Everything is measured in one process and interleaved, on the device at hand; a peer that is not
installed is named. Each part returns plain numbers for bench.json; figures/bench.py draws them.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vitlab.bench.growth import calibration, growth, memory
from vitlab.bench.inference import accuracy, inference
from vitlab.bench.kernels import attention, dropout
from vitlab.bench.pipeline import augmentations, pipeline
from vitlab.bench.settings import settings, sized
from vitlab.bench.training import precisions, recipes, training
from vitlab.config import Config, DataConfig, ViTConfig
from vitlab.device import choose_device
from vitlab.errors import ConfigError
from vitlab.fields import unknown
from vitlab.figures import bench as pictures
from vitlab.files import read_json, write_json
from vitlab.pretrained import shipped
from vitlab.recipes import recipe
from vitlab.training.provenance import device_name

PARTS = (
    "training", "recipes", "attention", "dropout", "pipeline", "augmentations", "growth",
    "settings", "memory", "inference", "accuracy", "calibration",
)  # fmt: skip


def bench(
    out: str | os.PathLike[str],
    parts: tuple[str, ...] | None = None,
    *,
    device: str = "auto",
    data_root: str | None = None,
    rounds: int = 6,
    seconds: float = 1.0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure the parts asked for; write OUT/bench.json and its charts.

    ConfigError if the folder holds measurements of another machine.

    Args:
        out: folder; parts measured there before are kept.
        parts: of PARTS; None takes all that this device can measure in minutes.
        device: auto, cpu, cuda, ...; attention, dropout and inference are measured on the CPU.
        data_root: folder of data sets, for `memory` and `accuracy`.
        rounds: how often the contenders take turns.
        seconds: of each turn.
    """
    where, config, folder = choose_device(device), plain_vit(), Path(out)
    numbers = precisions(config, torch.device("cpu"))
    measured: dict[str, Callable[[], dict[str, Any]]] = {
        "training": lambda: training(config, where, rounds, seconds),
        "recipes": lambda: recipes(where),
        "attention": lambda: attention(numbers, rounds, seconds),
        "dropout": lambda: dropout(numbers, rounds, seconds),
        "pipeline": lambda: pipeline(config, where, rounds, seconds),
        "augmentations": lambda: augmentations(config, where, rounds, seconds),
        "growth": lambda: growth(sized(config, 32), where, rounds, seconds),
        "settings": lambda: settings(small_cpu(), rounds, seconds),
        "memory": lambda: memory("cpu", data_root),
        "inference": lambda: inference(config, rounds, seconds),
        "accuracy": lambda: accuracy(shipped("cpu"), data_root),
        "calibration": lambda: calibration(where),
    }
    stored = folder / "bench.json"
    found = read_json(stored) if stored.exists() else {}
    machine = {
        "device": device_name(where),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if parts is None:
        # Twenty steps of recipes made for a GPU would take a CPU hours.
        parts = tuple(part for part in PARTS if part != "calibration" or where.type != "cpu")
    if problems := [f"parts: {unknown(part, PARTS)}" for part in parts if part not in PARTS]:
        raise ConfigError(problems)
    other = found.setdefault("machine", machine) != machine
    # An accuracy is the same everywhere, so it may be measured again on any machine.
    if other and tuple(parts) != ("accuracy",):
        theirs = ", ".join(map(str, found["machine"].values()))
        raise ConfigError([f"{stored} is of another machine ({theirs}): give another --out"])
    for part in parts:
        say(f"measuring {part}")
        found[part] = measured[part]()
        write_json(stored, found)
    pictures.draw(found, folder)
    return found


def small_cpu() -> Config:
    """The `cpu` recipe on CIFAR-10's images."""
    data = DataConfig(image_size=(32, 32), channels=3, classes=10)
    return replace(recipe("cpu"), data=data)


def plain_vit() -> Config:
    """The architecture all peers can build: DeiT-Tiny's shape on CIFAR-10's images."""
    start = recipe("vit-tiny")
    return replace(
        start,
        data=DataConfig(image_size=(32, 32), channels=3, classes=10),
        model=ViTConfig(position_on_cls=True),
        optim=replace(start.optim, clip_norm=0.0),
    )
