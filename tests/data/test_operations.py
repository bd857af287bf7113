"""Every operation against Pillow, which the published policies were defined with."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from vitlab.data.operations import OPERATIONS, STRENGTHS, apply, magnitudes

POLICIES = ("randaugment", "trivialaugment")


def transformed(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


PILLOW = {
    "identity": lambda image, m: image,
    "shear_x": lambda image, m: transformed(image, 1, m, 0, 0, 1, 0),
    "shear_y": lambda image, m: transformed(image, 1, 0, 0, m, 1, 0),
    "translate_x": lambda image, m: transformed(image, 1, 0, -int(m), 0, 1, 0),
    "translate_y": lambda image, m: transformed(image, 1, 0, 0, 0, 1, -int(m)),
    "rotate": lambda image, m: image.rotate(m, Image.Resampling.NEAREST),
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(1 + m),
    "color": lambda image, m: ImageEnhance.Color(image).enhance(1 + m),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(1 + m),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + m),
    "posterize": lambda image, m: ImageOps.posterize(image, int(m)),
    "solarize": lambda image, m: ImageOps.solarize(image, m),
    "autocontrast": lambda image, m: ImageOps.autocontrast(image),
    "equalize": lambda image, m: ImageOps.equalize(image),
}


def pictures(count, channels, height, width):
    """Noise, smooth scenes, smooth scenes with edges, faint scenes and flat colours."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, (count, channels, height, width))
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, channels, 4, 4)))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").numpy()
    edges = np.where(smooth[:, :1] > 128, smooth, noise.mean((2, 3), keepdims=True) / 2)
    faint = 90 + smooth / 8
    flat = np.broadcast_to(noise[:, :, :1, :1], noise.shape)
    kinds = np.stack([noise, smooth, edges, faint, flat])
    mixed = kinds[np.arange(count) % 5, np.arange(count)]
    return torch.from_numpy(mixed.clip(0, 255).astype(np.uint8))


def by_pillow(name, images, magnitude):
    results = []
    for image, m in zip(images.permute(0, 2, 3, 1).numpy(), magnitude, strict=True):
        result = PILLOW[name](Image.fromarray(image.squeeze()), float(m))
        results.append(np.asarray(result).reshape(image.shape))
    return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 24, 40)], ids=str)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_agrees_with_pillow_at_every_magnitude(name, policy, shape):
    images = pictures(128, *shape)
    table = magnitudes(policy, *shape[1:])[list(OPERATIONS).index(name)].ravel()
    magnitude = np.resize(table, len(images))  # image i takes the i-th magnitude
    ours = OPERATIONS[name](images, magnitude)
    assert ours.dtype == torch.uint8
    assert (ours.int() - by_pillow(name, images, magnitude).int()).abs().max() <= 1


def test_every_image_gets_its_own_operation_and_magnitude():
    images = pictures(56, 3, 32, 32)
    choice = np.arange(56) % 14
    magnitude = magnitudes("trivialaugment", 32, 32)[choice, 0, np.arange(56) % STRENGTHS]
    before = images.clone()
    together = apply(images, choice, magnitude)
    assert torch.equal(images, before)
    for i, name in enumerate(list(OPERATIONS) * 4):
        alone = OPERATIONS[name](images[i : i + 1], magnitude[i : i + 1])
        assert torch.equal(together[i : i + 1], alone), name


def test_magnitudes_are_the_published_ones():
    def table(policy, name, height=32, width=32):
        return magnitudes(policy, height, width)[list(OPERATIONS).index(name)]

    ends = {
        ("randaugment", "shear_x"): (0, 0.3),
        ("randaugment", "translate_x"): (0, 32 * 150 / 331),
        ("randaugment", "rotate"): (0, 30),
        ("randaugment", "color"): (0, 0.9),
        ("randaugment", "posterize"): (8, 4),
        ("randaugment", "solarize"): (255, 0),
        ("trivialaugment", "shear_y"): (0, 0.99),
        ("trivialaugment", "translate_y"): (0, 32),
        ("trivialaugment", "rotate"): (0, 135),
        ("trivialaugment", "sharpness"): (0, 0.99),
        ("trivialaugment", "posterize"): (8, 2),
        ("trivialaugment", "solarize"): (255, 0),
    }
    for (policy, name), (first, last) in ends.items():
        assert table(policy, name)[0, [0, -1]] == pytest.approx([first, last]), (policy, name)
    assert table("randaugment", "posterize")[0, 9] == 7  # 8 - round(9 / 7.5)
    assert table("randaugment", "translate_x", 32, 64)[0, -1] == pytest.approx(64 * 150 / 331)
    assert table("trivialaugment", "translate_x", 32, 64)[0, -1] == 32


def test_only_operations_with_a_direction_have_negative_magnitudes():
    for policy in POLICIES:
        for name, (first, second) in zip(OPERATIONS, magnitudes(policy, 32, 32), strict=True):
            if name in ("identity", "posterize", "solarize", "autocontrast", "equalize"):
                assert np.array_equal(first, second), name
            else:
                assert np.array_equal(first, -second), name
                assert first[-1] > 0, name
