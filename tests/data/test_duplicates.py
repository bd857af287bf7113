"""Near-duplicates: copies are found however they were made, and look-alikes are let go."""

import functools
import io
import time
import tracemalloc

import numpy as np
import pytest
from forms import test_of, train_of
from PIL import Image

from vitlab.data import statistics
from vitlab.data.duplicates import THRESHOLD, duplicates_warning, near_duplicates
from vitlab.errors import DataError


@functools.cache
def scenes(count, seed=0, shape=(32, 32, 3)):
    """Images as smooth as photographs: noise at every scale, the coarser the stronger."""
    draws = np.random.default_rng(seed)
    height, width, channels = shape
    total = np.zeros((count, *shape))
    for side in (2, 3, 5, 8):
        noise = draws.standard_normal((count, side, side, channels)) / side
        rows, columns = stretched(side, height), stretched(side, width)
        total += np.einsum("hi,nijc,wj->nhwc", rows, noise, columns)
    return np.clip(128 + 150 * total, 0, 255).astype(np.uint8)


def stretched(few, many):
    """The matrix (many, few) of linear interpolation along a line."""
    places = np.linspace(0, few - 1, many)
    return np.clip(1 - abs(places[:, None] - np.arange(few)), 0, 1)


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def resized(image):
    small = Image.fromarray(image).resize((20, 20), Image.Resampling.BICUBIC)
    return np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC))


COPIES = {
    "equal": lambda image: image,
    "jpeg": jpeg,
    "darker": lambda image: (image * 0.7).astype(np.uint8),
    "resized": resized,
    "shifted": lambda image: np.roll(image, 1, axis=1),
}


@pytest.mark.parametrize(
    ("copy", "count"),
    [(copy, count) for count in (80, 800) for copy in COPIES if (copy, count) != ("shifted", 80)],
)
def test_a_copy_is_found_however_it_was_made(copy, count):
    training, held_out = scenes(count), scenes(15, seed=1).copy()
    held_out[4], held_out[9] = COPIES[copy](training[30]), COPIES[copy](training[7])
    pairs = near_duplicates(training, held_out)
    assert {(pair.a, pair.b) for pair in pairs} == {(30, 4), (7, 9)}
    assert all(0 <= pair.distance <= THRESHOLD for pair in pairs)


def test_equal_images_have_distance_nought_and_come_first_the_earliest_of_equals_alone():
    training, held_out = scenes(100).copy(), scenes(3, seed=1).copy()
    training[70] = training[90] = held_out[2] = training[50]
    held_out[0] = jpeg(training[60])
    (first, second) = near_duplicates(training, held_out)
    assert first == (50, 2, 0.0)
    assert second[:2] == (60, 0) and second.distance > 0


def test_what_all_images_have_in_common_makes_no_duplicates():
    draws = np.random.default_rng(0)
    scan = np.hypot(*np.mgrid[-1:1:28j, -1:1:28j])[None, :, :, None] * 150  # one bright rim
    images = (scan + draws.uniform(0, 40, (200, 28, 28, 1))).astype(np.uint8)
    flat = images.reshape(200, -1)
    assert np.corrcoef(flat).min() > 0.9
    assert near_duplicates(images[:150], images[150:]) == []


def test_blank_images_are_copies_only_of_their_own_colour():
    training, held_out = scenes(20).copy(), scenes(4, seed=1).copy()
    training[3], held_out[0], held_out[1] = 255, 255, 0
    assert near_duplicates(training, held_out) == [(3, 0, 0.0)]
    assert near_duplicates(training[3:4], held_out[1:2]) == []


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 30, 3), (50, 33, 1)])
def test_tiny_oblong_and_grey_images_are_compared_as_well(shape):
    training, held_out = scenes(300, shape=shape), scenes(10, seed=1, shape=shape).copy()
    held_out[6] = training[123] // 2
    assert [(pair.a, pair.b) for pair in near_duplicates(training, held_out)] == [(123, 6)]


def test_nothing_has_no_duplicates_and_other_sizes_are_refused():
    images = scenes(4)
    assert near_duplicates(images, images[:0]) == near_duplicates(images[:0], images) == []
    with pytest.raises(DataError, match=r"\(32, 32, 3\) and \(16, 32, 3\) cannot be compared"):
        near_duplicates(images, images[:, ::2])


def test_the_warning_says_how_many_and_what_to_do():
    training, validation = scenes(60), scenes(12, seed=1).copy()
    assert duplicates_warning(training, validation) is None
    validation[:2] = training[:2]
    assert "training images: 2 of 12" in str(duplicates_warning(training, validation))


@pytest.mark.slow
def test_the_known_duplicates_of_cifar10_are_found_in_less_than_a_minute(cifar10):
    train, test = train_of("cifar10", cifar10), test_of("cifar10", cifar10)
    start = time.process_time()
    pairs = near_duplicates(train.images, test.images)
    assert time.process_time() - start < 60
    assert len(pairs) == pytest.approx(278, abs=2)
    assert all(train.labels[pair.a] == test.labels[pair.b] for pair in pairs)


def test_large_images_are_looked_at_in_parts_of_bounded_memory():
    images = np.random.default_rng(0).integers(0, 256, (80, 512, 512, 3), np.uint8)
    images[70] = images[3]
    tracemalloc.start()
    try:
        (pair,) = near_duplicates(images[:60], images[60:])
        statistics(images)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (pair.a, pair.b) == (3, 10)
    assert peak < 200e6  # all of them in float32 are 250 MB, and a channel in int64 170
