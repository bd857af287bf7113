"""Protects the numbers in every table: each is checked by hand or against scikit-learn."""

import json

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn import metrics as reference

from vitlab import metrics
from vitlab.errors import VitlabError
from vitlab.metrics import multilabel


@pytest.fixture(scope="module")
def noisy():
    """Logits (600, 5) that are right more often than not, and labels (600,)."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 5, 600)
    logits = draw.normal(size=(600, 5)).astype(np.float32)
    logits[np.arange(600), labels] += 1.5
    return logits, labels


def certain(predicted, classes):
    """Logits whose softmax puts exactly 1.0 on each predicted class."""
    logits = np.full((len(predicted), classes), -200.0, np.float32)
    logits[np.arange(len(predicted)), predicted] = 200
    return logits


def test_equal_logits_are_won_by_the_lowest_class_in_accuracy_and_confusion_alike():
    logits, labels = np.zeros((3, 4)), np.array([0, 1, 3])
    assert metrics.accuracy(logits, labels) == pytest.approx(1 / 3)
    assert metrics.confusion_matrix(logits, labels)[:, 0].tolist() == [1, 1, 0, 1]
    assert metrics.top_accuracy(np.zeros((4, 2)), np.array([0, 1, 1, 0]), 3) == 1


def test_the_largest_float32_logits_give_finite_numbers():
    big = np.finfo(np.float32).max
    logits = np.array([[big, -big, 0], [-big, big, 0], [0, 0, big]], np.float32)
    summary = metrics.summarize(logits, np.array([0, 1, 0]), ["a", "b", "c"])
    assert np.isfinite(summary["loss"]) and summary["loss"] > 1e37
    assert summary["accuracy"] == pytest.approx(2 / 3)
    assert summary["mean_confidence"] == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_never_look_like_a_number(noisy, bad):
    logits, labels = noisy[0].copy(), noisy[1]
    logits[7] = [bad, *logits[7, 1:]]
    assert np.isnan(metrics.accuracy(logits, labels))
    with pytest.raises(VitlabError, match=r"1 of 600 images .*\[7\].*fp32"):
        metrics.summarize(logits, labels, list("abcde"))


def test_roc_points_bound_the_area_that_auc_states(noisy):
    logits, labels = noisy
    curves = metrics.roc(logits, labels)
    for curve, area in zip(curves, metrics.per_class(logits, labels).auc, strict=True):
        assert curve is not None
        assert np.all(np.diff(curve, axis=0) >= 0)
        assert curve[0].tolist()[0] == 0 and curve[-1].tolist() == [1, 1]
        assert np.trapezoid(curve[:, 1], curve[:, 0]) == pytest.approx(area, abs=2e-3)


def test_calibration_error_of_a_hand_made_case():
    # Two bins of two images: confidence 0.55 with accuracy 1/2, confidence 0.95 with 1/2.
    confidence = np.array([0.55, 0.55, 0.95, 0.95])
    logits = np.log(np.stack([confidence, 1 - confidence], axis=1))
    bins = metrics.reliability(logits, np.array([0, 1, 0, 1]))
    assert bins.calibration_error == pytest.approx((0.05 + 0.45) / 2)


def test_bins_are_closed_on_the_right():
    bins = metrics.reliability(certain([0] * 40, 2), np.array([0] * 21 + [1] * 19))
    assert bins.images.tolist() == [0] * 14 + [40]
    assert bins.calibration_error == pytest.approx(0.475)
    # Softmax of equal logits over four classes is 1/4, an edge when there are four bins.
    assert metrics.reliability(np.zeros((3, 4)), np.zeros(3, int), bins=4).images[0] == 3


def test_reliability_counts_every_image_once(noisy):
    summary = metrics.summarize(*noisy, list("abcde"))
    bins = summary["reliability"]
    assert sum(one["images"] for one in bins) == 600
    assert sum(one["images"] * (one["accuracy"] or 0) for one in bins) == pytest.approx(
        600 * summary["accuracy"]
    )
    assert bins[0] == {"above": 0, "to": 1 / 15, "images": 0, "confidence": None, "accuracy": None}


def test_top_confusions_are_ordered_and_share_all_errors():
    matrix = np.array([[90, 6, 0], [3, 80, 1], [0, 0, 70]])
    first, second, third = metrics.top_confusions(matrix, ["cat", "dog", "ship"])
    assert first == {
        "true": "cat", "predicted": "dog", "count": 6, "share": 0.6, "pair_share": 0.9
    }  # fmt: skip
    assert (second["true"], second["predicted"], second["count"]) == ("dog", "cat", 3)
    assert third["share"] == 0.1
    assert metrics.top_confusions(matrix, ["cat", "dog", "ship"], count=1) == [first]
    assert metrics.top_confusions(np.eye(3, dtype=int), ["cat", "dog", "ship"]) == []


def test_a_summary_is_plain_json_in_fractions(noisy):
    summary = metrics.summarize(*noisy, list("abcde"))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["images"] == 600
    low, high = summary["accuracy_interval"]
    assert 0 < low < summary["accuracy"] < high < 1
    assert summary["accuracy"] < summary["top3_accuracy"] <= 1
    assert np.sum(summary["confusion"]) == 600
    assert summary["balanced_accuracy"] == summary["mean_recall"]
    assert summary["temperature"] is None and summary["scaled_reliability"] is None


def degenerate(kind):
    """Logits (N, 4) and labels (N,) that no healthy model gives."""
    draw = np.random.default_rng(1)
    logits = draw.normal(size=(200, 4)).astype(np.float32)
    labels = draw.integers(0, 4, 200)
    if "never predicted" in kind or "neither" in kind:
        logits[:, 2] = -20  # scikit-learn takes no probability below 1e-16
    if "without images" in kind or "neither" in kind:
        labels[labels == 2] = 1
    if kind == "one image":
        logits, labels = logits[:1], labels[:1]
    if kind == "one class alone":
        labels[:] = 3
    return logits, labels


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize(
    "kind",
    ["random", "a class never predicted", "a class without images",
     "a class neither predicted nor there", "one image", "one class alone"],
)  # fmt: skip
def test_every_number_is_scikit_learns_to_twelve_digits(kind):
    logits, labels = degenerate(kind)
    predicted, present = logits.argmax(1), np.unique(labels)
    probabilities = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    summary = metrics.summarize(logits, labels, list("abcd"))
    exactly = {"rel": 0, "abs": 1e-12}
    means = reference.precision_recall_fscore_support(
        labels, predicted, labels=present, average="macro", zero_division=0
    )
    for name, mean in zip(("precision", "recall", "f1"), means[:3], strict=True):
        assert summary[f"mean_{name}"] == pytest.approx(mean, **exactly)
    balanced = reference.balanced_accuracy_score(labels, predicted)
    assert summary["balanced_accuracy"] == pytest.approx(balanced, **exactly)
    assert summary["accuracy"] == reference.accuracy_score(labels, predicted)
    entropy = reference.log_loss(labels, probabilities, labels=range(4))
    assert summary["loss"] == pytest.approx(entropy, **exactly)
    matrix = reference.confusion_matrix(labels, predicted, labels=range(4))
    assert summary["confusion"] == matrix.tolist()
    top3 = reference.top_k_accuracy_score(labels, logits, k=3, labels=range(4))
    assert summary["top3_accuracy"] == pytest.approx(top3, **exactly)
    each = reference.precision_recall_fscore_support(
        labels, predicted, labels=range(4), zero_division=0
    )
    assert summary["absent_classes"] == [name for k, name in enumerate("abcd") if k not in present]
    curves, confidence = metrics.roc(logits, labels), probabilities.max(axis=1)
    for k, one in enumerate(summary["per_class"]):
        expected = [float(values[k]) if k in present else None for values in each[:3]]
        found = [one[name] for name in ("precision", "recall", "f1")]
        assert found == (pytest.approx(expected, **exactly) if k in present else expected)
        if k in present and len(present) > 1:
            area = reference.roc_auc_score(labels == k, probabilities[:, k])
            assert one["auc"] == pytest.approx(area, **exactly)
        else:
            assert one["auc"] is None and curves[k] is None
        if k in present:
            assert one["confidence"] == pytest.approx(confidence[labels == k].mean(), **exactly)
    areas = [one["auc"] for one in summary["per_class"] if one["auc"] is not None]
    assert summary["mean_auc"] == (pytest.approx(np.mean(areas)) if areas else None)


def test_the_temperature_makes_confidence_fit_what_it_was_fitted_on(noisy):
    logits, labels = noisy
    temperature = metrics.fit_temperature(3 * logits, labels)
    assert temperature == pytest.approx(3 * metrics.fit_temperature(logits, labels), rel=1e-4)
    # At the least cross-entropy the expected logit is the mean logit of the true class.
    scaled = logits.astype(np.float64) * 3 / temperature
    expected = (np.exp(log_softmax(scaled, axis=1)) * scaled).sum(axis=1).mean()
    assert scaled[np.arange(600), labels].mean() == pytest.approx(expected, abs=1e-4)
    summary = metrics.summarize(3 * logits, labels, list("abcde"), temperature)
    assert summary["temperature"] == temperature
    assert summary["scaled_loss"] < summary["loss"]
    assert summary["scaled_calibration_error"] < 0.5 * summary["calibration_error"]
    assert sum(one["images"] for one in summary["scaled_reliability"]) == 600


@pytest.mark.parametrize(("labels", "bound"), [([0, 1, 2], 1 / 20), ([1, 2, 0], 20)])
def test_a_model_that_is_always_right_or_always_wrong_has_a_finite_temperature(labels, bound):
    logits = certain([0, 1, 2], 3) / 200
    assert metrics.fit_temperature(logits, np.array(labels)) == pytest.approx(bound, rel=0.2)


def test_galleries_show_sixteen_images_of_each_kind_the_surest_mistakes_first(noisy):
    logits, labels = noisy
    shown = metrics.galleries(logits, labels)
    wrong = logits.argmax(1) != labels
    assert {len(np.unique(places)) for places in shown.values()} == {16}
    assert wrong[shown["mistakes"]].all() and not wrong[shown["random"]].all()
    confidence = np.exp(log_softmax(logits.astype(np.float64), axis=1)).max(axis=1)
    surest = np.sort(confidence[wrong])[::-1][:16]
    assert np.allclose(confidence[shown["confident-mistakes"]], surest)
    again = metrics.galleries(logits, labels)
    assert all(np.array_equal(shown[kind], again[kind]) for kind in shown)
    few = metrics.galleries(certain([0, 1, 1], 2), np.array([0, 1, 0]))
    assert sorted(few["random"]) == [0, 1, 2]
    assert few["mistakes"].tolist() == few["confident-mistakes"].tolist() == [2]


def test_an_accuracy_is_reached_at_the_first_epoch_that_measured_it():
    judged = [(1.0, 0.4, 0.3), (2.0, 0.8, 0.62), (3.0, 0.75, 0.5)]
    lines = [{"split": "train", "epoch": 0.5, "loss": 2.0}]
    for epoch, train, validation in judged:
        lines.append({"split": "train_clean", "epoch": epoch, "accuracy": train})
        lines.append({"split": "validation", "epoch": epoch, "accuracy": validation})
    assert metrics.epochs_to_accuracy(lines, (0.3, 0.5, 0.8)) == [
        {"accuracy": 0.3, "train_clean": 1.0, "validation": 1.0},
        {"accuracy": 0.5, "train_clean": 2.0, "validation": 2.0},
        {"accuracy": 0.8, "train_clean": 2.0, "validation": None},
    ]


@pytest.fixture
def several():
    """Logits (300, 4) that know something of several labels, the last of which no image has."""
    rng = np.random.default_rng(5)
    labels = (rng.random((300, 4)) < (0.5, 0.2, 0.05, 0.0)).astype(np.uint8)
    return (rng.standard_normal((300, 4)) + 1.5 * labels).astype(np.float32), labels


def test_tuned_thresholds_have_the_highest_f1_that_any_threshold_has(several):
    logits, labels = several
    chances = multilabel.probabilities(logits)
    thresholds = multilabel.tune_thresholds(chances, labels)
    for k in range(3):
        given = chances[:, k] >= np.append(thresholds[k], chances[:, k])[:, None]
        f1 = (
            2 * (given & (labels[:, k] == 1)).sum(axis=1) / (given.sum(axis=1) + labels[:, k].sum())
        )
        assert f1[0] == f1.max()
    assert thresholds[3] == 0.5
    tied = np.array([[0.5], [0.5], [0.2]])
    assert multilabel.tune_thresholds(tied, np.array([[1], [0], [0]]))[0] == 0.35


def test_a_summary_of_several_labels_is_scikit_learns_and_leaves_out_a_label_without_images(
    several,
):

    logits, labels = several
    thresholds = np.array([0.4, 0.6, 0.7, 0.5])
    found = multilabel.summarize(logits, labels, ("a", "b", "c", "d"), 2.0, thresholds)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["absent_classes"] == ["d"]
    expected = reference.average_precision_score(labels[:, :3], logits[:, :3], average="macro")
    assert found["mean_average_precision"] == pytest.approx(expected)
    low, high = found["mean_average_precision_interval"]
    assert expected - 0.15 < low < expected < high < expected + 0.15
    given = multilabel.probabilities(logits.astype(float) / 2) >= thresholds
    assert found["micro_f1"] == pytest.approx(reference.f1_score(labels, given, average="micro"))
    assert found["mean_f1"] == pytest.approx(
        reference.f1_score(labels[:, :3], given[:, :3], average="macro")
    )
    assert found["per_class"][3]["average_precision"] is found["per_class"][3]["f1"] is None
    with pytest.raises(VitlabError, match="none of the 300 images has a label"):
        multilabel.summarize(logits, 0 * labels, ("a", "b", "c", "d"), 2.0, thresholds)
