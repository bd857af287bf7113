"""Arrays of numbers from Matlab's files of level 5, in which SVHN comes.

Damaged bytes crash the process of `scipy.io.loadmat`, so the part of the format that such files use
is read here: 128 bytes of header, then elements, each a tag of kind and size and as many bytes,
filled up to eight (MathWorks, MAT-File Format).
"""

import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np

HEADER = 128
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8",
           12: "<i8", 13: "<u8"}  # fmt: skip
"""Kind of an element -> type of the numbers in it."""

CLASSES = {6: "<f8", 7: "<f4", 8: "i1", 9: "u1", 10: "<i2", 11: "<u2", 12: "<i4", 13: "<u4",
           14: "<i8", 15: "<u8"}  # fmt: skip
"""Class of a matrix -> type of its numbers, which a file may store in a smaller one."""


def arrays(content: bytes, largest: int) -> dict[str, np.ndarray]:
    """The numeric arrays of a file by name; other things in it are passed over.

    Args:
        content: the whole file.
        largest: bytes that an element may unpack to.

    Raises:
        ValueError: bytes that are no such file, or promise what they do not hold.
    """
    if len(content) < HEADER or content[124:128] != b"\x00\x01IM":
        raise ValueError("no Matlab file of level 5")
    found: dict[str, np.ndarray] = {}
    for kind, data in _elements(content[HEADER:]):
        if kind == COMPRESSED:
            kind, data = _unpacked(data, largest)
        if kind == MATRIX and (named := _matrix(data)):
            found[named[0]] = named[1]
    return found


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and bytes of the elements one after another; compressed ones are not filled up."""
    place = 0
    while place < len(data):
        tag = data[place : place + 8]
        if len(tag) < 8:
            raise ValueError("the file ends within a tag")
        kind, size = struct.unpack("<II", tag)
        small = kind >> 16  # the size of what stands in the tag itself
        if small:
            start, room, step = place + 4, 4, 8
            kind, size = kind & 0xFFFF, small
        else:
            start, room = place + 8, len(data) - place - 8
            step = 8 + size + (0 if kind == COMPRESSED else -size % 8)
        if size > room:
            raise ValueError(f"an element promises {size:,} bytes where {room:,} are left")
        yield kind, data[start : start + size]
        place += step


def _unpacked(data: bytes, largest: int) -> tuple[int, bytes]:
    """The one element that a compressed one holds."""
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(data, largest)
    except zlib.error as error:
        raise ValueError(f"a compressed element is broken: {error}") from error
    if not unpacking.eof:
        raise ValueError("a compressed element ends early or unpacks to more than it may")
    found = list(_elements(unpacked))
    if len(found) != 1:
        raise ValueError(f"a compressed element holds {len(found)} others")
    return found[0]


def _matrix(data: bytes) -> tuple[str, np.ndarray] | None:
    """Name and numbers of a matrix; None if it is no array of real numbers."""
    parts = list(_elements(data))
    if len(parts) < 4 or len(parts[0][1]) < 4:
        raise ValueError("a matrix lacks its parts")
    (_, flags), (_, sides), (_, name), (kind, numbers), *more = parts
    stored, wanted = NUMBERS.get(kind), CLASSES.get(flags[0])
    if stored is None or wanted is None or more:
        return None
    if len(sides) % 4 or min(shape := struct.unpack(f"<{len(sides) // 4}i", sides), default=0) < 0:
        raise ValueError("a matrix has no shape")
    size = math.prod(shape) * np.dtype(stored).itemsize
    if len(numbers) != size:
        raise ValueError(f"a matrix of {shape} holds {len(numbers):,} bytes")
    values = np.frombuffer(numbers, stored).reshape(shape, order="F")
    return name.decode("ascii"), values.astype(wanted, copy=False)
