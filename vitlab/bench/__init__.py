"""`vitlab bench`: how fast training, input pipeline and inference are on this machine.

Everything is measured in one process and interleaved, on the device at hand. Each part returns
plain numbers for bench.json; figures/bench.py draws them. Other libraries are measured beside ours
by benchmarks/peers.py in the repository, into the same file, and so are kernels.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vitlab.bench import batches, inference, steps
from vitlab.bench.steps import cifar, plain_vit
from vitlab.device import choose_device
from vitlab.errors import ConfigError
from vitlab.fields import unknown
from vitlab.figures import bench as pictures
from vitlab.files import read_json, write_json
from vitlab.pretrained import shipped
from vitlab.recipes import recipe
from vitlab.training.provenance import device_name

PARTS = (
    "training", "recipes", "pipeline", "augmentations", "growth", "settings", "memory",
    "inference", "accuracy",
)  # fmt: skip

Measurement = Callable[[], dict[str, Any]]


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

    Args:
        out: folder; parts measured there before are kept.
        parts: of PARTS; None takes all.
        device: auto, cpu, cuda, ...; settings and inference are measured on the CPU.
        data_root: folder of data sets, for `memory` and `accuracy`.
        rounds: how often the contenders take turns.
        seconds: of each turn.

    Returns:
        What bench.json holds: part -> its numbers, and "machine".

    Raises:
        ConfigError: a part is unknown, or the folder holds measurements of another machine.
    """
    parts = PARTS if parts is None else parts
    if problems := [f"parts: {unknown(part, PARTS)}" for part in parts if part not in PARTS]:
        raise ConfigError(problems)
    where, config, turns = choose_device(device), plain_vit(), (rounds, seconds)
    small = cifar(config, batch_size=32)
    measurements: dict[str, Measurement] = {
        "training": partial(steps.training, config, where, *turns),
        "recipes": partial(steps.recipes, where),
        "pipeline": partial(batches.pipeline, config, where, *turns),
        "augmentations": partial(batches.augmentations, config, where, *turns),
        "growth": partial(steps.growth, small, where, *turns),
        "settings": partial(steps.settings, cifar(recipe("cpu")), *turns),
        "memory": partial(steps.memory, "cpu", data_root),
        "inference": partial(inference.inference, config, *turns),
        "accuracy": lambda: inference.accuracy(shipped("cpu"), data_root),
    }
    return record(Path(out), {part: measurements[part] for part in parts}, where, say)


def record(
    folder: Path,
    measurements: Mapping[str, Measurement],
    device: torch.device,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Carry out measurements, into FOLDER/bench.json beside those that are there, and draw all.

    ConfigError if the folder holds measurements of another machine.
    """
    stored = folder / "bench.json"
    found = read_json(stored) if stored.exists() else {}
    machine = {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    other = found.setdefault("machine", machine) != machine
    # An accuracy is the same everywhere, so it may be measured again on any machine.
    if other and set(measurements) != {"accuracy"}:
        theirs = ", ".join(map(str, found["machine"].values()))
        raise ConfigError([f"{stored} is of another machine ({theirs}): give another --out"])
    for part, measurement in measurements.items():
        say(f"measuring {part}")
        found[part] = measurement()
        write_json(stored, found)
    pictures.draw(found, folder)
    return found
