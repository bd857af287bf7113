"""Z: random bytes for whatever reads files; every answer is a result or one of our errors.

Each fuzzer begins with sound files and changes them, for minutes in the long form. Hypothesis
draws the changes, and shrinks what it finds to the smallest change that still fails.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import case
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from image_sets import archive, batches, classes, publish
from PIL import Image

from vitlab.config import Config, DataConfig
from vitlab.data import open_dataset
from vitlab.data.images import decode, header
from vitlab.errors import VitlabError
from vitlab.recipes import ALL_RECIPES, recipe
from vitlab.run import Run
from vitlab.study.define import read

MINUTES = 2.0
"""Of each fuzzer in the long form."""

Change = tuple[str, float, bytes]

CHANGES = st.lists(
    st.tuples(
        st.sampled_from(("put", "insert", "cut", "drop", "repeat")),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=8) | st.sampled_from((b"\0", b"\xff" * 4, b"\x7f\xff" * 4)),
    ),
    min_size=1,
    max_size=6,
)
"""What happens to a file: bytes put over others, inserted, cut off, dropped or repeated."""


def changed(content: bytes, changes: list[Change]) -> bytes:
    """A file after some changes."""
    for kind, share, new in changes:
        place = int(share * (len(content) + 1))
        match kind:
            case "put":
                content = content[:place] + new + content[place + len(new) :]
            case "insert":
                content = content[:place] + new + content[place:]
            case "cut":
                content = content[:place]
            case "drop":
                content = content[:place] + content[place + len(new) :]
            case "repeat":
                content = content[:place] + content[place : place + 64] * 2 + content[place:]
    return content


def fuzz(minutes: float, strategy: st.SearchStrategy[Any], body: Callable[[Any], object]) -> str:
    """Try a body on what a strategy draws, for so long; only VitlabError may be raised."""
    begun, tried, refused, round_ = time.monotonic(), 0, 0, 0

    def one(drawn: Any) -> None:
        nonlocal tried, refused
        if time.monotonic() - begun > 60 * minutes:
            return
        tried += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                body(drawn)
            except VitlabError as error:
                refused += 1
                assert str(error).strip()

    while time.monotonic() - begun < 60 * minutes:
        round_ += 1
        check = settings(
            max_examples=2000,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )(seed(round_)(given(strategy)(one)))
        check()
    return f"{tried:,} inputs in {60 * minutes:.0f} s, {refused:,} refused, 0 uncaught"


def all_bytes(sources: dict[str, bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
    """One of some files, changed; now and then nothing but noise."""
    pick = st.sampled_from(sorted(sources))
    altered = st.tuples(pick, CHANGES).map(lambda d: (d[0], changed(sources[d[0]], d[1])))
    return altered | st.tuples(pick, st.binary(max_size=200))


@case("Z01", "fuzzing: images, decoded and by their headers", minutes=10)
def fuzz_images(folder: Path, scale: float) -> str:
    draws = np.random.default_rng(0)
    sources = {}
    for kind, modes in {"PNG": ("L", "RGB", "RGBA", "P", "1", "I;16"), "JPEG": ("L", "RGB", "CMYK"),
                        "WEBP": ("RGB", "RGBA")}.items():  # fmt: skip
        for mode in modes:
            pixels = draws.integers(0, 256, (9, 7, 3), np.uint8)
            image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
            if mode == "I;16":
                image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
            exif = Image.Exif()
            exif[0x0112] = 6
            file = io.BytesIO()
            image.save(file, kind, exif=exif)
            sources[f"{kind}-{mode}"] = file.getvalue()

    def body(drawn: tuple[str, bytes]) -> None:
        (height, width), channels, _ = header(drawn[1])
        assert height > 0 and width > 0 and channels in (1, 3)
        for wanted in (1, 3):
            assert decode(drawn[1], (5, 6), wanted, "pad").shape == (5, 6, wanted)

    return fuzz(MINUTES * scale, all_bytes(sources), body)


def on_disk(
    folder: Path,
    scale: float,
    sources: dict[str, bytes],
    data: DataConfig,
    root: Path | None,
    packed: Callable[[bytes], bytes] = bytes,
) -> str:
    """Fuzz a data set by changing one of its files, whose paths are given with their content.

    What was changed is `packed` again, so that no checksum hides it.
    """
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    publish(None)

    def body(drawn: tuple[str, bytes]) -> None:
        file = folder / drawn[0]
        file.write_bytes(packed(drawn[1]))
        try:
            _ = open_dataset(data, root=root).examples
        finally:
            file.write_bytes(packed(sources[drawn[0]]))
            shutil.rmtree(folder / "cache", ignore_errors=True)

    return fuzz(MINUTES * scale, all_bytes(sources), body)


def contents(folder: Path, *paths: Path) -> dict[str, bytes]:
    """Some files by their path below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@case("Z02", "fuzzing: Parquet files", minutes=10)
def fuzz_parquet(folder: Path, scale: float) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "set").mkdir()
    file = io.BytesIO()
    Image.new("L", (8, 8), 9).save(file, "PNG")
    rows = [{"bytes": file.getvalue(), "path": None}] * 12
    table = pa.table({"image": rows, "label": [k % 3 for k in range(12)]})
    about = {"info": {"features": {"label": {"names": ["a", "b", "c"]}}}}
    named = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    pq.write_table(named, folder / "set" / "train.parquet", compression="none")
    data = DataConfig(dataset=str(folder / "set"))
    return on_disk(folder, scale, contents(folder, folder / "set" / "train.parquet"), data, None)


@case("Z03", "fuzzing: the archive and the batches of CIFAR", minutes=10)
def fuzz_cifar(folder: Path, scale: float) -> str:
    place = folder / "root" / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for name, raw in batches(20).items():
        (place / name).write_bytes(raw)
    file = archive(folder / "packed" / "cifar-10-python.tar.gz", batches(10))
    batch = contents(folder, place / "data_batch_1")
    half = on_disk(folder, scale / 2, batch, DataConfig(), folder / "root")
    tar = {str(file.relative_to(folder)): gzip.decompress(file.read_bytes())}
    pack = partial(gzip.compress, compresslevel=1)
    rest = on_disk(folder, scale / 2, tar, DataConfig(), file.parent, pack)
    return f"batches: {half}; archive: {rest}"


@case("Z04", "fuzzing: idx and Matlab files", minutes=10)
def fuzz_loose(folder: Path, scale: float) -> str:
    from scipy.io import savemat

    from vitlab.data.known import KNOWN, File
    from vitlab.data.official import Official, read_idx

    images = np.zeros((6, 5, 4), np.uint8)
    idx = b"\0\0\x08\x03" + struct.pack(">3I", *images.shape) + images.tobytes()
    file = io.BytesIO()
    arrays = {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.arange(4)[:, None]}
    savemat(file, arrays, do_compression=True)
    sources = {"a": idx, "b.gz": gzip.compress(idx), "train_32x32.mat": file.getvalue()}
    # Matlab files are read only with their published hash.
    published = File("train_32x32.mat", hashlib.sha256(file.getvalue()).hexdigest())
    svhn = Official(folder, replace(KNOWN["svhn"], mirrors=((published,),)))

    def body(drawn: tuple[str, bytes]) -> None:
        path = folder / drawn[0]
        path.write_bytes(drawn[1])
        svhn.read("train") if path.suffix == ".mat" else read_idx(path)

    return fuzz(MINUTES * scale, all_bytes(sources), body)


@case("Z05", "fuzzing: CSV tables and folders of images", minutes=10)
def fuzz_tables(folder: Path, scale: float) -> str:
    photos = classes(folder / "photos", ("a", "b"), 4)
    rows = [f"{name}/{number}.png,{name}" for name in "ab" for number in range(4)]
    table = photos / "table.csv"
    table.write_text("path,label\n" + "\n".join(rows) + "\n")
    half = on_disk(folder, scale / 2, contents(folder, table), DataConfig(dataset=str(table)), None)
    files = contents(folder, photos / "a" / "0.png", photos / "b" / "1.png")
    rest = on_disk(folder, scale / 2, files, DataConfig(dataset=str(photos)), None)
    return f"tables: {half}; folders: {rest}"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(("none", "on", "1e-3", "1,2", "nan", "inf", "-1", "0", "1e400", "layer")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)  # fmt: skip


@case("Z06", "fuzzing: configs as JSON, as overrides and as studies", minutes=10)
def fuzz_configs(folder: Path, scale: float) -> str:
    names = [f"{part}.{name}" for part, tree in Config().to_dict().items() if isinstance(tree, dict)
             for name in tree]  # fmt: skip
    (folder / "run").mkdir()
    text = json.dumps(Config().to_dict(), indent=1).encode()
    study = b'question = "?"\nrecipe = "digits"\n[common]\ntrain.epochs = 3\n[vary]\n'
    study += b'model.norm = ["layer", "rms"]\n[vary.x.y]\nmodel.depth = 3\n'
    overrides = st.dictionaries(st.sampled_from(names) | st.text(max_size=9), VALUES, max_size=4)
    strategy = (
        st.tuples(st.just("override"), st.sampled_from(sorted(ALL_RECIPES)), overrides)
        | st.tuples(st.just("tree"), st.sampled_from(names), VALUES)
        | st.tuples(st.just("json"), st.just(""), CHANGES)
        | st.tuples(st.just("study"), st.just(""), CHANGES)
    )

    def body(drawn: tuple[str, str, Any]) -> None:
        kind, name, value = drawn
        if kind == "override":
            recipe(name).override(value)
        elif kind == "tree":
            tree = Config().to_dict()
            part, _, field = name.partition(".")
            tree[part][field] = value
            Config.from_dict(tree)
        elif kind == "json":
            (folder / "run" / "config.json").write_bytes(changed(text, value))
            Run(folder / "run")
        else:
            (folder / "study.toml").write_bytes(changed(study, value))
            read(str(folder / "study.toml"))

    return fuzz(MINUTES * scale, strategy, body)
