"""Splits: exact shares of every class, disjoint, nested, and the same on every machine."""

import numpy as np
import pytest

from vitlab.config import DataConfig
from vitlab.data.splits import hold_out, index_sha256, train_validation
from vitlab.errors import DataError

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))
KEYS = np.random.default_rng(1).integers(0, 2**64, 5_000, np.uint64, endpoint=False)


def split(labels=LABELS, keys=KEYS, **fields):
    return train_validation(keys[: len(labels)], labels, DataConfig(classes=10, **fields))


def test_every_class_gives_the_same_share_and_no_image_is_lost_or_in_both_parts():
    train, validation = split(validation_fraction=0.1)
    assert np.bincount(LABELS[validation]).tolist() == [50] * 10
    assert np.bincount(LABELS[train]).tolist() == [450] * 10
    assert train.dtype == validation.dtype == np.int64
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(LABELS)))
    assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all()


def test_a_split_follows_its_seed_alone_and_is_the_same_on_every_machine():
    hashes = [index_sha256(split(split_seed=seed)[1]) for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]
    keys = np.arange(40, dtype=np.uint64) << np.uint64(40)
    config = DataConfig(classes=4, validation_fraction=0.2)
    _, validation = train_validation(keys, np.arange(40) % 4, config)
    assert validation.tolist() == [0, 2, 5, 13, 20, 26, 27, 35]


def test_without_a_validation_share_everything_is_trained_on():
    train, validation = split(validation_fraction=0.0)
    assert len(validation) == 0 and validation.dtype == np.int64
    assert np.array_equal(train, np.arange(len(LABELS)))


def test_a_smaller_training_share_lies_inside_a_larger_one_and_beside_validation():
    parts = [split(train_fraction=share) for share in (0.1, 0.25, 1.0)]
    small, medium, whole = (set(train.tolist()) for train, _ in parts)
    assert small < medium < whole
    assert np.bincount(LABELS[parts[0][0]]).tolist() == [45] * 10
    assert all(np.array_equal(validation, parts[0][1]) for _, validation in parts)


def test_every_class_keeps_an_image_in_both_parts_however_small_the_share():
    labels = np.array([0, 0, 1, 1, 1])
    config = DataConfig(classes=2, validation_fraction=0.9, train_fraction=0.01)
    train, validation = train_validation(KEYS[:5], labels, config)
    assert np.bincount(labels[train]).tolist() == [1, 1]
    assert np.bincount(labels[validation]).tolist() == [1, 2]


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 0, 2, 2]], ids=["one image", "no image"])
def test_a_class_too_small_to_be_split_is_named(labels):
    config = DataConfig(classes=3 if 2 in labels else 2)
    with pytest.raises(DataError, match=r"classes \[1\] .*validation_fraction=0.1 .*at least 2"):
        train_validation(KEYS[: len(labels)], np.array(labels), config)


def test_test_and_validation_are_drawn_apart():
    config = DataConfig(classes=10, test_fraction=0.1, validation_fraction=0.1)
    _, test = hold_out(KEYS, LABELS, config, "test")
    _, validation = hold_out(KEYS, LABELS, config, "validation")
    assert not np.array_equal(test, validation)


def test_another_order_moves_no_image_across_the_split_and_removing_some_moves_few():
    held = set(KEYS[split()[1]])
    order = np.random.default_rng(2).permutation(len(KEYS))
    assert set(KEYS[order][split(LABELS[order], KEYS[order])[1]]) == held
    fewer = set(KEYS[100:][split(LABELS[100:], KEYS[100:])[1]])
    assert len(fewer - held) <= 20  # the places of the removed, and no more
    assert len(held - fewer - set(KEYS[:100])) <= 10


def test_shares_are_drawn_evenly_over_keys_that_are_anything_but_random():
    keys = np.arange(5_000, dtype=np.uint64)
    places = split(keys=keys)[1]
    tenths = np.bincount(places // 500, minlength=10)
    assert tenths.min() > 25 and tenths.max() < 80


def several(count=400, seed=2):
    """Multi-hot labels (N, 4): two that are frequent, a rarer one, and one that few images have."""
    return (np.random.default_rng(seed).random((count, 4)) < (0.6, 0.5, 0.2, 0.03)).astype(np.uint8)


def test_every_label_of_several_gives_its_share_the_rarest_exactly():
    labels = several()
    train, validation = train_validation(
        KEYS[:400], labels, DataConfig(classes=4, task="multilabel", validation_fraction=0.2)
    )
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(400))
    counts, held = labels.sum(axis=0), labels[validation].sum(axis=0)
    assert held[3] == round(0.2 * counts[3]) > 0
    assert np.abs(held - 0.2 * counts).max() <= 0.02 * counts.max()
    without = (~labels.any(axis=1)).sum()
    assert (~labels[validation].any(axis=1)).sum() == round(0.2 * without)


def test_the_order_of_images_of_several_labels_moves_none_across_the_split():
    labels = several()
    config = DataConfig(classes=4, task="multilabel")
    _, before = train_validation(KEYS[:400], labels, config)
    order = np.random.default_rng(3).permutation(400)
    _, after = train_validation(KEYS[:400][order], labels[order], config)
    assert {*KEYS[before].tolist()} == {*KEYS[:400][order][after].tolist()}


def test_labels_that_no_training_image_would_keep_are_refused():
    labels = np.array([[1, 1], [1, 1], [0, 1], [0, 1], [0, 1]], np.uint8)[:, ::-1]
    config = DataConfig(classes=2, task="multilabel", validation_fraction=0.5)
    train, validation = train_validation(KEYS[:5], labels, config)
    assert labels[train].any(axis=0).all() and labels[validation].any(axis=0).all()
    with pytest.raises(DataError, match="at least 2 of every class"):
        train_validation(KEYS[:3], np.array([[1, 0], [0, 1], [1, 0]], np.uint8), config)
