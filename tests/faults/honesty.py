"""S: what is said of measured numbers is no more than they show."""

from pathlib import Path

import numpy as np
from harness import case
from trial import tested

from vitlab.stats import Difference, Sample, holm, mcnemar, t_interval, wilson


@case("S01", "McNemar, Holm, Student and Wilson against published values", short=1)
def fixtures(folder: Path, scale: float) -> str:
    found = [
        (mcnemar(10, 2), 158 / 4096),
        *zip(holm([0.01, 0.04, 0.03, 0.005]), (0.03, 0.06, 0.06, 0.02), strict=True),
        *zip(t_interval([90.1, 90.3, 90.2]), (90.2 - 0.2484, 90.2 + 0.2484), strict=True),
        *zip(wilson(9000, 10000), (0.8940, 0.9057), strict=True),
    ]
    for ours, theirs in found:
        assert abs(ours - theirs) < 5e-5, (ours, theirs)
    return f"{len(found)} of {len(found)} equal to four digits"


def drawn(draws: np.random.Generator) -> Sample:
    """Five seeds of a configuration, in which nothing but the seed matters."""
    return Sample(dict(enumerate(0.9 + 0.002 * draws.standard_normal(5))))


@case("S02", "2,000 comparisons of a configuration with itself, and of eight arms")
def against_itself(folder: Path, scale: float) -> str:
    draws, times = np.random.default_rng(7), round(2000 * scale)
    limit = 0.065 if scale == 1 else 0.05 + 3 * (0.05 * 0.95 / times) ** 0.5
    findings = ("better", "worse")
    single = sum(Difference(drawn(draws), drawn(draws)).verdict() in findings for _ in range(times))
    family = 0
    for _ in range(times):
        baseline = drawn(draws)
        arms = [Difference(drawn(draws), baseline) for _ in range(8)]
        adjusted = holm([one.p for one in arms])
        words = [one.verdict(p, comparisons=8) for one, p in zip(arms, adjusted, strict=True)]
        family += any(word in findings for word in words)
    assert single / times <= limit and family / times <= limit, (single, family, times)
    return f"{single / times:.1%} and {family / times:.1%} of {times:,} find a difference"


@case("S03", "one or two seeds in an arm", short=1)
def few_seeds(folder: Path, scale: float) -> str:
    for seeds in (1, 2):
        few = Sample({seed: 0.9 + 0.01 * seed for seed in range(seeds)})
        verdict = Difference(few, Sample(dict(enumerate([0.8, 0.81, 0.82])))).verdict()
        assert verdict.startswith("no verdict") and "at least 3" in verdict, verdict
        assert few.mean > 0
    return "numbers, no verdict, and how many seeds are needed"


@case("S05", "seeds that diverged, are missing or differ between arms")
def lost_seeds(folder: Path, scale: float) -> str:
    return tested(
        "tests/study/test_results.py::test_failed_seeds_are_counted_and_shown",
        "tests/study/test_results.py::test_a_study_under_way_decides_nothing",
        "tests/test_stats.py::test_one_failure_in_five_is_reported_beside_the_verdict",
        "tests/test_stats.py::test_too_few_seeds_or_too_many_failures_give_no_verdict",
        "tests/test_stats.py::test_seeds_are_not_paired_by_chance_or_when_they_differ",
        "tests/compare/test_compare.py::test_seeds_without_a_result_are_counted_and_never_averaged"
        "_away",
        "tests/compare/test_compare.py::test_recipes_are_compared_over_seeds_unpaired",
    )


@case("S06", "arms of another length, batch, split, augmentation or tuning")
def unequal_budgets(folder: Path, scale: float) -> str:
    return tested(
        "tests/study/test_results.py::test_an_unequal_budget_is_flagged",
        "tests/compare/test_compare.py::test_unequal_budgets_are_flagged_beside_the_verdict",
        "tests/compare/test_compare.py::test_more_tuning_trials_are_flagged",
        "tests/compare/test_compare.py::test_a_change_of_the_model_is_no_unequal_budget",
    )
