"""A model says what it does not know: images unlike its training, and sets that hold the class."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

import vitlab
from vitlab.classifier import open_classifier
from vitlab.cli import main
from vitlab.data import open_dataset
from vitlab.errors import ConfigError, VitlabError
from vitlab.evaluate import evaluate
from vitlab.export import export
from vitlab.metrics import conformal, ood
from vitlab.sklearn import ViTClassifier

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 8, 8, 1), np.uint8)


@pytest.fixture
def run(digits_run):
    """A small run on the digits, evaluated."""
    evaluate(digits_run, pictures=False, quiet=True)
    return digits_run


@pytest.fixture
def known(run):
    """Validation images of the digits."""
    dataset = open_dataset(run.config.data)
    return dataset.examples.images[dataset.split[1]]


def drawn(count: int, classes: int = 5, spread: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels that are drawn by them."""
    logits = RNG.normal(0, spread, (count, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) < RNG.random((count, 1))).sum(axis=1)
    return probabilities, labels.clip(0, classes - 1)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_sets_hold_the_class_as_often_as_asked_whatever_the_model_is_worth(sharpness):
    probabilities, labels = drawn(100_000)
    wrong = probabilities**sharpness  # too sure, or not sure enough
    wrong /= wrong.sum(axis=1, keepdims=True)
    thresholds = conformal.calibrate(wrong[:50_000], labels[:50_000])
    for row in conformal.measure(wrong[50_000:], labels[50_000:], thresholds):
        assert row["coverage"] == pytest.approx(row["level"], abs=0.01)


def test_where_images_are_too_few_for_a_guarantee_every_class_is_in_the_set():
    probabilities, labels = drawn(8)
    thresholds = conformal.calibrate(probabilities, labels)
    limit = conformal.threshold(thresholds, 95)
    assert conformal.prediction_sets(probabilities, RNG.random(8), limit).all()
    assert np.isfinite(conformal.threshold(thresholds, 80))


def test_sets_of_a_model_that_knows_more_are_smaller():
    sizes = [
        conformal.measure(*drawn(5_000, spread=spread), None)[1]["mean_size"]
        for spread in (0.5, 3.0)
    ]
    assert sizes[1] < sizes[0] - 1


def test_a_coverage_that_cannot_be_asked_for_is_named(run, known):
    with pytest.raises(ConfigError, match="coverage=100: give a whole percentage from 50 to 99"):
        vitlab.load(run).classify(known[:1], coverage=100)


def test_features_far_from_every_class_are_unknown_and_those_between_two_are_too():
    labels = np.repeat([0, 1], 200)
    features = RNG.normal(size=(400, 6)) + 20 * labels[:, None]
    detector, distances = ood.fit_detector(features, labels, RNG.normal(size=(100, 6)))
    assert (distances > detector.threshold).mean() == pytest.approx(0.05, abs=0.01)
    between, outside = np.full((1, 6), 10.0), np.full((1, 6), -10.0)
    assert (detector.distances(np.concatenate((between, outside))) > detector.threshold).all()


def test_noise_is_unknown_to_a_run_and_its_own_kind_of_image_is_not(run, known):
    model = vitlab.load(run)
    assert model.is_unknown(NOISE).mean() > 0.9
    assert 0.02 < model.is_unknown(known).mean() < 0.08
    assert run.results["validation"]["ood"]["unknown"] == pytest.approx(0.05, abs=0.01)


def test_the_test_result_counts_unknown_images_by_the_threshold_of_validation(run):
    result = evaluate(run, "test", pictures=False, quiet=True)
    assert result["ood"]["threshold"] == run.results["validation"]["ood"]["threshold"]
    assert 0 < result["ood"]["unknown"] < 0.2
    assert [row["level"] for row in result["prediction_sets"]] == [0.8, 0.9, 0.95]


def test_a_run_evaluated_by_an_earlier_version_gets_its_detector_when_evaluated_again(run):
    expected = vitlab.load(run).detector.threshold
    run.detector("last").unlink()
    with pytest.raises(VitlabError, match="`vitlab evaluate` does it"):
        vitlab.load(run).is_unknown(NOISE)
    assert vitlab.load(run).classify(NOISE[0])[0]["unknown"] is None
    before = run.results
    nothing = (np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 0, 1]))
    assert evaluate(run, data=nothing, pictures=False, quiet=True) == before["validation"]
    evaluate(run, pictures=False, quiet=True)
    assert vitlab.load(run).detector.threshold == pytest.approx(expected)


def test_the_detector_of_other_weights_is_not_used(run):
    stored = vitlab.load(run).detector
    ood.write_detector(run.detector("last"), stored, "0" * 64)
    assert vitlab.load(run).detector is None


def test_an_export_says_the_same_as_its_run(run, known, tmp_path):
    pytest.importorskip("onnxruntime")
    folder = export(run, "onnx", tmp_path / "onnx")["folder"]
    images = np.concatenate((known, NOISE))
    by_onnx, by_torch = (
        each.classify(images, coverage=90) for each in (open_classifier(folder), vitlab.load(run))
    )
    assert [one["unknown"] for one in by_onnx] == [one["unknown"] for one in by_torch]
    assert [one["set"] for one in by_onnx] == [one["set"] for one in by_torch]
    assert any(one["unknown"] for one in by_onnx)


def test_predict_says_it_in_words_in_csv_and_in_json(run, known, tmp_path, capsys):
    for name, image in (("digit", known[0]), ("noise", NOISE[0])):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    words = ["predict", str(run.path), str(tmp_path), "--coverage", "90"]
    main(words)
    digit, noise = capsys.readouterr().out.splitlines()
    assert noise.endswith("unlike anything it was trained on") and "unlike" not in digit
    assert "; set: " in digit
    main([*words, "--csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["unknown"] for row in rows] == ["", "false", "true"]
    assert rows[0]["problem"] and rows[1]["set"]
    main([*words, "--json"])
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [one["unknown"] for one in answers] == [None, False, True]
    assert set(answers[1]["set"]) <= set("0123456789")


def test_the_estimator_tells_images_unlike_those_it_was_fitted_on(known):
    images = open_dataset(vitlab.recipe("digits").data).examples
    model = ViTClassifier(epochs=2, random_state=0).fit(images.images[:600], images.labels[:600])
    assert model.predict_ood(NOISE).mean() > 0.8
    assert model.predict_ood(known).mean() < 0.4
