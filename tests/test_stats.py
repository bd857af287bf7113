"""Protects the numbers and the words that decide what may be said of a difference."""

import math

import numpy as np
import pytest
from scipy import stats as reference
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import ttost_ind

from vitlab import stats
from vitlab.stats import Difference, Sample


def sample(*values, **lost):
    """A sample of seeds 0, 1, ... with accuracies in percent."""
    return Sample({seed: value / 100 for seed, value in enumerate(values)}, **lost)


def drawn(random, seeds, mean=0.9, std=0.002):
    return Sample(dict(enumerate(random.normal(mean, std, seeds).tolist())))


HIGH, LOW = sample(91.0, 91.2, 91.1, 90.9, 91.1), sample(90.0, 90.2, 90.1, 90.3, 90.1)
CLOSE = sample(90.1, 90.2, 90.0, 90.3, 90.2)


# Intervals and tests


def test_wilsons_interval_of_9000_of_10000():
    low, high = stats.wilson(9000, 10000)
    assert (round(low, 4), round(high, 4)) == (0.8940, 0.9057)
    assert stats.wilson(0, 20)[0] == 0 and stats.wilson(20, 20)[1] == 1


def test_the_interval_of_a_standard_deviation_covers_the_true_one():
    low, high = stats.std_interval(1.0, 9)
    assert (round(low, 3), round(high, 3)) == (0.688, 1.826)  # tables of ten values
    draws = np.random.default_rng(0).normal(0, 2, (4000, 10)).std(axis=1, ddof=1)
    covered = [low < 2 < high for low, high in (stats.std_interval(std, 9) for std in draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_students_interval_of_three_seeds():
    low, high = stats.t_interval([90.1, 90.3, 90.2])
    assert (low + high) / 2 == pytest.approx(90.2)
    assert (high - low) / 2 == pytest.approx(0.2484, abs=5e-5)
    assert all(map(math.isnan, stats.t_interval([90.1])))


def test_mcnemar_is_exact_for_few_images():
    assert stats.mcnemar(10, 2) == pytest.approx(158 / 4096)
    assert stats.mcnemar(2, 10) == stats.mcnemar(10, 2)
    assert stats.mcnemar(0, 0) == 1


@pytest.mark.parametrize("pair", [(24, 0), (12, 12), (13, 12), (40, 20), (480, 420)])
def test_mcnemar_agrees_with_statsmodels(pair):
    first, second = pair
    table = [[5, first], [second, 5]]
    expected = mcnemar(table, exact=first + second < 25).pvalue
    # statsmodels takes 1/n for a difference of 0 where the correction leaves nothing.
    assert stats.mcnemar(*pair) == pytest.approx(expected, abs=1e-12)


def test_holm_agrees_with_statsmodels():
    random = np.random.default_rng(0)
    for p in ([0.01, 0.04, 0.03, 0.005], *(random.random(n) ** 3 for n in (1, 2, 7, 20))):
        expected = multipletests(p, method="holm")[1]
        assert stats.holm(list(p)) == pytest.approx(expected.tolist())
    assert stats.holm([]) == []


def test_welchs_test_and_interval_agree_with_scipy():
    for arm in (HIGH, CLOSE, sample(88.0, 90.0, 91.0)):
        expected = reference.ttest_ind(*map(list, (arm.values.values(), LOW.values.values())),
                                       equal_var=False)  # fmt: skip
        difference = Difference(arm, LOW)
        assert not difference.paired
        assert difference.p == pytest.approx(expected.pvalue)
        assert difference.interval == pytest.approx(tuple(expected.confidence_interval()))


def test_equivalence_agrees_with_statsmodels():
    arm, baseline = (list(one.values.values()) for one in (CLOSE, LOW))
    expected = ttost_ind(arm, baseline, -0.003, 0.003, usevar="unequal")[0]
    assert Difference(CLOSE, LOW).equivalence(0.003) == pytest.approx(expected)
    assert Difference(CLOSE, LOW).verdict(margin=0.005) == "equal within 0.50 pp"
    assert Difference(CLOSE, LOW).verdict(margin=0.001).startswith("no evidence")


def test_seeds_that_vary_together_are_paired():
    shift = np.array([0, 0.4, -0.3, 0.2, -0.1])
    baseline, arm = sample(*(90 + shift)), sample(*(90.1 + shift + [0.01, 0, -0.01, 0.02, 0]))
    difference = Difference(arm, baseline)
    expected = reference.ttest_rel(list(arm.values.values()), list(baseline.values.values()))
    assert difference.correlation > 0.99 and difference.paired
    assert difference.p == pytest.approx(expected.pvalue)
    assert difference.interval == pytest.approx(tuple(expected.confidence_interval()))


def test_seeds_are_not_paired_by_chance_or_when_they_differ():
    weakly = Difference(sample(90.0, 90.4, 89.7, 90.2, 89.9), sample(90.1, 90.2, 90.0, 89.9, 90.3))
    assert not weakly.paired
    other = Sample({seed + 10: value for seed, value in LOW.values.items()})
    assert math.isnan(Difference(LOW, other).correlation)
    assert not Difference(LOW, other).paired
    assert not Difference(sample(1, 2, 3), sample(1, 2, 3)).paired  # three seeds prove nothing


# What could have been seen


@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
@pytest.mark.parametrize("comparisons", [1, 8])
def test_the_detectable_difference_has_the_power_it_claims(seeds, comparisons):
    size = stats.detectable(seeds, 0.002, comparisons) / 0.002
    power = TTestIndPower().power(size, seeds, 0.05 / comparisons)
    assert power == pytest.approx(0.8, abs=1e-3)


def test_fewer_seeds_than_needed_do_not_show_the_difference():
    seeds = stats.seeds_needed(0.005, 0.006)
    assert stats.detectable(seeds, 0.006) <= 0.005 < stats.detectable(seeds - 1, 0.006)
    assert stats.seeds_needed(0.5, 0.001) == 3
    assert stats.detectable(10_000, 0.001) == 0.001  # nothing smaller is worth reporting


# Verdicts


def test_a_clear_difference_is_better_or_worse():
    assert Difference(HIGH, LOW).verdict() == "better"
    assert Difference(LOW, HIGH).verdict() == "worse"
    assert Difference(HIGH, LOW).verdict(0.06).startswith("no evidence of a difference")


def test_a_significant_difference_below_a_tenth_of_a_point_is_not_better():
    arm, baseline = sample(90.050, 90.051, 90.052), sample(90.000, 90.001, 90.002)
    assert Difference(arm, baseline).p < 1e-4
    words = "no evidence of a difference (could have seen >= 0.10 pp)"
    assert Difference(arm, baseline).verdict() == words


def test_no_evidence_says_what_could_have_been_seen():
    seen = Difference(CLOSE, LOW).detectable()
    assert 0.002 < seen < 0.003
    words = f"no evidence of a difference (could have seen >= {math.ceil(1e4 * seen) / 100:.2f} pp)"
    assert Difference(CLOSE, LOW).verdict() == words
    assert Difference(CLOSE, LOW).detectable(comparisons=8) > seen


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        (sample(95.0), "1 against 5 seeds: at least 3 in each arm are needed, better 5"),
        (sample(95.0, 95.1), "2 against 5 seeds: at least 3 in each arm are needed, better 5"),
        (sample(failed=3), "0 against 5 seeds: at least 3 in each arm are needed, better 5"),
        (sample(95.0, 95.1, 95.2, pending=2), "2 of 10 runs are still to come"),
        (sample(91.0, 91.2, 91.1, failed=2), "2 of 5 seeds of the arm failed"),
    ],
)
def test_too_few_seeds_or_too_many_failures_give_no_verdict(arm, reason):
    difference = Difference(arm, LOW)
    assert difference.verdict() == f"no verdict ({reason})"
    assert difference.value == pytest.approx(arm.mean - LOW.mean, nan_ok=True)
    assert Difference(LOW, arm).refusal == reason.replace("the arm", "the baseline").replace(
        f"{len(arm)} against 5", f"5 against {len(arm)}"
    )


def test_one_failure_in_five_is_reported_beside_the_verdict():
    four = sample(91.0, 91.2, 91.1, 90.9, failed=1)
    assert Difference(four, LOW).verdict() == "better; 1 of 5 seeds of the arm failed"


@pytest.mark.parametrize("value", [70, 90, 33.3])
def test_seeds_that_change_nothing_give_no_verdict(value):
    same, other = sample(value, value, value), sample(91, 91, 91)
    assert Difference(same, other).verdict().startswith("no verdict (accuracy is the same")
    assert Difference(LOW, LOW).p == 1  # with noise, an arm against itself is not different
    assert Difference(LOW, LOW).verdict().startswith("no evidence of a difference")


def test_an_arm_against_itself_is_rarely_found_different():
    random = np.random.default_rng(0)
    found = sum(
        Difference(drawn(random, 5), drawn(random, 5)).verdict() in ("better", "worse")
        for _ in range(2_000)
    )
    assert found / 2_000 <= 0.065


def test_eight_arms_that_do_nothing_are_rarely_found_different():
    random = np.random.default_rng(1)
    found = 0
    for _ in range(2_000):
        baseline = drawn(random, 5)
        family = [Difference(drawn(random, 5), baseline) for _ in range(8)]
        adjusted = stats.holm([one.p for one in family])
        words = {one.verdict(p, comparisons=8) for one, p in zip(family, adjusted, strict=True)}
        found += bool(words & {"better", "worse"})
    assert found / 2_000 <= 0.065


# The second opinion


def answers(random, chances, seeds):
    """Which of `seeds` runs is right about which image."""
    return random.random((seeds, len(chances))) < chances


def test_the_bootstrap_has_the_width_of_one_that_draws_every_image():
    random = np.random.default_rng(0)
    chances = random.beta(4, 1, 400)
    arm, baseline = answers(random, chances, 4), answers(random, chances, 3)
    differences = []
    for _ in range(2_000):
        images = random.integers(0, 400, 400)
        means = [one[random.integers(0, len(one), len(one))][:, images].mean()
                 for one in (arm, baseline)]  # fmt: skip
        differences.append(means[0] - means[1])
    expected = np.quantile(differences, [0.025, 0.975])
    assert stats.bootstrap(arm, baseline) == pytest.approx(expected.tolist(), abs=0.004)


def test_the_bootstrap_holds_the_difference_and_repeats_itself():
    random = np.random.default_rng(1)
    chances = random.beta(4, 1, 1_000)
    arm, baseline = answers(random, chances + 0.03, 5), answers(random, chances, 5)
    low, high = stats.bootstrap(arm, baseline, 1_000)
    assert low < arm.mean() - baseline.mean() < high
    assert stats.bootstrap(arm, baseline, 1_000) == (low, high)


def test_three_seeds_speak_by_their_spread_and_one_by_its_images():
    low, high = stats.next_run([0.87, 0.88, 0.89], 143)
    assert round(high - low, 4) == round(2 * 4.3027 * 0.01 * (4 / 3) ** 0.5, 4)
    low, high = stats.next_run([0.9], 5000)
    assert round(high - low, 4) == round(2 * 1.96 * (2 * 0.09 / 5000) ** 0.5, 4)
    assert stats.next_run([0.999, 0.999], 100)[1] == 1
