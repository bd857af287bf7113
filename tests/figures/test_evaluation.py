"""Protects the figures of trainings and evaluations: what is drawn where, and what is left out."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex

from vitlab.figures import charts, evaluation, style, training

CORNER = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
EMPTY = {"above": 0.0, "to": 0.5, "images": 0, "confidence": None, "accuracy": None}
BINS = [EMPTY, {"above": 0.5, "to": 1.0, "images": 10, "confidence": 0.8, "accuracy": 0.7}]
TOP = {"true": "cat", "predicted": "dog", "count": 6, "share": 0.6, "pair_share": 0.9}
METRICS = [
    {"step": 1, "epoch": 1, "split": "train", "loss": 2.0, "lr": 0.1},
    {"step": 2, "epoch": 2, "split": "validation", "loss": 1.0, "accuracy": 0.5},
    {"step": 2, "epoch": 2, "split": "train_clean", "loss": math.nan, "accuracy": 0.6},
]


def test_curves_have_a_panel_for_what_was_measured_and_skip_what_is_not_finite(
    tmp_path, seen, rows
):
    training.curves(METRICS, tmp_path / "curves")
    panels = {axes.get_title("left"): axes for axes in seen[-1].axes if axes.get_visible()}
    assert list(panels) == ["Loss", "Accuracy", "Learning rate"]
    assert [line.get_label() for line in panels["Loss"].lines] == ["training batches", "validation"]
    assert rows(tmp_path / "curves")[3][2:5] == ["train_clean", "nan", "0.6"]
    training.curves(METRICS[1:], tmp_path / "curves")
    assert [axes.get_title("left") for axes in seen[-1].axes] == ["Loss", "Accuracy"]


def test_numbers_of_classes_are_dots_on_an_axis_that_shows_their_differences(
    tmp_path, seen, rows, texts
):
    series = {"precision": [0.91, 0.93, None], "recall": [0.92, 0.90, None]}
    evaluation.classes(series, ["cat", "dog", "ship"], tmp_path / "dots", heading="H", title="t")
    (axes,) = seen[-1].axes
    drawn = {line.get_label(): line for line in axes.lines if line.get_label() in series}
    assert list(drawn["precision"].get_xdata()[:2]) == [0.91, 0.93]
    assert axes.get_xlim()[0] > 0.89 and texts(axes.texts) == ["no images"]
    assert seen[-1].get_suptitle() == "H: t"
    assert rows(tmp_path / "dots")[-1] == ["ship", "", ""]


def test_thirty_classes_stand_in_two_columns_on_one_scale(tmp_path, seen):
    names = [f"class {k}" for k in range(30)]
    evaluation.classes({"accuracy": [k / 30 for k in range(30)]}, names, tmp_path / "dots")
    assert [len(axes.get_yticks()) for axes in seen[-1].axes] == [15, 15]
    assert len({axes.get_xlim() for axes in seen[-1].axes}) == 1


def test_a_confusion_matrix_has_counts_shares_and_both_axes_named(tmp_path, seen, rows, texts):
    evaluation.confusion([[30, 10], [0, 0]], ["cat", "dog"], tmp_path / "confusion")
    (axes,) = seen[-1].axes
    assert texts(axes.texts) == ["30", "75 %", "10", "25 %"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    shades = axes.collections[1].get_facecolors()
    assert [to_hex(shade) for shade in shades[:2]] == [style.BLUE, style.ORANGE]
    assert shades[:, 3].tolist() == pytest.approx([math.sqrt(0.75), 0.5, 0, 0])
    table = [["true", "cat", "dog"], ["cat", "30", "10"], ["dog", "0", "0"]]
    assert rows(tmp_path / "confusion") == table


def test_a_hundred_classes_have_shades_and_no_numbers(tmp_path, seen, rows):
    names = [f"class {k}" for k in range(100)]
    evaluation.confusion(np.eye(100, dtype=int), names, tmp_path / "confusion")
    assert not seen[-1].axes[0].texts and len(rows(tmp_path / "confusion")) == 101


def test_roc_names_the_lowest_areas_and_skips_what_has_none(tmp_path, seen, rows, texts):
    evaluation.roc([CORNER, None], [0.97, None], ["_cat", "dog"], tmp_path / "roc")
    assert texts(seen[-1]) == ["_cat: 0.9700"]
    assert "mean AUC 0.9700" in seen[-1].get_suptitle()
    assert {row[0] for row in rows(tmp_path / "roc")[1:]} == {"_cat"}
    names = [f"class {k}" for k in range(100)]
    evaluation.roc([CORNER] * 100, [0.5 + k / 200 for k in range(100)], names, tmp_path / "roc")
    assert texts(seen[-1])[9:] == ["class 9: 0.5450", "90 others, none lower"]
    evaluation.roc([None], [None], ["cat"], tmp_path / "roc")
    assert "no AUC" in seen[-1].get_suptitle()


def test_a_bin_of_one_image_is_smaller_and_less_certain_than_a_full_one():
    bins = [{**BINS[1], "images": 1}, {**BINS[1], "images": 999}, EMPTY]
    with style.drawing(3, "reliability") as (axes, _):
        charts.reliability(axes, bins)
        (dots,) = axes.collections
        one, many = dots.get_sizes()
        reach = [np.ptp(line.get_ydata()) for line in axes.lines[1:]]
    assert many > 5 * one and reach[0] > 5 * reach[1]


def test_reliability_before_and_after_scaling_stand_side_by_side(tmp_path, seen, rows):
    after = [BINS[0], {**BINS[1], "confidence": 0.7}]
    heads = ("as trained", "at temperature 2")
    evaluation.reliability(BINS, tmp_path / "both", scaled=after, heads=heads)
    titles = [axes.get_title("left") for axes in seen[-1].axes]
    assert titles == ["as trained", "at temperature 2", "", ""]
    assert [(row[0], row[4]) for row in rows(tmp_path / "both")[1:]] == [
        ("no", ""), ("no", "0.8"), ("yes", ""), ("yes", "0.7")
    ]  # fmt: skip


def test_the_most_frequent_mistakes_say_their_share_of_all(tmp_path, seen, texts):
    evaluation.confusions([TOP], tmp_path / "confusions")
    (axes,) = seen[-1].axes
    assert texts(axes.get_yticklabels()) == ["cat as dog"]
    assert texts(axes.texts) == ["60.0 %, with the reverse 90.0 %"]
    evaluation.confusions([], tmp_path / "none")
    assert texts(seen[-1].axes[0].texts) == ["no mistakes"]


def test_robustness_draws_a_line_per_corruption_from_clean_on_and_a_bar_per_attack(
    tmp_path, seen, rows
):
    def condition(name, severity, accuracy):
        interval = [accuracy - 0.1, accuracy + 0.1]
        return {"condition": name, "severity": severity, "images": 10, "correct": 1,
                "accuracy": accuracy, "accuracy_interval": interval}  # fmt: skip

    found = [condition("clean", 0, 0.9)]
    found += [condition("noise", k, 0.9 - k / 10) for k in range(1, 6)]
    evaluation.robustness([*found, condition("pgd", 0, 0.1)], tmp_path / "robustness")
    corrupted, attacked = seen[-1].axes
    (line,) = corrupted.containers
    assert line.get_label() == "noise"
    assert np.allclose(line.lines[0].get_ydata(), [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert [bar.get_height() for bar in attacked.patches] == [0.9, 0.1]
    assert rows(tmp_path / "robustness")[-1][:5] == ["pgd", "0", "10", "1", "0.1"]


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (1, 8, 20, 1), (3, 40, 8, 1)])
def test_a_gallery_says_what_was_predicted_how_surely_and_what_is_true(
    shape, tmp_path, seen, rows, texts
):
    shown = [{"index": 7, "true": "cat", "predicted": "dog", "confidence": 0.987},
             {"index": 8, "true": "dog", "predicted": "dog", "confidence": 0.5}]  # fmt: skip
    evaluation.gallery(np.zeros(shape, np.uint8), shown[: shape[0]], tmp_path / "gallery")
    if shape[0] == 0:
        assert texts(seen[-1].texts) == ["no such images"]
        return
    wrong = seen[-1].axes[0]
    assert texts(wrong.texts) == ["true: cat", "dog, 99 %"]
    assert wrong.texts[1].get_color() == style.RED
    assert rows(tmp_path / "gallery")[1] == ["7", "cat", "dog", "0.987"]
