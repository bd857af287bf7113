"""Protects what all figures share: their files, their bytes, their colours on any page."""

import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from vitlab.figures import charts, comparison, evaluation, features, maps, study, style, training
from vitlab.figures.charts import Line, Mark, Row
from vitlab.figures.exploration import Tile, tiles
from vitlab.figures.maps import Map

AWKWARD = ["", "a$b_{2}$", "数据/écureuil 🐿", "two\nlines", "<b>&|", "x" * 255, "_hidden", "b=1"]
N = len(AWKWARD)

LINES = [
    {"step": 1, "epoch": 1, "split": "train", "loss": 2.0, "lr": 0.1, "images_per_second": 9.0},
    {"step": 1, "epoch": 1, "split": "validation", "loss": float("nan"), "accuracy": 0.5},
]
PIXELS = np.zeros((4, 8, 12, 1), np.uint8)
LAYERS = [{"layer": name, "depth": 0.5, "pooled": {"linear_probe": 0.5, "neighbors": 0.4,
           "ratio": 1.2}, "cls": None, "patch": None} for name in AWKWARD]  # fmt: skip

FIGURES = {
    "training": lambda path, title: training.curves(LINES, path, title=title),
    "classes": lambda path, title: evaluation.classes(
        {"F1": [0.9] * (N - 1) + [None]}, AWKWARD, path, images=[9] * N, title=title
    ),
    "confusion": lambda path, title: evaluation.confusion(np.eye(N, dtype=int), AWKWARD, path,
                                                          title=title),
    "roc": lambda path, title: evaluation.roc(
        [np.array([[0, 0], [1, 1]])] * N, [0.5] * N, AWKWARD, path, title=title
    ),
    "gallery": lambda path, title: evaluation.gallery(
        PIXELS, [{"index": 0, "true": n, "predicted": n, "confidence": 1.0} for n in AWKWARD[:4]],
        path, title=title,
    ),
    "comparison": lambda path, title: comparison.curves(
        {name: LINES for name in AWKWARD}, dict.fromkeys(AWKWARD, "vit"), path, title=title
    ),
    "compute": lambda path, title: study.compute(
        {name: [(1e12, 0.7)] for name in AWKWARD}, path, title=title
    ),
    "axes": lambda path, title: study.axes(
        {AWKWARD[1]: [{"word": name, "baseline": False, "seeds": [0.7], "mean": 0.7,
                       "interval": (np.nan, np.nan), "failed": 1} for name in AWKWARD]},
        path, title=title,
    ),
    "curves": lambda path, title: study.curves(
        {name: [(LINES, True)] for name in AWKWARD}, path, title=title
    ),
    "layers": lambda path, title: features.layers(
        [{"run": name, "layers": LAYERS} for name in AWKWARD[:2]], path, title=title
    ),
    "maps": lambda path, title: maps.maps(
        [[Map(title, np.zeros((N, 2)))]], np.arange(N), AWKWARD, path, title=title
    ),
    "tiles": lambda path, title: tiles(
        {name: [Tile(PIXELS[0], name)] for name in AWKWARD}, path, title=title
    ),
}  # fmt: skip
"""One figure of each form, with names and titles that nobody should have."""


@pytest.mark.parametrize("name", FIGURES)
def test_awkward_names_break_no_figure_and_its_files_lie_side_by_side(name, tmp_path, small, rows):
    FIGURES[name](tmp_path / "f", " ".join(AWKWARD))
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.width > 60
    svg = (tmp_path / "f.svg").read_text(encoding="utf-8")
    root = ET.fromstring(svg)
    assert root.get("role") == "img" and root.get("aria-label")
    # A page's content security policy forbids styles of elements, and colours are the page's.
    body = re.sub("<style>.*?</style>", "", svg, flags=re.S)
    assert " style=" not in body and "<style" not in body and "font-family" not in body[400:]
    known = {light for light, _ in style.PALETTE.values()} | {"none"}
    assert set(re.findall(r'(?:fill|stroke)="(#\w+|none)"', body)) <= known
    assert len(rows(tmp_path / "f")) > 1


def test_equal_numbers_give_equal_bytes_whatever_a_user_has_set(tmp_path, small):
    FIGURES["confusion"](tmp_path / "one", "title")
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        FIGURES["confusion"](tmp_path / "two", "title")
    for kind in ("png", "svg", "csv"):
        one, two = (tmp_path / f"{name}.{kind}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_a_file_can_be_read_by_itself_and_a_page_gets_the_same_drawing_without_a_style_sheet(
    tmp_path, small
):
    def draw(axes):
        charts.dots(axes, [Row("a", 0.5, (0.4, 0.6), "50 %")])

    with style.drawing(1.0, "dots") as (axes, made):
        draw(axes)
    with style.figure(tmp_path / "f", style.NARROW, 1.0, "") as figure:
        draw(figure.subplots())
    file = (tmp_path / "f.svg").read_text()
    inside = re.compile(r"<path.*", re.S)
    assert inside.search(made[0])[0] == inside.search(file)[0]
    assert f"<style>{style.COLOURS}</style>" in file and "<style" not in made[0]
    assert ">50 %</text>" in file and 'fill="#0b6fb0"' in file  # text as text, light where no CSS


def contrast(one: str, other: str) -> float:
    def luminance(colour):
        parts = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("shade", [0, 1], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_the_paper(shade):
    looks = {name: both[shade] for name, both in style.PALETTE.items()}
    assert len(set(looks.values())) == len(looks)
    for name, colour in looks.items():
        least = {"ink": 7, "soft": 4.5, "paper": 1, "wash": 1, "rule": 1.1}.get(name, 2.8)
        assert contrast(colour, looks["paper"]) >= least, name


def test_a_value_has_a_column_that_no_line_of_the_chart_crosses(small):
    with style.drawing(charts.dots_height(1), "dots") as (axes, _):
        charts.dots(axes, [Row("arm", -0.09, (-0.1, 0.0), "-9.24 worse")], zero=0.0)
        name, value = axes.texts
        baseline = value.get_position()[1]
        assert name.get_position() == (0, baseline) and value.get_position() == (1, baseline)
        assert all(min(line.get_ydata(), default=1) > baseline for line in axes.lines)
        assert not any(line.get_visible() for line in axes.get_xgridlines())


def test_names_of_a_scatter_do_not_meet():
    marks = [Mark(1e12, 0.5 + k / 1000, f"arm {k}", style.BLUE) for k in range(4)]
    with style.drawing(3, "scatter") as (axes, _):
        charts.scatter(axes, marks, across="cost")
        heights = sorted(text.xyann[1] for text in axes.texts)
        low, high = axes.get_ylim()
    assert min(np.diff(heights)) > 0.05 * (high - low)


def test_a_line_of_one_point_is_seen():
    with style.drawing(2, "lines") as (axes, _):
        charts.lines(axes, [Line("a", [(1, 0.5)], style.BLUE)], across="epoch")
        assert axes.lines[0].get_marker() == "o"


def test_a_mosaic_puts_images_in_their_places_and_leaves_the_rest_clear():
    image = np.full((2, 3, 1), 7, np.uint8)
    found = style.mosaic([[image, image], [None, image]], gap=1)
    assert found.shape == (7, 9, 4)
    assert (found[1:3, 1:4] == (7, 7, 7, 255)).all() and (found[4:6, 5:8, 0] == 7).all()
    assert not found[4:6, 1:4].any() and not found[0].any()
