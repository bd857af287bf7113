"""Decoded images are kept: read once, anew when a file changed, and never trusted blindly."""

import os
import time

import numpy as np
import pytest
from forms import classes, png, test_of, train_of
from PIL import Image

from vitlab.data import loading
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
