"""Protects pictures of explanations: where maps lie on an image, and the numbers beside them."""

import csv
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vitlab.figures import explanation

DRAWS = np.random.default_rng(0)
PHOTO = DRAWS.integers(0, 255, (30, 40, 3), np.uint8)
MAP = DRAWS.normal(size=(4, 4)).astype(np.float32)
AWKWARD = "<b>$x$/😀&\n" + "x" * 300


def estimate(mean):
    return {"mean": mean, "interval": [mean - 0.1, mean + 0.1]}


def method(name, gain, tested=True):
    row = {"method": name, "gain": estimate(gain), "deletion_curve": [1, 0.5, 0.1]}
    row |= {"insertion_curve": [0.1, 0.6, 1]}
    return row | ({"similarity": [estimate(0.5), estimate(0.0)]} if tested else {})


RESULT = {
    "steps": 2,
    "random_shares": [0.5, 1.0],
    "methods": [method("rollout", 0.3), method("centre map", 0.1, False),
                method("grad-cam", 0.0), method("random map", -0.1, False)],
}  # fmt: skip

PICTURES = {
    "maps": lambda path, title: explanation.maps(
        PHOTO, {"rollout": MAP}, [(AWKWARD, 0.9), ("dog", 0.1)], "sure", path, seen=(8, 8),
        title=title,
    ),
    "heads": lambda path, title: explanation.heads(
        DRAWS.random((2, 14, 4, 6)), path, title=title
    ),
    "feature_maps": lambda path, title: explanation.feature_maps(
        {"stem": DRAWS.random((16, 8, 8)), "stage1": DRAWS.random((3, 2, 2))}, path, title=title
    ),
    "filters": lambda path, title: explanation.filters(
        DRAWS.normal(size=(70, 3, 4, 4)), path, title=title
    ),
    "positions": lambda path, title: explanation.positions(
        DRAWS.random((2, 3, 2, 3)), path, title=title
    ),
    "distance": lambda path, title: explanation.distance(
        DRAWS.random((3, 2)), 0.5, path, title=title
    ),
    "faithfulness": lambda path, title: explanation.faithfulness(RESULT, path, title=title),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_awkward_names_break_no_picture_and_its_numbers_lie_beside_it(name, tmp_path):
    PICTURES[name](tmp_path / name, AWKWARD)
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.width > 600
        assert np.asarray(picture.convert("L")).std() > 5
    ET.parse(tmp_path / f"{name}.svg")
    (numbers,) = (path for path in tmp_path.iterdir() if path.suffix in (".csv", ".npz"))
    assert numbers.stem == name and numbers.stat().st_size > 50


def test_equal_numbers_give_equal_bytes(tmp_path):
    for folder in ("one", "two"):
        path = tmp_path / folder
        explanation.maps(PHOTO, {"rollout": MAP}, [("cat", 1.0)], "sure", path, seen=(8, 8))
    for kind in ("png", "svg", "npz"):
        one, two = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
        assert one == two


def test_a_picture_of_maps_comes_with_the_maps_and_the_probabilities(tmp_path):
    answer = [("cat", 0.75), ("dog", 0.25)]
    explanation.maps(PHOTO, {"grad-cam": MAP}, answer, "unsure", tmp_path / "p", seen=(8, 8))
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["grad-cam"], MAP) and np.array_equal(arrays["image"], PHOTO)
        assert list(zip(arrays["classes"], arrays["probabilities"], strict=True)) == answer


def test_faithfulness_comes_with_every_point_it_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    explanation.faithfulness(RESULT, tmp_path / "f")
    with open(tmp_path / "f.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    curves = [row for row in rows if row["quantity"] in ("deletion", "insertion")]
    assert len(curves) == 4 * 2 * 3
    gain = next(row for row in rows if row["quantity"] == "gain" and row["method"] == "grad-cam")
    assert [float(gain[key]) for key in ("value", "low", "high")] == [0.0, -0.1, 0.1]
    assert sum(row["quantity"] == "similarity" for row in rows) == 2 * 2


def test_a_stretched_map_covers_the_image():
    map = np.array([[1.0, 2.0], [3.0, 4.0]])
    spread = explanation.spread(map, (6, 8), (32, 32))
    assert spread.shape == (6, 8)
    assert spread[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [1, 2, 3, 4]
    assert spread.mean() == pytest.approx(2.5)
    assert (np.diff(spread, axis=0) >= 0).all() and (np.diff(spread, axis=1) >= 0).all()


def test_a_map_of_an_image_of_its_own_size_stays_as_it_is():
    assert np.allclose(explanation.spread(MAP, (4, 4), (4, 4)), MAP)


def test_a_map_of_a_trimmed_image_leaves_out_what_was_trimmed():
    spread = explanation.spread(np.ones((4, 4)), (10, 20), (32, 32), "crop")
    assert (spread[:, 5:15] == 1).all() and not spread[:, :5].any() and not spread[:, 15:].any()


def test_a_map_of_a_bordered_image_loses_the_borders():
    map = np.repeat([[9.0], [1.0], [2.0], [9.0]], 4, axis=1)  # rows 0 and 3 are the bars
    spread = explanation.spread(map, (10, 20), (32, 32), "pad")
    assert spread.shape == (10, 20)
    assert spread[4, 0] < 2 and spread[5, 0] < 2.5 and spread[4:6].max() < 2.5


def test_what_speaks_against_the_class_is_as_dark_as_nothing():
    strength = explanation.strength(np.array([[-5.0, 0.0], [1.0, 2.0]]))
    assert strength[0].tolist() == [0, 0] and strength[1, 1] == 1
    assert not explanation.strength(np.full((3, 3), 7.0)).any()


def test_a_single_bright_pixel_does_not_darken_the_others():
    map = np.full((20, 20), 0.5)
    map[0, 0], map[1] = 1000, 1
    assert explanation.strength(map)[1, 5] == 1
