"""Confident learning by numbers that can be worked out by hand, and on planted errors."""

import numpy as np

from vitlab.auditing.confident import confident_joint, label_errors, rounded


def test_the_joint_counts_by_the_mean_probability_of_each_class():
    labels = np.array([0, 0, 0, 0, 1, 1])
    first = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.2])
    probabilities = np.stack([first, 1 - first], axis=1)
    # Means are 0.625 for class 0 and 0.8 for class 1: the fourth image reaches that of class 1.
    assert confident_joint(probabilities, labels).tolist() == [[3, 1], [0, 2]]


def test_rows_are_scaled_to_the_labels_and_an_image_that_reaches_no_class_is_not_counted():
    labels = np.array([0, 0, 0, 1, 1, 1])
    first = np.array([0.9, 0.5, 0.1, 0.1, 0.1, 0.1])
    joint = confident_joint(np.stack([first, 1 - first], axis=1), labels)
    assert joint.sum(axis=1).tolist() == [3, 3]
    assert joint[0].tolist() == [2, 1] or joint[0].tolist() == [1.5, 1.5]
    assert rounded(np.array([[1.5, 1.5], [0.4, 2.6]])).sum(axis=1).tolist() == [3, 3]


def test_planted_errors_are_found_with_their_classes_and_the_surest_come_first():
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 5, 2_000)
    logits = draw.normal(0, 1, (2_000, 5)) + 6 * np.eye(5)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wrong = draw.choice(2_000, 100, replace=False)
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + draw.integers(1, 5, 100)) % 5
    found = label_errors(probabilities, labels)
    assert len(np.intersect1d(found.places, wrong)) >= 93 and len(found.places) <= 102
    right = np.isin(found.places, wrong)
    assert (found.proposed[right] == truth[found.places[right]]).mean() > 0.97
    assert (np.diff(found.margins) >= 0).all() and (found.margins < 0).all()


def test_without_errors_and_without_images_of_a_class_nothing_is_reported():
    labels = np.array([0, 0, 2, 2])
    probabilities = np.eye(3)[labels] * 0.9 + 0.1 / 3
    assert not len(label_errors(probabilities, labels).places)
    assert not len(label_errors(np.empty((0, 3)), np.empty(0, int)).places)
