"""`vitlab predict`: any picture gets an answer, and no file or name of a file does harm."""

import csv
import io
import json
import os
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import vitlab
from vitlab.answers import BATCH, answers, find_pictures
from vitlab.cli import main
from vitlab.errors import ConfigError
from vitlab.explain import explain

HOSTILE = (
    "=cmd|calc.png",
    "-x.png",
    "@a.png",
    "two\nlines.png",
    "\x1b[31mred\x1b]0;title\x07.png",
    "ab\u202egnp.png",
    "数据 🐿 é.png",
    os.fsdecode(b"\xff\xfe.png"),
    "n" * 251 + ".png",
)


@pytest.fixture
def run(trained_on_digits):
    return trained_on_digits


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """The folder a command is given in, with three pictures of different sizes and modes."""
    monkeypatch.setenv("VITLAB_RUNS", str(tmp_path / "runs"))
    folder = tmp_path / "photos"
    folder.mkdir()
    monkeypatch.chdir(folder)
    rng = np.random.default_rng(0)
    for name, mode, size in (("a.png", "RGBA", 40), ("b.jpg", "RGB", 33), ("c.webp", "L", 7)):
        pixels = rng.integers(0, 256, (size, 2 * size, 4), np.uint8)
        Image.fromarray(pixels, "RGBA").convert(mode).save(folder / name)
    return folder


def predicted(capsys, *words) -> dict:
    """The object that `vitlab predict ... --json` prints."""
    main(["predict", "--json", *words])
    return json.loads(capsys.readouterr().out)


def test_a_shipped_model_answers_where_no_run_is_named_and_says_so(photos, capsys):
    assert main(["predict", "a.png", "b.jpg"]) == 0
    output = capsys.readouterr()
    assert "no run was named: the shipped model cpu answers" in output.err
    assert re.search(r"^a\.png  (sure|fairly sure|unsure) +\w+ \d+\.\d%, ", output.out)
    assert len(output.out.splitlines()) == 2
    assert not (photos.parent / "runs").exists(), "asking a model writes nothing"
    assert main(["predict", "runs/gone", "a.png"]) == 4
    assert "runs/gone is no run: the shipped model cpu answers" in capsys.readouterr().err


def test_the_first_word_is_the_run_if_it_is_one(photos, run, capsys):
    found = predicted(capsys, str(run.path), "a.png", "--top", "2")
    assert found["model"]["name"] == "tiny"
    assert [len(one["top"]) for one in found["answers"]] == [2]
    assert predicted(capsys, "cpu-plain", "a.png")["model"]["name"] == "cpu-plain"
    shutil.copy("a.png", "cpu-plain")
    assert predicted(capsys, "cpu-plain")["model"]["name"] == "cpu"


def test_answers_are_those_of_the_library(photos, run, capsys):
    found = predicted(capsys, str(run.path), ".", "--top", "10")["answers"]
    assert [one["path"] for one in found] == ["a.png", "b.jpg", "c.webp"]
    images = np.stack([vitlab.data.decode(photos / one["path"], (8, 8), 1) for one in found])
    logits = vitlab.predict(run, images, device="cpu")
    for one, row in zip(found, logits, strict=True):
        shares = {int(each["class"]): each["probability"] for each in one["top"]}
        expected = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        np.testing.assert_allclose([shares[k] for k in range(10)], expected, atol=1e-6)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_folders_are_searched_and_patterns_that_no_shell_opened_are_opened(photos, capsys):
    (photos / "deep" / ".hidden").mkdir(parents=True)
    shutil.copy("a.png", "deep/d.PNG")
    shutil.copy("a.png", "deep/.hidden/e.png")
    (photos / "deep" / "notes.txt").touch()
    assert find_pictures(["."]) == [Path(p) for p in ("a.png", "b.jpg", "c.webp", "deep/d.PNG")]
    assert find_pictures(["**/*.PNG", "?.jpg"]) == [Path("deep/d.PNG"), Path("b.jpg")]
    shutil.copy("a.png", "[x].png")
    assert find_pictures(["[x].png"]) == [Path("[x].png")], "a file that is there is no pattern"
    shutil.copy("a.png", "--data_root.png")
    assert predicted(capsys, "cpu", "--", "--data_root.png")["answers"][0]["top"]


def test_a_file_that_cannot_be_read_is_named_and_the_others_go_on(photos, run, capsys):
    (photos / "broken.png").write_bytes((photos / "a.png").read_bytes()[:400])
    (photos / "text.png").write_text("no picture")
    (photos / "empty").mkdir()
    os.mkfifo(photos / "pipe.png")
    words = [str(run.path), "a.png", "broken.png", "empty", "gone.png", "pipe.png", "text.png"]
    assert main(["predict", *words, "b.jpg", "--csv"]) == 4
    output = capsys.readouterr()
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(output.out))}
    assert [bool(row["class_1"]) for row in rows.values()] == [True, *[False] * 5, True]
    assert rows["text.png"]["problem"] == "not a PNG, JPEG or WebP image"
    assert rows["gone.png"]["problem"] == "there is no such file"
    assert rows["pipe.png"]["problem"] == "not a file"
    assert rows["empty"]["problem"] == "a folder without a PNG, JPEG or WebP image"
    assert "'broken.png': " in output.err
    assert "5 of 7 files could not be read; the others are answered" in output.err
    assert main(["predict", str(run.path), "gone.png"]) == 1
    assert "1 file, and none could be read" in capsys.readouterr().err


def test_no_name_of_a_file_moves_the_terminal_or_is_run_by_a_spreadsheet(photos, run, capsys):
    folder = photos / "hostile"
    folder.mkdir()
    for name in HOSTILE:
        shutil.copy("a.png", folder / name)
    (folder / "\x1b[2Jbroken.png").touch()
    for form in ([], ["--csv"], ["--json"]):
        os.chdir(folder)
        assert main(["predict", str(run.path), *form, "--", *sorted(os.listdir())]) == 4
        output = capsys.readouterr()
        (output.out + output.err).encode()
        for letter in output.out + output.err:
            assert letter == "\n" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs")
        if form == ["--json"]:
            found = json.loads(output.out)["answers"]
            assert {one["path"] for one in found} == set(os.listdir())
        if form == ["--csv"]:
            cells = [row[0] for row in csv.reader(io.StringIO(output.out))]
            assert len(cells) == 1 + len(os.listdir())
            assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


def test_pictures_are_read_when_their_turn_comes(photos, run):
    paths = [photos / f"{place:03d}.png" for place in range(3 * BATCH)]
    for path in paths:
        shutil.copy("a.png", path)
    found = answers(vitlab.load(run, device="cpu"), paths)
    assert next(found).problem is None
    for path in paths[BATCH:]:
        path.unlink()
    assert [one.problem is None for one in found] == [True] * (BATCH - 1) + [False] * (2 * BATCH)


def test_progress_is_shown_on_a_terminal_and_never_in_the_result(photos, run, capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert main(["predict", str(run.path), ".", "--json"]) == 0
    output = capsys.readouterr()
    assert "pictures" in output.err and "3/3" in output.err
    assert len(json.loads(output.out)["answers"]) == 3


def test_explain_draws_the_pictures_that_could_be_read(photos, digits_run, capsys):
    name = os.fsdecode(b"\xff\x1b[31m.png")
    shutil.copy("a.png", name)
    assert main(["predict", str(digits_run.path), name, "gone.png", "--explain"]) == 4
    folder = digits_run.explanations
    assert f"maps in {folder}" in capsys.readouterr().err
    assert list(folder.glob("*31m.png")) and list(folder.glob("*-attention.png"))


def test_explain_is_as_sure_as_predict(photos, run, digits_run, capsys, monkeypatch):
    fitted = {"checkpoint_sha256": digits_run.checkpoint().sha256, "temperature": 0.4}
    digits_run.write_results({"validation": fitted})
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: file.write(b"drawn"))
    drawn = explain(digits_run, ["a.png"], methods=["rollout"])["pictures"][0]
    answer = predicted(capsys, str(digits_run.path), "a.png")["answers"][0]
    assert drawn["certainty"] == answer["certainty"]
    for one, other in zip(drawn["top"], answer["top"], strict=True):
        assert one == {**other, "probability": pytest.approx(other["probability"], abs=1e-6)}
    assert answer["top"] != predicted(capsys, str(run.path), "a.png")["answers"][0]["top"]


def test_wrong_commands_are_refused_with_exit_code_2(photos, run, capsys):
    for words, reason in (
        (["cpu"], "no pictures: give files"),
        (["a.png", "--json", "--csv"], "two forms"),
        (["a.png", "--top", "0"], "top=0"),
    ):
        assert main(["predict", *words]) == 2
        assert reason in capsys.readouterr().err
    with pytest.raises(ConfigError):
        next(answers(vitlab.load(run, device="cpu"), [Path("a.png")], top=0))
