"""What a step costs as model, images and data set grow, and what the recipes cost here."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vitlab.bench.measure import interleaved, matrix_peak
from vitlab.bench.pipeline import MEAN, STD
from vitlab.config import Config, ViTConfig
from vitlab.data import LabelledImages
from vitlab.data.batches import Batches, DeviceImages
from vitlab.device import DTYPES
from vitlab.models.cost import cost
from vitlab.recipes import recipe
from vitlab.training.autotune import noise_step, rules

CALIBRATED = (
    "fast", "fast-conv", "fast-deep", "small", "strong-conv", "strong-cnn", "strong-plain", "max",
    "vit-tiny",
)  # fmt: skip
"""Recipes whose time a calibration replaces an estimate for."""

CALIBRATION_STEPS = 20


def growth(config: Config, device: torch.device, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure the training step as one thing at a time grows.

    Returns:
        axis -> value -> {"milliseconds_per_step", "macs"}; for the number of training images,
        {"milliseconds_per_batch"} of the input pipeline, which alone could depend on it.
    """
    model, data = config.model, config.data
    assert isinstance(model, ViTConfig)
    sizes = (16, 32, 64)
    axes: dict[str, dict[int, Config]] = {
        "width": {w: replace(config, model=replace(model, width=w)) for w in (96, 192, 384)},
        "depth": {d: replace(config, model=replace(model, depth=d)) for d in (3, 6, 12)},
        "image_size": {s: replace(config, data=replace(data, image_size=(s, s))) for s in sizes},
    }
    found: dict[str, Any] = {}
    for axis, configs in axes.items():
        steps = {
            str(value): noise_step(one, device, rules(one, device).values)
            for value, one in configs.items()
        }
        timings = interleaved(steps, device=device, rounds=rounds, seconds=seconds)
        found[axis] = {
            value: {
                "milliseconds_per_step": 1e3 * timings[str(value)].median,
                "macs": cost(one).macs,
            }
            for value, one in configs.items()
        }
    found["images"] = images_growth(config, device, rounds, seconds)
    return found


def images_growth(
    config: Config, device: torch.device, rounds: int, seconds: float
) -> dict[int, Any]:
    """Milliseconds a batch of the input pipeline takes, by the number of training images."""
    size, channels = config.data.image_size, config.data.channels
    assert size is not None and channels is not None
    calls = {}
    for count in (5_000, 50_000, 200_000):
        pixels = np.zeros((count, *size, channels), np.uint8)
        examples = LabelledImages(pixels, np.zeros(count, np.int64), ("one", "other"))
        batches = Batches(DeviceImages(examples, np.arange(count), device), config, MEAN, STD)
        steps = iter(range(10**9))
        calls[str(count)] = lambda batches=batches, steps=steps: batches.batch(next(steps))
    timings = interleaved(calls, device=device, rounds=rounds, seconds=seconds)
    return {
        int(count): {"milliseconds_per_batch": 1e3 * timing.median}
        for count, timing in timings.items()
    }


def memory(name: str, data_root: str | None) -> dict[str, Any]:
    """Measure the peak host memory of 20 training steps of a recipe on CIFAR-10, a process alone.

    Returns:
        {"recipe", "peak_bytes"}
    """
    program = (
        "import sys, torch\n"
        "from vitlab.recipes import recipe\n"
        "from vitlab.training import overfit_one_batch\n"
        "from vitlab.training.provenance import peak_memory\n"
        "config, root = recipe(sys.argv[1]), sys.argv[2] or None\n"
        "overfit_one_batch(config, device='cpu', data_root=root, steps=20, quiet=True)\n"
        "print(peak_memory(torch.device('cpu')))"
    )
    words = [sys.executable, "-c", program, name, data_root or ""]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return {"recipe": name, "peak_bytes": int(done.stdout)}


def calibration(device: torch.device, names: tuple[str, ...] = CALIBRATED) -> dict[str, Any]:
    """Measure twenty steps of each recipe as it would train here: seconds and share of the peak.

    Returns:
        recipe -> {"seconds_per_step", "share_of_peak", "seconds_per_epoch", "minutes", ...}
    """
    found: dict[str, Any] = {}
    peaks: dict[torch.dtype, float] = {}
    for name in names:
        start = recipe(name)
        data = replace(start.data, image_size=(32, 32), channels=3, classes=10)
        train = replace(start.train, teacher=None)
        config = replace(start, data=data, train=train, model=without_teacher(start))
        chosen = rules(config, device).values
        precision = chosen[0]
        how = "graph" if device.type == "cuda" and precision != "fp16" else "off"
        step = noise_step(config, device, chosen, how)
        calls = {name: lambda step=step: [step() for _ in range(CALIBRATION_STEPS)]}
        timing = interleaved(calls, device=device, rounds=3, seconds=0.0)[name]
        per_step = timing.median / CALIBRATION_STEPS
        dtype = DTYPES[precision]
        if dtype not in peaks:
            peaks[dtype] = matrix_peak(device, dtype)
        flops = 6 * cost(config).macs * config.train.batch_size
        steps = 50_000 // config.train.batch_size
        found[name] = {
            "seconds_per_step": per_step,
            "how": how,
            "precision": precision,
            "batch_size": config.train.batch_size,
            "share_of_peak": flops / per_step / peaks[dtype],
            "matrix_peak": peaks[dtype],
            "seconds_per_epoch": per_step * steps,
            "minutes": per_step * steps * config.train.epochs / 60,
        }
    return found


def without_teacher(config: Config) -> Any:
    """The model of a config, without a token that only a teacher speaks to."""
    if isinstance(config.model, ViTConfig):
        return replace(config.model, distill_token=False)
    return config.model
