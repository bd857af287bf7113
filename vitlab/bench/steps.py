"""What a training step costs: in every precision, of other recipes, and as things grow."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from vitlab.bench.batches import batches_growth
from vitlab.bench.measure import Timing, interleaved, matrix_peak
from vitlab.config import Config, DataConfig, ViTConfig
from vitlab.device import DTYPES, choose_precision, multiplies_bf16
from vitlab.models.cost import cost
from vitlab.recipes import recipe
from vitlab.training.autotune import contenders, measure, noise_step, rules

Steps = dict[str, Callable[[], object]]
"""Training steps by the name of who takes them and their precision."""

OURS = "vitlab"

DROPOUT = 0.1
"""Dropout of the step that has any, as in the recipe `vit-tiny`."""

RECIPES = (
    "vit-d6-w128", "vit-d9-w192", "vit-d6-w256", "vit-tiny", "cnn6", "resnet18", "cpu", "cpu-cnn",
)  # fmt: skip
"""Recipes whose step is measured under every setting."""

BATCHES = (64, 128, 256, 512)


def cifar(config: Config, **train: Any) -> Config:
    """A config on CIFAR-10's images, and with other values of its training."""
    data = replace(config.data, image_size=(32, 32), channels=3, classes=10)
    return replace(config, data=data, train=replace(config.train, **train))


def plain_vit() -> Config:
    """The architecture all libraries can build: DeiT-Tiny's shape on CIFAR-10's images."""
    start = recipe("vit-tiny")
    return replace(
        start,
        data=DataConfig(image_size=(32, 32), channels=3, classes=10),
        model=ViTConfig(position_on_cls=True),
        optim=replace(start.optim, clip_norm=0.0),
    )


def training(
    config: Config,
    device: torch.device,
    rounds: int,
    seconds: float,
    others: Callable[[Config, torch.device, str], Steps] = lambda *_: {},
) -> dict[str, Any]:
    """Measure training steps of one architecture, all in this process and interleaved.

    With and without dropout, in each of the `precisions`; on a GPU also as a CUDA graph and
    compiled.

    Args:
        others: steps of other libraries, from config, device and precision.

    Returns:
        {"variants": {"dropout 0.1" | "no dropout": {"images_per_second": {row: {median, lowest,
        highest}}, "best": our fastest row, "ratios": {row of another: how many times faster that
        is}, "share_of_peak": {row: ...}}}, "matrix_peak": {precision: FLOP/s}, ...}, where a row
        is a name and a precision
    """
    model, size = config.model, config.train.batch_size
    assert isinstance(model, ViTConfig)
    peaks = {name: matrix_peak(device, DTYPES[name]) for name in precisions(config, device)}
    variants = {}
    for dropout in (DROPOUT, 0.0):
        one = replace(config, model=replace(model, dropout=dropout))
        steps: Steps = {}
        for precision in peaks:
            steps |= our_steps(one, device, precision) | others(one, device, precision)
        timings = interleaved(steps, device=device, rounds=rounds, seconds=seconds)
        flops = 6 * cost(one).macs * size  # two per multiply-add; backward costs two forwards
        variants[f"dropout {dropout:g}" if dropout else "no dropout"] = {
            **compared(timings, size),
            "share_of_peak": {
                row: flops / timing.median / peaks[row.split(", ")[1]]
                for row, timing in timings.items()
            },
        }
    return {
        "device": str(device),
        "batch_size": size,
        "rounds": rounds,
        "matrix_peak": peaks,
        "parameters": cost(config).parameters,
        "variants": variants,
    }


def precisions(config: Config, device: torch.device) -> list[str]:
    """On a CPU fp32 and, where it is native, bf16; on a GPU what a training there takes."""
    if device.type != "cpu":
        return [choose_precision(config.train, device).value]
    return ["fp32", "bf16"] if multiplies_bf16(device) else ["fp32"]


def our_steps(config: Config, device: torch.device, precision: str) -> Steps:
    """Our step in a precision, on a GPU in three ways."""
    settings = rules(replace(config, train=replace(config.train, precision=precision)), device)
    ways = {"": "off"}
    if device.type == "cuda":
        ways |= {", graph": "graph", ", compiled": "on"}
    return {
        f"{OURS}, {precision}{way}": noise_step(config, device, settings.values, compilation)
        for way, compilation in ways.items()
    }


def compared(timings: dict[str, Timing], size: int) -> dict[str, Any]:
    """Images per second by row, our fastest row, and how many times faster it is than others."""
    best = min((row for row in timings if OURS in row), key=lambda row: timings[row].median)
    return {
        "images_per_second": {row: timing.rate(size) for row, timing in timings.items()},
        "best": best,
        "ratios": {row: timings[best].ratio(timings[row]) for row in timings if row != best},
    }


def recipes(device: torch.device, names: tuple[str, ...] = RECIPES) -> dict[str, Any]:
    """Measure the step of recipes at their batch size, under every setting of a trial.

    Returns:
        recipe -> {"batch_size", "images_per_second": {"precision, attention, layout": ...}}
    """
    found = {}
    for name in names:
        config = cifar(recipe(name))
        size = config.train.batch_size
        rates = measure(config, device, contenders(config, device), images=size)
        found[name] = {
            "batch_size": size,
            "images_per_second": {", ".join(settings): rate for settings, rate in rates.items()},
        }
    return found


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
            v: noise_step(one, device, rules(one, device).values) for v, one in configs.items()
        }
        timings = interleaved(steps, device=device, rounds=rounds, seconds=seconds)
        found[axis] = {
            value: {"milliseconds_per_step": 1e3 * timings[value].median, "macs": cost(one).macs}
            for value, one in configs.items()
        }
    return found | {"images": batches_growth(config, device, rounds, seconds)}


def settings(
    config: Config, rounds: int, seconds: float, sizes: tuple[int, ...] = BATCHES
) -> dict[str, Any]:
    """Measure a config's step on the CPU by the number of threads and by the batch size.

    Returns:
        setting -> value -> images per second {median, lowest, highest}
    """
    device, threads, size = torch.device("cpu"), torch.get_num_threads(), config.train.batch_size

    def step(config: Config, threads: int) -> Callable[[], None]:
        taken = noise_step(config, device, rules(config, device).values)

        def run() -> None:
            torch.set_num_threads(threads)
            taken()

        return run

    turns: dict[str, Any] = {"device": device, "rounds": rounds, "seconds": seconds}
    try:
        counts = {str(count): step(config, count) for count in sorted({1, threads})}
        batches = {size: step(cifar(config, batch_size=size), threads) for size in sizes}
        return {
            "threads": {n: one.rate(size) for n, one in interleaved(counts, **turns).items()},
            "batch size": {
                str(n): interleaved({n: one}, **turns)[n].rate(n) for n, one in batches.items()
            },
        }
    finally:
        torch.set_num_threads(threads)


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
