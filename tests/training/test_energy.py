"""Joules are read off the machine's counters, and left out where it has none."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vitlab.training.energy import EnergyMeter, gpu_counters

CPU = torch.device("cpu")


def zone(folder: Path, place: str, name: str, microjoules: int) -> Path:
    """A counter as Linux lays it out."""
    made = folder / f"intel-rapl:{place}"
    made.mkdir()
    (made / "name").write_text(f"{name}\n")
    (made / "max_energy_range_uj").write_text("262143328850\n")
    (made / "energy_uj").write_text(f"{microjoules}\n")
    return made / "energy_uj"


def test_joules_are_those_of_all_packages_and_of_nothing_twice(tmp_path):
    first = zone(tmp_path, "0", "package-0", 5_000_000)
    second = zone(tmp_path, "1", "package-1", 0)
    cores = zone(tmp_path, "0:0", "core", 0)
    meter = EnergyMeter(CPU, tmp_path)
    first.write_text("8500000\n")
    second.write_text("1000000\n")
    cores.write_text("2000000\n")
    assert meter.read() == pytest.approx(4.5)
    assert meter.read() == 0


def test_a_counter_that_starts_again_from_zero_loses_nothing(tmp_path):
    energy = zone(tmp_path, "0", "package-0", 262_143_000_000)
    meter = EnergyMeter(CPU, tmp_path)
    energy.write_text("1671150\n")
    assert meter.read() == pytest.approx(2.0)


def test_a_machine_without_counters_has_no_joules(tmp_path):
    assert EnergyMeter(CPU, tmp_path).read() is None
    assert EnergyMeter(CPU, tmp_path / "missing").read() is None
    zone(tmp_path, "0", "package-0", 0).unlink()
    assert EnergyMeter(CPU, tmp_path).read() is None


def test_a_gpu_counts_by_nvml_if_its_package_and_its_driver_can(monkeypatch):
    class NVMLError(Exception):
        pass

    def consumed(gpu):
        if gpu != "GPU-one":
            raise NVMLError
        return 2_500

    pynvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetTotalEnergyConsumption=consumed,
    )
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    (counter,) = gpu_counters("one")
    assert counter() == 2.5
    assert gpu_counters("without a counter") == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_counters("one") == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="counts the joules of a GPU")
def test_a_gpu_counts_its_joules():
    meter = EnergyMeter(torch.device("cuda", 0))
    matrix = torch.randn(4096, 4096, device="cuda")
    for _ in range(300):
        matrix = matrix @ matrix / 4096
    torch.cuda.synchronize()
    joules = meter.read()
    assert joules is None or joules > 0
