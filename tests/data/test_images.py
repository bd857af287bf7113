"""The one decoder: every mode, size and orientation, and refusals instead of black images."""

import io
import itertools
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vitlab.data.images import MAX_PIXELS, convert, decode, header
from vitlab.errors import DataError

RAMP = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def encoded(image, **options):
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, **{"format": "PNG"} | options)
    return file.getvalue()


RED, GREY = np.full((2, 2, 3), (255, 0, 0), np.uint8), RAMP[..., 0]
DEEP = np.array([[0, 257, 32896, 65535]], np.uint16)


@pytest.mark.parametrize(
    ("image", "options", "channels", "expected"),
    [
        (RAMP, {}, 3, RAMP),
        (RAMP, {"format": "WEBP", "lossless": True}, 3, RAMP),
        (GREY, {}, 3, np.repeat(GREY[..., None], 3, 2)),
        (RED, {}, 1, np.full((2, 2, 1), 76)),
        (DEEP, {}, 1, np.array([[0, 1, 128, 255]])[..., None]),
    ],
    ids=["PNG", "WebP", "grey to colour", "colour to grey", "16 bits, scaled and not clipped"],
)
def test_pixels_are_those_of_the_file(tmp_path, image, options, channels, expected):
    (tmp_path / "a.PNG").write_bytes(encoded(image, **options))
    for data in (encoded(image, **options), tmp_path / "a.PNG"):
        assert np.array_equal(decode(data, image.shape[:2], channels), expected)


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    assert decode(encoded(image), (1, 2), 3)[0].tolist() == [[255] * 3, [0] * 3]
    palette = image.convert("RGBA").convert("P")
    assert decode(encoded(palette, transparency=0), (1, 2), 3).max() == 255


def test_a_photograph_lying_on_its_side_is_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = np.zeros((8, 16, 3), np.uint8)
    photo[:, :8] = 255
    data = encoded(photo, format="JPEG", quality=100, exif=exif)
    assert header(data) == ((16, 8), 3, 8)
    turned = decode(data, (16, 8), 3)
    assert turned[:6].min() > 240 and turned[10:].max() < 15


def test_another_size_is_resampled_smoothly():
    stripes = np.tile(np.array([0, 255], np.uint8), (32, 16))
    small = decode(encoded(stripes), (8, 8), 1)
    assert small.shape == (8, 8, 1) and abs(small.astype(int) - 127).max() < 20


HALVES = np.repeat(np.array([[[255, 0, 0]] * 8 + [[0, 0, 255]] * 8], np.uint8), 8, axis=0)
"""8 x 16 pixels, red on the left and blue on the right."""


def test_an_oblong_image_is_stretched_padded_or_cropped():
    stretched, padded, cropped = (
        decode(encoded(HALVES), (8, 8), 3, fit) for fit in ("stretch", "pad", "crop")
    )
    red, blue, mean = [255, 0, 0], [0, 0, 255], [128, 0, 128]
    assert stretched[4, 0].tolist() == red and stretched[4, 7].tolist() == blue
    assert padded[0, 0].tolist() == padded[7, 7].tolist() == mean  # bars above and below
    assert padded[4, 0].tolist() == red and padded[4, 7].tolist() == blue
    assert cropped[0, 1].tolist() == red and cropped[7, 6].tolist() == blue


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_every_way_to_fit_gives_the_size_asked_for(fit):
    for size, channels in itertools.product(((5, 9), (9, 5), (1, 7), (16, 16)), (1, 3)):
        assert decode(encoded(RAMP[:1]), size, channels, fit).shape == (*size, channels)
    same = decode(encoded(NOISE), (16, 16), 3, fit)  # of the shape that it has
    assert np.array_equal(same, decode(encoded(NOISE), (16, 16), 3))


def test_a_decoded_array_takes_the_same_way():
    assert np.array_equal(convert(RAMP, (2, 3), 1), decode(encoded(RAMP), (2, 3), 1))
    assert convert(RAMP[..., :1], (4, 4), 3).shape == (4, 4, 3)
    assert np.array_equal(convert(RAMP, (2, 5), 3, "pad"), decode(encoded(RAMP), (2, 5), 3, "pad"))


def test_a_header_tells_size_and_greyness_of_any_mode():
    assert header(encoded(RAMP[..., 0])) == ((4, 4), 1, 8)
    assert header(encoded(np.zeros((2, 3), np.uint16))) == ((2, 3), 1, 16)
    assert header(encoded(RAMP[:2])) == ((2, 4), 3, 8)


FLIPPED = bytearray(encoded(NOISE))
FLIPPED[len(FLIPPED) // 2] ^= 255
FLIPPED = bytes(FLIPPED)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"just text", encoded(NOISE)[:1500], encoded(NOISE, format="JPEG")[:900],
        encoded(RAMP, format="GIF"), FLIPPED,
    ],
    ids=["empty", "text", "half a PNG", "half a JPEG", "GIF", "a PNG with a wrong sum"],
)  # fmt: skip
def test_what_is_no_whole_image_is_refused_by_name(tmp_path, data):
    path = tmp_path / "odd\n.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"odd\\n.png': "):
        decode(path, (4, 4), 3)


def test_a_bomb_is_refused_by_its_header():
    def chunk(kind, body):
        length, check = (struct.pack(">I", n) for n in (len(body), zlib.crc32(kind + body)))
        return length + kind + body + check

    for side in (15_000, 20_000):
        size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        parts = chunk(b"IHDR", size), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
        bomb = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
        assert side**2 > MAX_PIXELS
        with pytest.raises(DataError, match="pixels"):
            decode(bomb, (4, 4), 3)


@pytest.mark.parametrize("value", [b"6\0\0\0", b"\xff\xff\0\0"], ids=["text", "no number"])
def test_an_orientation_that_is_no_number_is_none(value):
    tag = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI", 0x0112, 2, 2) + value + b"\0" * 4
    data = encoded(RAMP[:2], format="JPEG", exif=tag)
    assert header(data) == ((2, 4), 3, 8)
    assert decode(data, (2, 4), 3).shape == (2, 4, 3)


def test_a_photo_of_a_telephone_is_read_at_a_fraction_of_its_size():
    file = io.BytesIO()
    photo = Image.new("RGB", (8160, 6144), "red")
    photo.paste("blue", (4080, 0, 8160, 6144))
    photo.save(file, "JPEG")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pixels = decode(file.getvalue(), (32, 32), 3)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert pixels[:, :14, 0].min() > 240 and pixels[:, 18:, 2].min() > 240
    assert grown < 100_000  # kB: whole, the photo has 150,000


def test_a_limit_of_pixels_can_be_lowered_and_raised():
    with pytest.raises(DataError, match=r"4 x 4 pixels are more than data\.max_pixels=15"):
        decode(encoded(RAMP), (4, 4), 3, max_pixels=15)
    assert Image.MAX_IMAGE_PIXELS  # Pillow's own limit is as it was
    wide = encoded(np.zeros((1, 10_000), np.uint8))
    assert decode(wide, (1, 1), 1, max_pixels=10_000).shape == (1, 1, 1)


def test_grey_levels_of_16_bits_are_spread_over_a_range():
    deep = encoded(np.array([[100, 101, 355, 400]], np.uint16))
    assert decode(deep, (1, 4), 1, grey_range=(100, 355)).ravel().tolist() == [0, 1, 255, 255]
    assert decode(deep, (1, 4), 1).ravel().tolist() == [0, 0, 1, 2]
