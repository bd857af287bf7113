"""Matlab's files give what scipy reads from them, and damaged ones an error."""

import io

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from vitlab.data.matlab import arrays

DRAWS = np.random.default_rng(0)


def saved(content, **options):
    file = io.BytesIO()
    savemat(file, content, **options)
    return file.getvalue()


@pytest.mark.parametrize("do_compression", [False, True])
@pytest.mark.parametrize(
    "array",
    [
        DRAWS.integers(0, 256, (32, 32, 3, 5), np.uint8),
        DRAWS.integers(1, 11, (7, 1), np.uint8),
        DRAWS.normal(size=(3, 4)),
        np.arange(4.0)[:, None],  # stored in fewer bytes than its class has
        np.array([[-3]], np.int16),
        np.zeros((0, 2), np.float32),
        np.array([[2**40]], np.int64),
    ],
)
def test_arrays_are_those_that_scipy_reads(array, do_compression):
    content = saved({"X": array, "other": "text"}, do_compression=do_compression)
    ours, theirs = arrays(content, 1 << 20), loadmat(io.BytesIO(content))
    assert list(ours) == ["X"]
    assert ours["X"].dtype == theirs["X"].dtype and np.array_equal(ours["X"], theirs["X"])


def test_what_unpacks_to_more_than_it_may_is_refused():
    content = saved({"X": np.zeros((1000, 1000))}, do_compression=True)
    assert len(content) < 20_000
    with pytest.raises(ValueError, match="unpacks to more"):
        arrays(content, 100_000)


@pytest.mark.parametrize("do_compression", [False, True])
def test_a_file_cut_short_anywhere_is_refused_or_whole(do_compression):
    content = saved({"X": np.arange(12.0).reshape(3, 4)}, do_compression=do_compression)
    for length in range(len(content) - 1):
        try:
            assert not arrays(content[:length], 1 << 20)  # nothing but the header is no array
        except ValueError:
            continue


def test_changed_bytes_give_arrays_or_an_error():
    content = saved({"X": DRAWS.integers(0, 9, (4, 4, 3, 2), np.uint8), "y": np.ones((2, 1))})
    for place in range(124, len(content)):
        for value in (0, 14, 15, 128, 255):
            changed = bytearray(content)
            changed[place] = value
            try:
                arrays(bytes(changed), 1 << 20)
            except ValueError:
                continue
