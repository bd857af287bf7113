"""Protects corrupted images: what each kind does, that it grows, and that it can be repeated."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vitlab.data.corrupt import SEVERITIES, STRENGTHS, corrupt
from vitlab.errors import VitlabError

PLACES = np.arange(6)


@pytest.fixture(scope="module")
def images():
    """Six colour images (6, 32, 32, 3) of soft blobs."""
    draws = np.random.default_rng(0).normal(size=(6, 32, 32, 3))
    blobs = gaussian_filter(draws, 1.5, axes=(1, 2))
    return (128 + 300 * blobs).clip(20, 200).astype(np.uint8)


def distance(one, other):
    return float(np.abs(one.astype(float) - other).mean())


@pytest.mark.parametrize("kind", STRENGTHS)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_keep_shape_and_type_and_lose_more_the_worse_it_gets(images, kind, channels):
    images = images[..., :channels]
    before = images.copy()
    worse = [corrupt(images, kind, severity, PLACES) for severity in SEVERITIES]
    assert all(one.shape == images.shape and one.dtype == np.uint8 for one in worse)
    distances = [distance(one, images) for one in worse]
    assert distances[0] < distances[-1] and distances[-1] > 0
    assert np.array_equal(images, before)


def test_noise_has_the_strength_it_says_and_is_different_for_every_image(images):
    grey = np.full((6, 32, 32, 3), 128, np.uint8)
    noise = corrupt(grey, "noise", 5, PLACES).astype(float) - 128
    assert noise.std() == pytest.approx(0.10 * 255, rel=0.02)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("kind", STRENGTHS)
def test_an_image_is_corrupted_alike_whatever_stands_beside_it(images, kind):
    whole = corrupt(images, kind, 3, PLACES)
    part = corrupt(images[4:], kind, 3, PLACES[4:])
    assert np.array_equal(whole[4:], part)


def test_contrast_moves_every_pixel_towards_the_mean_colour_of_its_image(images):
    pale = corrupt(images, "contrast", 5, PLACES)
    mean = images.mean(axis=(1, 2), keepdims=True)
    assert np.abs(pale - (mean + 0.15 * (images - mean))).max() <= 0.5


def test_brightness_raises_the_value_and_keeps_the_hue():
    pixels = np.array([[[[100, 50, 0], [0, 0, 0], [250, 125, 125]]]], np.uint8)
    bright = corrupt(pixels, "brightness", 5, PLACES[:1])[0, 0]
    assert bright[0].tolist() == [round(100 + 0.3 * 255), round((100 + 0.3 * 255) / 2), 0]
    assert len(set(bright[1].tolist())) == 1 and bright[1, 0] in (76, 77)
    assert bright[2].tolist() == [255, 128, 128]


def test_an_image_of_twice_the_size_is_blurred_to_the_same_look(images):
    large = images.repeat(2, axis=1).repeat(2, axis=2)
    blurred = corrupt(large, "blur", 5, PLACES).astype(float)
    halved = blurred.reshape(6, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    small = corrupt(images, "blur", 5, PLACES)
    assert distance(halved, small) < 0.1 * distance(small, images)


def test_an_unknown_kind_or_severity_lists_the_choices(images):
    with pytest.raises(VitlabError, match=r"'fog' of severity 1: choose from noise, blur"):
        corrupt(images, "fog", 1, PLACES)
    with pytest.raises(VitlabError, match="severity 6"):
        corrupt(images, "blur", 6, PLACES)
