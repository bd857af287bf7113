"""What measured accuracies are worth: intervals, tests, corrections and verdicts.

    images of one model    -> wilson       an interval of its accuracy
    images of two models   -> mcnemar      which of the two; nothing of their recipes, one seed each
    seeds of two recipes   -> Difference   over a family of comparisons: holm, then its verdict
    seeds and images       -> bootstrap    a second opinion, which decides nothing

Accuracies and differences are fractions from 0 to 1; sentences give percentage points, pp.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import chdtri, nctdtrinc, ndtri, stdtr, stdtrit

LEVEL = 0.05
"""Chance of a false finding that a family of comparisons may have."""

POWER = 0.8
"""Chance of finding what is there, where we say how much could have been seen."""

LEAST = 0.001
"""Smallest difference worth reporting: gaps below 0.1 pp mean nothing on test sets we know."""

FEWEST = 3
"""Seeds an arm needs for a verdict; five are better."""

CORRELATION = 0.2
"""Correlation over seeds that must be exceeded before two arms are paired by seed."""

Interval = tuple[float, float]


def wilson(correct: int, images: int, level: float = 1 - LEVEL) -> Interval:
    """Interval of an accuracy that `correct` of `images` estimate (Wilson, 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(correct, images).proportion_ci(level, "wilson")
    return float(interval.low), float(interval.high)


def t_interval(values: Sequence[float], level: float = 1 - LEVEL) -> Interval:
    """Student's interval of the mean that `values` estimate; NaN for fewer than two."""
    if len(values) < 2:
        return math.nan, math.nan
    half = stdtrit(len(values) - 1, (1 + level) / 2) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values) - half), float(np.mean(values) + half)


def std_interval(std: float, freedom: int, level: float = 1 - LEVEL) -> Interval:
    """Interval of the standard deviation that one of so many degrees of freedom estimates, of
    normally distributed values (from the chi-square distribution).
    """
    tail = (1 - level) / 2
    low, high = (std * math.sqrt(freedom / chdtri(freedom, p)) for p in (tail, 1 - tail))
    return float(low), float(high)


def next_run(values: Sequence[float], images: int) -> Interval:
    """Where the accuracy of one more seed is expected, 95 times in 100.

    From three seeds on, by their spread (Student's prediction interval). One or two show none:
    then as far as two equally good models differ by chance on so many images.
    """
    mean, number = float(np.mean(values)), len(values)
    if number >= FEWEST:
        spread = float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / number)
        half = stdtrit(number - 1, 1 - LEVEL / 2) * spread
    else:
        half = ndtri(1 - LEVEL / 2) * math.sqrt(2 * mean * (1 - mean) / images)
    return max(0.0, mean - float(half)), min(1.0, mean + float(half))


def mcnemar(first: int, second: int) -> float:
    """Two-sided p that two trained models are equally good (McNemar, 1947).

    Args:
        first: images that only the first model classifies correctly.
        second: images that only the second does. The test is exact below 25 together.
    """
    from scipy.stats import binomtest, chi2

    if first + second < 25:
        return float(binomtest(first, first + second).pvalue) if first + second else 1.0
    return float(chi2.sf(max(abs(first - second) - 1, 0) ** 2 / (first + second), 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of a family, so that one false finding in it is as rare as a test says.

    In the order given (Holm, 1979).
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def bootstrap(
    arm: np.ndarray, baseline: np.ndarray, draws: int = 10_000, level: float = 1 - LEVEL
) -> Interval:
    """Interval of a difference when both seeds and images are drawn anew.

    Images are drawn jointly for all runs, as counts of the patterns of right and wrong answers,
    which are far fewer than images; seeds are drawn within each arm.

    Args:
        arm, baseline: (seeds, images) of bool, which run is right about which image; the same
            images in the same order.
    """
    random = np.random.default_rng(0)
    patterns, counts = np.unique(np.concatenate([arm, baseline]).T, axis=0, return_counts=True)
    patterns, counts = patterns[np.argsort(-counts)], np.sort(counts)[::-1]  # frequent ones first
    share = counts / counts.sum()
    differences = []
    for part in np.array_split(np.arange(draws), math.ceil(draws * len(share) / 1e6)):
        weights = [
            sign * random.multinomial(seeds, np.full(seeds, 1 / seeds), len(part)) / seeds
            for sign, seeds in ((1, len(arm)), (-1, len(baseline)))
        ]
        scores = np.concatenate(weights, axis=1) @ patterns.T  # (draws, patterns)
        images = random.multinomial(counts.sum(), share, len(part))
        differences.append((scores * images).sum(axis=1) / counts.sum())
    low, high = np.quantile(np.concatenate(differences), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def detectable(seeds: int, std: float, comparisons: int = 1) -> float:
    """Smallest difference that two arms of so many seeds would show, four times in five.

    Args:
        std: standard deviation over seeds within an arm.
        comparisons: size of the family that the test is corrected for.
    """
    return _visible(std * (2 / seeds) ** 0.5, 2 * seeds - 2, comparisons)


def seeds_needed(difference: float, std: float, comparisons: int = 1) -> int:
    """Seeds in each arm that show a difference four times in five; at least three."""
    seeds = FEWEST
    while detectable(seeds, std, comparisons) > difference:
        seeds += 1
    return seeds


def _visible(error: float, freedom: float, comparisons: int) -> float:
    level = LEVEL / comparisons  # what Holm asks of the smallest p of a family
    threshold = stdtrit(freedom, 1 - level / 2)
    return max(float(error * nctdtrinc(freedom, 1 - POWER, threshold)), LEAST)


@dataclass(frozen=True)
class Sample:
    """Accuracies of one recipe by seed, and what became of its other planned seeds.

    A seed that failed has no accuracy and is not averaged away: it is counted beside the mean,
    and more than one in five of them forbid a verdict.
    """

    values: Mapping[int, float]
    failed: int = 0
    pending: int = 0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def planned(self) -> int:
        """Seeds that were fixed before the first run."""
        return len(self) + self.failed + self.pending

    @property
    def mean(self) -> float:
        """Mean over the seeds that finished; NaN if none did."""
        return float(np.mean(list(self.values.values()))) if self.values else math.nan

    @property
    def std(self) -> float:
        """Standard deviation over seeds, of n - 1; NaN for fewer than two."""
        values = list(self.values.values())
        if len(values) < 2:
            return math.nan
        # Rounding makes a spread, and with it a finding, of values that are all the same.
        return float(np.std(values, ddof=1)) if np.ptp(values) else 0.0

    @property
    def interval(self) -> Interval:
        """95 % interval of the mean."""
        return t_interval(list(self.values.values()))


@dataclass(frozen=True)
class Difference:
    """How much higher the mean accuracy of an arm is than that of its baseline.

    Welch's test over seeds; paired by seed only where the same seeds vary together. A handful of
    seeds often seem to: pairing whatever correlates above 0.2 finds too many differences between
    an arm and itself (6.6 % at five seeds), so that much has to be the lower end of an interval.
    """

    arm: Sample
    baseline: Sample

    @property
    def value(self) -> float:
        """Difference of the means; NaN where one has no seed."""
        return self.arm.mean - self.baseline.mean

    @cached_property
    def correlation(self) -> float:
        """Correlation of the two over their seeds; NaN unless both have the same three or more."""
        first, second = self.arm.values, self.baseline.values
        if first.keys() != second.keys() or len(first) < FEWEST:
            return math.nan
        x, y = np.array([(first[seed], second[seed]) for seed in first]).T
        return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) * np.ptp(y) else math.nan

    @property
    def paired(self) -> bool:
        """Whether seeds are paired: the correlation is above 0.2, and not by chance.

        At exactly 1, as of an arm with itself, no noise would be left to test against.
        """
        if not self.correlation < 1 - 1e-9 or len(self.arm) <= 3:
            return False
        error = (len(self.arm) - 3) ** -0.5  # of Fisher's z, which is nearly normal
        low = np.arctanh(self.correlation) - ndtri(1 - LEVEL) * error
        return bool(low > np.arctanh(CORRELATION))

    @cached_property
    def _spread(self) -> tuple[float, float]:
        """Standard error and degrees of freedom."""
        first, second = self.arm, self.baseline
        if self.paired:
            gaps = [first.values[seed] - second.values[seed] for seed in first.values]
            return float(np.std(gaps, ddof=1)) / len(gaps) ** 0.5, len(gaps) - 1
        v, w = first.std**2 / max(len(first), 1), second.std**2 / max(len(second), 1)
        if not v + w > 0:
            return v + w, math.nan
        freedom = (v + w) ** 2 / (v**2 / (len(first) - 1) + w**2 / (len(second) - 1))
        return (v + w) ** 0.5, freedom

    @property
    def interval(self) -> Interval:
        """95 % interval of the difference; NaN for fewer than two seeds in an arm."""
        error, freedom = self._spread
        half = float(error * stdtrit(freedom, 1 - LEVEL / 2))
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """Two-sided p that the means are equal; NaN where seeds do not vary."""
        error, freedom = self._spread
        return float(2 * stdtr(freedom, -abs(self.value) / error)) if error else math.nan

    def equivalence(self, margin: float) -> float:
        """P that the difference is as large as the margin, by two one-sided tests (TOST)."""
        error, freedom = self._spread
        return float(stdtr(freedom, (abs(self.value) - margin) / error)) if error else math.nan

    def detectable(self, comparisons: int = 1) -> float:
        """Smallest difference that a test of these seeds would show, four times in five."""
        return _visible(*self._spread, comparisons)

    def verdict(
        self, adjusted: float | None = None, *, comparisons: int = 1, margin: float | None = None
    ) -> str:
        """Whether the arm is better or worse than its baseline, or why that cannot be said.

        Args:
            adjusted: the p after Holm's correction in its family; None where it stands alone.
            comparisons: size of the family.
            margin: a difference too small to matter, decided beforehand: within it, and only
                with it, two arms can be called equal.
        """
        if self.refusal:
            return f"no verdict ({self.refusal})"
        p = self.p if adjusted is None else adjusted
        low, high = self.interval
        if p < LEVEL and (low > 0 or high < 0) and abs(self.value) > LEAST - 1e-9:
            verdict = "better" if self.value > 0 else "worse"
        elif margin is not None and self.equivalence(margin) < LEVEL:
            verdict = f"equal within {points(margin)} pp"
        else:
            seen = math.ceil(1e4 * self.detectable(comparisons) - 1e-6) / 1e4
            verdict = f"no evidence of a difference (could have seen >= {points(seen)} pp)"
        lost = [
            f"{sample.failed} of {sample.planned} seeds of {whose} failed"
            for whose, sample in (("the arm", self.arm), ("the baseline", self.baseline))
            if sample.failed
        ]
        return "; ".join([verdict, *lost])

    @cached_property
    def refusal(self) -> str | None:
        """Why nothing may be said yet or at all; None where a verdict may be given."""
        samples = (self.arm, self.baseline)
        if pending := sum(sample.pending for sample in samples):
            return f"{pending} of {sum(s.planned for s in samples)} runs are still to come"
        if min(map(len, samples)) < FEWEST:
            have = f"{len(self.arm)} against {len(self.baseline)} seeds"
            return f"{have}: at least {FEWEST} in each arm are needed, better 5"
        for whose, sample in (("the arm", self.arm), ("the baseline", self.baseline)):
            if 5 * sample.failed > sample.planned:
                return f"{sample.failed} of {sample.planned} seeds of {whose} failed"
        if not self._spread[0]:
            return "accuracy is the same for every seed, so there is no noise to compare with"
        return None


def points(fraction: float) -> str:
    """A fraction as a number of percentage points, two decimals."""
    return f"{100 * fraction:.2f}"
