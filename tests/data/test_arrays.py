"""Arrays as a data set: one order, one fingerprint, and refusals whose advice mends them."""

import numpy as np
import pytest
from forms import pixels, test_of, train_of

from vitlab.config import DataConfig
from vitlab.data import KNOWN, LabelledImages, from_arrays, open_dataset, statistics
from vitlab.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 8, 8, 3), np.uint8)
IMAGES[0, 0, 0], IMAGES[1, 0, 0] = 0, 255
LABELS = np.arange(12) % 3
GREY = IMAGES[..., :1]
ALPHA = np.concatenate([IMAGES, np.full((12, 8, 8, 1), 9, np.uint8)], axis=3)
HOLED = np.where(np.arange(12)[:, None, None, None] == 5, np.nan, IMAGES)
APART = np.empty(12, object)
APART[:] = list(IMAGES)


def test_arrays_become_examples():
    examples = from_arrays(pixels(6, 4, 5), np.array([0, 1, 2, 0, 1, 2], np.uint8))
    assert examples.images.shape == (6, 4, 5, 1) and examples.images.flags.c_contiguous
    assert examples.labels.dtype == np.int64
    assert examples.class_names == ("0", "1", "2")


def test_equal_data_has_equal_fingerprints_and_any_change_shows():
    images, labels = pixels(4, 3, 3, 3), np.array([0, 1, 0, 1])
    first = from_arrays(images, labels)
    assert from_arrays(images.copy(), labels.copy()).fingerprint == first.fingerprint
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    others = [
        from_arrays(changed, labels),
        from_arrays(images, labels[::-1]),
        from_arrays(images, labels, ("a", "b")),
        from_arrays(images.reshape(4, 1, 9, 3), labels),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert others[1].content != first.content


def test_examples_have_one_order_whatever_order_they_come_in():
    images, labels = pixels(40, 3, 3, 3), np.arange(40) % 4
    images[4] = images[1]  # a copy of another class
    first = from_arrays(images, labels)
    order = np.random.default_rng(0).permutation(40)
    turned = from_arrays(images[order], labels[order])
    assert turned.content == first.content and turned.fingerprint == first.fingerprint
    assert np.array_equal(first.images, turned.images)
    assert np.array_equal(first.labels, turned.labels)
    config = open_dataset(DataConfig(), (images, labels)).config
    assert np.array_equal(turned.split(config)[1], first.split(config)[1])


def test_digits_fill_the_whole_range_and_split_80_to_20_without_a_common_image():
    train, test = train_of("digits"), test_of("digits")
    known = KNOWN["digits"]
    assert train.images.shape == (known.train, 8, 8, 1)
    assert test.images.shape == (known.test, 8, 8, 1)
    assert train.images.min() == 0 and train.images.max() == 255
    shares = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    assert abs(shares - 0.2).max() < 0.005
    assert train.class_names == tuple("0123456789")
    together = np.concatenate([train.images, test.images]).reshape(1797, -1)
    assert len(np.unique(together, axis=0)) >= 1797 - 1  # one digit was scanned twice


def test_statistics_are_those_of_a_plain_computation():
    images = pixels(1500, 5, 4, 3)
    mean, std = statistics(images)
    assert np.allclose(mean, (images / 255).mean((0, 1, 2)), atol=1e-12)
    assert np.allclose(std, (images / 255).std((0, 1, 2)), atol=1e-12)
    assert statistics(images[::-1]) == (mean, std)
    images[..., 1] = 7  # nothing to divide by
    mean, std = statistics(images)
    assert std[1] == 1 and mean[1] == pytest.approx(7 / 255)
    assert all(0 < one < 1 for one in (std[0], std[2]))


@pytest.mark.parametrize(
    ("count", "labels", "names", "message"),
    [
        (0, [], None, r"\(0, 4, 4, 3\)"),
        (3, [0, 1], None, "each of 3 images"),
        (9, [0, -1, 1, -1, -1, -1, -2, -1, 0], None,
         r"6 of 9 labels .*\[-1, -1, -1, -1, -2\] at \[1, 3, 4, 5, 6\]"),
        (3, [0, 1, 10**9], None, "reach 1000000000, but no image is of class 2"),
        (3, [0, 2, 1], ("a", "b"), r"1 of 3 labels are outside 0 to 1: \[2\] at \[1\]"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_examples_are_refused(count, labels, names, message):
    with pytest.raises(DataError, match=message):
        from_arrays(np.zeros((count, 4, 4, 3), np.uint8), labels, names)


# Refusals that say what to do


def follow(code, **given):
    """Run the code that a refusal advises; the names it may speak of, as they are afterwards."""
    names = {"np": np, **given}
    exec(code if " = " in code else f"{next(iter(given))} = {code}", names)
    if "keep" in names:
        return {name: names[name][names["keep"]] for name in given}
    return {name: names[name] for name in given}


@pytest.mark.parametrize(
    ("given", "code", "wanted"),
    [
        (IMAGES.transpose(0, 3, 1, 2), "images.transpose(0, 2, 3, 1)", IMAGES),
        (GREY.transpose(0, 3, 1, 2), "images.transpose(0, 2, 3, 1)", GREY),
        (IMAGES.transpose(1, 2, 3, 0), "images.transpose(3, 0, 1, 2)", IMAGES),
        (ALPHA, "images[..., :3]", IMAGES),
        (ALPHA[..., 2:], "images[..., :1]", IMAGES[..., 2:]),
        (ALPHA.transpose(0, 3, 1, 2), "images.transpose(0, 2, 3, 1)[..., :3]", IMAGES),
        (GREY.reshape(12, 64), "images.reshape(-1, 8, 8)", GREY),
        (IMAGES.reshape(12, 192), "images.reshape(-1, 8, 8, 3)", IMAGES),
        (IMAGES.transpose(0, 3, 1, 2).reshape(12, 192),
         "images.reshape(-1, 3, 8, 8).transpose(0, 2, 3, 1)", IMAGES),
        (APART, "np.stack(images)", IMAGES),
        (IMAGES / 255, "(images * 255).round().astype(np.uint8)", IMAGES),
        (IMAGES.astype(np.float32), "images.round().astype(np.uint8)", IMAGES),
        (IMAGES.astype(np.int64), "images.astype(np.uint8)", IMAGES),
        (IMAGES.tolist(), "np.asarray(images).astype(np.uint8)", IMAGES),
        (IMAGES.astype(np.uint16) * 257,
         "((images - LOW) / (HIGH - LOW) * 255).round().astype(np.uint8)", IMAGES),
        (IMAGES / 127.5 - 1,
         "((images - LOW) / (HIGH - LOW) * 255).round().astype(np.uint8)", IMAGES),
        (IMAGES > 127, "images.astype(np.uint8) * 255", np.where(IMAGES > 127, 255, 0)),
        (IMAGES.astype(object), "images.astype(float)", IMAGES),
    ],
)  # fmt: skip
def test_images_of_another_form_are_refused_with_the_code_that_mends_them(given, code, wanted):
    with pytest.raises(DataError) as refusal:
        from_arrays(given, LABELS)
    assert code in str(refusal.value)
    low, high = np.min(np.asarray(given).tolist()), np.max(np.asarray(given).tolist())
    mended = follow(code.replace("LOW", str(low)).replace("HIGH", str(high)), images=given)
    if mended["images"].dtype == float:
        mended = follow("images.round().astype(np.uint8)", **mended)
    wanted = LabelledImages(wanted.astype(np.uint8), LABELS, ("0", "1", "2")).canonical()
    assert from_arrays(mended["images"], LABELS).fingerprint == wanted.fingerprint


def test_images_with_nan_are_counted_and_left_out():
    with pytest.raises(DataError, match=r"1 of 12 images hold NaN or infinity, the first at \[5\]"):
        from_arrays(HOLED, LABELS)
    kept = follow("keep = np.isfinite(images).all(axis=(1, 2, 3))", images=HOLED, labels=LABELS)
    assert from_arrays(kept["images"].astype(np.uint8), kept["labels"]).images.shape[0] == 11


def test_pictures_of_several_sizes_are_told_as_that():
    with pytest.raises(DataError, match="images are of several shapes: bring them to one height"):
        from_arrays([np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)], [0, 1])
    apart = np.empty(2, object)
    apart[:] = [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)]
    with pytest.raises(DataError, match="several: bring them to one height"):
        from_arrays(apart, [0, 1])


@pytest.mark.parametrize(
    ("given", "words", "code"),
    [
        (LABELS + 1, "start at 1, so that class 0 has no image: subtract 1", "labels - 1"),
        ((LABELS + 1).tolist(), "subtract 1", "np.asarray(labels) - 1"),
        (LABELS[:, None], "", "labels.ravel()"),
        (np.eye(3)[LABELS], "one-hot", "labels.argmax(axis=1)"),
        (np.eye(3, dtype=bool)[LABELS], "one-hot", "labels.argmax(axis=1)"),
        (np.eye(3)[LABELS] + 0.1, "that of its largest", "labels.argmax(axis=1)"),
        (LABELS.astype(float), "labels are float64", "labels.astype(int)"),
        (LABELS / 2, "If each value is a class",
         "class_names, labels = np.unique(labels, return_inverse=True)"),
        (np.array(["ant", "bee", "cow"])[LABELS], "its name stays with vitlab.data.from_arrays",
         "class_names, labels = np.unique(labels, return_inverse=True)"),
        (np.array([0, 2, 5])[LABELS], "reach 5, but no image is of class 1, 3, 4. Number",
         "class_names, labels = np.unique(labels, return_inverse=True)"),
        (LABELS - 1, "4 of 12 labels are below 0",
         "class_names, labels = np.unique(labels, return_inverse=True)"),
    ],
)  # fmt: skip
def test_labels_of_another_form_are_refused_with_the_code_that_mends_them(given, words, code):
    with pytest.raises(DataError) as refusal:
        from_arrays(IMAGES, given)
    assert words in str(refusal.value) and code in str(refusal.value)
    mended = follow(code, labels=given, class_names=None)
    examples = from_arrays(IMAGES, mended["labels"], mended["class_names"])
    assert np.array_equal(examples.labels, from_arrays(IMAGES, LABELS).labels)
    assert all(type(name) is str for name in examples.class_names)


def test_images_whose_label_is_unknown_are_left_out():
    for unknown, code in ((-1, "keep = labels >= 0"), (np.nan, "keep = np.isfinite(labels)")):
        labels = np.where(np.arange(12) == 4, unknown, LABELS)
        with pytest.raises(DataError) as refusal:
            from_arrays(IMAGES, labels)
        assert code in str(refusal.value)
        kept = follow(code, images=IMAGES, labels=labels)
        assert len(from_arrays(kept["images"], kept["labels"].astype(int)).images) == 11


def test_labels_from_1_are_told_where_classes_have_names_and_a_class_may_be_absent_there():
    with pytest.raises(
        DataError, match="there are 3 classes, 0 to 2: subtract 1, as in labels - 1"
    ):
        from_arrays(IMAGES, LABELS + 1, "abc")
    assert from_arrays(IMAGES, LABELS + 1, "abcd").class_names == tuple("abcd")
    with pytest.raises(DataError, match="all labels are 1, so there is one class"):
        from_arrays(IMAGES, np.ones(12, int))


def test_rows_of_labels_are_several_labels_only_where_that_is_asked_for():
    rows = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 1]] * 3)
    with pytest.raises(DataError, match=r"several labels: data\.task=multilabel"):
        from_arrays(IMAGES, rows)
    examples = from_arrays(IMAGES, rows.astype(bool), task="multilabel")
    assert examples.labels.dtype == np.uint8 and examples.class_names == ("0", "1", "2")
    config = DataConfig(task="multilabel")
    assert open_dataset(config, (IMAGES, rows)).examples.fingerprint == examples.fingerprint
    with pytest.raises(DataError, match=r"data\.task=multiclass, but the labels given are of"):
        open_dataset(DataConfig(), examples)
    refused = {
        "hold 2 at": rows * 2,
        "needs a row of 0 and 1": LABELS,
        r"no image has the labels of columns \[1\]": rows * [1, 0, 1],
    }
    for words, wrong in refused.items():
        with pytest.raises(DataError, match=words):
            from_arrays(IMAGES, wrong, task="multilabel")
