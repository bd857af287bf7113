"""Masks are as random as they claim, and a function of their seed alone."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import nn

from vitlab.models.dropout import (
    Dropout,
    DropPath,
    dropouts,
    random_words,
    seed_masks,
    threshold,
)

ROWS, COLUMNS = 4000, 250


def kept(layer: Dropout, rows: int = ROWS, columns: int = COLUMNS) -> torch.Tensor:
    """1 where the next mask of a layer keeps a number, else 0: (rows, columns)."""
    return (layer(torch.ones(rows, columns)) != 0).float()


def seeded(rate: float, seed: int = 0) -> Dropout:
    layer = Dropout(rate)
    seed_masks(dropouts(layer), seed)
    return layer


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.75])
def test_every_row_and_column_keeps_its_share(rate):
    mask = kept(seeded(rate))
    for axis, count in ((0, ROWS), (1, COLUMNS)):
        counts = mask.sum(axis)
        statistic = ((counts - count * (1 - rate)) ** 2 / (count * rate * (1 - rate))).sum()
        assert 0.001 < chi2.cdf(statistic.item(), len(counts)) < 0.999


def test_runs_of_eight_neighbours_are_as_frequent_as_chance_has_it():
    mask = kept(seeded(0.5), COLUMNS, ROWS)
    patterns = (mask.view(-1, 8) @ 2.0 ** torch.arange(8)).long()
    expected = mask.numel() / 8 / 256
    statistic = ((patterns.bincount(minlength=256) - expected) ** 2 / expected).sum()
    assert 0.001 < chi2.cdf(statistic.item(), 255) < 0.999


def test_rows_and_columns_do_not_depend_on_each_other():
    mask = kept(seeded(0.1))
    for vectors in (mask, mask.T):
        found = torch.corrcoef(vectors[:500])
        others = found[~torch.eye(len(found), dtype=torch.bool)] * vectors.shape[1] ** 0.5
        assert others.mean().abs() < 0.02
        assert 0.95 < others.std() < 1.05  # what independent vectors have
        assert others.abs().max() < 6


def test_masks_of_other_seeds_steps_layers_and_calls_do_not_depend_on_each_other():
    layers = nn.Sequential(Dropout(0.3), Dropout(0.3))
    masks = []
    for seed in (0, 1):
        seed_masks(dropouts(layers), seed)
        masks += [kept(layer) for layer in layers] + [kept(layer) for layer in layers]
    # Nor is one of them another one moved by a row or a column.
    views = [
        mask[top : top - 2, left : left - 2] for mask in masks for top in (0, 1) for left in (0, 1)
    ]
    found = np.corrcoef(np.stack([view.flatten().numpy() for view in views]))
    assert np.abs(found - np.eye(len(views))).max() < 5 / views[0].numel() ** 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_equal_seeds_give_equal_masks_in_every_type(dtype):
    one, again = seeded(0.1, 7), seeded(0.1, 7)
    mask = kept(one)
    assert torch.equal(mask, kept(again))
    seed_masks(dropouts(again), 7)
    other = again(torch.ones(ROWS, COLUMNS, dtype=dtype))
    assert other.dtype == dtype
    assert torch.equal(mask, (other != 0).float())
    assert other.max().item() == torch.tensor(1 / again.keep, dtype=dtype).item()


def test_words_are_those_of_whole_number_arithmetic_on_any_machine():
    whole = (1 << 64) - 1

    def word(key: int, index: int) -> int:
        z = ((key & whole) ^ index) * 0x9E3779B97F4A7C15 & whole
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & whole
        z = (z ^ z >> 27) * 0x94D049BB133111EB & whole
        return z >> 32 | 1

    for key in (0, 1, -1, 2**63 - 1, -(2**63)):
        found = random_words(torch.tensor(key), 20)
        assert [each % 2**32 for each in found.tolist()] == [word(key, i) for i in range(20)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_mask_is_the_same():
    layer, tokens = Dropout(0.1), torch.randn(64, 32)
    seed_masks(dropouts(layer), 3)
    expected = layer(tokens)
    seed_masks(dropouts(layer), 3)
    assert torch.equal(torch.compile(layer, fullgraph=True)(tokens), expected)


@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.1, 0.5, 0.9])
def test_the_probability_to_keep_is_the_one_that_is_stated(rate):
    layer = Dropout(rate)
    assert layer.keep == pytest.approx(1 - rate, abs=2**-31)
    below = (threshold(rate) + 2**31) // 2  # odd words below the threshold, of 2^31
    assert below / 2**31 == layer.keep


def test_what_is_kept_is_scaled_so_that_the_mean_stays():
    dropped = seeded(0.25)(torch.ones(ROWS, COLUMNS))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1, abs=0.003)


def test_gradients_flow_through_what_was_kept_alone():
    tokens = torch.ones(50, 20, requires_grad=True)
    dropped = seeded(0.5)(tokens)
    dropped.sum().backward()
    assert torch.equal(tokens.grad, dropped.detach())


@pytest.mark.parametrize("kind", [Dropout, DropPath])
def test_evaluation_drops_nothing_and_draws_nothing(kind):
    layer = kind(0.5)
    tokens = torch.ones(4, 3, 2)
    first = layer(tokens)
    seed_masks(dropouts(layer), 0)
    before = layer.key.clone()
    assert layer.eval()(tokens) is tokens
    assert torch.equal(layer.key, before)
    assert first.shape == tokens.shape


def test_torchs_own_random_numbers_stay_where_they_were():
    before = torch.get_rng_state()
    seeded(0.5)(torch.ones(3, 3))
    assert torch.equal(torch.get_rng_state(), before)
