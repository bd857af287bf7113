"""The verb: what it explains, what it writes and what it leaves alone."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import vitlab
from vitlab import explain as module
from vitlab.cli import main
from vitlab.data import open_dataset
from vitlab.errors import ConfigError, DataError, RunError
from vitlab.explain import explain, faithfulness
from vitlab.ledger import LEDGER
from vitlab.metrics import certainty

FEW = ["rollout", "grad-cam"]


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    """Measure on a handful of images, and leave the rendering of pictures to their own tests."""
    monkeypatch.setattr(module, "MEASURED", 20)
    monkeypatch.setattr(faithfulness, "CHECKED", 4)
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: file.write(b"drawn"))


@pytest.fixture
def run(digits_run):
    return digits_run


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def photo(path, size=(50, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_run_is_explained_on_validation_images_and_only_its_own_folder_is_written(run):
    before = files(run.path)
    found = explain(run, methods=FEW, count=1)
    examples = open_dataset(run.config.data).examples
    index = run.split.index[1]
    (picture,) = found["pictures"]
    place = int(picture["name"].removeprefix("validation-"))
    assert place in index
    assert "drawn at random (seed 42)" in picture["image"]
    assert picture["image"].endswith(f"true class: {examples.labels[place]}")
    logits = vitlab.predict(run, examples.images[place], device="cpu")[0]
    assert picture["top"][0]["class"] == str(logits.argmax())
    assert len(picture["top"]) == 3
    measured = found["faithfulness"]
    assert len(measured["indices"]) == measured["images"] == 20
    assert set(measured["indices"]) <= set(index.tolist())
    assert json.loads((run.explanations / "faithfulness.json").read_text()) == measured
    after = files(run.path)
    assert {path: after[path] for path in before} == before
    new = {str(path) for path in set(after) - set(before)}
    assert all(path.startswith("explain/") for path in new)
    names = {path.removeprefix("explain/").rpartition(".")[0] for path in new}
    own = {"faithfulness", "filters", "distance", "positions"}
    assert names == own | {picture["name"] + tail for tail in ("", "-attention", "-features")}


def test_what_was_measured_is_kept_and_only_what_is_missing_needs_another_look(run, monkeypatch):
    explain(run, methods=["rollout"], count=0)
    first = explain(run, methods=["grad-cam"], count=1)
    tested = [one["method"] for one in first["faithfulness"]["methods"] if "similarity" in one]
    assert set(tested) == set(FEW)
    monkeypatch.setattr(module, "measure", None)
    for methods in (FEW, ["rollout"]):
        again = explain(run, methods=methods, count=1)
        assert again["faithfulness"] == first["faithfulness"]
    before = files(run.path)
    assert explain(run, methods=["rollout"], count=1) == again
    assert files(run.path) == before


def test_picture_files_of_any_name_and_size_are_explained_at_their_own_resolution(run, tmp_path):
    paths = [
        photo(tmp_path / "a" / "<b>$x$ 😀 & co..png"),
        photo(tmp_path / "c" / "<b>$x$ 😀 & co..png", (8, 8)),
        photo(tmp_path / "😀.png", (1, 2000)),
    ]
    found = explain(run, paths, methods=["rollout"])
    names = [one["name"] for one in found["pictures"]]
    assert names == ["b-x-co", "b-x-co-2", "image"]
    assert found["faithfulness"] is None
    assert not (run.explanations / "faithfulness.json").exists()
    for name, shape in zip(names, [(30, 50, 3), (8, 8, 3), (1024, 1, 3)], strict=True):
        with np.load(run.explanations / f"{name}.npz", allow_pickle=False) as arrays:
            assert arrays["image"].shape == shape
            assert arrays["rollout"].shape == (4, 4)


def test_a_file_that_is_no_picture_is_refused_before_anything_is_written(run, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match="not a PNG, JPEG or WebP image"):
        explain(run, [photo(tmp_path / "good.png"), tmp_path / "text.png"])
    assert not run.explanations.exists()


def test_the_test_split_of_a_finished_run_is_a_folder_of_its_own_and_enters_the_ledger(run):
    found = explain(run, split="test", methods=["rollout"], count=0)
    assert found["faithfulness"]["split"] == "test"
    assert (run.path / "explain" / "test" / "faithfulness.json").exists()
    assert not (run.path / "explain" / "faithfulness.json").exists()
    ledger = run.path.parent / LEDGER
    assert len(ledger.read_text().splitlines()) == 1
    (run.path / "finished.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        explain(run, split="test", methods=["rollout"])
    assert len(ledger.read_text().splitlines()) == 1


def test_a_cnn_is_explained_without_attention(tmp_path):
    config = vitlab.recipe("digits").override({"model.kind": "cnn6", "model.width": 2})
    config = config.override({"train.epochs": 1, "optim.warmup_epochs": 0})
    run = vitlab.train(config, out=tmp_path, name="cnn", device="cpu", quiet=True)
    found = explain(run, count=1)
    tested = {one["method"] for one in found["faithfulness"]["methods"] if "similarity" in one}
    assert tested == {"grad-cam", "occlusion", "integrated-gradients"}
    names = {path.stem for path in run.explanations.iterdir()}
    picture = found["pictures"][0]["name"]
    assert names == {"faithfulness", "filters", picture, f"{picture}-features"}


def test_the_command_prints_answers_and_ranks_methods(run, capsys):
    command = ["explain", str(run.path), "--methods", "rollout", "--count", "2"]
    assert main(command) == 0
    printed, err = capsys.readouterr()
    assert err == "", "progress where no terminal reads it"
    assert printed.count("drawn at random (seed 42)") == 2
    assert "gain" in printed and "verdict" in printed and str(run.explanations) in printed
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"][0]["certainty"]


def test_wrong_methods_and_counts_are_refused_with_exit_code_2(run, capsys):
    assert main(["explain", str(run.path), "--methods", "rolout"]) == 2
    assert "did you mean rollout" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="count=-1"):
        explain(run, count=-1)


@pytest.mark.parametrize(
    "probability, certain",
    [(1.0, "sure"), (0.9, "fairly sure"), (0.71, "fairly sure"), (0.7, "unsure"), (0.1, "unsure")],
)
def test_certainty_in_words(probability, certain):
    assert certainty(probability) == certain
