"""Time things side by side: interleaved rounds, so that a slow minute of the machine slows all."""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch

Key = TypeVar("Key")


@dataclass(frozen=True)
class Timing:
    """Seconds per call, one number per round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.seconds)

    def rate(self, count: int) -> dict[str, float]:
        """How many of `count` things a call are done per second: median, lowest and highest."""
        return spread(count / one for one in self.seconds)

    def ratio(self, other: "Timing") -> dict[str, float]:
        """How many times faster than another, round by round: median, lowest and highest."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return spread(theirs / ours for ours, theirs in pairs)


def spread(numbers: Iterable[float]) -> dict[str, float]:
    """Median, lowest and highest of some numbers."""
    found = list(numbers)
    return {"median": statistics.median(found), "lowest": min(found), "highest": max(found)}


def interleaved(
    contenders: Mapping[Key, Callable[[], object]],
    *,
    device: torch.device,
    rounds: int = 6,
    seconds: float = 1.0,
) -> dict[Key, Timing]:
    """Call each contender for about so many seconds a round, one after another, round by round.

    The first calls warm up and are not counted. Which contender begins moves on each round.
    """
    calls = {name: _calls(contender, device, seconds) for name, contender in contenders.items()}
    taken: dict[Key, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            gc.collect()
            taken[name].append(_timed(contenders[name], device, calls[name]))
    return {name: Timing(tuple(times)) for name, times in taken.items()}


def _calls(contender: Callable[[], object], device: torch.device, seconds: float) -> int:
    for _ in range(2):
        contender()
    return max(1, round(seconds / _timed(contender, device, 1)))


def _timed(contender: Callable[[], object], device: torch.device, calls: int) -> float:
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        contender()
    synchronize(device)
    return (time.perf_counter() - start) / calls


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what was asked of it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@lru_cache
def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of this device's best matrix product, measured once a process: the roof of shares."""
    side = 8192 if device.type == "cuda" else 1536
    one = torch.randn(side, side, device=device, dtype=dtype)
    timing = interleaved({"product": lambda: one @ one}, device=device, rounds=5, seconds=0.3)
    return 2 * side**3 / min(timing["product"].seconds)
