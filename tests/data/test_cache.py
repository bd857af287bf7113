"""Decoded images are kept: read once, anew when a file changed, and never trusted blindly."""

import fcntl
import os
import re
import sys
import time
from pathlib import Path
from threading import Lock
from types import SimpleNamespace

import numpy as np
import pytest
from forms import classes, pixels, png, test_of, train_of
from PIL import Image

from vitlab import progress
from vitlab.config import DataConfig
from vitlab.data import labelled, loading
from vitlab.data.images import convert, read
from vitlab.data.labelled import Subset, key_of
from vitlab.data.splits import hold_out
from vitlab.errors import DataError

SIZED = {"image_size": (4, 4), "channels": 3}
"""With it the headers of images need not be read before those that are kept are found."""


@pytest.fixture(autouse=True)
def pets(photos):
    return classes(photos, "train", "test")


def test_images_are_decoded_once_and_stay_on_the_disk_until_they_are_looked_at(monkeypatch):
    first = train_of(**SIZED)
    monkeypatch.setattr(loading, "read", lambda *_: pytest.fail("decoded twice"))
    again = train_of(**SIZED)
    assert again.fingerprint == first.fingerprint
    assert isinstance(again.images.base, np.memmap) and again.images.flags.writeable
    again.images[:] = 0  # whoever writes into them writes into a copy
    assert train_of(**SIZED).fingerprint == first.fingerprint


def test_test_images_that_are_drawn_are_decoded_with_the_others(photos, monkeypatch):
    classes(photos / "whole", "", count=10)
    train = train_of("photos/whole", **SIZED)
    monkeypatch.setattr(loading, "read", lambda *_: pytest.fail("decoded twice"))
    test = test_of("photos/whole", **SIZED)
    assert (len(train.labels), len(test.labels)) == (24, 6)
    assert not np.isin(test.keys, train.keys).any()
    assert test.keys.tolist() == [key_of(image) for image in test.images]


def test_a_changed_file_is_decoded_anew(pets):
    before = train_of()
    path = pets / "train" / "ant" / "0.png"
    path.write_bytes(png())
    os.utime(path, (time.time() + 9, time.time() + 9))
    assert train_of().fingerprint != before.fingerprint


def test_an_empty_class_added_later_is_still_noticed(pets):
    train_of()
    (pets / "train" / "yak").mkdir()
    with pytest.raises(DataError, match="no training image of class yak"):
        train_of(**SIZED)


def test_a_damaged_cache_mends_itself(cache):
    first = train_of().fingerprint
    for path in (cache / "decoded").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert train_of().fingerprint == first


def test_a_cache_that_cannot_be_written_costs_a_warning_only(cache):
    cache.parent.mkdir()
    cache.touch()
    with pytest.warns(UserWarning, match="not kept"):
        assert len(train_of().labels) == 6


def test_a_disk_without_room_is_told_before_an_image_is_decoded(cache, monkeypatch):
    expected = train_of(**SIZED).fingerprint
    for file in (cache / "decoded").iterdir():
        file.unlink()
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.warns(UserWarning, match=r"not kept .* take 0\.0 GB, and .*decoded has 0\.0 GB"):
        assert train_of(**SIZED).fingerprint == expected
    monkeypatch.setattr(loading, "host_memory", lambda: 6 * 4 * 4 * 3 - 1)
    monkeypatch.setattr(loading, "read", lambda *_: pytest.fail("decoded in vain"))
    with pytest.raises(DataError, match=r"6 images of 4 x 4 .* more than there is memory.* room"):
        train_of(**SIZED)


def test_what_breaks_off_leaves_nothing_and_what_was_killed_is_cleared_away(cache, monkeypatch):
    folder = cache / "decoded"
    with monkeypatch.context() as patch:
        patch.setattr(loading, "key_of", lambda _: sys.exit(1))
        with pytest.raises(SystemExit):
            train_of(**SIZED)
    assert list(folder.iterdir()) == []
    killed, at_work = (folder / f".{name}-images.npy.1.tmp" for name in "ab")
    killed.touch()
    with open(at_work, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        train_of(**SIZED)
        left = sorted(file.name for file in folder.iterdir() if file.name.startswith("."))
    assert left == [at_work.name]


@pytest.fixture
def mixed(photos) -> list[tuple[Path, int]]:
    """Files and labels of 60 images of many sizes and kinds, on their side, and equal ones."""
    found = []
    for number in range(60):
        label = number % 3
        path = photos / "mixed" / "abc"[label] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (5 + number % 7, 9 - number % 5, 1 if number % 4 else 3)
        noise = pixels(*shape).squeeze()
        image = Image.fromarray(noise if number % 10 else np.full((5, 9), 7, np.uint8))
        exif = Image.Exif()
        exif[0x112] = 1 + number % 8
        image.save(path, exif=exif)
        found.append((path, label))
    return found


def test_threads_and_files_change_no_image_and_no_order(mixed, cache, monkeypatch):
    config = DataConfig(dataset="photos/mixed", image_size=(6, 8), channels=3, classes=3)
    stored = [read(path, (6, 8)) for path, _ in mixed]
    keys = np.array([key_of(one) for one in stored], np.uint64)
    images = np.stack([convert(one, (6, 8), 3) for one in stored])
    labels = np.array([label for _, label in mixed])
    order = np.lexsort((labels, keys))
    parts = hold_out(keys[order], labels[order], config, "test")

    def late(path, *rest):
        time.sleep(0.01 * (int(path.stem) % 5 == 0))
        return read(path, *rest)

    monkeypatch.setattr(loading, "read", late)
    monkeypatch.setattr(progress, "PART", 2)
    monkeypatch.setattr(progress, "cores", lambda: 4)
    for one_of, part in zip((test_of, train_of), reversed(parts), strict=True):
        found = one_of("photos/mixed", image_size=(6, 8), channels=3)
        expected = order[part]
        assert np.array_equal(found.keys, keys[expected])
        assert np.array_equal(found.labels, labels[expected])
        assert np.array_equal(found.images, images[expected])
        assert isinstance(found.images.base, np.memmap)
        (kept,) = (f for f in (cache / "decoded").glob("*.npy") if len(np.load(f)) == len(part))
        assert kept.stat().st_size == 128 + images[expected].nbytes


def test_a_few_pictures_at_a_time_are_decoded_ahead(monkeypatch):
    monkeypatch.setattr(progress, "PART", 2)
    monkeypatch.setattr(progress, "cores", lambda: 3)
    lock, running, most, begun = Lock(), set(), [], []

    def work(item: int) -> int:
        with lock:
            running.add(item)
            begun.append(item)
            most.append(len(running))
        time.sleep(0.002)
        with lock:
            running.remove(item)
        return item

    results = progress.in_threads(work, range(100), "work")
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    time.sleep(0.1)
    assert 3 < len(begun) < 30 and 1 < max(most) <= 3
    assert list(results) == list(range(4, 100)) and max(most) <= 3


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what memory is no file's")
def test_decoding_takes_no_memory_for_the_set(monkeypatch):
    def anonymous() -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])

    seen = []

    def watched(*args):
        seen.append(anonymous())
        return convert(*args)

    monkeypatch.setattr(loading, "convert", watched)
    for module in (labelled, loading):
        monkeypatch.setattr(module, "RESIDENT", 1 << 20)
    before = anonymous()
    classes(Path("photos/many"), "train", "test", count=16)
    found = train_of("photos/many", image_size=(1024, 1024), channels=3)
    assert found.images.nbytes > 150_000_000 and not found.images.flags.writeable
    assert max(*seen, anonymous()) - before < 60_000_000
    places = np.array([len(found.images) - 1, 0])  # read from the file's ends
    assert np.array_equal(Subset(found.images, places)[:], found.images[places])


def test_12_bits_in_16_use_all_of_8(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            place = tmp_path / "deep" / split / name
            place.mkdir(parents=True)
            for number in range(3):
                grey = rng.integers(2000, 2100, (8, 8)) + 50 * (split == "test")
                grey[0, 0] = 1990
                Image.fromarray(grey.astype(np.uint16)).save(place / f"{number}.png")
    train = train_of("deep")
    assert train.grey_range is not None and train.grey_range[0] == 1990
    assert train.images.min() == 0 and train.images.max() == 255
    assert train_of("deep").grey_range == train.grey_range  # from the cache too
    test = test_of("deep")
    assert test.grey_range == train.grey_range and test.images.max() == 255
    wide = train_of("deep", grey_range=(0, 65535))
    assert wide.images.max() < 10 and wide.grey_range == (0, 65535)
