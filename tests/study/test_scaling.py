"""Protects the curves over the number of training images and the place where they cross."""

import numpy as np
import pytest

from vitlab.study import scaling

IMAGES = (450, 900, 2_250, 4_500, 11_250, 22_500, 45_000)
VIT, CNN = (9.0, 0.42, 0.0), (4.0, 0.33, 0.02)


def points(curve, *, noise=0.0, seeds=3):
    random = np.random.default_rng(0)
    exact = scaling.accuracy(curve, np.array(IMAGES, dtype=float))
    return {
        images: (value + noise * random.normal(size=seeds)).tolist()
        for images, value in zip(IMAGES, exact, strict=True)
    }


@pytest.mark.parametrize("curve", [VIT, CNN, (2.0, 0.3, 0.1)])
def test_a_power_law_with_a_floor_is_found_again(curve):
    found = scaling.fit(points(curve))
    ours, theirs = (scaling.accuracy(c, np.array(IMAGES, dtype=float)) for c in (found, curve))
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert found[1] == pytest.approx(curve[1], abs=0.01)


def test_two_curves_cross_where_their_errors_are_equal():
    place = scaling.first_crossing(VIT, CNN, (450, 45_000))
    assert place is not None
    gap = np.diff([scaling.accuracy(curve, np.array([place])) for curve in (VIT, CNN)], axis=0)
    assert gap.item() == pytest.approx(0, abs=1e-5)


def test_nothing_is_said_outside_of_what_was_measured():
    assert scaling.first_crossing(VIT, CNN, (10_000, 45_000)) is None


def test_a_crossing_comes_with_an_interval_that_holds_it():
    random = np.random.default_rng(0)
    one, other = points(VIT, noise=0.01), points(CNN, noise=0.01)
    draws = [
        (scaling.fit(scaling.redrawn(one, random)), scaling.fit(scaling.redrawn(other, random)))
        for _ in range(20)
    ]
    curves = (scaling.fit(one), scaling.fit(other))
    found = scaling.crossing(curves, draws, scaling.shared(one, other))
    low, high = found["interval"]
    assert low < found["images"] < high and found["share"] == 1.0
    assert low < scaling.first_crossing(VIT, CNN, (450, 45_000)) < high


def test_curves_that_rarely_cross_get_no_interval():
    apart = ((2.0, 0.3, 0.1), (2.0, 0.3, 0.2))
    found = scaling.crossing(apart, [apart, (VIT, CNN), apart], (450, 45_000))
    assert found == {"images": None, "interval": None, "share": pytest.approx(1 / 3)}
