"""How the `cpu` recipe's step is best run: memory format, threads, batch size, each measured."""

from dataclasses import replace
from typing import Any

import torch

from vitlab.bench.measure import Timing, interleaved
from vitlab.bench.training import our_step, random_batch
from vitlab.config import Config
from vitlab.device import LAYOUTS, choose_precision

BATCHES = (64, 128, 256, 512)


def settings(config: Config, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure training steps of a resolved config on the CPU, one setting changed at a time.

    Returns:
        setting -> value -> images per second {median, lowest, highest}
    """
    threads = torch.get_num_threads()
    size = config.train.batch_size
    formats = {
        name: step(config, threads, memory_format) for name, memory_format in LAYOUTS.items()
    }
    counts = {str(count): step(config, count) for count in sorted({1, threads})}
    try:
        return {
            "memory format": rates(measured(formats, rounds, seconds), size),
            "threads": rates(measured(counts, rounds, seconds), size),
            "batch size": {
                str(batch): measured({"": step(sized(config, batch), threads)}, rounds, seconds)[
                    ""
                ].rate(batch)
                for batch in BATCHES
            },
        }
    finally:
        torch.set_num_threads(threads)


def step(config: Config, threads: int, memory_format: torch.memory_format = torch.channels_last):
    """A training step that sets its number of threads first."""
    device = torch.device("cpu")
    precision = choose_precision(config.train, device)
    batch = random_batch(config, device)
    taken = our_step(config, device, precision, "off", batch, memory_format)

    def run() -> None:
        torch.set_num_threads(threads)
        taken()

    return run


def sized(config: Config, batch: int) -> Config:
    """A config with another batch size."""
    return replace(config, train=replace(config.train, batch_size=batch))


def measured(calls: dict[str, Any], rounds: int, seconds: float) -> dict[str, Timing]:
    """Interleaved timings on the CPU."""
    return interleaved(calls, device=torch.device("cpu"), rounds=rounds, seconds=seconds)


def rates(timings: dict[str, Timing], size: int) -> dict[str, dict[str, float]]:
    """Images per second by value."""
    return {value: timing.rate(size) for value, timing in timings.items()}
