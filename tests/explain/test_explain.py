"""Protects the verb: what it explains, what it writes and what it leaves alone."""

import json
import shutil

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
from vitlab.run import Run

SMALL = {
    "model.width": 16,
    "model.depth": 2,
    "model.heads": 2,
    "optim.warmup_epochs": 1,
    "train.epochs": 2,
}
FEW = ["rollout", "grad-cam"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished ViT on the digits."""
    config = vitlab.recipe("digits").override(SMALL)
    out = tmp_path_factory.mktemp("trained")
    return vitlab.train(config, out=out, name="tiny", device="cpu", quiet=True)


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    """Judge maps on a handful of images, and leave the rendering of pictures to their own tests."""
    monkeypatch.setattr(module, "MEASURED", 20)
    monkeypatch.setattr(faithfulness, "CHECKED", 4)
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: file.write(b"drawn"))


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the finished run, free to be written."""
    shutil.copytree(trained.path, tmp_path / "runs" / "tiny")
    return Run(tmp_path / "runs" / "tiny")


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
    assert picture["image"].endswith(f"in truth {examples.labels[place]}")
    logits = vitlab.predict(run, examples.images[place], device="cpu")[0]
    assert picture["top"][0]["class"] == str(logits.argmax())
    assert len(picture["top"]) == 3
    judged = found["faithfulness"]
    assert len(judged["indices"]) == judged["images"] == 20
    assert set(judged["indices"]) <= set(index.tolist())
    assert json.loads((run.explanations / "faithfulness.json").read_text()) == judged
    after = files(run.path)
    assert {path: after[path] for path in before} == before
    new = {str(path) for path in set(after) - set(before)}
    assert all(path.startswith("explain/") for path in new)
    names = {path.removeprefix("explain/").rpartition(".")[0] for path in new}
    own = {"faithfulness", "filters", "distance", "positions"}
    assert names == own | {picture["name"] + tail for tail in ("", "-attention", "-features")}


def test_a_repeat_writes_equal_bytes_and_measures_nothing(run, monkeypatch):
    first = explain(run, methods=FEW, count=1)
    before = files(run.path)
    monkeypatch.setattr(module, "measure", None)
    assert explain(run, methods=FEW, count=1) == first
    assert files(run.path) == before


def test_a_measurement_of_other_methods_is_not_taken_for_this_one(run):
    explain(run, methods=["rollout"], count=0)
    found = explain(run, methods=["attention"], count=0)
    tested = [one["method"] for one in found["faithfulness"]["methods"] if "similarity" in one]
    assert tested == ["attention"]


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


def test_the_test_split_is_a_folder_of_its_own_and_enters_the_ledger(run):
    found = explain(run, split="test", methods=["rollout"], count=0)
    assert found["faithfulness"]["split"] == "test"
    assert (run.path / "explain" / "test" / "faithfulness.json").exists()
    assert not (run.path / "explain" / "faithfulness.json").exists()
    assert len((run.path.parent / LEDGER).read_text().splitlines()) == 1


def test_a_run_that_is_not_finished_keeps_its_test_split_closed(run):
    (run.path / "finished.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        explain(run, split="test", methods=["rollout"])
    assert not (run.path.parent / LEDGER).exists()


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
    printed = capsys.readouterr().out
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
    "probability, words",
    [(1.0, "sure"), (0.9, "fairly sure"), (0.71, "fairly sure"), (0.7, "unsure"), (0.1, "unsure")],
)
def test_confidence_in_words(probability, words):
    assert certainty(probability) == words
