"""How the `cpu` recipe's step is best run: threads and batch size, each measured."""

from dataclasses import replace
from typing import Any

import torch

from vitlab.bench.measure import Timing, interleaved
from vitlab.config import Config
from vitlab.training.autotune import noise_step, rules

BATCHES = (64, 128, 256, 512)


def settings(config: Config, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure training steps of a resolved config on the CPU, one setting changed at a time.

    Returns:
        setting -> value -> images per second {median, lowest, highest}
    """
    threads = torch.get_num_threads()
    size = config.train.batch_size
    counts = {str(count): step(config, count) for count in sorted({1, threads})}
    try:
        return {
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


def step(config: Config, threads: int):
    """A training step that sets its number of threads first."""
    device = torch.device("cpu")
    taken = noise_step(config, device, rules(config, device).values)

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
