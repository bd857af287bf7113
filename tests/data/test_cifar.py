"""CIFAR's own editions: the same images from every one, and nothing trusted on the way."""

import io
import os
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitlab import data
from vitlab.config import AugmentConfig, Config, DataConfig, TrainConfig, ViTConfig
from vitlab.data import KNOWN, cifar
from vitlab.errors import DataError
from vitlab.files import sha256
from vitlab.training import train

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 3072), np.uint8)
LABELS = np.tile(np.arange(4), 6)
TEN = [f"data_batch_{number}" for number in range(1, 6)]


@pytest.fixture(autouse=True)
def small_sets(tmp_path, monkeypatch):
    """CIFAR of four classes and 20 + 4 images, with no published figures to differ from."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VITLAB_DATA", raising=False)
    for name in ("cifar10", "cifar100"):
        facts = {"class_names": tuple("abcd"), "mean": None, "sources": ()}
        monkeypatch.setitem(KNOWN, name, replace(KNOWN[name], **facts))


def python_edition(labels="labels", names=(*TEN, "test_batch"), protocol=4):
    parts = zip(names, np.array_split(PIXELS, 6), np.array_split(LABELS, 6), strict=False)
    if len(names) == 2:
        parts = [(names[0], PIXELS[:20], LABELS[:20]), (names[1], PIXELS[20:], LABELS[20:])]
    return {
        name: pickle.dumps(
            {b"data": pixels, labels.encode(): y.tolist(), b"filenames": [b"x.png"]}, protocol
        )
        for name, pixels, y in parts
    }


def binary_edition(prefix=b"", names=(*TEN, "test_batch")):
    parts = zip(names, np.array_split(PIXELS, 6), np.array_split(LABELS, 6), strict=False)
    if len(names) == 2:
        parts = [(names[0], PIXELS[:20], LABELS[:20]), (names[1], PIXELS[20:], LABELS[20:])]
    return {
        f"{name}.bin": b"".join(
            prefix + bytes([label]) + row.tobytes() for row, label in zip(pixels, y, strict=True)
        )
        for name, pixels, y in parts
    }


def archive(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, raw in members.items():
            entry = tarfile.TarInfo(f"cifar/{name}")
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
    return path


def unpacked(path, members):
    path.mkdir(parents=True)
    for name, raw in members.items():
        (path / name).write_bytes(raw)


def check(root, dataset="cifar10"):
    config = DataConfig(dataset=dataset)
    train, test = data.load_train(config, root), data.load_test(config, root)
    images = PIXELS.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    for found, part in ((train, slice(20)), (test, slice(20, None))):
        expected = data.from_arrays(images[part], LABELS[part])
        assert np.array_equal(found.images, expected.images)
        assert np.array_equal(found.labels, expected.labels)
    assert train.images.flags.c_contiguous


@pytest.mark.parametrize(
    "folder", ["cifar10/cifar-10-batches-py", "cifar10", "cifar-10-batches-py"]
)
def test_the_unpacked_python_edition_is_found_in_its_usual_places(tmp_path, folder):
    unpacked(tmp_path / folder, python_edition())
    check(tmp_path)


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar10/cifar-10-python.tar.gz"])
def test_the_python_archive_is_read_without_being_unpacked(tmp_path, name):
    archive(tmp_path / name, python_edition())
    before = sorted(tmp_path.rglob("*"))
    cifar.Cifar(tmp_path / name, KNOWN["cifar10"]).read("train")
    assert sorted(tmp_path.rglob("*")) == before
    check(tmp_path)


def test_the_binary_edition_holds_the_same_images(tmp_path):
    archive(tmp_path / "cifar10" / "cifar-10-binary.tar.gz", binary_edition())
    check(tmp_path)
    unpacked(tmp_path / "b" / "cifar-10-batches-bin", binary_edition())
    check(tmp_path / "b")


def test_cifar100_takes_the_fine_labels_in_both_editions(tmp_path):
    names = ("train", "test")
    archive(tmp_path / "cifar-100-python.tar.gz", python_edition("fine_labels", names))
    check(tmp_path, "cifar100")
    archive(tmp_path / "b" / "cifar-100-binary.tar.gz", binary_edition(b"\x13", names))
    check(tmp_path / "b", "cifar100")


def parquet_edition(folder):
    """Write CIFAR-100 as the Hub has it: two columns of labels, the coarse ones without meaning."""
    folder.mkdir(parents=True)
    images = PIXELS.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    for split, part in {"train": slice(20), "test": slice(20, 24)}.items():
        rows = []
        for image in images[part]:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            rows.append({"bytes": file.getvalue(), "path": None})
        labels = {"fine_label": LABELS[part], "coarse_label": LABELS[part] // 2}
        pq.write_table(pa.table({"img": rows, **labels}), folder / f"{split}-0.parquet")


def test_cifar100_trains_to_equal_weights_from_all_three_editions(tmp_path):
    names = ("train", "test")
    archive(tmp_path / "a" / "cifar-100-python.tar.gz", python_edition("fine_labels", names))
    archive(tmp_path / "b" / "cifar-100-binary.tar.gz", binary_edition(b"\x13", names))
    parquet_edition(tmp_path / "c" / "cifar100" / "cifar100")
    config = Config(
        data=DataConfig(dataset="cifar100"),
        model=ViTConfig(patch_size=8, width=8, depth=1, heads=1),
        augment=AugmentConfig(crop_padding=2, flip="random"),
        train=TrainConfig(epochs=1, batch_size=8),
    )
    runs = [
        train(config, out=tmp_path / root, data_root=tmp_path / root, device="cpu", quiet=True)
        for root in "abc"
    ]
    assert [run.finished and run.finished["step"] for run in runs] == [2, 2, 2]
    assert len({sha256(run.checkpoint().model) for run in runs}) == 1
    assert len({run.provenance["data"]["fingerprint"] for run in runs}) == 1


def test_a_pickle_as_python_2_wrote_it_is_read(tmp_path):
    """The real files: protocol 2, byte strings everywhere, numpy's old module path."""
    raw = (
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x01K\x02eU\x04dataq\x04cnumpy.core.multiarray\n"
        b"_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x02M\x00\x0c\x86"
        b"cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff"
        b"\xffK\x00tb\x89T\x00\x18\x00\x00" + PIXELS[:2].tobytes() + b"tbu."
    )
    unpacked(tmp_path / "cifar-10-batches-py", {"test_batch": raw})
    images, labels = cifar.Cifar(tmp_path / "cifar-10-batches-py", KNOWN["cifar10"]).read("test")
    assert labels.tolist() == [1, 2]
    assert np.array_equal(images[1, 0, 0], PIXELS[1].reshape(3, 1024)[:, 0])


class Payload:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("function", [os.system, eval, print, np.load, pickle.loads, getattr])
def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path, capfd, packed, function):
    canary = tmp_path / "canary"
    members = python_edition()
    members["data_batch_2"] = pickle.dumps(Payload(function, f"touch {canary}"), 2)
    if packed:
        archive(tmp_path / "cifar-10-python.tar.gz", members)
    else:
        unpacked(tmp_path / "cifar-10-batches-py", members)
    with pytest.raises(DataError, match=r"data_batch_2\): refused: the pickle asks for "):
        data.load_train(DataConfig(), tmp_path)
    assert not canary.exists() and capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "batch",
    [
        b"", b"\x80\x04", pickle.dumps([1, 2]), pickle.dumps({b"data": PIXELS}),
        pickle.dumps({b"data": PIXELS.astype(np.int32), b"labels": [0] * 24}, 4),
        pickle.dumps({b"data": PIXELS[:, :100], b"labels": [0] * 24}, 4),
        pickle.dumps({b"data": PIXELS, b"labels": [0] * 23}, 4),
        pickle.dumps({b"data": np.array([{}], object), b"labels": [0]}, 4),
    ],
)  # fmt: skip
def test_a_batch_of_another_shape_is_refused_by_name(tmp_path, batch):
    unpacked(tmp_path / "cifar-10-batches-py", python_edition() | {"data_batch_4": batch})
    with pytest.raises(DataError, match="data_batch_4"):
        data.load_train(DataConfig(), tmp_path)


def test_a_missing_batch_is_named(tmp_path):
    members = python_edition()
    del members["data_batch_3"]
    archive(tmp_path / "cifar-10-python.tar.gz", members)
    with pytest.raises(DataError, match=r"no whole data_batch_3.bin or data_batch_3"):
        data.load_train(DataConfig(), tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_archive_is_refused(tmp_path, share):
    path = archive(tmp_path / "cifar-10-python.tar.gz", python_edition())
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz is truncated or damaged"):
        data.load_train(DataConfig(), tmp_path)


def test_an_altered_archive_of_a_known_name_is_refused_with_both_hashes(tmp_path, monkeypatch):
    path = archive(tmp_path / "cifar-10-python.tar.gz", python_edition())
    source = ((data.known.File("https://example.org/cifar-10-python.tar.gz", "0" * 64),),)
    monkeypatch.setitem(KNOWN, "cifar10", replace(KNOWN["cifar10"], sources=source))
    with pytest.raises(DataError, match=f"{cifar.sha256(path)}, expected {'0' * 64}"):
        data.load_train(DataConfig(), tmp_path)


def test_links_and_outside_names_in_an_archive_touch_nothing(tmp_path):
    path = tmp_path / "root" / "cifar-10-python.tar.gz"
    archive(path, {"../../escaped": b"x", **python_edition()})
    with tarfile.open(path, "w:gz") as tar:
        for name, kind in {
            "data_batch_1": tarfile.SYMTYPE,
            "data_batch_2": tarfile.LNKTYPE,
        }.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "/etc/passwd"
            tar.addfile(link)
        outside = tarfile.TarInfo("../../escaped")
        tar.addfile(outside)
    with pytest.raises(DataError, match=r"no whole data_batch_1.bin"):
        data.load_train(DataConfig(), tmp_path / "root")
    assert not list(tmp_path.rglob("escaped"))


def test_an_archive_that_unfolds_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MAX_BYTES", 10_000)
    archive(tmp_path / "cifar-10-python.tar.gz", {"big": bytes(20_000)} | python_edition())
    with pytest.raises(DataError, match="unpacks to more than 10,000 bytes"):
        data.load_train(DataConfig(), tmp_path)
