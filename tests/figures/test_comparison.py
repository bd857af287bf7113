"""Protects the pictures of comparisons: who is who, and what lies where."""

import csv

import numpy as np
import pytest
from matplotlib.figure import Figure

from vitlab.figures import comparison, style

KINDS = {"a": "vit", "b": "resnet18"}


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
        return list(csv.DictReader(file))


def judged(split, epoch, accuracy):
    return {"step": 1, "split": split, "epoch": epoch, "accuracy": accuracy, "loss": 1 - accuracy}


def test_training_and_validation_of_a_vit_and_a_cnn_can_be_told_apart(tmp_path, seen):
    lines = [judged(split, epoch, 0.1 * epoch) for epoch in range(1, 6)
             for split in ("train_clean", "validation")]  # fmt: skip
    comparison.curves({"a": lines, "b": lines}, KINDS, tmp_path / "curves")
    accuracy, loss = seen[-1].axes
    for axes in (accuracy, loss):
        train, validation, cnn_train, cnn_validation = axes.lines
        assert train.get_color() == validation.get_color() != cnn_train.get_color()
        assert train.get_linewidth() < validation.get_linewidth()
        assert validation.get_linestyle() == "-" and cnn_validation.get_linestyle() == "--"
    legend = [text.get_text() for text in seen[-1].legends[0].get_texts()]
    assert legend[:2] == ["a (ViT)", "b (CNN)"]
    found = rows(tmp_path / "curves.csv")
    assert len(found) == 2 * 2 * 2 * 5
    assert found[0] == {"run": "a", "split": "train_clean", "measure": "accuracy", "epoch": "1",
                        "value": "0.1"}  # fmt: skip


def test_runs_without_metrics_or_costs_are_drawn_without_them(tmp_path, seen):
    comparison.curves({"a": [], "b": []}, KINDS, tmp_path / "curves")
    unknown = dict.fromkeys(("accuracy", "accuracy_interval", *comparison.COSTS))
    known = {name: 5e6 for name in comparison.COSTS}
    runs = [
        {"name": "a", "kind": "vit", **unknown},
        {"name": "b", "kind": "cnn6", **known, "accuracy": 0.8, "accuracy_interval": [0.7, 0.9]},
    ]
    comparison.cost(runs, tmp_path / "cost", split="validation")
    panel = seen[-1].axes[0]
    (points,) = [line for line in panel.lines if line.get_marker() == "s"]
    assert (points.get_xdata()[0], points.get_ydata()[0]) == (5, 0.8)
    assert rows(tmp_path / "cost.csv")[0]["accuracy"] == ""


def test_a_class_is_filled_only_where_a_test_finds_a_difference(tmp_path, seen):
    classes = [
        {"class": "better", "difference": 0.1, "adjusted_p": 0.01},
        {"class": "chance", "difference": -0.1, "adjusted_p": 0.5},
        {"class": "empty", "difference": None, "adjusted_p": 1.0},
    ]
    comparison.class_differences(classes, ("a", "b"), tmp_path / "classes")
    (axes,) = seen[-1].axes
    filled = [bar.get_facecolor()[3] for bar in axes.patches]
    assert filled == [1, 0, 0]
    assert [text.get_text() for text in axes.texts] == ["+10.0", "-10.0", "no images"]


def test_sixty_classes_of_no_difference_are_drawn(tmp_path):
    classes = [{"class": f"c{k}", "difference": 0.0, "adjusted_p": 1.0} for k in range(60)]
    comparison.class_differences(classes, ("a", "b"), tmp_path / "classes")
    assert len(rows(tmp_path / "classes.csv")) == 60


@pytest.mark.parametrize("count", [1, 6])
def test_both_predictions_stand_over_an_image_right_in_blue_wrong_in_red(tmp_path, seen, count):
    image = np.zeros((6, 9, 1), np.uint8)
    one = {
        "index": 7, "true": "W" * 40, "predicted": "W" * 40, "confidence": 0.9,
        "against_predicted": "$5 cat", "against_confidence": 0.512,
    }  # fmt: skip
    path = tmp_path / "disagreements"
    comparison.disagreements([image] * count, [one] * count, ("run", "x" * 60), path, total=1234)
    axes = seen[-1].axes[0]
    other, mine, _ = axes.texts
    assert mine.get_color() == style.BLUE and other.get_color() == style.RED
    assert other.get_text().endswith("$5 cat, 51 %")
    assert "of 1,234 disagreements" in seen[-1]._supxlabel.get_text()
    assert rows(path.with_suffix(".csv"))[0]["index"] == "7"
