"""Data sets: every way images can lie on a disk, told apart, checked and read only once."""

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forms import classes as class_folders
from forms import parquet, pixels, png, test_of, train_of
from PIL import Image

from vitlab import data
from vitlab.config import DataConfig
from vitlab.data import KNOWN, decode, loading
from vitlab.data.parquet import Parquet
from vitlab.errors import DataError


def folder(path, count=5, classes=("cat", "dog"), splits=("train", "test"), shape=(8, 8, 3)):
    return class_folders(path, *splits, names=classes, count=count, shape=shape)


# Arrays and digits


def test_digits_fill_the_whole_range_and_split_80_to_20():
    train, test = train_of("digits"), test_of("digits")
    known = KNOWN["digits"]
    assert train.images.shape == (known.train, 8, 8, 1)
    assert test.images.shape == (known.test, 8, 8, 1)
    assert train.images.min() == 0 and train.images.max() == 255
    shares = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    assert abs(shares - 0.2).max() < 0.005
    assert train.class_names == tuple("0123456789")


def test_training_images_never_come_out_of_the_test_door():
    config = DataConfig(dataset="digits", split_seed=3)
    train, test = data.open_dataset(config).examples, data.load_test(data.open_dataset(config))
    together = np.concatenate([train.images, test.images]).reshape(1797, -1)
    assert len(train.images) + len(test.images) == 1797
    assert len(np.unique(together, axis=0)) >= 1797 - 1  # one digit was scanned twice


def test_arrays_become_examples():
    examples = data.from_arrays(pixels(6, 4, 5), np.array([0, 1, 2, 0, 1, 2], np.uint8))
    assert examples.images.shape == (6, 4, 5, 1) and examples.images.flags.c_contiguous
    assert examples.labels.dtype == np.int64
    assert examples.class_names == ("0", "1", "2")


def test_equal_data_has_equal_fingerprints_and_any_change_shows():
    images, labels = pixels(4, 3, 3, 3), np.array([0, 1, 0, 1])
    first = data.from_arrays(images, labels)
    assert data.from_arrays(images.copy(), labels.copy()).fingerprint == first.fingerprint
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    others = [
        data.from_arrays(changed, labels),
        data.from_arrays(images, labels[::-1]),
        data.from_arrays(images, labels, ("a", "b")),
        data.from_arrays(images.reshape(4, 1, 9, 3), labels),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), [], r"\(0, 4, 4, 3\)"),
        (np.zeros((3, 4, 4, 3), np.uint8), [0, 1], "each of 3 images"),
        (np.zeros((9, 4, 4, 3), np.uint8), [0, -1, 1, -1, -1, -1, -2, -1, 0],
         r"6 of 9 labels .*\[-1, -1, -1, -1, -2\] at \[1, 3, 4, 5, 6\]"),
        (np.zeros((3, 4, 4, 3), np.uint8), [0, 1, 10**9],
         "reach 1000000000, but no image is of class 2"),
    ],
    ids=["none", "lengths", "range", "far"],
)  # fmt: skip
def test_arrays_that_are_no_examples_are_refused(images, labels, message):
    with pytest.raises(DataError, match=message):
        data.from_arrays(images, labels)


def test_labels_must_lie_within_the_given_classes():
    with pytest.raises(DataError, match=r"1 of 3 labels are outside 0 to 1: \[2\] at \[1\]"):
        data.from_arrays(pixels(3, 4, 4), np.array([0, 2, 1]), ("a", "b"))


def test_statistics_are_those_of_a_plain_computation():
    images = pixels(1500, 5, 4, 3)
    mean, std = data.statistics(images)
    assert np.allclose(mean, (images / 255).mean((0, 1, 2)), atol=1e-12)
    assert np.allclose(std, (images / 255).std((0, 1, 2)), atol=1e-12)
    assert data.statistics(images[::-1]) == (mean, std)


# Class folders


def test_a_folder_of_class_folders_becomes_training_and_test_images(tmp_path):
    path = folder(tmp_path / "pets", shape=(6, 8, 3))
    config = data.open_dataset(DataConfig(dataset=str(path))).config
    assert (config.image_size, config.channels, config.classes) == ((6, 8), 3, 2)
    train, test = data.open_dataset(config).examples, data.load_test(data.open_dataset(config))
    assert train.class_names == ("cat", "dog")
    assert np.bincount(train.labels).tolist() == np.bincount(test.labels).tolist() == [5, 5]
    with Image.open(path / "test" / "dog" / "0.png") as image:
        (place,) = np.flatnonzero((test.images == np.asarray(image)).all((1, 2, 3)))
    assert test.class_names[test.labels[place]] == "dog"


def test_a_folder_without_a_test_split_gives_up_a_stratified_share(tmp_path):
    path = folder(tmp_path / "pets", count=10, splits=[""])
    config = DataConfig(dataset=str(path), test_fraction=0.3)
    train, test = data.open_dataset(config).examples, data.load_test(data.open_dataset(config))
    assert np.bincount(train.labels).tolist() == [7, 7]
    assert np.bincount(test.labels).tolist() == [3, 3]
    assert not {image.tobytes() for image in train.images} & {i.tobytes() for i in test.images}


def test_classes_are_numbered_by_code_point_and_found_by_name_below_the_root(tmp_path, monkeypatch):
    names = ("10", "9", "Zebra", "ant", "数据 🐿", "-x")
    folder(tmp_path / "zoo", classes=names, count=2, splits=[""])
    config = DataConfig(dataset="zoo")
    assert data.open_dataset(config, root=tmp_path).examples.class_names == tuple(sorted(names))
    monkeypatch.setenv("VITLAB_DATA", str(tmp_path))
    assert data.open_dataset(config).config.classes == 6


def test_a_circle_of_links_ends(tmp_path):
    folder(tmp_path, count=2)
    (tmp_path / "train" / "cat" / "again").symlink_to(tmp_path / "train" / "cat")
    (tmp_path / "train" / "dog" / "up").symlink_to(tmp_path / "train" / "dog")
    assert np.bincount(train_of(tmp_path).labels).tolist() == [2, 2]


def test_images_take_the_size_and_channels_the_config_asks_for(tmp_path):
    folder(tmp_path, count=2)
    assert train_of(tmp_path, image_size=(4, 6), channels=1).images.shape == (4, 4, 6, 1)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_images_of_another_shape_fit_alike_in_every_format(tmp_path, fit):
    folder(tmp_path / "set", count=1, shape=(6, 12, 3))
    files = sorted((tmp_path / "set").glob("*/*/0.png"))
    lines = [f"{path},{path.parts[-2]},{path.parts[-3]}" for path in files]
    (tmp_path / "set.csv").write_text("\n".join(["path,label,split", *lines]))
    training = [np.asarray(Image.open(path)) for path in files if path.parts[-3] == "train"]
    for split in ("train", "test"):
        parquet(tmp_path / "parquet" / f"{split}.parquet", [0, 1], ["cat", "dog"], images=training)
    wish = {"image_size": (8, 8), "channels": 3, "fit": fit}
    read = [train_of(tmp_path / name, **wish) for name in ("set", "set.csv", "parquet")]
    assert len({examples.fingerprint for examples in read}) == 1
    own = [decode(path, (8, 8), 3, fit) for path in files if path.parts[-3] == "train"]
    assert all((read[0].images == image).all((1, 2, 3)).any() for image in own)


def test_grey_images_make_a_grey_set_and_one_coloured_image_makes_it_colour(tmp_path):
    folder(tmp_path, count=2, shape=(8, 8))
    assert train_of(tmp_path).images.shape[-1] == 1
    (tmp_path / "train" / "cat" / "red.png").write_bytes(png(pixels(8, 8, 3)))
    assert train_of(tmp_path).images.shape[-1] == 3


def test_images_of_several_sizes_ask_for_a_size(tmp_path):
    folder(tmp_path, count=2)
    (tmp_path / "train" / "cat" / "big.png").write_bytes(png(pixels(9, 12, 3)))
    with pytest.raises(DataError, match=r"2 sizes, \(8, 8\) to \(9, 12\).*set data.image_size"):
        train_of(tmp_path)
    assert train_of(tmp_path, image_size=(8, 8)).images.shape == (5, 8, 8, 3)


def test_all_unreadable_images_are_named_at_once(tmp_path):
    folder(tmp_path, count=20)
    for number in range(12):
        (tmp_path / "train" / "dog" / f"{number}.png").write_bytes(b"text"[: number % 5])
    for fields in ({}, {"image_size": (8, 8), "channels": 3}):
        with pytest.raises(DataError, match="12 of 40 images cannot be read") as error:
            train_of(tmp_path, **fields)
        assert "dog/0.png': not a PNG" in str(error.value) and "and 2 more" in str(error.value)


@pytest.mark.parametrize(
    ("classes", "extra", "message"),
    [
        ((), None, "neither class folders nor Parquet"),
        (("cat",), None, "one class, cat"),
        (("cat", "dog"), "train/empty", "no training image of class empty"),
        (("cat", "dog"), "test/emu", "classes without training images: emu"),
        (("cat", "Cat"), None, "Cat.* differ only in case or in spaces"),
        (("caf\u00e9", "cafe\u0301"), None, "differ only in case or"),
        (("cat", "do\ng"), None, r"do\\ng' cannot be printed"),
        (("cat", os.fsdecode(b"d\xff")), None, r"udcff' cannot be printed"),
    ],
)
def test_a_folder_that_cannot_be_learned_from_is_refused(tmp_path, classes, extra, message):
    (tmp_path / "set").mkdir()
    folder(tmp_path / "set", classes=classes, count=3)
    if extra:
        (tmp_path / "set" / extra).mkdir()
    with pytest.raises(DataError, match=message):
        train_of(tmp_path / "set")


# Parquet


def test_parquet_is_read_by_its_schema_whatever_the_columns_are_called(tmp_path):
    images = parquet(
        tmp_path / "data" / "train-0.parquet", [1, 0, 1], ["no", "yes"], columns=("picture", "kind")
    )
    parquet(tmp_path / "data" / "test-0.parquet", [0], ["no", "yes"], columns=("picture", "kind"))
    train = train_of(tmp_path)
    expected = data.from_arrays(images, np.array([1, 0, 1]), ("no", "yes"))
    assert train.fingerprint == expected.fingerprint
    assert len(test_of(tmp_path).labels) == 1


def test_a_split_is_told_by_words_not_by_letters(tmp_path):
    parquet(tmp_path / "test" / "latest" / "train" / "0.parquet", [0, 1])
    parquet(tmp_path / "test" / "latest" / "validation" / "0.parquet", [0, 1, 1])
    path = tmp_path / "test" / "latest"
    assert len(train_of(path).labels) == 2
    assert len(test_of(path).labels) == 3


def test_a_single_parquet_file_without_names_is_numbered_and_split(tmp_path):
    parquet(tmp_path / "all.parquet", [0, 1, 2] * 5)
    config = DataConfig(dataset=str(tmp_path / "all.parquet"))
    assert data.open_dataset(config).examples.class_names == ("0", "1", "2")
    assert np.bincount(data.load_test(data.open_dataset(config)).labels).tolist() == [1, 1, 1]


def test_of_several_label_columns_the_named_one_is_taken(tmp_path):
    parquet(tmp_path / "train.parquet", [0, 1], ["a", "b"], columns=("picture", "fine"))
    table = pq.read_table(tmp_path / "train.parquet")
    table = table.append_column("id", pa.array([7, 8]))
    pq.write_table(table, tmp_path / "train.parquet")
    assert Parquet(tmp_path).label == "fine"
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="picture, fine, id"):
        Parquet(tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 5, -1], r"2 of 4 labels are outside 0 to 1: \[5, -1\] at \[2, 3\]"),
        ([0, None], "1 images have no label"),
        ([0, 0], "no training image of class yes"),
    ],
)
def test_parquet_with_bad_labels_is_refused(tmp_path, labels, message):
    parquet(tmp_path / "train.parquet", labels, ["no", "yes"])
    with pytest.raises(DataError, match=message):
        train_of(tmp_path, image_size=(8, 8), channels=3)


def test_a_damaged_parquet_file_is_named(tmp_path):
    path = tmp_path / "train.parquet"
    parquet(path, [0, 1])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"train.parquet is truncated"):
        train_of(tmp_path)


# Known sets


def test_a_known_set_is_resolved_without_reading_anything(tmp_path):
    config = data.open_dataset(DataConfig(dataset="cifar100"), root=tmp_path).config
    assert (config.image_size, config.channels, config.classes) == ((32, 32), 3, 100)
    kept = data.open_dataset(DataConfig(dataset="cifar10", image_size=(24, 24), channels=1)).config
    assert (kept.image_size, kept.channels) == ((24, 24), 1)
    with pytest.raises(DataError, match=r"data.classes=7, but cifar10 has 10"):
        _ = data.open_dataset(DataConfig(dataset="cifar10", classes=7)).config


def test_the_facts_of_known_sets_agree_with_each_other():
    classes = {name: known.classes for name, known in KNOWN.items()}
    assert classes.pop("cifar100") == 100 and set(classes.values()) == {10}
    assert KNOWN["cifar100"].class_names == tuple(sorted(KNOWN["cifar100"].class_names))
    for known in KNOWN.values():
        assert len(set(known.class_names)) == known.classes
        assert known.mean is None or len(known.mean) == len(known.std or ()) == known.channels


@pytest.mark.parametrize(("name", "meant"), [("cifra10", "cifar10"), ("digit", "digits")])
def test_an_unknown_name_suggests_a_known_one(name, meant):
    with pytest.raises(DataError, match=rf"did you mean {meant}\?\nknown: cifar10, cifar100"):
        _ = data.open_dataset(DataConfig(dataset=name)).config


def test_a_data_root_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"data root .*nowhere is not a folder"):
        train_of("cifar10", tmp_path / "nowhere")


def test_a_known_set_unlike_the_published_one_warns(tmp_path):
    labels = list(range(10)) * 2
    for split in ("train", "test"):
        parquet(tmp_path / "cifar10" / f"{split}.parquet", labels, images=pixels(20, 32, 32, 3))
    with pytest.warns(
        UserWarning, match=r"20 images, mean .*; published: 50,000 images, mean 0.49"
    ):
        examples = data.open_dataset(DataConfig(), root=tmp_path).examples
    assert examples.class_names == KNOWN["cifar10"].class_names
    with pytest.warns(UserWarning, match=r"test split .* 20 images; published: 10,000"):
        test_of("cifar10", tmp_path)


REAL = Path(os.environ.get("VITLAB_DATA") or ".").absolute()
real = pytest.mark.skipif(
    not (REAL / "cifar10").is_dir(), reason="needs VITLAB_DATA with the real CIFAR-10"
)


@real
def test_the_real_test_images_are_the_published_ones():
    test = test_of("cifar10", REAL)
    assert test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert test.content == KNOWN["cifar10"].content["test"]


@real
@pytest.mark.slow
def test_the_real_training_images_have_the_published_statistics_and_split_evenly():
    config = data.open_dataset(DataConfig()).config
    train = data.open_dataset(config, root=REAL).examples
    mean, std = data.statistics(train.images)
    assert np.allclose(mean, KNOWN["cifar10"].mean or (), atol=1e-7)
    assert np.allclose(std, KNOWN["cifar10"].std or (), atol=1e-7)
    parts = train.split(config)
    assert [np.bincount(train.labels[part]).tolist() for part in parts] == [[4500] * 10, [500] * 10]


def test_examples_have_one_order_whatever_order_they_come_in():
    images, labels = pixels(5, 3, 3, 3), np.array([0, 1, 2, 0, 1])
    images[4] = images[0]  # a copy of another class
    first, turned = data.from_arrays(images, labels), data.from_arrays(images[::-1], labels[::-1])
    assert first.content == turned.content and first.fingerprint == turned.fingerprint
    assert np.array_equal(first.images, turned.images)
    assert np.array_equal(first.labels, turned.labels)
    assert data.from_arrays(images, labels[::-1]).content != first.content


def test_half_a_known_set_is_refused(tmp_path):
    parquet(tmp_path / "cifar10" / "train.parquet", list(range(10)))
    with pytest.raises(DataError, match="not both train and test"):
        train_of("cifar10", tmp_path)


def test_a_known_name_over_something_else_is_refused_before_any_download(tmp_path):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "readme.txt").touch()
    with pytest.raises(DataError, match="holds neither Parquet files nor cifar-10-batches-py"):
        train_of("cifar10", tmp_path)


# The cache of decoded images


def test_images_are_decoded_once(tmp_path, monkeypatch):
    folder(tmp_path / "pets")
    first = train_of(tmp_path / "pets", image_size=(8, 8), channels=3)
    monkeypatch.setattr(loading, "read", lambda *_: pytest.fail("decoded twice"))
    again = train_of(tmp_path / "pets", image_size=(8, 8), channels=3)
    assert again.fingerprint == first.fingerprint and again.images.flags.writeable


def test_decoded_images_stay_on_the_disk_until_they_are_looked_at(tmp_path, cache):
    folder(tmp_path / "pets")
    first = train_of(tmp_path / "pets")
    again = train_of(tmp_path / "pets")
    assert isinstance(again.images.base, np.memmap)
    again.images[:] = 0  # whoever writes into them writes into a copy
    assert train_of(tmp_path / "pets").fingerprint == first.fingerprint


def test_a_changed_file_is_decoded_anew(tmp_path):
    folder(tmp_path / "pets")
    before = train_of(tmp_path / "pets")
    path = tmp_path / "pets" / "train" / "cat" / "0.png"
    path.write_bytes(png(pixels(8, 8, 3)))
    os.utime(path, (time.time() + 9, time.time() + 9))
    assert train_of(tmp_path / "pets").fingerprint != before.fingerprint


def test_an_empty_class_added_later_is_still_noticed(tmp_path):
    train_of(folder(tmp_path / "pets"))
    (tmp_path / "pets" / "train" / "ant").mkdir()
    with pytest.raises(DataError, match="no training image of class ant"):
        train_of(tmp_path / "pets", image_size=(8, 8), channels=3)


def test_what_cannot_be_read_is_left_out_on_request_and_told_every_time(tmp_path):
    whole = train_of(folder(tmp_path / "pets"))
    (tmp_path / "pets" / "train" / "cat" / "zz.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"data\.unreadable=skip"):
        train_of(tmp_path / "pets")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"(?s)1 of \d+ images cannot be read.*zz\.png"):
            found = train_of(tmp_path / "pets", unreadable="skip")
        assert found.skipped == 1 and found.fingerprint == whole.fingerprint


def test_a_class_of_which_nothing_can_be_read_is_refused_all_the_same(tmp_path):
    folder(tmp_path / "pets")
    for path in (tmp_path / "pets" / "train" / "cat").iterdir():
        path.write_bytes(b"no image")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(DataError, match="no training image of class cat"),
    ):
        train_of(tmp_path / "pets", unreadable="skip")


def test_a_damaged_cache_mends_itself(tmp_path, cache):
    folder(tmp_path / "pets")
    first = train_of(tmp_path / "pets").fingerprint
    for path in (cache / "decoded").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert train_of(tmp_path / "pets").fingerprint == first


def test_a_cache_that_cannot_be_written_costs_a_warning_only(tmp_path, cache):
    folder(tmp_path / "pets")
    cache.parent.mkdir()
    cache.touch()
    with pytest.warns(UserWarning, match="not kept"):
        assert len(train_of(tmp_path / "pets").labels) == 10


# Grey levels and constant channels


def test_12_bits_in_16_use_all_of_8(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            place = tmp_path / split / name
            place.mkdir(parents=True)
            for number in range(3):
                grey = rng.integers(2000, 2100, (8, 8)) + 50 * (split == "test")
                grey[0, 0] = 1990
                Image.fromarray(grey.astype(np.uint16)).save(place / f"{number}.png")
    train = train_of(tmp_path)
    assert train.grey_range is not None and train.grey_range[0] == 1990
    assert train.images.min() == 0 and train.images.max() == 255
    assert train_of(tmp_path).grey_range == train.grey_range  # from the cache too
    test = test_of(tmp_path)
    assert test.grey_range == train.grey_range and test.images.max() == 255
    wide = train_of(tmp_path, grey_range=(0, 65535))
    assert wide.images.max() < 10 and wide.grey_range == (0, 65535)


def test_a_channel_of_one_value_has_a_deviation_to_divide_by():
    images = pixels(5, 4, 4, 3)
    images[..., 1] = 7
    mean, std = data.statistics(images)
    assert std[1] == 1 and mean[1] == pytest.approx(7 / 255)
    assert all(0 < one < 1 for one in (std[0], std[2]))
