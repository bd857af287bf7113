"""An audit finds what was planted in a small folder, shows it and changes nothing."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import vitlab
from vitlab.auditing.findings import Audit, fence, neighbor_distances
from vitlab.auditing.page import CONFUSIONS, LISTS
from vitlab.cli import main
from vitlab.config import DataConfig
from vitlab.data import open_dataset
from vitlab.data.duplicates import earlier_copies
from vitlab.errors import ConfigError, DataError
from vitlab.evaluate import evaluate
from vitlab.report import report

SHAPES = ("circle", "cross", "square")
EACH = 30


def drawn(shape: str, number: int) -> Image.Image:
    """A shape in a colour of its own, somewhere on noise; the same for equal arguments."""
    draws = np.random.default_rng([SHAPES.index(shape), number])
    image = Image.fromarray(draws.integers(90, 165, (32, 32, 3), np.uint8))
    pen, colour = ImageDraw.Draw(image), [90, 90, 90]
    colour[SHAPES.index(shape)] = 230
    x, y = draws.integers(2, 10, 2).tolist()
    box, fill = (x, y, x + 18, y + 18), tuple(colour)
    if shape == "circle":
        pen.ellipse(box, fill=fill)
    elif shape == "square":
        pen.rectangle(box, fill=fill)
    else:
        pen.line(box, fill=fill, width=6)
        pen.line((x, y + 18, x + 18, y), fill=fill, width=6)
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three classes of shapes, and some of everything that may be wrong."""
    folder = tmp_path_factory.mktemp("pictures") / "shapes"
    for shape in SHAPES:
        (folder / shape).mkdir(parents=True)
        for number in range(EACH):
            drawn(shape, number).save(folder / shape / f"{number}.png")
    (folder / "circle" / "3.png").rename(folder / "square" / "was-circle.png")
    (folder / "cross" / "5.png").rename(folder / "circle" / "was-cross.png")
    drawn("cross", 8).save(folder / "square" / "copy-of-cross-8.png")
    drawn("square", 9).save(folder / "square" / "copy-of-square-9.png")
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[::2] = 255
    Image.fromarray(stripes).save(folder / "square" / "stripes.png")
    Image.new("RGB", (32, 32), (128, 128, 128)).save(folder / "cross" / "grey.png")
    whole = folder / "circle" / "broken.jpg"
    drawn("circle", 99).save(whole, quality=95)
    whole.write_bytes(whole.read_bytes()[:600])
    return folder


@pytest.fixture(scope="module")
def audited(folder, backbone, tmp_path_factory) -> tuple[Audit, Path]:
    out = tmp_path_factory.mktemp("audit")
    with pytest.warns(UserWarning, match="left out"):
        found = vitlab.audit(
            folder, out=out, write=out / "cleaned.csv", backbone=backbone, device="cpu", quiet=True
        )
    return found, out


def test_wrong_labels_are_found_with_the_right_ones(audited):
    found, _ = audited
    proposed = {Path(one.image.file).name: one.proposed for one in found.label_errors}
    assert proposed["was-circle.png"] == "circle" and proposed["was-cross.png"] == "cross"
    assert len(proposed) <= 8 and found.agreement > 0.9
    scores = [one.score for one in found.label_errors]
    assert scores == sorted(scores) and -1 <= scores[0] < 0


def test_a_copy_of_another_label_stands_before_one_of_the_same(audited):
    first, second = audited[0].copies
    assert {first.image.label, first.other.label} == {"cross", "square"}
    assert first.score == 0 and "labelled" in first.why
    assert {Path(second.image.file).name, Path(second.other.file).name} == {
        "9.png",
        "copy-of-square-9.png",
    }


def test_a_truncated_file_and_an_empty_image_are_named_with_the_reason(audited):
    (broken,), (grey,) = audited[0].unreadable, audited[0].empty
    assert broken.image.file.endswith("circle/broken.jpg") and broken.image.label == "circle"
    assert "runcated" in broken.why and broken.image.index is None
    assert grey.image.file.endswith("cross/grey.png") and grey.score == 0


def test_an_image_unlike_all_others_is_listed_first(audited):
    assert Path(audited[0].unlike[0].image.file).name in ("stripes.png", "grey.png")
    assert audited[0].unlike[0].score > audited[0].unlike_bound


def test_a_class_of_one_image_is_named_and_not_judged(backbone, tmp_path):
    for shape, count in {"circle": 8, "cross": 8, "square": 1}.items():
        (tmp_path / "set" / shape).mkdir(parents=True)
        for number in range(count):
            drawn(shape, number).save(tmp_path / "set" / shape / f"{number}.png")
    found = vitlab.audit(tmp_path / "set", out=tmp_path / "out", backbone=backbone, quiet=True)
    assert found.not_judged == ("square",) and (found.images, found.predicted) == (17, 16)
    assert not found.label_errors
    assert "fewer than two different images: <bdi" in (tmp_path / "out/index.html").read_text()


def test_what_is_written_trains_and_lacks_what_was_left_out(audited, folder):
    found, out = audited
    dataset = open_dataset(DataConfig(dataset=str(out / "cleaned.csv"), unreadable="refuse"))
    assert set(dataset.source.class_names) == set(SHAPES)
    kept = {path.resolve() for path in dataset.source.files("train")[1:]}
    assert len(dataset.examples.labels) > 0 and not dataset.has_test
    lists = (found.label_errors, found.unreadable, found.empty)
    for gone in {one.image.file for findings in lists for one in findings}:
        assert Path(gone).resolve() not in kept
    assert (folder / "square" / "copy-of-cross-8.png").resolve() not in kept
    assert (folder / "cross" / "8.png").resolve() not in kept
    same = {(folder / "square" / name).resolve() for name in ("9.png", "copy-of-square-9.png")}
    assert len(same & kept) == 1
    everything = [*folder.rglob("*.png"), *folder.rglob("*.jpg")]
    assert found.cleaned and sum(found.cleaned.values()) == len(everything)
    assert found.cleaned["kept"] == len(kept)


def test_the_page_names_every_list_and_is_one_self_contained_file(audited):
    found, out = audited
    page = (out / "index.html").read_text()
    for one in (*LISTS, CONFUSIONS):
        assert one.title in page and (out / f"{one.file}.csv").exists()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) and "<script" not in page
    assert page.count("<img ") == sum(
        len(findings) for findings in (found.label_errors, found.copies, found.unlike, found.empty)
    )
    assert "was-circle.png" in page and "square → circle" in page
    record = json.loads((out / "audit.json").read_text())
    assert len(record["label_errors"]) == len(found.label_errors)
    with open(out / "copies.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["why"] for row in rows] == [one.why for one in found.copies]
    assert (out / "label-errors.png").stat().st_size > 0 and not (out / "unreadable.png").exists()


def test_a_run_is_audited_by_its_own_body_and_its_page_says_so(digits_run, tmp_path, capsys):
    words = ["audit", str(digits_run.path), "--device", "cpu"]
    assert main([*words, "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "Probable label errors" in out and out.splitlines()[-1].endswith("index.html")
    page = (digits_run.path / "audit/index.html").read_text()
    assert "which saw the labels of its training images" in page
    assert main([*words, "--data.image_size", "16,16"]) == 2
    assert main([*words, "--write", str(tmp_path / "rest.csv")]) == 1
    assert "have none of their own" in capsys.readouterr().err


def test_the_report_of_a_run_says_what_audit_found_and_what_the_model_does_not_know(digits_run):
    evaluate(digits_run, pictures=False, quiet=True)
    found = vitlab.audit(digits_run, device="cpu", quiet=True)
    text = report([digits_run]).read_text()
    assert f"{len(found.unlike)} image" in text and "audit/index.html" in text
    assert "are called unlike anything it was trained on" in text
    assert "sets of classes that are to hold the true one" in text


def test_training_images_that_are_copies_of_test_images_are_listed(backbone, tmp_path):
    folder = tmp_path / "set"
    for split, start in (("train", 0), ("test", 50)):
        for shape in SHAPES[:2]:
            (folder / split / shape).mkdir(parents=True)
            for number in range(start, start + 12):
                drawn(shape, number).save(folder / split / shape / f"{number}.png")
    drawn("cross", 55).save(folder / "train" / "cross" / "leak.png")
    found = vitlab.audit(
        folder, out=tmp_path / "out", write=tmp_path / "rest.csv", backbone=backbone, quiet=True
    )
    (copy,) = found.copies
    assert str(copy.image).endswith("leak.png") and copy.other and copy.other.split == "test"
    assert found.images == 25 and found.test_images == 24
    rest = open_dataset(DataConfig(dataset=str(tmp_path / "rest.csv")))
    assert rest.has_test and len(rest.source.read("test")[0]) == 24
    assert not any(path.name == "leak.png" for path in rest.source.files("train"))


def test_arrays_are_audited_by_their_places_and_several_labels_are_refused(backbone, tmp_path):
    images = np.stack([np.asarray(drawn(s, n)) for n in range(12) for s in SHAPES[:2]])
    labels = np.arange(24) % 2
    images[23] = images[4]
    where = {"out": tmp_path, "backbone": backbone, "quiet": True}
    found = vitlab.audit((images, labels), **where)
    (copy,) = found.copies
    assert copy.other and {copy.image.row, copy.other.row} == {4, 23} and copy.image.file is None
    with pytest.raises(DataError, match="leave --write out"):
        vitlab.audit((images, labels), write=tmp_path / "rest.csv", **where)
    with pytest.raises(ConfigError, match="may have several labels"):
        vitlab.audit("photos.csv", fields={"data.task": "multilabel"}, **where)


def test_a_table_is_not_overwritten_by_what_is_left_of_it(backbone, tmp_path):
    lines = ["path,label"]
    for shape in SHAPES[:2]:
        for number in range(6):
            drawn(shape, number).save(tmp_path / f"{shape}{number}.png")
            lines.append(f"{shape}{number}.png,={shape}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines))
    where = {"out": tmp_path / "out", "backbone": backbone, "quiet": True}
    for name in ("table.csv", "rest.txt"):
        with pytest.raises(ConfigError, match="--write"):
            vitlab.audit(table, write=tmp_path / name, **where)
    assert table.read_text() == "\n".join(lines)
    (tmp_path / "below").mkdir()
    found = vitlab.audit(table, write=tmp_path / "below" / "rest.csv", **where)
    rest = open_dataset(DataConfig(dataset=str(tmp_path / "below" / "rest.csv")))
    assert found.cleaned == {"kept": 12} and len(rest.source.read("train")[0]) == 12


def test_one_image_of_each_class_leaves_labels_unjudged(backbone, tmp_path):
    images = np.stack([np.asarray(drawn(shape, 0)) for shape in SHAPES])
    found = vitlab.audit((images, np.arange(3)), out=tmp_path, backbone=backbone, quiet=True)
    assert found.predicted == 0 and found.agreement is None and not found.label_errors


def test_without_their_second_images_a_set_has_no_copies():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (300, 16, 16, 3), np.uint8)
    images[[7, 290, 299]] = images[3]
    pairs = earlier_copies(images)
    assert {(pair.a, pair.b) for pair in pairs} == {(3, 7), (3, 290), (3, 299)}
    rest = np.delete(images, [pair.b for pair in pairs], axis=0)
    assert not earlier_copies(rest) and not earlier_copies(images[:0])


def test_the_fence_does_not_move_with_what_lies_beyond_it():
    draw = np.random.default_rng(0)
    features = draw.normal(0, 0.1, (400, 8)).astype(np.float32) + 1
    features[:5] *= [-1, 1] * 4
    distances = neighbor_distances(features)
    bound = fence(distances)
    assert (distances[:5] > bound).all() and (distances[5:] > bound).mean() < 0.02
    assert bound == pytest.approx(fence(distances[5:]), rel=0.05)
