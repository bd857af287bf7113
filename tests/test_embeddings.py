"""The numbers behind maps and probes: their definitions, and that they repeat."""

import numpy as np
import pytest

from vitlab.embeddings import linear_probe, neighbor_accuracy, pca, separation, tsne

LABELS = np.arange(60) % 3


def clouds(distance: float, seed: int = 0) -> np.ndarray:
    """Three classes of unit noise in 8 dimensions, `distance` apart."""
    noise = np.random.default_rng(seed).normal(size=(60, 8))
    return noise + distance * np.eye(8)[LABELS]


def test_separation_is_the_mean_over_pairs_and_has_no_ratio_without_any():
    points = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    found = separation(points, np.array([0, 0, 1]))
    assert found.within == 5
    assert found.between == pytest.approx((1 + np.hypot(3, 3)) / 2)
    assert found.ratio == pytest.approx(found.between / 5)
    ratios = [separation(clouds(distance), LABELS).ratio for distance in (0, 2, 8)]
    assert ratios[0] == pytest.approx(1, abs=0.05)
    assert ratios[0] < ratios[1] < ratios[2]
    assert separation(np.eye(3), np.arange(3)).within is None
    assert separation(np.eye(3), np.zeros(3)).between is None
    assert separation(np.ones((4, 2)), np.array([0, 0, 1, 1])) == (0, 0, None)


def test_pca_finds_the_widest_direction_and_pads_what_is_missing():
    line = np.outer(np.arange(5.0), [3.0, 4.0])
    assert np.abs(pca(line)[:, 0]) == pytest.approx([10, 5, 0, 5, 10])
    assert pca(line, 4).shape == (5, 4)
    assert not pca(line, 4)[:, 2:].any()
    features = clouds(4)
    assert pca(features, 3, others=features[:7]) == pytest.approx(pca(features, 3)[:7])


def test_tsne_keeps_classes_together_repeats_and_maps_equal_features_to_one_point():
    found = tsne(clouds(20))
    assert found.shape == (60, 2)
    assert separation(found, LABELS).ratio > 3
    assert (found == tsne(clouds(20))).all()
    equal = np.ones((40, 5), np.float32)
    assert not tsne(equal).any()
    assert not pca(equal).any()


@pytest.mark.parametrize("accuracy", [linear_probe, neighbor_accuracy])
def test_probes_read_classes_where_there_are_any(accuracy):
    near, far = (
        accuracy(clouds(distance, 0), LABELS, clouds(distance, 1), LABELS) for distance in (0, 8)
    )
    assert far == 1
    assert near < 0.6


def test_a_probe_does_not_care_for_the_scale_of_a_feature():
    scale = 10.0 ** np.arange(-4, 4)
    one = linear_probe(clouds(2, 0), LABELS, clouds(2, 1), LABELS)
    assert linear_probe(clouds(2, 0) * scale, LABELS, clouds(2, 1) * scale, LABELS) == one


def test_neighbours_are_counted_where_there_are_fewer_than_are_asked_for():
    assert neighbor_accuracy(np.eye(2), np.array([0, 1]), np.eye(2), np.array([0, 1])) == 0.5
