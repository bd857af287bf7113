"""Protects figures of explanations: where maps lie on an image, and the numbers beside them."""

import numpy as np
import pytest

from vitlab.figures import explanation, style

DRAWS = np.random.default_rng(0)
PHOTO = DRAWS.integers(0, 255, (30, 40, 3), np.uint8)
MAP = DRAWS.normal(size=(4, 4)).astype(np.float32)


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


def test_maps_name_the_class_they_explain_and_which_of_them_passed_their_test(tmp_path, seen):
    heats = {"rollout": MAP, "grad-cam": MAP, "attention": MAP}
    verdicts = {"rollout": "beats both", "grad-cam": "no evidence that it beats a random map"}
    answer = [("cat", 0.75), ("dog", 0.25)]
    explanation.maps(PHOTO, heats, answer, "sure", tmp_path / "p", seen=(8, 8), verdicts=verdicts,
                     title="cpu: photo")  # fmt: skip
    assert seen[-1].get_suptitle() == "cpu: photo; maps of what speaks for cat"
    below = seen[-1].axes[5:]
    assert [axes.get_xlabel() for axes in below] == ["passed its test", "not shown true", ""]
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["grad-cam"], MAP) and np.array_equal(arrays["image"], PHOTO)
        assert list(zip(arrays["classes"], arrays["probabilities"], strict=True)) == answer


@pytest.mark.parametrize("shape", [(32, 32, 1), (30, 40, 3)])
def test_attention_and_feature_maps_stand_beside_their_image(shape, tmp_path, seen, texts):
    image = np.full(shape, 9, np.uint8)
    explanation.heads(DRAWS.random((2, 14, 4, 6)), tmp_path / "heads", image=image)
    stages = {"stem": DRAWS.random((16, 8, 8)), "stage1": DRAWS.random((3, 2, 2))}
    explanation.feature_maps(stages, tmp_path / "features", image=image)
    for figure, across in zip(seen[::2], (14, 11), strict=True):
        (axes,) = figure.axes
        assert texts(axes.get_xticklabels())[0] == "image"
        height, width = 96 * shape[0] // max(shape), 96 * shape[1] // max(shape)
        picture = axes.images[0].get_array()
        assert picture.shape == (2 * (height + 4), across * (width + 2) + 2, 4)
        assert (picture[2 : 2 + height, 2 : 2 + width] == (9, 9, 9, 255)).all()
        assert not picture[height + 6 :, : width + 2].any()  # below the image is nothing
    assert "12 of 14 heads" in seen[0].get_suptitle()


def test_filters_are_drawn_as_what_they_have_in_common(tmp_path, seen):
    pattern = DRAWS.normal(size=(1, 3, 4, 4))
    weights = DRAWS.normal(size=(70, 1, 1, 1)) * pattern
    explanation.filters(weights, tmp_path / "filters")
    first = seen[-1].axes[0].get_yticklabels()[0].get_text()
    assert first == "1 to 10\n100 % of the variance"
    with np.load(tmp_path / "filters.npz") as arrays:
        found = arrays["components"][0].ravel()
    assert abs(np.corrcoef(found, pattern.ravel())[0, 1]) == pytest.approx(1)


def test_faithfulness_comes_with_every_point_it_draws(tmp_path, seen, rows):
    explanation.faithfulness(RESULT, tmp_path / "f")
    header, *lines = rows(tmp_path / "f")
    found = [dict(zip(header, line, strict=True)) for line in lines]
    assert sum(row["quantity"] in ("deletion", "insertion") for row in found) == 4 * 2 * 3
    gain = next(row for row in found if (row["quantity"], row["method"]) == ("gain", "grad-cam"))
    assert [float(gain[key]) for key in ("value", "low", "high")] == [0.0, -0.1, 0.1]
    assert sum(row["quantity"] == "similarity" for row in found) == 2 * 2
    hollow = [row.name for row in explanation.gains(RESULT["methods"]) if row.hollow]
    assert hollow == ["centre map", "random map"]
    colours = {row.name: row.colour for row in explanation.gains(RESULT["methods"])}
    assert colours["grad-cam"] == style.BLUE != colours["rollout"]


def test_positions_and_distances_lie_beside_their_figures(tmp_path, seen, rows):
    explanation.positions(DRAWS.random((2, 3, 2, 3)), tmp_path / "positions")
    with np.load(tmp_path / "positions.npz") as arrays:
        assert arrays["similarity"].shape == (2, 3, 2, 3)
    explanation.distance(DRAWS.random((3, 2)), 0.5, tmp_path / "distance")
    assert len(rows(tmp_path / "distance")) == 7


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
