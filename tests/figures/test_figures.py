"""Protects the pictures: their files, their bytes, and the numbers that lie beside them."""

import csv
import io
import itertools
import xml.etree.ElementTree as ET

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from vitlab.figures import evaluation, style, training

METRICS = [
    {"step": 5, "epoch": 0.5, "split": "train", "loss": 2.1, "lr": 1e-3, "grad_norm": 1.0},
    {"step": 10, "epoch": 1.0, "split": "train", "loss": 1.7, "lr": 5e-4, "grad_norm": 1.0},
    {"step": 10, "epoch": 1.0, "split": "train_clean", "loss": 1.5, "accuracy": 0.5},
    {"step": 10, "epoch": 1.0, "split": "validation", "loss": 1.6, "accuracy": 0.4},
]
BINS = [
    {"above": 0.0, "to": 0.5, "images": 0, "confidence": None, "accuracy": None},
    {"above": 0.5, "to": 1.0, "images": 9, "confidence": 0.8, "accuracy": 0.7},
]
TOP = [{"true": "cat", "predicted": "dog", "count": 6, "share": 0.6, "pair_share": 0.9}]
CONDITIONS = [
    {"condition": name, "severity": severity, "images": 10, "correct": correct,
     "accuracy": correct / 10, "accuracy_interval": [correct / 10 - 0.1, correct / 10 + 0.1]}
    for name, severity, correct in (
        ("clean", 0, 9), *(("noise", n, 9 - n) for n in range(1, 6)), ("pgd", 0, 1)
    )
]  # fmt: skip
SHOWN = [
    {"index": 7, "true": "cat", "predicted": "dog", "confidence": 0.987},
    {"index": 9, "true": "dog", "predicted": "dog", "confidence": 0.5},
]
PIXELS = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
CORNER = np.array([[0.0, 0.0], [0.0, 0.9], [0.1, 1.0], [1.0, 1.0]])
AWKWARD = ["", "_hidden", "a$b_{2}$", "数据/écureuil 🐿", "two\nlines", "<b>&", "x" * 255]


@pytest.fixture
def last_figure(monkeypatch):
    """The figures that are written while a test runs."""
    seen = []
    savefig = Figure.savefig

    def note(figure, *args, **kwargs):
        seen.append(figure)
        return savefig(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", note)
    return lambda: seen[-1]


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def draw_all(folder):
    names, title = ["cat", "dog"], "a run, validation"
    training.curves(METRICS, folder / "curves", title=title)
    evaluation.per_class_bars([0.95, 0.5], names, folder / "bars", title=title)
    evaluation.confusion([[9, 1], [2, 8]], names, folder / "confusion", title=title)
    evaluation.roc([CORNER, CORNER], [0.9, 0.95], names, folder / "roc", title=title)
    evaluation.reliability(BINS, folder / "reliability", scaled=BINS, title=title)
    series = {"precision": [0.9, None], "recall": [0.8, None], "F1": [0.85, None]}
    evaluation.grouped_bars(series, names, folder / "grouped", title=title)
    evaluation.confusions(TOP, folder / "confusions", title=title)
    evaluation.robustness(CONDITIONS, folder / "robustness", title=title)
    evaluation.gallery(PIXELS, SHOWN, folder / "gallery", title=title)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Every figure once: file name -> bytes."""
    return draw_all(tmp_path_factory.mktemp("drawn"))


def test_equal_numbers_give_equal_bytes_and_the_users_own_style_is_left_alone(drawn, tmp_path):
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        assert draw_all(tmp_path / "again") == drawn
        assert matplotlib.rcParams["font.size"] == 30


def test_figures_are_not_known_to_pyplot(drawn):
    assert matplotlib.pyplot.get_fignums() == []


def test_every_figure_is_a_readable_png_and_svg_beside_its_numbers(drawn):
    stems = ("curves", "bars", "confusion", "roc", "reliability")
    stems += ("grouped", "confusions", "robustness", "gallery")
    assert set(drawn) == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg", "csv")}
    for stem in stems:
        with Image.open(io.BytesIO(drawn[f"{stem}.png"])) as picture:
            assert picture.width >= 1000
        assert ET.fromstring(drawn[f"{stem}.svg"]).tag.endswith("svg")


def test_curves_draw_accuracy_on_clean_images_only_and_store_every_line(tmp_path, last_figure):
    training.curves(METRICS, tmp_path / "curves")
    loss, accuracy, rate = last_figure().axes
    assert [line.get_label() for line in loss.lines] == [
        "training batches", "training images, clean", "validation"
    ]  # fmt: skip
    assert [line.get_ydata()[0] for line in accuracy.lines] == [0.5, 0.4]
    assert list(rate.lines[0].get_ydata()) == [1e-3, 5e-4]
    header, *lines = rows(tmp_path / "curves.csv")
    assert header[:4] == ["step", "epoch", "split", "loss"]
    assert lines[3][:5] == ["10", "1.0", "validation", "1.6", "0.4"]


def test_curves_of_a_run_without_validation_or_with_nan_are_drawn(tmp_path):
    broken = {**METRICS[2], "loss": float("nan")}
    training.curves([*METRICS[:2], broken], tmp_path / "curves")
    assert rows(tmp_path / "curves.csv")[3][2:5] == ["train_clean", "nan", "0.5"]


def test_curves_without_a_learning_rate_have_no_panel_for_it(tmp_path, last_figure):
    training.curves(METRICS[2:], tmp_path / "curves")
    assert [axes.get_title("left") for axes in last_figure().axes] == ["loss", "accuracy"]


def test_bars_are_coloured_by_band_with_their_values_written(tmp_path, last_figure):
    values = [0.9001, 0.9, 0.8, 0.7999, None]
    evaluation.per_class_bars(values, list("abcde"), tmp_path / "bars")
    (axes,) = last_figure().axes
    colours = [to_hex(bar.get_facecolor()).upper() for bar in axes.patches]
    assert colours[:4] == [style.BLUE, style.SKY, style.SKY, style.RED]
    assert [text.get_text() for text in axes.texts] == ["90.0", "90.0", "80.0", "80.0", "no images"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list("abcde")
    assert rows(tmp_path / "bars.csv")[-1] == ["e", ""]


def test_confusions_carry_counts_and_colours_of_the_row(tmp_path, last_figure):
    evaluation.confusion([[30, 10], [0, 0]], ["cat", "dog"], tmp_path / "confusion")
    axes = last_figure().axes[0]
    assert [text.get_text() for text in axes.texts] == ["30", "10"]
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0, 0]]
    table = [["true", "cat", "dog"], ["cat", "30", "10"], ["dog", "0", "0"]]
    assert rows(tmp_path / "confusion.csv") == table


def test_roc_names_every_area_and_skips_what_has_none(tmp_path, last_figure):
    evaluation.roc([CORNER, None], [0.97, None], ["_cat", "dog"], tmp_path / "roc")
    (legend,) = last_figure().legends
    assert [text.get_text() for text in legend.get_texts()] == ["_cat: 0.9700"]
    assert legend.get_title().get_text() == "mean AUC 0.9700"
    assert {row[0] for row in rows(tmp_path / "roc.csv")[1:]} == {"_cat"}


def test_roc_of_no_defined_class_says_so(tmp_path, last_figure):
    evaluation.roc([None, None], [None, None], ["cat", "dog"], tmp_path / "roc")
    assert last_figure().legends[0].get_title().get_text() == "no AUC"


def test_of_a_hundred_classes_the_roc_names_the_ten_lowest(tmp_path, last_figure):
    areas = [0.5 + k / 200 for k in range(100)]
    names = [f"class {k}" for k in range(100)]
    evaluation.roc([CORNER] * 100, areas, names, tmp_path / "roc")
    texts = [text.get_text() for text in last_figure().legends[0].get_texts()]
    assert texts[0] == "class 0: 0.5000" and texts[9] == "class 9: 0.5450"
    assert texts[10:] == ["90 others, none lower"]


def test_classes_of_any_name_are_drawn_without_a_warning(tmp_path):
    count = len(AWKWARD)
    evaluation.confusion(np.eye(count, dtype=int), AWKWARD, tmp_path / "confusion", title="$" * 99)
    evaluation.roc([CORNER] * count, [0.9] * count, AWKWARD, tmp_path / "roc")
    evaluation.grouped_bars({"F1": [0.9] * count}, AWKWARD, tmp_path / "bars")
    pairs = [{**TOP[0], "true": name, "predicted": name} for name in AWKWARD]
    evaluation.confusions(pairs, tmp_path / "confusions")
    assert [row[0] for row in rows(tmp_path / "confusion.csv")[1:]] == AWKWARD


def test_many_classes_and_a_long_title_fit_into_the_figure(tmp_path, last_figure):
    names = [f"a long name of class number {k}" for k in range(30)]
    evaluation.per_class_bars([1.0] * 30, names, tmp_path / "bars", title="a long title " * 20)
    figure = last_figure()
    assert [len(axes.patches) for axes in figure.axes] == [15, 15]
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))
        assert all(box.x0 >= 0 for box in boxes)
        numbers = [text.get_window_extent() for text in axes.texts]
        assert all(box.x1 <= axes.bbox.x1 for box in numbers)
    title = next(text for text in figure.texts if "a long title" in text.get_text())
    box = title.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_reliability_leaves_out_empty_bins(tmp_path, last_figure):
    evaluation.reliability(BINS, tmp_path / "reliability")
    upper, lower = last_figure().axes
    assert [bar.get_height() for bar in upper.patches] == [0.7]
    assert [bar.get_height() for bar in lower.patches] == [1.0]
    assert rows(tmp_path / "reliability.csv")[1] == ["no", "0.0", "0.5", "0", "", ""]


def test_reliability_before_and_after_scaling_stand_side_by_side(tmp_path, last_figure):
    after = [BINS[0], {**BINS[1], "confidence": 0.7}]
    heads = ("as trained", "at temperature 2")
    evaluation.reliability(BINS, tmp_path / "both", scaled=after, heads=heads)
    titles = [axes.get_title("left") for axes in last_figure().axes]
    assert titles == ["as trained", "at temperature 2", "", ""]
    table = rows(tmp_path / "both.csv")
    assert [(row[0], row[4]) for row in table[1:]] == [
        ("no", ""), ("no", "0.8"), ("yes", ""), ("yes", "0.7")
    ]  # fmt: skip


def test_grouped_bars_stand_in_the_row_of_their_class(tmp_path, last_figure):
    series = {"accuracy": [0.9, None, 0.5], "mean confidence": [0.8, None, 0.6]}
    evaluation.grouped_bars(series, ["cat", "dog", "ship"], tmp_path / "bars")
    (axes,) = last_figure().axes
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0, 0.5, 0.8, 0, 0.6]
    for number, bar in enumerate(axes.patches):
        assert round(bar.get_y() + bar.get_height() / 2) == number % 3
    assert [text.get_text() for text in axes.texts] == ["no images"]
    assert rows(tmp_path / "bars.csv")[1:3] == [["cat", "0.9", "0.8"], ["dog", "", ""]]


def test_the_most_frequent_mistakes_say_their_share_of_all(tmp_path, last_figure):
    evaluation.confusions(TOP, tmp_path / "confusions")
    (axes,) = last_figure().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat as dog"]
    assert axes.texts[0].get_text() == "60.0 %, with the reverse 90.0 %"
    assert axes.texts[0].get_window_extent().x1 <= last_figure().bbox.x1
    evaluation.confusions([], tmp_path / "none")
    assert [text.get_text() for text in last_figure().axes[0].texts] == ["no mistakes"]


def test_robustness_draws_a_line_per_corruption_from_clean_on_and_a_bar_per_attack(
    tmp_path, last_figure
):
    evaluation.robustness(CONDITIONS, tmp_path / "robustness")
    corrupted, attacked = last_figure().axes
    (line,) = corrupted.containers
    assert line.get_label() == "noise"
    assert np.allclose(line.lines[0].get_ydata(), [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert [bar.get_height() for bar in attacked.patches] == [0.9, 0.1]
    header, *lines = rows(tmp_path / "robustness.csv")
    assert header == ["condition", "severity", "images", "correct", "accuracy", "low", "high"]
    assert lines[-1][:5] == ["pgd", "0", "10", "1", "0.1"]


def test_a_gallery_says_what_was_predicted_how_surely_and_what_is_true(tmp_path, last_figure):
    evaluation.gallery(PIXELS, SHOWN, tmp_path / "gallery")
    wrong, right = last_figure().axes[:2]
    assert wrong.get_title("left") == "dog, 99 %\ntrue class: cat"
    assert right.get_title("left") == "dog, 50 %\ncorrect"
    assert np.array_equal(wrong.images[0].get_array(), PIXELS[0])
    assert rows(tmp_path / "gallery.csv")[1] == ["7", "cat", "dog", "0.987"]


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (1, 8, 20, 1), (3, 40, 8, 1)])
def test_a_gallery_takes_any_number_and_shape_of_images(tmp_path, shape):
    shown = [{"index": 0, "true": n, "predicted": n, "confidence": 1.0} for n in AWKWARD]
    evaluation.gallery(np.zeros(shape, np.uint8), shown[-shape[0] :], tmp_path / "gallery")
    with Image.open(tmp_path / "gallery.png") as picture:
        assert picture.width == 1500
