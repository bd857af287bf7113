"""Parquet: columns found by their schema, parts by names, and the ways out of what is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from forms import description, folders, parquet, test_of, train_of

from vitlab import data
from vitlab.data.parquet import Parquet
from vitlab.errors import DataError


def test_columns_are_found_by_their_schema_whatever_they_are_called(photos):
    columns = ("picture", "kind")
    file = photos / "data" / "train-0.parquet"
    images = parquet(file, [1, 0, 1], ["no", "yes"], columns=columns)
    parquet(photos / "data" / "test-0.parquet", [0], ["no", "yes"], columns=columns)
    expected = data.from_arrays(images, np.array([1, 0, 1]), ("no", "yes"))
    assert train_of().fingerprint == expected.fingerprint
    assert len(test_of().labels) == 1


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["dog", "cat", "dog"], ("cat", "dog")), ([1.0, 0.0, 1.0], ("0", "1")),
        ([True, False, True], ("False", "True")),
        (pa.array(["dog", "cat", "dog"]).dictionary_encode(), ("cat", "dog")),
    ],
    ids=["text", "floats", "bools", "categories"],
)  # fmt: skip
@pytest.mark.parametrize("plain", [True, False])
def test_labels_may_be_text_floats_or_bools_and_images_plain_bytes(photos, labels, names, plain):
    parquet(photos / "train.parquet", labels, plain=plain)
    parquet(photos / "test.parquet", labels[:2], plain=plain)
    train, test = train_of(), test_of()
    assert train.class_names == names
    assert sorted(train.labels) == [0, 1, 1] and sorted(test.labels) == [0, 1]


def test_a_label_by_name_goes_before_other_integers(photos):
    parquet(photos / "train.parquet", ["a", "b", "a"], id=[1, 2, 3])
    source = Parquet(photos)
    assert source.label == "label" and source.notes == ["columns that are not used: id"]


def test_of_several_label_columns_the_named_one_is_taken(photos):
    file = photos / "train.parquet"
    parquet(file, [0, 1], ["a", "b"], columns=("picture", "fine"), id=[7, 8])
    table = pq.read_table(file)
    assert Parquet(photos).label == "fine"
    pq.write_table(table.replace_schema_metadata(None), file)
    with pytest.raises(DataError, match="picture, fine, id"):
        Parquet(photos)


def test_a_single_file_without_names_is_numbered_and_split(photos):
    parquet(photos / "all.parquet", [0, 1, 2] * 5)
    assert train_of("photos/all.parquet").class_names == ("0", "1", "2")
    assert np.bincount(test_of("photos/all.parquet").labels).tolist() == [1, 1, 1]


@pytest.mark.parametrize("names", [("training", "testing"), ("TRAIN", "Eval"), ("train", "dev")])
def test_parts_are_found_by_words_not_by_letters(photos, names):
    inner = photos / "test" / "latest"
    for name, labels in zip(names, ([0, 1], [0, 1, 1]), strict=True):
        parquet(inner / name / "0.parquet", labels)
    assert len(train_of(inner).labels) == 2 and len(test_of(inner).labels) == 3


def test_validation_files_beside_test_files_are_named(photos):
    for name in ("train", "validation", "test"):
        parquet(photos / "data" / f"{name}-0.parquet", [0, 1])
    folders(photos, "pictures")
    lines = description()
    assert "data/validation-0.parquet (2 images of the validation split) is not used" in lines
    assert "not used, beside the Parquet files: .png 2; to use images" in lines
    assert "images from column image, labels from column label" in lines


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1, 5, -1], ["no", "yes"], r"2 of 4 labels .* 0 to 1: \[5, -1\] at \[2, 3\]"),
        ([0, None], ["no", "yes"], "1 images have no label"),
        ([0, 0], ["no", "yes"], "no training image of class yes"),
        ([0.5, 1.0], [], "numbers that are not whole"),
    ],
)
def test_bad_labels_are_refused(photos, labels, names, message):
    parquet(photos / "train.parquet", labels, names)
    with pytest.raises(DataError, match=message):
        train_of(image_size=(8, 8), channels=3)


def test_test_images_of_other_classes_are_refused(photos):
    parquet(photos / "train.parquet", ["a", "b"])
    parquet(photos / "test.parquet", ["a", "c"])
    with pytest.raises(DataError, match="classes without training images: c"):
        test_of(image_size=(8, 8), channels=3)


def test_a_damaged_file_is_named(photos):
    path = photos / "train.parquet"
    parquet(path, [0, 1])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"train.parquet is truncated"):
        train_of()


def test_test_files_are_never_trained_on(photos):
    parquet(photos / "data-00000.parquet", [0, 1])
    parquet(photos / "test.parquet", [0, 1])
    with pytest.raises(DataError, match=r"rename data-00000\.parquet, as in train-0\.parquet"):
        train_of()
    (photos / "data-00000.parquet").rename(photos / "train-0.parquet")
    assert len(train_of().labels) == 2 and Parquet(photos).has_test
    (photos / "train-0.parquet").unlink()
    with pytest.raises(DataError, match=r"no Parquet file with 'train'.*give a file as data set"):
        train_of()
    assert len(Parquet(photos / "test.parquet").read("train")[0]) == 2


def test_two_configurations_are_refused(photos):
    for name in ("small", "large"):
        parquet(photos / name / "train.parquet", [0, 1])
    with pytest.raises(DataError, match=r"in large, small: give one of them.* as photos/large"):
        train_of()
    assert len(Parquet(photos / "large").read("train")[0]) == 2


def test_a_column_of_splits_is_not_trained_over(photos):
    parquet(photos / "all.parquet", [0, 1, 0, 1], split=["train", "train", "test", "test"])
    with pytest.raises(DataError, match=r"column 'split' says test, train: write each into a file"):
        train_of()
    whole = pq.read_table(photos / "all.parquet")
    (photos / "all.parquet").unlink()
    for part in ("train", "test"):
        pq.write_table(whole.filter(pc.field("split") == part), photos / f"{part}.parquet")
    assert len(train_of().labels) == 2
