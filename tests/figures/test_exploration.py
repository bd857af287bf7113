"""Protects the figures of data and of layers: what lies where, and any number of classes."""

import numpy as np
import pytest

from vitlab.figures import exploration, features, maps, style
from vitlab.figures.exploration import Tile
from vitlab.figures.maps import Map

MANY = [f"class {k}" for k in range(100)]


def test_tokens_are_patches_in_reading_order_with_the_channels_of_a_pixel_side_by_side(
    tmp_path, seen, rows
):
    image = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
    exploration.tokens(image, 4, tmp_path / "tokens")
    header, *found = rows(tmp_path / "tokens")
    assert len(header) == 1 + 48 and len(found) == 6
    assert [int(value) for value in found[4][1:]] == image[4:8, 4:8].ravel().tolist()


def test_counts_of_all_splits_add_up_to_what_is_written(tmp_path, seen, rows, texts):
    counts = {"training": [3000, 8], "validation": [200, 1], "test": [100, 3]}
    exploration.class_counts(counts, ["cat", "dog"], tmp_path / "counts")
    (axes,) = seen[-1].axes
    assert texts(axes.texts) == ["3,300", "12"]
    assert [bar.get_width() for bar in axes.patches] == [3000, 8, 200, 1, 100, 3]
    assert rows(tmp_path / "counts")[1] == ["cat", "3000", "200", "100"]


def test_intensities_mark_mean_and_deviation_on_the_scale_of_pixels(tmp_path, seen):
    exploration.intensities(np.full((1, 256), 1 / 256), [0.5], [0.2], tmp_path / "intensities")
    (axes,) = seen[-1].axes
    assert axes.get_title("left") == "grey: mean 0.5000, std 0.2000"
    assert axes.lines[0].get_xdata() == pytest.approx([127.5, 127.5])


def test_a_hundred_classes_of_unequal_size_are_drawn(tmp_path, seen, texts):
    images = np.random.default_rng(0).integers(0, 256, (100, 6, 10, 3), np.uint8)
    some = [[images[k]] * (1 + k % 3) for k in range(100)]
    exploration.samples(some, [[0] * len(row) for row in some], MANY, tmp_path / "samples")
    assert [len(axes.get_yticks()) for axes in seen[-1].axes] == [25] * 4
    exploration.patches(images, 2, MANY, tmp_path / "patches")
    assert texts(seen[-1].axes[0].texts) == MANY


def test_rows_of_images_are_named_and_their_words_written_down(tmp_path, seen, rows, texts):
    image = np.zeros((4, 6, 1), np.uint8)
    table = {
        "a $b": [Tile(image), Tile(image, "<i>")],
        "c": [Tile(image)] * 2,
        "d": [Tile(image)] * 2,
    }
    exploration.tiles(table, tmp_path / "tiles", columns=["one", "two"], panels=2)
    assert [texts(axes.get_yticklabels()) for axes in seen[-1].axes] == [["a $b", "c"], ["d"]]
    assert rows(tmp_path / "tiles")[2] == ["a $b", "two", "<i>"]


@pytest.mark.parametrize(("count", "inside", "beside"), [(10, 10, 0), (30, 0, 30), (100, 0, 0)])
def test_ten_classes_are_named_in_the_map_and_no_two_share_a_colour(
    count, inside, beside, tmp_path, seen, rows, texts
):
    one = Map("a map", np.random.default_rng(0).normal(size=(200, 2)))
    maps.maps([[one, one], [one]], np.arange(200) % count, MANY[:count], tmp_path / "maps")
    figure = seen[-1]
    names = figure.axes[0].texts
    assert texts(names) == MANY[:inside]
    assert len({name.get_color() for name in names}) == inside
    shown = [len(legend.get_texts()) for legend in figure.legends]
    assert shown == ([beside] if beside else [])
    assert [axes.get_visible() for axes in figure.axes] == [True, True, True, False]
    assert len(rows(tmp_path / "maps")) == 1 + 3 * 200


def test_components_are_colours_over_the_grid_of_the_image(tmp_path, seen, rows):
    colours = np.zeros((1, 2, 2, 3))
    colours[0, 0, 1] = 1.5, 0.5, -1
    images = np.zeros((1, 8, 8, 1), np.uint8)
    features.components(images, {("run", "block00"): colours}, ["cat"], tmp_path / "components")
    picture = seen[-1].axes[0].images[0].get_array()
    assert picture[12 + 3, 2 + 5].tolist() == [255, 127, 0, 255]
    assert picture[12 + 3, 2 + 3].tolist() == [0, 0, 0, 255]
    row = ["run", "block00", "cat", "0", "1", "1.5000", "0.5000", "-1.0000"]
    assert rows(tmp_path / "components")[2] == row


def test_two_runs_have_a_colour_each_over_their_depth():
    layer = {"depth": 0.0, "pooled": {"linear_probe": 0.5}, "cls": {"linear_probe": 0.4},
             "patch": None}  # fmt: skip
    with style.drawing(3, "probes") as (axes, _):
        features.depth(axes, [{"run": name, "layers": [layer]} for name in "ab"], "linear_probe")
        found = [(line.get_color(), line.get_linestyle()) for line in axes.lines]
    one, two = style.HUES[:2]
    assert found == [(one, "-"), (one, "--"), (two, "-"), (two, "--")]
