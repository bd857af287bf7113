"""Augmentation as a user sees it: what may change, how often, and what stays the same."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitlab.config import AugmentConfig
from vitlab.data.augment import (
    BatchRng,
    RngKey,
    Technique,
    augment,
    crop,
    resized_crop,
    targets,
)

EVERYTHING = AugmentConfig(
    crop_padding=4, flip="random", policy="trivialaugment", erasing=0.5, cutout=6, mixup=0.8,
    cutmix=1.0, label_smoothing=0.1,
)  # fmt: skip
ONE_AT_A_TIME = {
    "crop": AugmentConfig(crop_padding=4),
    "reflected crop": AugmentConfig(crop_padding=4, crop_fill="reflect"),
    "resized crop": AugmentConfig(resized_crop=0.5),
    "flip": AugmentConfig(flip="random"),
    "alternating flip": AugmentConfig(flip="alternating"),
    "randaugment": AugmentConfig(policy="randaugment"),
    "trivialaugment": AugmentConfig(policy="trivialaugment"),
    "erasing": AugmentConfig(erasing=1.0),
    "cutout": AugmentConfig(cutout=6),
}


def pictures(count, channels=3, height=32, width=32):
    shape = (count, channels, height, width)
    return torch.from_numpy(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))


def rng_key(count, step=0, epoch=0, seed=0):
    return RngKey(seed, step, epoch, np.arange(count), count)


def batch_rng(count):
    return BatchRng([np.random.default_rng(0)], [count])


def augmented(images, config, at=None, labels=None, classes=10):
    """Augment with mean 0 and std 1, so that pixels stay in 0..1."""
    labels = torch.arange(len(images)) % classes if labels is None else labels
    mean, std = ((number,) * images.shape[1] for number in (0.0, 1.0))
    keys = [at or rng_key(len(images))]
    return augment(images, labels, config, keys, mean=mean, std=std, classes=classes)


def as_bytes(images):
    return (images * 255).round().to(torch.uint8)


def test_everything_off_is_normalisation_and_one_hot_labels():
    images, labels = pictures(4, 2), torch.tensor([2, 0, 1, 2])
    mean, std = (0.5, 0.4), (0.25, 0.2)
    x, y = augment(images, labels, AugmentConfig(), [rng_key(4)], mean=mean, std=std, classes=3)
    shares = images / 255
    expected = torch.stack([(shares[:, 0] - 0.5) / 0.25, (shares[:, 1] - 0.4) / 0.2], dim=1)
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(y, F.one_hot(labels, 3).float())


def test_a_batch_follows_seed_and_step_alone_and_leaves_everything_else_as_it_was():
    images, labels = pictures(16), torch.arange(16) % 10
    before, state = (images.clone(), labels.clone()), torch.get_rng_state()
    first = augmented(images, EVERYTHING, rng_key(16, step=7), labels)
    assert all(map(torch.equal, first, augmented(images, EVERYTHING, rng_key(16, step=7), labels)))
    for other in (rng_key(16, step=8), rng_key(16, step=7, seed=1)):
        assert not any(map(torch.equal, first, augmented(images, EVERYTHING, other, labels)))
    assert all(map(torch.equal, before, (images, labels)))
    assert torch.equal(torch.get_rng_state(), state)


def test_switching_a_technique_on_changes_nothing_that_another_draws():
    images = pictures(64)
    plain, _ = augmented(images, AugmentConfig(crop_padding=4, flip="random"))
    both = AugmentConfig(crop_padding=4, flip="random", erasing=1.0, cutout=8)
    covered, _ = augmented(images, both)
    same = (plain == covered).all(dim=1).float().mean((1, 2))
    assert same.min() > 0.5  # erasing and cutout cover at most 33 % + 8 x 8 pixels
    assert same.max() < 1

    _, alone = augmented(images, AugmentConfig(mixup=1.0, cutmix=1.0))
    more = AugmentConfig(mixup=1.0, cutmix=1.0, policy="randaugment", crop_padding=2)
    _, after = augmented(images, more)
    assert torch.equal(alone, after)


def test_no_two_techniques_share_random_numbers():
    at = rng_key(1)
    first = {tuple(at.rng(technique).integers(2**32, size=4)) for technique in Technique}
    order = tuple(np.random.default_rng([at.seed, at.step]).integers(2**32, size=4))
    assert len(first | {order}) == len(Technique) + 1


@pytest.mark.parametrize("config", ONE_AT_A_TIME.values(), ids=ONE_AT_A_TIME)
def test_every_image_of_a_batch_has_its_own_draw(config):
    images = pictures(1).expand(8, -1, -1, -1).contiguous()
    x, _ = augmented(images, config)
    assert len({image.numpy().tobytes() for image in x}) >= 2


@pytest.mark.parametrize("config", [*ONE_AT_A_TIME.values(), EVERYTHING])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 24, 40), (1, 4, 4)], ids=str)
def test_grey_oblong_and_tiny_images_keep_their_shape(config, shape):
    x, y = augmented(pictures(5, *shape), config)
    assert x.shape == (5, *shape)
    assert x.isfinite().all()
    torch.testing.assert_close(y.sum(1), torch.ones(5))


@pytest.mark.parametrize(("fill", "mode"), [("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize(("padding", "side"), [(2, 8), (4, 3)])
def test_a_crop_is_a_window_of_the_padded_image(fill, mode, padding, side):
    images = pictures(300, 3, side, side + 1)
    cropped = crop(images, padding, fill, batch_rng(300))
    edges = ((0, 0), (padding, padding), (padding, padding))
    places = set()
    for image, result in zip(images.numpy(), cropped.numpy(), strict=True):
        padded = np.pad(image, edges, mode=mode)
        windows = [
            (top, left)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            if np.array_equal(padded[:, top : top + side, left : left + side + 1], result)
        ]
        assert windows
        places.update(windows)
    assert {0, 2 * padding} <= {top for top, _ in places}
    assert {0, 2 * padding} <= {left for _, left in places}


def test_a_resized_crop_is_a_part_of_the_image_brought_back_to_size():
    images = pictures(6, 3, 12, 12)
    resized = resized_crop(images, 0.5, batch_rng(6))
    for image, result in zip(images, resized, strict=True):
        gaps = {}
        for height, width in itertools.product(range(7, 13), repeat=2):
            corners = itertools.product(range(13 - height), range(13 - width))
            parts = [image[:, t : t + height, left : left + width] for t, left in corners]
            back = F.interpolate(
                torch.stack(parts).float(), (12, 12), mode="bilinear", antialias=True
            )
            gaps[height, width] = (back - result).abs().amax((1, 2, 3)).min().item()
        height, width = min(gaps, key=lambda size: gaps[size])
        assert gaps[height, width] <= 0.51  # rounding to whole pixel values
        assert 0.5 - 0.1 <= height * width / 144 <= 1
    images = pictures(4, 3, 12, 20)
    assert torch.equal(resized_crop(images, 1.0, batch_rng(4)), images)  # all of the area


def test_flips_exchange_left_and_right():
    images = pictures(200)
    x, _ = augmented(images, AugmentConfig(flip="random"))
    flipped = [torch.equal(a, b) for a, b in zip(as_bytes(x), images.flip(3), strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(as_bytes(x), images, strict=True)]
    assert sum(flipped) + sum(kept) == 200
    assert 70 < sum(flipped) < 130


def test_alternating_flips_show_both_sides_of_every_image_in_two_epochs():
    images = pictures(200)
    sides = []
    for epoch in range(4):
        at = rng_key(200, step=epoch * 13, epoch=epoch)
        x, _ = augmented(images, AugmentConfig(flip="alternating"), at)
        sides.append((as_bytes(x) == images).all(dim=(1, 2, 3)))
    assert torch.equal(sides[0], ~sides[1])
    assert torch.equal(sides[0], sides[2])
    assert torch.equal(sides[1], sides[3])
    assert 70 < sides[0].sum() < 130


def test_an_alternating_flip_belongs_to_the_training_image_not_to_its_place_in_the_batch():
    images, config = pictures(50), AugmentConfig(flip="alternating")
    whole, _ = augmented(images, config)
    order = np.random.default_rng(1).permutation(50)[:20]
    part, _ = augmented(images[order], config, RngKey(0, 9, 2, order, 50))
    assert torch.equal(part, whole[order])


def test_stronger_policies_change_images_more():
    smooth = F.interpolate(pictures(64, 3, 4, 4).float(), (32, 32), mode="bilinear")
    images = smooth.to(torch.uint8)

    def change(**fields):
        x, _ = augmented(images, AugmentConfig(policy="randaugment", **fields))
        return (x - images / 255).abs().mean()

    assert change(policy_magnitude=25) > 1.3 * change(policy_magnitude=5)
    assert change(policy_operations=3) > 1.3 * change(policy_operations=1)


def test_erasing_overwrites_a_rectangle_of_the_published_size_with_noise():
    images = torch.full((2000, 1, 32, 32), 255, dtype=torch.uint8)
    x, _ = augmented(images, AugmentConfig(erasing=0.4))
    erased = x[:, 0] != 1
    share = erased.float().mean((1, 2))
    hit = share > 0
    assert 0.36 < hit.float().mean() < 0.44
    # Whole pixels: the sides of a rectangle may be half a pixel off.
    assert share[hit].min() > 0.015
    assert share[hit].max() < 0.35
    assert 0.15 < share[hit].mean() < 0.19
    heights, widths = erased[hit].any(2).sum(1), erased[hit].any(1).sum(1)
    assert torch.equal(heights * widths, erased[hit].sum((1, 2)))
    assert (heights / widths).median() == pytest.approx(1, abs=0.15)
    noise = x[:, 0][erased]
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)


def test_erasing_with_zero_takes_the_same_rectangles_to_the_mean_colour():
    images = torch.full((200, 1, 32, 32), 255, dtype=torch.uint8)
    noise, _ = augmented(images, AugmentConfig(erasing=0.4))
    zero, _ = augmented(images, AugmentConfig(erasing=0.4, erasing_fill="zero"))
    assert torch.equal(zero == 0, noise != 1)
    assert ((zero == 0) | (zero == 1)).all()


def test_cutout_sets_a_square_to_the_mean_clipped_at_the_border():
    images = torch.full((4000, 1, 32, 32), 255, dtype=torch.uint8)
    x, _ = augmented(images, AugmentConfig(cutout=8))
    area = (x[:, 0] == 0).sum((1, 2)).float()
    assert ((x == 0) | (x == 1)).all()
    assert area.max() == 8 * 8
    assert area.min() == 4 * 4  # centred on the corner pixel
    assert area.mean() == pytest.approx(7.5**2, rel=0.02)  # 7.5: the mean side within 32


def test_targets_sum_to_one_and_smoothing_takes_its_share():
    labels, partner_labels = torch.tensor([0, 1, 2]), torch.tensor([1, 1, 0])
    plain = targets(labels, labels, 1.0, 0.2, 4)
    torch.testing.assert_close(plain.sum(1), torch.ones(3))
    torch.testing.assert_close(plain.max(1).values, torch.full((3,), 1 - 0.2 + 0.2 / 4))
    mixed = targets(labels, partner_labels, 0.7, 0.0, 4)
    expected = torch.tensor([[0.7, 0.3, 0, 0], [0, 1, 0, 0], [0.3, 0, 0.7, 0]])
    torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("fields", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1.0}])
def test_mixed_labels_match_the_share_of_the_pixels(fields):
    colours = torch.arange(10, dtype=torch.uint8) * 25
    images = colours.view(10, 1, 1, 1).expand(-1, 1, 24, 32).contiguous()
    shares = []
    for step in range(40):
        x, y = augmented(images, AugmentConfig(**fields), rng_key(10, step))
        torch.testing.assert_close(x.mean((1, 2, 3)), y @ (colours / 255), rtol=0, atol=1e-5)
        shares.append(y[torch.arange(10), torch.arange(10)].min().item())
    assert len(set(shares)) > 20  # one share per batch


def test_a_coin_per_batch_decides_between_mixup_and_cutmix():
    images = torch.stack([torch.full((1, 32, 32), 25 * i, dtype=torch.uint8) for i in range(10)])
    config = AugmentConfig(mixup=1.0, cutmix=1.0)
    cut = []
    for step in range(60):
        x, _ = augmented(images, config, rng_key(10, step))
        cut.append(bool((x != x[:, :, :1, :1]).any()))  # CutMix alone leaves edges
    assert 15 < sum(cut) < 45


def test_mixing_pairs_a_batch_of_one_with_itself():
    images = pictures(1)
    for config in (AugmentConfig(mixup=1.0), AugmentConfig(cutmix=1.0)):
        x, y = augmented(images, config)
        torch.testing.assert_close(x, images / 255)
        torch.testing.assert_close(y, torch.eye(10)[:1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_batch_as_a_cpu():
    images, labels = pictures(64), torch.arange(64) % 10
    x, y = augmented(images, EVERYTHING, labels=labels)
    on_gpu, targets_on_gpu = augmented(images.cuda(), EVERYTHING, labels=labels.cuda())
    # A fused multiply-add may tip a pixel over a whole number.
    torch.testing.assert_close(on_gpu.cpu(), x, rtol=0, atol=1.1 / 255)
    torch.testing.assert_close(targets_on_gpu.cpu(), y)


def test_several_labels_are_mixed_each_by_itself_and_smoothed_between_yes_and_no():
    own, partner = torch.tensor([[1, 1, 0]]), torch.tensor([[0, 1, 0]])
    mixed = targets(own, partner, 0.75, 0.0, 3)
    torch.testing.assert_close(mixed, torch.tensor([[0.75, 1.0, 0.0]]))
    smoothed = targets(own, partner, 0.75, 0.1, 3)
    torch.testing.assert_close(smoothed, torch.tensor([[0.725, 0.95, 0.05]]))
    labels = torch.from_numpy(np.random.default_rng(0).integers(2, size=(8, 3), dtype=np.uint8))
    images, found = augmented(pictures(8), AugmentConfig(cutmix=1.0), labels=labels, classes=3)
    assert images.shape[0] == len(found) == 8
    assert ((found >= 0) & (found <= 1)).all()
    assert torch.equal(augmented(pictures(8), AugmentConfig(), labels=labels)[1], labels.float())
