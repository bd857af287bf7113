"""Known sets: the same images from every edition of their files, and nothing trusted."""

import gzip
import hashlib
import os
import pickle
import struct
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from forms import (
    archive,
    cifar,
    fashion,
    idx,
    parquet,
    pixels,
    svhn,
    test_of,
    train_of,
    unpacked,
)

from vitlab import data
from vitlab.config import DataConfig
from vitlab.data import KNOWN, download, official
from vitlab.data.known import File
from vitlab.errors import DataError
from vitlab.files import sha256

SHAPES = {"cifar10": (32, 32, 3), "cifar100": (32, 32, 3), "svhn": (32, 32, 3),
          "fashion_mnist": (28, 28, 1)}  # fmt: skip
CLASSES = {name: 4 if name.startswith("cifar") else 10 for name in SHAPES}
PARTS = {
    name: {
        split: (pixels(count, *shape), np.arange(count) % CLASSES[name])
        for split, count in (("train", 20), ("test", 10))
    }
    for name, shape in SHAPES.items()
}
SVHN = svhn(PARTS["svhn"])
OFFICIAL = {
    "cifar10": cifar(PARTS["cifar10"], KNOWN["cifar10"].files, "labels"),
    "cifar100": cifar(PARTS["cifar100"], KNOWN["cifar100"].files, "fine_labels"),
    "fashion_mnist": fashion(PARTS["fashion_mnist"]),
    "svhn": SVHN,
}
BINARY = {
    "cifar10": cifar(PARTS["cifar10"], KNOWN["cifar10"].files, ""),
    "cifar100": cifar(PARTS["cifar100"], KNOWN["cifar100"].files, "", b"\x13"),
}
ARCHIVE = "cifar-10-python.tar.gz"
SETS = pytest.mark.parametrize("name", ["fashion_mnist", "svhn"])
PUBLISHED = dict(KNOWN)


def publish(monkeypatch, name, hashes):
    """Let a set have other published hashes, by the name of the file."""
    mirrors = tuple(
        tuple(replace(file, sha256=hashes.get(file.name)) for file in mirror)
        for mirror in KNOWN[name].mirrors
    )
    monkeypatch.setitem(KNOWN, name, replace(KNOWN[name], mirrors=mirrors))


@pytest.fixture(autouse=True)
def small_sets(monkeypatch):
    """Sets of 20 + 10 images, with no published figures to differ from."""
    for name, number in CLASSES.items():
        names = KNOWN[name].class_names[:number]
        monkeypatch.setitem(KNOWN, name, replace(KNOWN[name], class_names=names, mean=None))
        publish(monkeypatch, name, {})
    publish(monkeypatch, "svhn", {n: hashlib.sha256(raw).hexdigest() for n, raw in SVHN.items()})


def check(name, root):
    """A root holds the images of PARTS."""
    for split, found in (("train", train_of(name, root)), ("test", test_of(name, root))):
        expected = data.from_arrays(*PARTS[name][split], found.class_names)
        assert np.array_equal(found.images, expected.images)
        assert np.array_equal(found.labels, expected.labels)
        assert found.class_names == KNOWN[name].class_names
        assert found.images.flags.c_contiguous


def test_a_known_set_is_resolved_without_reading_anything(tmp_path):
    config = data.open_dataset(DataConfig(dataset="cifar100"), root=tmp_path).config
    assert (config.image_size, config.channels, config.classes) == ((32, 32), 3, 4)
    kept = data.open_dataset(DataConfig(dataset="cifar10", image_size=(24, 24), channels=1)).config
    assert (kept.image_size, kept.channels) == ((24, 24), 1)
    with pytest.raises(DataError, match=r"data.classes=7, but cifar10 has 4"):
        _ = data.open_dataset(DataConfig(dataset="cifar10", classes=7)).config


def test_the_facts_of_known_sets_agree_with_each_other():
    classes = {name: known.classes for name, known in PUBLISHED.items()}
    assert classes.pop("cifar100") == 100 and set(classes.values()) == {10}
    assert PUBLISHED["cifar100"].class_names == tuple(sorted(PUBLISHED["cifar100"].class_names))
    for known in PUBLISHED.values():
        assert len(set(known.class_names)) == known.classes
        assert known.mean is None or len(known.mean) == len(known.std or ()) == known.channels


def half(root):
    parquet(root / "cifar10" / "train.parquet", [0, 1])


def something_else(root):
    (root / "cifar10").mkdir()
    (root / "cifar10" / "readme.txt").touch()


@pytest.mark.parametrize(
    ("name", "root", "make", "message"),
    [
        ("cifra10", ".", None, r"did you mean cifar10\?\nknown: cifar10, cifar100"),
        ("digit", ".", None, r"did you mean digits\?\nknown"),
        ("cifar10", "nowhere", None, r"data root .*nowhere is not a folder"),
        ("cifar10", ".", half, "not both train and test"),
        ("cifar10", ".", something_else, "holds neither Parquet files nor cifar-10-batches-py"),
    ],
)
def test_what_is_no_known_set_is_refused_before_any_download(tmp_path, name, root, make, message):
    if make:
        make(tmp_path)
    with pytest.raises(DataError, match=message):
        train_of(name, tmp_path / root)


def test_a_known_set_unlike_the_published_one_warns(tmp_path, monkeypatch):
    monkeypatch.setitem(KNOWN, "cifar10", PUBLISHED["cifar10"])
    labels = list(range(10)) * 2
    for split in ("train", "test"):
        parquet(tmp_path / "cifar10" / f"{split}.parquet", labels, images=pixels(20, 32, 32, 3))
    with pytest.warns(UserWarning, match=r"20 images, mean .*; published: 50,000 images, mean 0.4"):
        examples = train_of("cifar10", tmp_path)
    assert examples.class_names == PUBLISHED["cifar10"].class_names
    with pytest.warns(UserWarning, match=r"test split .* 20 images; published: 10,000"):
        test_of("cifar10", tmp_path)


@pytest.mark.slow
def test_the_real_images_are_the_published_ones_and_split_evenly(cifar10, monkeypatch):
    known = PUBLISHED["cifar10"]
    monkeypatch.setitem(KNOWN, "cifar10", known)
    test = test_of("cifar10", cifar10)
    assert test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert test.content == known.content["test"]
    dataset = data.open_dataset(DataConfig(), root=cifar10)
    train = dataset.examples
    mean, std = data.statistics(train.images)
    assert np.allclose(mean, known.mean or (), atol=1e-7)
    assert np.allclose(std, known.std or (), atol=1e-7)
    counts = [np.bincount(train.labels[part]).tolist() for part in dataset.split]
    assert counts == [[4500] * 10, [500] * 10]


@pytest.mark.parametrize(
    ("name", "write", "place", "members"),
    [
        ("cifar10", unpacked, "cifar10/cifar-10-batches-py", OFFICIAL["cifar10"]),
        ("cifar10", unpacked, "cifar10", OFFICIAL["cifar10"]),
        ("cifar10", unpacked, "cifar-10-batches-py", OFFICIAL["cifar10"]),
        ("cifar10", unpacked, "cifar-10-batches-bin", BINARY["cifar10"]),
        ("cifar10", archive, ARCHIVE, OFFICIAL["cifar10"]),
        ("cifar10", archive, f"cifar10/{ARCHIVE}", OFFICIAL["cifar10"]),
        ("cifar10", archive, "cifar10/cifar-10-binary.tar.gz", BINARY["cifar10"]),
        ("cifar100", archive, "cifar-100-python.tar.gz", OFFICIAL["cifar100"]),
        ("cifar100", archive, "cifar-100-binary.tar.gz", BINARY["cifar100"]),
        ("svhn", unpacked, "svhn", SVHN),
        ("svhn", unpacked, "SVHN", SVHN),
        *(("fashion_mnist", unpacked, place, fashion(PARTS["fashion_mnist"], packed))
          for place in ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw")
          for packed in (True, False)),
    ],
)  # fmt: skip
def test_files_are_found_in_their_usual_places_and_left_there(
    tmp_path, name, write, place, members
):
    root = tmp_path / "root"
    write(root / place, members)
    before = sorted(root.rglob("*"))
    check(name, root)
    assert sorted(root.rglob("*")) == before  # nothing is unpacked


@pytest.mark.parametrize("name", ["fashion_mnist", "svhn", "cifar100"])
def test_parquet_holds_the_same_images(tmp_path, name):
    names = tuple(f" {one}" for one in KNOWN[name].class_names)  # spelt in the Hub's own way
    for split, (images, labels) in PARTS[name].items():
        file = tmp_path / name / KNOWN[name].hub[1] / f"{split}-00000-of-00001.parquet"
        if name == "cifar100":  # two columns of labels
            parquet(file, labels, images=images, columns=("img", "fine_label"), coarse=labels // 2)
        else:
            parquet(file, labels, names, images)
    check(name, tmp_path)


@SETS
def test_a_set_is_fetched_from_the_first_host_that_has_it(tmp_path, monkeypatch, name):
    unpacked(tmp_path / "host", OFFICIAL[name])
    monkeypatch.setenv(f"VITLAB_{name.upper()}_URL", (tmp_path / "host").as_uri() + "/")
    check(name, None)
    assert data.locate(name) == tmp_path / "cache" / "vitlab" / name


@SETS
def test_a_set_that_cannot_be_fetched_says_what_to_put_where(tmp_path, monkeypatch, name):
    monkeypatch.setenv(f"VITLAB_{name.upper()}_URL", (tmp_path / "nowhere").as_uri())
    with pytest.raises(DataError) as error:
        download.fetch(name, KNOWN[name], tmp_path / "cache")
    assert all(file.name in str(error.value) for file in KNOWN[name].official)
    assert f"hf download {KNOWN[name].hub[0]} --repo-type dataset --include" in str(error.value)


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist", "svhn"])
def test_an_altered_file_is_refused_with_both_hashes(tmp_path, monkeypatch, name):
    if name == "cifar10":
        path = archive(tmp_path / name / ARCHIVE, OFFICIAL[name])
    else:
        path = unpacked(tmp_path / name, OFFICIAL[name]) / KNOWN[name].official[0].name
    path.write_bytes(path.read_bytes()[:-20])
    publish(monkeypatch, name, dict.fromkeys([path.name], "0" * 64))
    with pytest.raises(DataError, match=f"altered: .*{sha256(path)}, expected {'0' * 64}"):
        train_of(name, tmp_path)


def test_a_missing_file_and_files_that_do_not_fit_are_named(tmp_path):
    folder = unpacked(tmp_path / "fashion_mnist", OFFICIAL["fashion_mnist"])
    labels = folder / "train-labels-idx1-ubyte.gz"
    labels.unlink()
    with pytest.raises(DataError, match="has no train-labels-idx1-ubyte"):
        train_of("fashion_mnist", tmp_path)
    labels.write_bytes(gzip.compress(idx(np.arange(10))))
    with pytest.raises(DataError, match=r"images \(20, 28, 28\) and labels \(10,\)"):
        train_of("fashion_mnist", tmp_path)


IDX = idx(PARTS["fashion_mnist"]["test"][0][..., 0])


@pytest.mark.parametrize(
    "raw",
    [
        b"", IDX, gzip.compress(IDX)[:-30], gzip.compress(IDX[:9]), gzip.compress(IDX[:-1]),
        gzip.compress(IDX + b"\0"), gzip.compress(b"\1" + IDX[1:]),
        gzip.compress(struct.pack(">HBB4I", 0, 8, 4, *[2**31] * 4)),
    ],
    ids=["empty", "not packed", "cut", "no header", "short", "long", "other magic", "bomb"],
)  # fmt: skip
def test_a_damaged_idx_file_is_refused(tmp_path, raw):
    path = tmp_path / "a.gz"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.gz is truncated or damaged"):
        official.read_idx(path)


def test_a_pickle_as_python_2_wrote_it_is_read(tmp_path):
    """The real files: protocol 2, byte strings everywhere, numpy's old module path."""
    rows = pixels(2, 3072)
    raw = (
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x01K\x02eU\x04dataq\x04cnumpy.core.multiarray\n"
        b"_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x02M\x00\x0c\x86"
        b"cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff"
        b"\xffK\x00tb\x89T\x00\x18\x00\x00" + rows.tobytes() + b"tbu."
    )
    source = official.Official(unpacked(tmp_path, {"test_batch": raw}), KNOWN["cifar10"])
    images, labels = source.read("test")
    assert labels.tolist() == [1, 2]
    assert np.array_equal(images[1, 0, 0], rows[1].reshape(3, 1024)[:, 0])


class Payload:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


CALLS = os.system, eval, print, np.load, pickle.loads, getattr


@pytest.mark.parametrize(("function", "packed"), [*((one, False) for one in CALLS), (eval, True)])
def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path, capfd, function, packed):
    canary = tmp_path / "canary"
    payload = pickle.dumps(Payload(function, f"touch {canary}"), 2)
    members = OFFICIAL["cifar10"] | {"data_batch_2": payload}
    if packed:
        archive(tmp_path / ARCHIVE, members)
    else:
        unpacked(tmp_path / "cifar-10-batches-py", members)
    with pytest.raises(DataError, match=r"data_batch_2\): refused: the pickle asks for "):
        train_of("cifar10", tmp_path)
    assert not canary.exists() and capfd.readouterr().out == ""


ROWS = pixels(24, 3072)


@pytest.mark.parametrize(
    "batch",
    [
        b"", b"\x80\x04", pickle.dumps([1, 2]), pickle.dumps({b"data": ROWS}),
        pickle.dumps({b"data": ROWS.astype(np.int32), b"labels": [0] * 24}, 4),
        pickle.dumps({b"data": ROWS[:, :100], b"labels": [0] * 24}, 4),
        pickle.dumps({b"data": ROWS, b"labels": [0] * 23}, 4),
        pickle.dumps({b"data": np.array([{}], object), b"labels": [0]}, 4),
    ],
)  # fmt: skip
def test_a_batch_of_another_shape_is_refused_by_name(tmp_path, batch):
    unpacked(tmp_path / "cifar-10-batches-py", OFFICIAL["cifar10"] | {"data_batch_4": batch})
    with pytest.raises(DataError, match="data_batch_4"):
        train_of("cifar10", tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_archive_is_refused(tmp_path, kept):
    path = archive(tmp_path / ARCHIVE, OFFICIAL["cifar10"])
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * kept)])
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz is truncated or damaged"):
        train_of("cifar10", tmp_path)


def test_links_and_outside_names_in_an_archive_touch_nothing(tmp_path):
    path = archive(tmp_path / "root" / ARCHIVE, {})
    kinds = {"data_batch_1": tarfile.SYMTYPE, "data_batch_2": tarfile.LNKTYPE}
    with tarfile.open(path, "w:gz") as tar:
        for name, kind in kinds.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "/etc/passwd"
            tar.addfile(link)
        tar.addfile(tarfile.TarInfo("../../escaped"))
    with pytest.raises(DataError, match=r"data_batch_1\) is missing"):
        train_of("cifar10", tmp_path / "root")
    assert not list(tmp_path.rglob("escaped"))


def test_an_archive_that_unfolds_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(official, "MAX_BYTES", 10_000)
    archive(tmp_path / ARCHIVE, {"big": bytes(20_000)})
    with pytest.raises(DataError, match="unpacks to more than 10,000 bytes"):
        train_of("cifar10", tmp_path)


def test_unpacked_files_given_by_path_say_how_to_ask_for_them(tmp_path):
    place = unpacked(tmp_path / "cifar-10-batches-py", {"test_batch": b""})
    with pytest.raises(DataError, match=f"data.dataset=cifar10 and {tmp_path} as --data-root"):
        train_of(place)
    assert File("https://example.org/a/b.tar.gz?download=1", None).name == "b.tar.gz"
