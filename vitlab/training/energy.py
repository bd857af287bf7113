"""Joules that a training cost, where the machine counts them.

A CPU's packages count by Linux's powercap, often for root only; a GPU by NVML, which the extra
`energy` brings. A counter counts everything that runs on its chip, other programs included.
"""

from collections.abc import Callable
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")

Counter = Callable[[], float]
"""Joules since some moment in the past; never falls."""


class EnergyMeter:
    """Reads the counters of the chip that trains: all CPU packages, or one GPU.

    Args:
        device: where the training runs.
        powercap: the folder of the CPU's counters.
    """

    def __init__(self, device: torch.device, powercap: Path = POWERCAP):
        self.counters: list[Counter] = []
        if device.type == "cuda":
            self.counters = gpu_counters(str(torch.cuda.get_device_properties(device).uuid))
        elif device.type == "cpu":
            self.counters = package_counters(powercap)
        self._before = [counter() for counter in self.counters]

    def read(self) -> float | None:
        """Joules since the last reading; None where nothing counts."""
        before, self._before = self._before, [counter() for counter in self.counters]
        return sum(self._before) - sum(before) if self.counters else None


class Package:
    """The counter of one CPU package, which starts again from 0 at its range."""

    def __init__(self, zone: Path):
        self._energy = zone / "energy_uj"
        self._range = int((zone / "max_energy_range_uj").read_text())
        self._last = int(self._energy.read_text())
        self._total = 0

    def __call__(self) -> float:
        """Joules since it was opened; read it at least once per round of its range."""
        before, self._last = self._last, int(self._energy.read_text())
        self._total += (self._last - before) % self._range
        return self._total / 1e6


def package_counters(powercap: Path) -> list[Counter]:
    """Counters of the CPU packages that this user may read, none unless all of them."""
    # Only packages: their cores and memory are zones too, and counted within them.
    zones = [
        zone
        for zone in sorted(powercap.glob("intel-rapl:*"))
        if (zone / "name").read_text().startswith("package")
    ]
    try:
        return [Package(zone) for zone in zones]
    except OSError:
        return []


def gpu_counters(uuid: str) -> list[Counter]:
    """The counter of a GPU, if its driver has one and the package nvidia-ml-py is there."""
    try:
        import pynvml  # type: ignore[import-not-found]
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    except pynvml.NVMLError:
        return []
    return [lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3]
