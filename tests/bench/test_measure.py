"""Speed is measured in turns, and said as median and range."""

import time

import pytest
import torch

from vitlab.bench.measure import Timing, interleaved

CPU = torch.device("cpu")


def test_rates_and_ratios_have_median_lowest_and_highest():
    ours, theirs = Timing((1.0, 2.0, 4.0)), Timing((2.0, 2.0, 2.0))
    assert ours.rate(8) == {"median": 4.0, "lowest": 2.0, "highest": 8.0}
    assert ours.ratio(theirs) == {"median": 1.0, "lowest": 0.5, "highest": 2.0}


def test_contenders_take_turns_and_a_slower_one_is_told_apart():
    order = []
    calls = {
        "quick": lambda: order.append("quick") or time.sleep(0.002),
        "slow": lambda: order.append("slow") or time.sleep(0.006),
    }
    timings = interleaved(calls, device=CPU, rounds=3, seconds=0.01)
    assert len(timings["quick"].seconds) == 3
    assert timings["quick"].ratio(timings["slow"])["median"] == pytest.approx(3, rel=0.5)
    assert {"quick", "slow"} == set(order[-12:])
