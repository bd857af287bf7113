"""Small sets of images in every form that is read.

A set is `parts`: per split images uint8 (N, H, W, C) and labels (N,).
"""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

from vitlab.config import DataConfig
from vitlab.data import LabelledImages, load_test, open_dataset

RNG = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    """Noise, uint8."""
    return RNG.integers(0, 256, shape, np.uint8)


def png(image: np.ndarray | None = None) -> bytes:
    """An image as the content of a PNG file."""
    file = io.BytesIO()
    image = pixels(4, 4, 3) if image is None else image
    Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).save(file, "PNG")
    return file.getvalue()


def train_of(path: object = "photos", root: object = None, **fields: object) -> LabelledImages:
    """The training images of a set."""
    return open_dataset(DataConfig(dataset=str(path), **fields), root=root).examples


def test_of(path: object = "photos", root: object = None, **fields: object) -> LabelledImages:
    """The test images of a set."""
    return load_test(open_dataset(DataConfig(dataset=str(path), **fields), root=root))


test_of.__test__ = False  # no test, in spite of its name


def description(path: object = "photos", root: object = None) -> str:
    """What a training says of its images."""
    return "\n".join(open_dataset(DataConfig(dataset=str(path)), root=root).description)


def folders(root: Path, *names: str, count: int = 2, shape: tuple[int, ...] = (4, 4, 3)) -> Path:
    """Some images in each of the folders."""
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(png(pixels(*shape)))
    return root


def classes(
    root: Path, *splits: str, names: tuple[str, ...] = ("ant", "bee", "cow"), **options: object
) -> Path:
    """Class folders in each of the splits."""
    return folders(root, *(os.path.join(s, name) for s in splits for name in names), **options)


def parquet(
    path: Path,
    labels: object,
    names: tuple[str, ...] = (),
    images: np.ndarray | None = None,
    *,
    columns: tuple[str, str] = ("image", "label"),
    plain: bool = False,
    **more: object,
) -> np.ndarray:
    """A Parquet file, as the Hub has it or with plain bytes; returns its images."""
    images = pixels(len(labels), 8, 8, 3) if images is None else images
    rows = [png(one) if plain else {"bytes": png(one), "path": None} for one in images]
    table = pa.table({columns[0]: rows, columns[1]: pa.array(labels), **more})
    if names:
        features = {columns[1]: {"_type": "ClassLabel", "names": names}}
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return images


def cifar(parts: dict, files: dict, label_key: str, prefix: bytes = b"") -> dict[str, bytes]:
    """The batches of CIFAR by name, in the Python edition or, without a key, in the binary one.

    Args:
        files: names of the batches of each split, as KnownSet.files.
        prefix: bytes before the label in the binary edition.
    """
    members = {}
    for split, (images, labels) in parts.items():
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        index = np.array_split(np.arange(len(rows)), len(files[split]))
        for name, one in zip(files[split], index, strict=True):
            if label_key:
                batch = {b"data": rows[one], label_key.encode(): labels[one].tolist()}
                members[name] = pickle.dumps(batch)
            else:
                records = (prefix + bytes([labels[n]]) + rows[n].tobytes() for n in one)
                members[f"{name}.bin"] = b"".join(records)
    return members


def archive(path: Path, members: dict[str, bytes]) -> Path:
    """Pack members into an archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, raw in members.items():
            entry = tarfile.TarInfo(f"cifar/{name}")
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
    return path


def unpacked(path: Path, members: dict[str, bytes]) -> Path:
    """Write members into a folder."""
    path.mkdir(parents=True, exist_ok=True)
    for name, raw in members.items():
        (path / name).write_bytes(raw)
    return path


def idx(array: np.ndarray) -> bytes:
    """An array as the content of an idx file."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def fashion(parts: dict, packed: bool = True) -> dict[str, bytes]:
    """The files of Fashion-MNIST by name."""
    pack, suffix = (gzip.compress, ".gz") if packed else (bytes, "")
    return {
        f"{'train' if split == 'train' else 't10k'}-{kind}-ubyte{suffix}": pack(idx(array))
        for split, (images, labels) in parts.items()
        for kind, array in (("images-idx3", images[..., 0]), ("labels-idx1", labels))
    }


def svhn(parts: dict) -> dict[str, bytes]:
    """The files of SVHN by name."""
    members = {}
    for split, (images, labels) in parts.items():
        file = io.BytesIO()
        digits = np.where(labels, labels, 10)[:, None]
        savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": digits}, do_compression=True)
        members[f"{split}_32x32.mat"] = file.getvalue()
    return members
