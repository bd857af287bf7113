"""Fashion-MNIST and SVHN: the same images from their official files and from Parquet."""

import gzip
import io
import json
import struct
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

from vitlab import data
from vitlab.config import DataConfig
from vitlab.data import KNOWN, download
from vitlab.data.loose import read_idx, read_matlab
from vitlab.data.sources import locate
from vitlab.errors import DataError

DRAWS = np.random.default_rng(0)
LABELS = {"train": np.arange(20) % 10, "test": np.arange(10)}
PIXELS = {
    name: {
        split: DRAWS.integers(0, 256, (len(labels), *shape), np.uint8)
        for split, labels in LABELS.items()
    }
    for name, shape in {"fashion_mnist": (28, 28, 1), "svhn": (32, 32, 3)}.items()
}
SETS = pytest.mark.parametrize("name", list(PIXELS))


@pytest.fixture(autouse=True)
def small_sets(tmp_path, monkeypatch):
    """Sets of 20 + 10 images, with no published figures to differ from."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VITLAB_DATA", raising=False)
    for name in PIXELS:
        without = tuple(
            tuple(replace(file, sha256=None) for file in source) for source in KNOWN[name].sources
        )
        monkeypatch.setitem(KNOWN, name, replace(KNOWN[name], mean=None, sources=without))


def idx(array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def official(name, folder, pack=gzip.compress, suffix=".gz"):
    """Write a set as its authors publish it."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, labels in LABELS.items():
        images = PIXELS[name][split]
        if name == "svhn":
            digits = np.where(labels, labels, 10)[:, None]
            content = {"X": images.transpose(1, 2, 3, 0), "y": digits}
            savemat(folder / f"{split}_32x32.mat", content, do_compression=True)
            continue
        stem = {"train": "train", "test": "t10k"}[split]
        (folder / f"{stem}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(images[..., 0])))
        (folder / f"{stem}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(labels)))


def parquet(name, folder):
    """Write a set as the Hub has it, class names spelt in its own way."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"label": {"_type": "ClassLabel", "names": [f" {n}" for n in KNOWN[name].class_names]}}
    for split, labels in LABELS.items():
        rows = []
        for image in PIXELS[name][split]:
            file = io.BytesIO()
            Image.fromarray(image.squeeze()).save(file, "PNG")
            rows.append({"bytes": file.getvalue(), "path": None})
        table = pa.table({"image": rows, "label": pa.array(labels, pa.int64())})
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": about}})}
        )
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def check(name, root):
    config = data.resolve(DataConfig(dataset=name), root)
    for split, load in (("train", data.load_train), ("test", data.load_test)):
        examples = load(config, root)
        expected = data.from_arrays(PIXELS[name][split], LABELS[split], examples.class_names)
        assert np.array_equal(examples.images, expected.images)
        assert np.array_equal(examples.labels, expected.labels)
        assert examples.class_names == KNOWN[name].class_names


@SETS
def test_official_files_and_parquet_hold_the_same_images(tmp_path, name):
    official(name, tmp_path / "a" / name)
    parquet(name, tmp_path / "b" / name / KNOWN[name].hub[1])
    check(name, tmp_path / "a")
    check(name, tmp_path / "b")
    config = DataConfig(dataset=name)
    both = [data.load_train(config, tmp_path / root) for root in "ab"]
    assert both[0].fingerprint == both[1].fingerprint


@pytest.mark.parametrize("place", ["fashion_mnist", "fashion-mnist", "FashionMNIST/raw"])
def test_unpacked_files_are_found_in_their_usual_places(tmp_path, place):
    official("fashion_mnist", tmp_path / place, pack=bytes, suffix="")
    check("fashion_mnist", tmp_path)


@SETS
def test_a_set_is_fetched_from_the_first_host_that_has_it(tmp_path, monkeypatch, name):
    official(name, tmp_path / "host")
    monkeypatch.setenv(f"VITLAB_{name.upper()}_URL", (tmp_path / "host").as_uri() + "/")
    check(name, None)
    assert locate(name) == tmp_path / "cache" / "vitlab" / name


@SETS
def test_a_set_that_cannot_be_fetched_says_what_to_put_where(tmp_path, monkeypatch, name):
    monkeypatch.setenv(f"VITLAB_{name.upper()}_URL", (tmp_path / "nowhere").as_uri())
    with pytest.raises(DataError) as error:
        download.fetch(name, KNOWN[name], tmp_path / "cache")
    assert all(file.name in str(error.value) for file in KNOWN[name].official)
    assert f"hf download {KNOWN[name].hub[0]} --repo-type dataset --include" in str(error.value)


@SETS
def test_an_altered_file_is_refused_with_both_hashes(tmp_path, monkeypatch, name):
    official(name, tmp_path / name)
    published = tuple(replace(file, sha256="0" * 64) for file in KNOWN[name].official)
    monkeypatch.setitem(KNOWN, name, replace(KNOWN[name], sources=(published,)))
    with pytest.raises(DataError, match=f"truncated or altered: .*, expected {'0' * 64}"):
        data.load_train(DataConfig(dataset=name), tmp_path)


def test_a_missing_file_is_named(tmp_path):
    official("fashion_mnist", tmp_path / "fashion_mnist")
    (tmp_path / "fashion_mnist" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="has no train-labels-idx1-ubyte"):
        data.load_train(DataConfig(dataset="fashion_mnist"), tmp_path)


def test_images_and_labels_of_unequal_number_are_refused(tmp_path):
    folder = tmp_path / "fashion_mnist"
    official("fashion_mnist", folder)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS["test"])))
    with pytest.raises(DataError, match=r"images \(20, 28, 28\) and labels \(10,\)"):
        data.load_train(DataConfig(dataset="fashion_mnist"), tmp_path)


IDX = idx(PIXELS["fashion_mnist"]["test"])


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
    with pytest.raises(DataError, match=r"a\.gz is truncated, damaged or of another kind"):
        read_idx(path)


def test_a_damaged_matlab_file_is_refused(tmp_path):
    official("svhn", tmp_path)
    path = tmp_path / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"test_32x32.mat is truncated"):
        read_matlab(path)
    savemat(path, {"X": np.zeros((32, 32, 3, 4)), "y": np.ones(4)})
    with pytest.raises(DataError, match=r"X is float64 \(32, 32, 3, 4\)"):
        read_matlab(path)
