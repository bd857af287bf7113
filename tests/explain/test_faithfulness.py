"""How maps are measured: areas, order, comparisons and verdicts."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr, ttest_rel
from torch import nn

from vitlab.explain import faithfulness
from vitlab.explain.faithfulness import (
    CENTRE,
    RANDOM,
    STEPS,
    area,
    correlate,
    curve,
    measure,
    rank,
    to_cells,
    to_markdown,
    verdict,
)

SIDE = 8


class Corner(nn.Module):
    """Answers class 1 for certain while the upper left pixel is not covered, else class 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1000.0))

    def forward(self, images, trace=None):
        """(B, 1, 8, 8) to (B, 2)."""
        there = self.weight * (images[:, 0, 0, 0] - 0.5)
        return torch.stack([-there, there], dim=1)


def images(count):
    return torch.ones(count, 1, SIDE, SIDE), torch.ones(count, dtype=torch.long)


def ranks(first):
    """Ranks of a map whose most important cell is `first`."""
    cells = np.zeros((1, SIDE, SIDE))
    cells.flat[first] = 1
    return rank(cells, np.arange(64.0)[::-1].reshape(1, SIDE, SIDE))


def test_a_right_map_gains_as_much_as_can_be_had_and_a_wrong_one_loses_it():
    deletion, insertion = curve(Corner(), *images(1), ranks(0))
    assert deletion.tolist() == [[1.0] + [0.0] * STEPS]
    assert insertion.tolist() == [[0.0] + [1.0] * STEPS]
    assert area(insertion) - area(deletion) == pytest.approx(1 - 1 / STEPS)
    # Equal cells are taken from the last to the first here, so the corner comes at the very end.
    deletion, insertion = curve(Corner(), *images(1), ranks(63))
    assert area(insertion) - area(deletion) == pytest.approx(1 / STEPS - 1)
    many = np.concatenate([ranks(0), ranks(63)] * 20)
    deletion, insertion = curve(Corner(), *images(40), many)
    assert deletion.shape == insertion.shape == (40, STEPS + 1)
    assert (deletion[::2, 1] == 0).all() and (deletion[1::2, 15] == 1).all()


def test_between_equal_cells_noise_decides_and_not_their_place():
    flat, noise = np.zeros((2, 4, 4)), np.random.default_rng(0).random((2, 4, 4))
    order = rank(flat, noise)
    assert (order == noise.reshape(2, 16).argsort(axis=1).argsort(axis=1)).all()
    assert (np.sort(order) == np.arange(16)).all()


def test_maps_of_any_size_come_to_the_same_cells():
    fine = np.random.default_rng(0).random((2, 32, 32), np.float32)
    means = fine.reshape(2, 8, 4, 8, 4).mean(axis=(2, 4))
    assert np.allclose(to_cells(fine, 8), means)
    assert np.array_equal(to_cells(means, 8), means)
    coarse = to_cells(means[:, :4, :4], 8)
    assert coarse.shape == (2, 8, 8) and np.allclose(coarse[:, 0, 0], means[:, 0, 0])


def test_similarity_is_spearmans_and_a_flat_map_is_like_no_other():
    one, other = np.random.default_rng(0).integers(0, 9, (2, 3, 4, 4)).astype(float)
    other[2] = 5
    expected = [
        spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one[:2], other[:2], strict=True)
    ]
    assert correlate(one, other) == pytest.approx([*expected, 0])


def estimate(mean, p=None):
    interval = {"mean": mean, "interval": [mean - 0.05, mean + 0.05]}
    return interval if p is None else interval | {"p_adjusted": p}


@pytest.mark.parametrize(
    "over_random, over_centre, similarity, expected",
    [
        ((0.2, 0.01), (0.1, 0.01), 0.0, "beats both"),
        ((0.2, 0.01), (0.1, 0.2), 0.0, "beats a random map, not the centre"),
        ((0.2, 0.01), (-0.1, 0.01), 0.0, "beats a random map, not the centre"),
        ((0.2, 0.06), (0.1, 0.06), 0.0, "no evidence that it beats a random map"),
        ((-0.2, 0.01), (-0.3, 0.01), 0.0, "worse than a random map"),
        ((0.2, 0.01), (0.1, 0.01), 0.9, "beats both; hardly depends on the weights"),
    ],
)
def test_a_verdict_needs_evidence(over_random, over_centre, similarity, expected):
    row = {"over_random": estimate(*over_random), "over_centre": estimate(*over_centre)}
    assert verdict(row | {"similarity": [estimate(1.0), estimate(similarity)]}) == expected


@pytest.fixture(scope="module")
def measured():
    """Two methods measured on 24 images: one right, one blind to the model."""
    found = np.zeros((24, 8, 8), np.float32)
    found[:, 0, 0] = 1

    def right(model, images, classes):
        return torch.from_numpy(found[: len(images)]) * model.weight

    def blind(model, images, classes):
        return images[:, 0].cumsum(dim=1)

    with pytest.MonkeyPatch.context() as patch:
        methods = {"right": right, "blind": blind}
        patch.setattr("vitlab.explain.methods.METHODS", methods)
        patch.setattr(faithfulness, "CHECKED", 8)
        fresh = Corner()
        nn.init.zeros_(fresh.weight)
        with torch.no_grad():
            return measure(Corner(), fresh, *images(24), list(methods))


def test_methods_are_ranked_among_maps_that_know_nothing_and_the_page_says_so(measured):
    rows = {one["method"]: one for one in measured["methods"]}
    gains = [one["gain"]["mean"] for one in measured["methods"]]
    assert gains == sorted(gains, reverse=True) and measured["methods"][0]["method"] == "right"
    assert set(rows) == {"right", "blind", RANDOM, CENTRE}
    assert rows["right"]["gain"]["mean"] == pytest.approx(1 - 1 / STEPS)
    assert rows["right"]["verdict"] == "beats both"
    assert rows["blind"]["verdict"].endswith("hardly depends on the weights")
    assert [one["mean"] for one in rows["blind"]["similarity"]] == pytest.approx([1] * 4)
    assert rows["right"]["similarity"][-1]["mean"] == 0
    low, high = rows[RANDOM]["gain"]["interval"]
    assert low < 0 < high
    assert (measured["images"], measured["random_images"], measured["cells"]) == (24, 8, [8, 8])
    page = to_markdown({**measured, "run": "a|b", "split": "validation", "seed": 42})
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[1] for line in lines[1:]] == [
        one["method"] for one in measured["methods"]
    ]
    assert "24 validation images" in page and "beats both" in lines[1]


def test_comparisons_are_paired_over_images():
    rng = np.random.default_rng(0)
    one = rng.normal(size=20)
    other = one + rng.normal(0.1, 0.1, 20)
    assert faithfulness.superior(one, other) == pytest.approx(ttest_rel(one, other).pvalue)
    assert [faithfulness.superior(one, one), faithfulness.superior(one, one + 1)] == [1, 0]
