"""Protects the pictures of data and of layers: what lies where, and any number of classes."""

import csv

import numpy as np
import pytest
from matplotlib.figure import Figure

from vitlab.figures import exploration, features, maps, style
from vitlab.figures.exploration import Tile
from vitlab.figures.maps import Map

MANY = [f"class {k}" for k in range(100)]


@pytest.fixture(autouse=True)
def seen(monkeypatch):
    """The figures that are written while a test runs, and not in full size."""
    figures = []
    savefig = Figure.savefig

    def note(figure, *args, **kwargs):
        figures.append(figure)
        return savefig(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", note)
    monkeypatch.setitem(style.STYLE, "savefig.dpi", 30)
    return figures


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_a_mosaic_puts_images_in_their_places_and_leaves_the_rest_white():
    image = np.full((2, 3, 1), 7, np.uint8)
    found = style.mosaic([[image, image], [None, image]], gap=1)
    assert found.shape == (7, 9, 3)
    assert (found[1:3, 1:4] == 7).all() and (found[4:6, 5:8] == 7).all()
    assert (found[4:6, 1:4] == 255).all() and (found[0] == 255).all()


def test_tokens_are_patches_in_reading_order_with_the_channels_of_a_pixel_side_by_side(tmp_path):
    image = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
    exploration.tokens(image, 4, tmp_path / "tokens")
    header, *found = rows(tmp_path / "tokens.csv")
    assert len(header) == 1 + 48 and len(found) == 6
    assert [int(value) for value in found[4][1:]] == image[4:8, 4:8].ravel().tolist()


def test_counts_of_both_splits_add_up_to_what_is_written(tmp_path, seen):
    counts = {"training": [3000, 8], "validation": [200, 1]}
    exploration.class_counts(counts, ["cat", "dog"], tmp_path / "counts")
    (axes,) = seen[-1].axes
    assert [text.get_text() for text in axes.texts] == ["3,200", "9"]
    assert [bar.get_width() for bar in axes.patches] == [3000, 8, 200, 1]
    assert rows(tmp_path / "counts.csv")[1] == ["cat", "3000", "200"]


def test_intensities_mark_mean_and_deviation_on_the_scale_of_pixels(tmp_path, seen):
    shares = np.full((1, 256), 1 / 256)
    exploration.intensities(shares, [0.5], [0.2], tmp_path / "intensities")
    (axes,) = seen[-1].axes
    assert axes.get_title("left") == "grey: mean 0.5000, std 0.2000"
    assert axes.lines[0].get_xdata() == pytest.approx([127.5, 127.5])


def test_a_hundred_classes_of_unequal_size_are_drawn(tmp_path, seen):
    images = np.random.default_rng(0).integers(0, 256, (100, 6, 10, 3), np.uint8)
    some = [[images[k]] * (1 + k % 3) for k in range(100)]
    exploration.samples(some, [[0] * len(row) for row in some], MANY, tmp_path / "samples")
    assert [len(axes.get_yticks()) for axes in seen[-1].axes] == [25] * 4
    exploration.patches(images, 2, MANY, tmp_path / "patches")
    assert [text.get_text() for text in seen[-1].axes[0].texts] == MANY


def test_rows_of_images_are_named_and_their_words_written_down(tmp_path, seen):
    image = np.zeros((4, 6, 1), np.uint8)
    table = {
        "a $b": [Tile(image), Tile(image, "<i>")],
        "c": [Tile(image)] * 2,
        "d": [Tile(image)] * 2,
    }
    exploration.tiles(table, tmp_path / "tiles", columns=["one", "two"], panels=2)
    labels = [[label.get_text() for label in axes.get_yticklabels()] for axes in seen[-1].axes]
    assert labels == [["a $b", "c"], ["d"]]
    assert rows(tmp_path / "tiles.csv")[2] == ["a $b", "two", "<i>"]


def test_maps_name_classes_while_they_can_be_told_apart(tmp_path, seen):
    points = np.random.default_rng(0).normal(size=(100, 2))
    for count in (10, 100):
        one = Map("a map", points)
        maps.maps([[one, one], [one]], np.arange(100) % count, MANY[:count], tmp_path / "maps")
    few, many = seen[0], seen[-1]
    assert [text.get_text() for text in few.legends[0].get_texts()] == MANY[:10]
    assert many.legends == []
    assert [axes.get_visible() for axes in many.axes] == [True, True, True, False]
    assert len(rows(tmp_path / "maps.csv")) == 1 + 3 * 100


def test_components_are_colours_over_the_grid_of_the_image(tmp_path, seen):
    colours = np.zeros((1, 2, 2, 3))
    colours[0, 0, 1] = 1.5, 0.5, -1
    images = np.zeros((1, 8, 8, 1), np.uint8)
    features.components(images, {("run", "block00"): colours}, ["cat"], tmp_path / "components")
    picture = seen[-1].axes[0].images[0].get_array()
    assert picture[12 + 3, 2 + 5].tolist() == [255, 127, 0]
    assert picture[12 + 3, 2 + 3].tolist() == [0, 0, 0]
    assert rows(tmp_path / "components.csv")[2] == [
        "run", "block00", "cat", "0", "1", "1.5000", "0.5000", "-1.0000"
    ]  # fmt: skip
