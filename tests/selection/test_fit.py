"""Which model for these pictures: every way is tried on the same ones, and the best is a run."""

import numpy as np
import pytest
from PIL import Image

import vitlab
from vitlab.cli import main
from vitlab.errors import RunError
from vitlab.evaluate import evaluate
from vitlab.explain import explain
from vitlab.selection.candidates import Candidate, Trained
from vitlab.selection.folds import FOLDS, NEVER, assign_folds
from vitlab.selection.verdict import judge


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures of several sizes whose class is a colour, and one that stands alone."""
    folder = tmp_path_factory.mktemp("photos")
    draws = np.random.default_rng(0)
    for colour, (name, count) in enumerate({"red": 15, "green": 15, "blue": 12}.items()):
        (folder / name).mkdir()
        for number in range(count):
            image = draws.integers(60, 200, (40 + number, 44, 3), np.uint8)
            image[..., colour] //= 2
            Image.fromarray(image).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def found(photos, backbone, tmp_path_factory) -> vitlab.Run:
    out = tmp_path_factory.mktemp("runs")
    where = {"backbones": [backbone], "out": out, "device": "cpu", "quiet": True}
    return vitlab.fit(photos, minutes=0.15, labels_per_class=40, **where)


def test_every_candidate_is_measured_on_the_same_pictures_or_says_why_not(found):
    rows = found.selection["candidates"]
    names = [row["candidate"] for row in rows]
    assert names[0] == "most frequent class" and len(names) == len(set(names)) == 12
    pictures = found.selection["pictures"]
    assert pictures == 12 + 12 + 10  # a fifth of each class is kept for the test
    for row in rows:
        assert row["pictures"] == 0 or row["interval"][0] <= row["accuracy"] <= row["interval"][1]
        assert row["pictures"] or row["note"].startswith("not tried")
    assert rows[0]["accuracy"] < 0.5 and found.selection["chosen"] in names
    chosen = next(row for row in rows if row["candidate"] == found.selection["chosen"])
    assert chosen["accuracy"] > 0.8 and chosen["verdict"] == "chosen"
    assert found.selection["advice"].startswith(f"Use {chosen['candidate']}: right on")
    assert "40 would reach about" in found.selection["labels"]["sentence"]


def test_the_run_is_validated_by_pictures_that_were_held_out_in_turn(found, photos):
    result = evaluate(found, device="cpu", quiet=True, pictures=False)
    chosen = next(r for r in found.selection["candidates"] if r["verdict"] == "chosen")
    assert result["cross_validated"] == FOLDS and result["images"] == chosen["pictures"]
    assert result["accuracy"] == pytest.approx(chosen["accuracy"])
    assert result["temperature"] > 0
    (photo,) = photos.glob("red/1.png")
    model = vitlab.load(found, device="cpu")
    assert model.classify(photo)[0]["top"][0]["class"] in ("red", "green", "blue")
    assert "cross-validation" in model.introduction
    test = evaluate(found, "test", device="cpu", quiet=True, pictures=False)
    assert test["images"] == 3 + 3 + 2 and test["accuracy"] > 0.6
    maps = explain(found, count=1, device="cpu", quiet=True, methods=["grad-cam"])
    assert "training image" in maps["pictures"][0]["image"]


def test_the_same_question_is_answered_in_the_same_way(found, photos, backbone, tmp_path):
    where = {"backbones": [backbone], "out": tmp_path, "device": "cpu", "quiet": True}
    again = vitlab.fit(photos, minutes=0.01, **where)
    rows = {row["candidate"]: row for row in found.selection["candidates"]}
    for row in again.selection["candidates"][:5]:
        assert row["correct"] == rows[row["candidate"]]["correct"]
    with pytest.raises(RunError, match="is there already"):
        vitlab.fit(photos, minutes=0.01, **where)


def test_one_picture_of_a_class_is_enough_to_learn_from_and_too_few_to_compare(backbone, tmp_path):
    images = np.zeros((3, 32, 32, 3), np.uint8)
    images[[0, 1, 2], :, :, [0, 1, 2]] = 200
    where = {"backbones": [backbone], "out": tmp_path, "device": "cpu", "quiet": True}
    run = vitlab.fit((images, np.arange(3)), minutes=0.1, **where)
    assert run.selection["held_out"] == 0 and "nothing was measured" in run.selection["advice"]
    logits = vitlab.load(run, device="cpu").logits(images)
    assert (logits.argmax(axis=1) == np.arange(3)).all()


def test_the_command_prints_a_table_an_advice_and_the_path(photos, backbone, tmp_path, capsys):
    words = [
        "fit",
        str(photos),
        "--backbone",
        backbone,
        "--minutes",
        "0.01",
        "--out",
        str(tmp_path),
    ]
    assert main([*words, "--name", "mine", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == str(tmp_path / "mine") and "Use " in out
    assert main([*words, "--data.test_fraction", "2"]) == 2


def test_folds_share_classes_evenly_and_keep_copies_together():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [30, 20, 1])
    keys = rng.integers(0, 2**63, 51).astype(np.uint64)
    keys[5] = keys[6]
    folds = assign_folds(keys, labels, seed=0)
    assert folds[5] == folds[6] and folds[50] == NEVER
    for label, count in ((0, 30), (1, 20)):
        sizes = np.bincount(folds[labels == label], minlength=FOLDS)
        assert sizes.min() >= count // FOLDS - 1
    order = rng.permutation(51)
    assert np.array_equal(assign_folds(keys[order], labels[order], seed=0), folds[order])
    assert not np.array_equal(assign_folds(keys, labels, seed=1), folds)


class Answers(Candidate):
    """A candidate of a given name that is right about so many of 200 pictures."""

    megabytes = None

    def __init__(self, name, pool, right, config=None, megabytes=1.0):
        super().__init__(name, pool)
        self.config, self.megabytes = config, megabytes
        self.logits = np.eye(2)[np.where(np.arange(200) < right, pool.labels, 1 - pool.labels)]


class Pictures:
    """Two hundred pictures of two classes."""

    labels, class_names = np.arange(200) % 2, ("a", "b")

    def __len__(self):
        return 200


def test_a_training_leaves_time_for_the_run_should_it_be_chosen():
    one = object.__new__(Trained)
    one.config, one.seconds_per_epoch = vitlab.recipe("finetune"), 10.0
    assert one.shorten(90, least=3) and one.config.train.epochs == 5
    assert one.seconds_per_fold + one.seconds_of_all <= 90
    assert not one.shorten(30, least=3)


def test_the_larger_model_must_earn_its_place():
    pool = Pictures()
    simple, same, better = (Answers(n, pool, r) for n, r in (("a", 150), ("b", 150), ("c", 170)))
    larger, equal = Answers("d", pool, 171, megabytes=9.0), Answers("e", pool, 171)
    control = Answers("control", pool, 199, config=None)
    for one in (simple, same, better, larger, equal):
        one.config = type("Config", (), {"sha256": one.name})
    assert judge([better, larger]).chosen is better
    assert judge([better, equal]).chosen is equal
    assert judge([control, simple, same]).chosen is simple
    verdict = judge([control, simple, same, better])
    assert verdict.chosen is better
    words = {row["candidate"]: row["verdict"] for row in verdict.rows}
    assert words == {"control": "better", "a": "worse", "b": "worse", "c": "chosen"}
