"""Joules are read off the machine's counters, and left out where it has none."""

from pathlib import Path

import pytest
import torch

from vitlab.training.energy import Meter

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
    meter = Meter(CPU, tmp_path)
    first.write_text("8500000\n")
    second.write_text("1000000\n")
    cores.write_text("2000000\n")
    assert meter.read() == pytest.approx(4.5)
    assert meter.read() == 0


def test_a_counter_that_starts_again_from_zero_loses_nothing(tmp_path):
    energy = zone(tmp_path, "0", "package-0", 262_143_000_000)
    meter = Meter(CPU, tmp_path)
    energy.write_text("1671150\n")
    assert meter.read() == pytest.approx(2.0)


def test_a_machine_without_counters_has_no_joules(tmp_path):
    assert Meter(CPU, tmp_path).read() is None
    assert Meter(CPU, tmp_path / "missing").read() is None
    zone(tmp_path, "0", "package-0", 0).unlink()
    assert Meter(CPU, tmp_path).read() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="counts the joules of a GPU")
def test_a_gpu_counts_its_joules():
    meter = Meter(torch.device("cuda", 0))
    matrix = torch.randn(4096, 4096, device="cuda")
    for _ in range(300):
        matrix = matrix @ matrix / 4096
    torch.cuda.synchronize()
    joules = meter.read()
    assert joules is None or joules > 0
