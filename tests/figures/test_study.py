"""Protects the pictures of a study: every seed is drawn, and nothing that failed is hidden."""

import csv

import numpy as np
import pytest
from matplotlib.figure import Figure

from vitlab.figures import study

NAN = (float("nan"), float("nan"))
AWKWARD = ["", "a$b_{2}$", "数据/écureuil 🐿", "two\nlines", "<b>&|", "x" * 255, "_hidden", "b=1"]


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


def arm(word, *seeds, baseline=False, interval=None, failed=0):
    mean = float(np.mean(seeds)) if seeds else float("nan")
    known = interval or ((mean - 0.01, mean + 0.01) if len(seeds) > 1 else NAN)
    return {"word": word, "baseline": baseline, "seeds": list(seeds), "mean": mean,
            "interval": known, "failed": failed}  # fmt: skip


def run(accuracy, *, until=10, finished=True):
    lines = []
    for epoch in range(1, until + 1):
        lines += [
            {"epoch": epoch, "split": "train", "loss": 2 / epoch, "grad_norm": 1.0},
            {"epoch": epoch, "split": "validation", "loss": 2 / epoch, "accuracy": accuracy},
        ]
    return lines, finished


def dots(axes):
    """The points of a panel that stand for seeds."""
    return [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]


def test_every_seed_is_a_point_over_the_cost_of_its_training(tmp_path, last_figure):
    arms = {"small": [(1e12, 0.7), (1e12, 0.71), (1e12, 0.72)], "large": [(4e12, 0.8)]}
    study.compute(arms, tmp_path / "compute")
    (axes,) = last_figure().axes
    assert [len(line.get_xdata()) for line in dots(axes)] == [3, 1]
    assert [text.get_text() for text in last_figure().legends[0].get_texts()] == ["small", "large"]
    assert rows(tmp_path / "compute.csv")[1] == ["small", "1000000000000.0", "0.7"]


def test_arms_of_equal_cost_stand_side_by_side(tmp_path, last_figure):
    study.compute({name: [(1e12, 0.7)] for name in "abc"}, tmp_path / "compute")
    places = [line.get_xdata()[0] for line in dots(last_figure().axes[0])]
    assert places == sorted(set(places)) and places[1] == pytest.approx(1e12)


def test_of_many_arms_the_most_accurate_are_told_apart(tmp_path, last_figure):
    arms = {f"arm {k}": [(1e12, k / 100)] for k in range(20)}
    study.compute(arms, tmp_path / "compute")
    texts = [text.get_text() for text in last_figure().legends[0].get_texts()]
    assert len(texts) == 15 and texts[-1] == "6 others, none higher" and "arm 19" in texts


def test_an_axis_has_its_seeds_means_and_the_band_of_the_baseline(tmp_path, last_figure):
    arms = [arm("layer", 0.70, 0.71, 0.72, baseline=True), arm("rms", 0.71, 0.72, 0.73)]
    study.axes({"model.norm": arms}, tmp_path / "axes")
    (panel,) = last_figure().axes
    assert [list(line.get_ydata()) for line in dots(panel)] == [one["seeds"] for one in arms]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["layer", "rms"]
    assert panel.patches[0].get_height() == pytest.approx(0.02)
    assert rows(tmp_path / "axes.csv")[2][:4] == [
        "model.norm",
        "rms",
        "False",
        str(arms[1]["mean"]),
    ]


def test_failures_and_arms_at_chance_are_written_at_the_edge(tmp_path, last_figure):
    arms = [arm("1", 0.7, 0.71, baseline=True), arm("2", 0.69, failed=2), arm("3", 0.1, 0.1)]
    study.axes({"optim.lr": [*arms, arm("4", failed=3)]}, tmp_path / "axes")
    (panel,) = last_figure().axes
    notes = [text.get_text() for text in panel.texts]
    assert notes == ["", "2 failed", "10 %", "3 failed"]
    assert panel.get_ylim()[0] > 0.6  # the arm at chance does not flatten the others


def test_all_panels_share_one_scale(tmp_path, last_figure):
    axes = {f"axis {k}": [arm("a", 0.7, 0.71), arm("b", 0.7 + k / 20)] for k in range(5)}
    study.axes(axes, tmp_path / "axes")
    shown = [panel for panel in last_figure().axes if panel.get_visible()]
    assert len(shown) == 5 and len({panel.get_ylim() for panel in shown}) == 1


def test_many_numbers_are_an_axis_of_numbers(tmp_path, last_figure):
    arms = [arm(f"{10 ** -(2 + k / 5):.3g}", 0.7 + k / 100) for k in range(11)]
    study.axes({"optim.lr": arms}, tmp_path / "axes")
    assert last_figure().axes[0].get_xscale() == "log"


def test_curves_overlay_all_arms_and_cross_where_a_seed_broke_off(tmp_path, last_figure):
    arms = {"baseline": [run(0.7), run(0.8)], "hot": [run(0.6), run(0.5, until=4, finished=False)]}
    study.curves(arms, tmp_path / "curves")
    accuracy = last_figure().axes[2]
    crosses = [line for line in accuracy.lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [4]
    thick = [line for line in accuracy.lines if line.get_linewidth() > 1.5 and line not in crosses]
    assert [list(line.get_ydata())[-1] for line in thick] == pytest.approx([0.75, 0.55])
    assert [len(line.get_xdata()) for line in thick] == [10, 4]  # no mean over survivors
    assert rows(tmp_path / "curves.csv")[1] == ["baseline", "0", "train", "loss", "1.0", "2.0"]


def test_scaling_draws_points_curves_and_crossings(tmp_path, last_figure):
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
    (panel,) = last_figure().axes
    texts = [text.get_text() for text in last_figure().legends[0].get_texts()]
    assert texts == ["vit", "resnet18", "vit crosses resnet18 at 4,200"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["450", "4,500", "45,000"]
    assert len(rows(tmp_path / "scaling.csv")) == 13


def test_a_study_of_any_names_or_of_nothing_is_drawn_without_a_warning(tmp_path):
    study.compute({name: [(1e12, 0.7)] for name in AWKWARD}, tmp_path / "compute", title="$" * 99)
    study.axes({AWKWARD[1]: [arm(word, 0.7) for word in AWKWARD]},
               tmp_path / "axes")  # fmt: skip
    study.curves({name: [run(0.7)] for name in AWKWARD}, tmp_path / "curves")
    assert [row[0] for row in rows(tmp_path / "compute.csv")[1:]] == AWKWARD
    study.compute({"baseline": []}, tmp_path / "compute")
    study.axes({"model.norm": [arm("layer"), arm("rms")]}, tmp_path / "axes")
    study.curves({"baseline": []}, tmp_path / "curves")


def test_equal_numbers_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        study.compute({"a": [(1e12, 0.7)], "b": [(2e12, 0.8)]}, tmp_path / name)
    for kind in ("png", "svg", "csv"):
        one, two = (tmp_path / f"{name}.{kind}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
