"""Protects the figures of several runs and of studies: who is who, and nothing failed is hidden."""

import numpy as np
import pytest

from vitlab.figures import comparison, study, style

KINDS = {"a": "vit", "b": "resnet18"}
NAN = (float("nan"), float("nan"))


def judged(split, epoch, accuracy):
    return {"step": 1, "split": split, "epoch": epoch, "accuracy": accuracy, "loss": 1 - accuracy}


def test_training_and_validation_of_a_vit_and_a_cnn_can_be_told_apart(tmp_path, seen, rows, texts):
    lines = [judged(split, epoch, 0.1 * epoch) for epoch in range(1, 6)
             for split in ("train_clean", "validation")]  # fmt: skip
    comparison.curves({"a": lines, "b": lines}, KINDS, tmp_path / "curves")
    for axes in seen[-1].axes:
        train, validation, cnn_train, cnn_validation = axes.lines
        assert train.get_color() == validation.get_color() != cnn_train.get_color()
        assert train.get_linewidth() < validation.get_linewidth()
        assert validation.get_linestyle() == "-" and cnn_validation.get_linestyle() == "--"
    assert texts(seen[-1])[:2] == ["a (ViT)", "b (CNN)"]
    found = rows(tmp_path / "curves")
    assert len(found) == 1 + 2 * 2 * 2 * 5
    assert found[1] == ["a", "train_clean", "accuracy", "1", "0.1"]


def test_runs_without_metrics_or_costs_are_drawn_without_them(tmp_path, seen, rows):
    comparison.curves({"a": [], "b": []}, KINDS, tmp_path / "curves")
    unknown = dict.fromkeys(("accuracy", "accuracy_interval", *comparison.COSTS))
    known = {name: 5e6 for name in comparison.COSTS}
    runs = [
        {"name": "a", "kind": "vit", **unknown},
        {"name": "b", "kind": "cnn6", **known, "accuracy": 0.8, "accuracy_interval": [0.7, 0.9]},
    ]
    comparison.cost(runs, tmp_path / "cost", split="validation")
    (points,) = [line for line in seen[-1].axes[0].lines if line.get_marker() == "s"]
    assert (points.get_xdata()[0], points.get_ydata()[0]) == (5, 0.8)
    assert rows(tmp_path / "cost")[1][2] == ""


def test_a_class_is_filled_only_where_a_test_finds_a_difference(tmp_path, seen, rows):
    classes = [
        {"class": "better", "difference": 0.1, "adjusted_p": 0.01},
        {"class": "chance", "difference": -0.1, "adjusted_p": 0.5},
        {"class": "empty", "difference": None, "adjusted_p": 1.0},
    ]
    found = comparison.class_rows(classes)
    assert [(row.name, row.words, row.hollow, row.colour) for row in found] == [
        ("better", "+10.00, p 0.0100", False, style.BLUE),
        ("chance", "-10.00", True, style.ORANGE),
    ]
    many = [{**classes[1], "class": f"c{k}"} for k in range(60)]
    comparison.class_differences(many, ("a", "b"), tmp_path / "classes")
    assert len(seen[-1].axes) == 2 and len(rows(tmp_path / "classes")) == 61


@pytest.mark.parametrize("count", [1, 6])
def test_both_predictions_stand_over_an_image_right_in_blue_wrong_in_red(tmp_path, seen, count):
    one = {
        "index": 7, "true": "W" * 40, "predicted": "W" * 40, "confidence": 0.9,
        "against_predicted": "$5 cat", "against_confidence": 0.512,
    }  # fmt: skip
    path, image = tmp_path / "disagreements", np.zeros((6, 9, 1), np.uint8)
    comparison.disagreements([image] * count, [one] * count, ("run", "x" * 60), path, total=1234)
    other, mine, _ = seen[-1].axes[0].texts
    assert mine.get_color() == style.BLUE and other.get_color() == style.RED
    assert other.get_text().endswith("$5 cat, 51 %")
    assert "of 1,234 disagreements" in seen[-1]._supxlabel.get_text()


def arm(word, *seeds, baseline=False, failed=0):
    mean = float(np.mean(seeds)) if seeds else float("nan")
    interval = (mean - 0.01, mean + 0.01) if len(seeds) > 1 else NAN
    return {"word": word, "baseline": baseline, "seeds": list(seeds), "mean": mean,
            "interval": interval, "failed": failed}  # fmt: skip


def run(accuracy, *, until=10, finished=True):
    lines = []
    for epoch in range(1, until + 1):
        lines += [
            {"epoch": epoch, "split": "train", "loss": 2 / epoch},
            {"epoch": epoch, "split": "validation", "loss": 2 / epoch, "accuracy": accuracy},
        ]
    return lines, finished


def dots(axes):
    """The points of a panel that stand for seeds."""
    return [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]


def test_an_arm_has_one_colour_in_every_figure_of_its_study(tmp_path, seen):
    names = ["baseline", "low", "high"]
    study.compute({n: [(1e12, k / 10)] for k, n in enumerate(names)}, tmp_path / "compute")
    study.curves({n: [run(1 - k / 10)] for k, n in enumerate(names)}, tmp_path / "curves")
    panels = {"axis": [arm("a", 0.7, baseline=True), arm("b", 0.6)], "other": [arm("c", 0.8)]}
    study.axes(panels, tmp_path / "axes")
    compute, curves, axes = seen[::2]
    found = [
        [line.get_color() for line in dots(compute.axes[0])],
        [line.get_color() for line in curves.axes[2].lines if line.get_linewidth() > 1],
        [line.get_color() for panel in axes.axes[:2] for line in dots(panel)],
    ]
    assert found == [list(style.HUES[:3])] * 3


def test_every_seed_is_a_point_and_arms_of_equal_cost_stand_side_by_side(
    tmp_path, seen, rows, texts
):
    arms = {"small": [(1e12, 0.7), (1e12, 0.71)], "large": [(4e12, 0.8)], "same": [(4e12, 0.8)]}
    study.compute(arms, tmp_path / "compute")
    found = dots(seen[-1].axes[0])
    assert [len(line.get_xdata()) for line in found] == [2, 1, 1]
    assert found[1].get_xdata()[0] < 4e12 < found[2].get_xdata()[0]
    assert texts(seen[-1]) == list(arms)
    assert rows(tmp_path / "compute")[1] == ["small", "1000000000000.0", "0.7"]


def test_of_many_arms_the_most_accurate_are_told_apart(tmp_path, seen, texts):
    arms = {f"arm {k}": [(1e12, k / 100)] for k in range(20)}
    study.compute(arms, tmp_path / "compute")
    found = texts(seen[-1])
    assert len(found) == 11 and found[-1] == "10 others, none higher" and "arm 19" in found


def test_an_axis_has_its_seeds_means_and_the_band_of_the_baseline(tmp_path, seen, rows, texts):
    arms = [arm("layer", 0.70, 0.71, 0.72, baseline=True), arm("rms", 0.71, 0.72, 0.73)]
    study.axes({"model.norm": arms}, tmp_path / "axes")
    (panel,) = seen[-1].axes
    assert [list(line.get_ydata()) for line in dots(panel)] == [one["seeds"] for one in arms]
    assert texts(panel.get_xticklabels()) == ["layer", "rms"]
    assert panel.patches[0].get_height() == pytest.approx(0.02)
    assert rows(tmp_path / "axes")[2][:4] == ["model.norm", "rms", "False", str(arms[1]["mean"])]


def test_failures_and_arms_at_chance_are_written_at_the_edge(tmp_path, seen, texts):
    arms = [arm("1", 0.7, 0.71, baseline=True), arm("2", 0.69, failed=2), arm("3", 0.1, 0.1)]
    study.axes({"optim.lr": [*arms, arm("4", failed=3)], "other": arms}, tmp_path / "axes")
    panel, other = seen[-1].axes
    assert texts(panel.texts) == ["", "2 failed", "10 %", "3 failed"]
    assert panel.get_ylim()[0] > 0.6  # the arm at chance does not flatten the others
    assert panel.get_ylim() == other.get_ylim()


def test_many_numbers_are_an_axis_of_numbers(tmp_path, seen):
    arms = [arm(f"{10 ** -(2 + k / 5):.3g}", 0.7 + k / 100) for k in range(11)]
    study.axes({"optim.lr": arms}, tmp_path / "axes")
    assert seen[-1].axes[0].get_xscale() == "log"


def test_curves_overlay_all_arms_and_cross_where_a_seed_broke_off(tmp_path, seen, rows):
    arms = {"baseline": [run(0.7), run(0.8)], "hot": [run(0.6), run(0.5, until=4, finished=False)]}
    study.curves(arms, tmp_path / "curves")
    accuracy = seen[-1].axes[2]
    crosses = [line for line in accuracy.lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [4]
    thick = [line for line in accuracy.lines if line.get_linewidth() > 1.5 and line not in crosses]
    assert [list(line.get_ydata())[-1] for line in thick] == pytest.approx([0.75, 0.55])
    assert [len(line.get_xdata()) for line in thick] == [10, 4]  # no mean over survivors
    assert rows(tmp_path / "curves")[1] == ["baseline", "0", "train", "loss", "1.0", "2.0"]


def test_scaling_draws_points_curves_and_crossings(tmp_path, seen, rows, texts):
    points = [{"images": n, "accuracies": [0.5, 0.52]} for n in (450, 4_500, 45_000)]
    found = {
        "series": [
            {"name": "vit", "points": points, "curve": {"a": 4.0, "b": 0.3, "c": 0.1}},
            {"name": "resnet18", "points": points, "curve": None},
        ],
        "crossings": [
            {"of": ["vit", "resnet18"], "images": 4_200.0, "interval": [3_000, 6_000], "share": 1},
            {"of": ["vit", "cnn6"], "images": None, "interval": None, "share": 0.1},
        ],
    }
    study.scaling(found, tmp_path / "scaling")
    assert texts(seen[-1]) == ["vit", "resnet18", "vit crosses resnet18 at 4,200"]
    assert texts(seen[-1].axes[0].get_xticklabels()) == ["450", "4,500", "45,000"]
    assert len(rows(tmp_path / "scaling")) == 13


def test_a_study_without_a_result_is_drawn(tmp_path, seen, rows):
    study.compute({"baseline": []}, tmp_path / "compute")
    study.axes({"model.norm": [arm("layer"), arm("rms")]}, tmp_path / "axes")
    study.curves({"baseline": []}, tmp_path / "curves")
    assert rows(tmp_path / "axes")[1][3] == "nan"
