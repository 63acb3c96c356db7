"""Intervals, tests and families of tests: of studies, ``score``, ``compare``, ``paper`` and diagnoses alike.

Suffixes: ``i`` scored items (questions, or sets that count as one), ``c`` clusters (items that share an image or a
pair), ``t`` terms of a metric, ``k`` kinds of clusters, ``j`` columns, ``s`` seeds, ``r`` bootstrap replicates. Where a
number cannot be computed the answer is ``None``, never NaN.

Clusters with the same numbers are interchangeable: what a resample needs to know of them is how often their kind was
drawn, which is multinomial. So all draws are made over kinds of clusters: their cost does not grow with the number of
questions, and the order of a file cannot matter.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy  # loads scipy.stats when that is first used

CONFIDENCE = 0.95
ALPHA = 0.05
RESAMPLES = 2000
PERMUTATIONS = 9999
POWER = 0.8
CORRELATION = 0.5
"""Assumed, where only one model is known, between two models' values of one cluster."""
_ENTRIES = 4_000_000
"""Most numbers in one block of draws."""


@dataclass(frozen=True)
class Interval:
    """An interval of confidence ``CONFIDENCE`` and the way it was made: ``wilson``, ``bootstrap`` or ``none``."""

    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True)
class Estimate:
    """A value, its interval and its standard error; None where they cannot be computed."""

    value: float | None
    interval: Interval
    error: float | None


@dataclass(frozen=True)
class Noise:
    """Variance of a score between runs of one configuration, pooled over configurations; `run_noise` estimates it.

    Attributes:
        variance: None without any configuration that ran twice.
        df: degrees of freedom, the sum over configurations of runs - 1.
        runs: runs in the configurations that ran at least twice.
    """

    variance: float | None
    df: int
    runs: int

    @property
    def deviation(self) -> float | None:
        """Run-to-run standard deviation."""
        return None if self.variance is None else float(np.sqrt(self.variance))


@dataclass(frozen=True)
class Difference:
    """A difference of two means, or a weighted sum of several, with its test; None where that cannot be computed.

    Attributes:
        value: mean of the first minus mean of the second, or the sum.
        p_questions: two-sided p value against the sample of questions alone.
        p: two-sided p value of ``value / error``; without noise, ``p_questions``.
        error: standard error, of questions and (with ``noise_included``) of runs.
        error_questions: standard error from the sample of questions alone.
        df: degrees of freedom of the t distribution.
        low, high: interval of confidence ``CONFIDENCE`` from ``error`` and ``df``.
        noise_included: whether ``error`` holds run-to-run noise.
    """

    value: float | None
    p_questions: float | None = None
    p: float | None = None
    error: float | None = None
    error_questions: float | None = None
    df: float | None = None
    low: float | None = None
    high: float | None = None
    noise_included: bool = False


UNKNOWN = Noise(None, 0, 0)


def wilson(successes: float, n: float) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927, equation 1 solved for p)."""
    if n <= 0:
        return Interval(None, None, "none")
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=1 - CONFIDENCE, method="wilson")
    return Interval(float(np.asarray(low)), float(np.asarray(high)), "wilson")


def mcnemar_exact(first_q: np.ndarray, second_q: np.ndarray) -> float:
    """Exact two-sided McNemar p value of two 0/1 score vectors on the same questions."""
    from statsmodels.stats.contingency_tables import mcnemar

    table = [[0, int(np.sum(first_q > second_q))], [int(np.sum(first_q < second_q)), 0]]
    return float(mcnemar(table, exact=True).pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p values (Holm 1979); None stays None and is not counted as a test."""
    from statsmodels.stats.multitest import multipletests

    known = [p for p in p_values if p is not None]
    adjusted = iter(np.asarray(multipletests(known, method="holm")[1]).tolist() if known else [])
    return [None if p is None else next(adjusted) for p in p_values]


def chance_corrected(score: float | None, chance: float | None, most: float = 1.0) -> float | None:
    """(score - chance) / (most - chance): 0 at chance, 1 when perfect."""
    if score is None or chance is None or chance >= most:
        return None
    return (score - chance) / (most - chance)


def correct(rows: Sequence[dict[str, Any]], family: Callable[[dict[str, Any]], Hashable | None]) -> None:
    """Add ``p_holm`` and ``significant`` to rows that have ``p``.

    Args:
        rows: changed in place.
        family: what the rows that are corrected together have in common; rows of None are not corrected.
    """
    families: dict[Hashable, list[dict[str, Any]]] = {}
    for row in rows:
        row["p_holm"], row["significant"] = None, False
        if (own := family(row)) is not None:
            families.setdefault(own, []).append(row)
    for each in families.values():
        for row, p_holm in zip(each, holm([row["p"] for row in each]), strict=True):
            row["p_holm"], row["significant"] = p_holm, p_holm is not None and p_holm < ALPHA


def run_noise(configurations: Sequence[Sequence[float]]) -> Noise:
    """Pooled variance of scores between runs, from one sequence of run scores per configuration."""
    repeated = [np.asarray(runs, dtype=float) for runs in configurations if len(runs) > 1]
    df = sum(len(runs) - 1 for runs in repeated)
    if df == 0:
        return UNKNOWN
    variance = sum(float(np.sum((runs - runs.mean()) ** 2)) for runs in repeated) / df
    return Noise(variance, df, sum(len(runs) for runs in repeated))


def resampled_sums(table_cj: np.ndarray) -> np.ndarray:
    """Column sums of ``RESAMPLES`` tables, each of as many rows drawn with replacement, shape ``(RESAMPLES, j)``."""
    rows_kj, count_k = np.unique(table_cj, axis=0, return_counts=True)
    rng, share_k = np.random.default_rng([0, 0]), count_k / count_k.sum()
    blocks = [rng.multinomial(len(table_cj), share_k, size=size) @ rows_kj for size in _blocks(RESAMPLES, len(count_k))]
    return np.concatenate(blocks)


def _blocks(total: int, width: int) -> Iterator[int]:
    """Sizes of blocks that together have ``total`` rows of ``width`` numbers."""
    size = max(1, min(total, _ENTRIES // max(width, 1)))
    yield from (min(size, total - start) for start in range(0, total, size))


@dataclass(frozen=True)
class Sample:
    """Scored items of one model, or a weighted sum of models, as sums by cluster and term.

    What is estimated is the mean, or a weighted sum of the means of several terms that each have items of their own (a
    benchmark's total over its parts).

    Attributes:
        sums_ct: of the items' values.
        counts_ct: of items.
        weights_t: of the terms' means.
        missing: terms without any item.
    """

    sums_ct: np.ndarray
    counts_ct: np.ndarray
    weights_t: np.ndarray
    missing: int = 0

    @classmethod
    def of(
        cls,
        values_i: np.ndarray,
        cluster_i: np.ndarray | None = None,
        term_i: np.ndarray | int = 0,
        weights: Sequence[float] = (1.0,),
    ) -> "Sample":
        """The sums of single values.

        Args:
            values_i: between 0 and 1.
            cluster_i: what names the cluster of each item; by default each is one by itself.
            term_i: the term that each item counts in.
            weights: of the terms' means. Where terms lack items, those of the others grow to the same total.
        """
        labels_i = np.arange(len(values_i)) if cluster_i is None else cluster_i
        names_c, code_i = np.unique(labels_i, return_inverse=True)
        shape = len(names_c), len(weights)
        place_i = code_i * len(weights) + term_i
        counts_ct = np.bincount(place_i, minlength=shape[0] * shape[1]).reshape(shape)
        sums_ct = np.bincount(place_i, weights=values_i, minlength=shape[0] * shape[1]).reshape(shape)
        has_t = counts_ct.any(axis=0)
        weights_t = np.array(weights)[has_t]
        weights_t = weights_t * (sum(weights) / weights_t.sum() if len(weights_t) else 1.0)
        return cls(np.round(sums_ct[:, has_t], 12), counts_ct[:, has_t], weights_t, int((~has_t).sum()))

    @classmethod
    def combined(cls, samples: Sequence["Sample"], weights: Sequence[float]) -> "Sample":
        """A weighted sum of values of the same items, item by item: a mean over runs, a difference, a contrast."""
        sums_ct = sum(weight * each.sums_ct for weight, each in zip(weights, samples, strict=True))
        return replace(samples[0], sums_ct=np.round(sums_ct, 12))

    @cached_property
    def clusters(self) -> int:
        """How many there are."""
        return len(self.counts_ct)

    @cached_property
    def items(self) -> int:
        """Items of all terms together."""
        return int(self.counts_ct.sum())

    @cached_property
    def most(self) -> float:
        """The value when everything is right."""
        return float(self.weights_t.sum())

    @cached_property
    def proportion(self) -> bool:
        """Whether the value is a share of independent items: one term, one item a cluster, values 0 or 1."""
        return len(self.weights_t) == 1 and self.items == self.clusters and is_binary(self.sums_ct)

    @cached_property
    def value(self) -> float | None:
        """What is estimated."""
        return float(self._values(self.sums_ct.sum(axis=0), self.counts_ct.sum(axis=0))) if self.clusters else None

    def estimate(self) -> Estimate:
        """Value, interval and standard error.

        Wilson's interval for a proportion of independent items; otherwise percentiles of a bootstrap over clusters, all
        terms from the same draws, those left out that miss a term. Where all clusters are alike, resampling shows no
        spread, and Wilson on the number of clusters is given instead.
        """
        if self.value is None:
            return Estimate(None, Interval(None, None, "none"), None)
        share = self.value / self.most
        replicates_r = np.array([]) if self.proportion else self._replicates(self.sums_ct)
        if len(replicates_r) < 2 or np.ptp(replicates_r) < 1e-12 * self.most:
            found = wilson(share * self.clusters, self.clusters)
            low, high = (None if end is None else end * self.most for end in (found.low, found.high))
            error = self.most * float(np.sqrt(share * (1 - share) / self.clusters)) if self.proportion else 0.0
            return Estimate(self.value, Interval(low, high, found.method), error)
        low, high = np.quantile(replicates_r, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
        interval = Interval(min(low, self.value), max(high, self.value), "bootstrap")
        return Estimate(self.value, interval, float(replicates_r.std(ddof=1)))

    def difference_error(self) -> float | None:
        """Standard error of a mean difference: standard deviation of its replicates.

        Where resampling shows no spread, one cluster of +1 and one of -1 are added, the adjustment of Bonett and Price
        (2012) for paired proportions.
        """
        if self.clusters < 2:
            return None
        skew_c = np.sort(self._share_c) - np.sort(-self._share_c)
        # The opposite for opposite values, so that turning a pair round draws the same resamples.
        direction = float(np.sign(skew_c[np.flatnonzero(skew_c)[:1]]).sum()) or 1.0
        replicates_r = self._replicates(direction * self.sums_ct)
        deviation = float(replicates_r.std(ddof=1)) if len(replicates_r) > 1 else 0.0
        if deviation > 1e-12 * self.most:
            return deviation
        each_c, n = self._share_c * self.clusters, self.clusters + 2
        mean, square = float(each_c.sum()) / n, (float((each_c**2).sum()) + 2) / n
        return self.most * float(np.sqrt((square - mean**2) / n))

    def sign_flip_p(self) -> float | None:
        """Two-sided p value of values that are differences, when their sides are swapped at random in whole clusters.

        Monte Carlo with ``PERMUTATIONS`` draws, the observed one counted (Phipson and Smyth 2010). None for fewer than
        two clusters.
        """
        if self.clusters < 2:
            return None
        digits_c = np.round(np.abs(self._share_c), 15)
        size_k, count_k = np.unique(digits_c[digits_c > 0], return_counts=True)
        if len(size_k) == 0:
            return 1.0
        observed = abs(float(self._share_c.sum())) - 1e-9 * float(size_k @ count_k)
        rng = np.random.default_rng([0, 1])
        extreme = 0
        for size in _blocks(PERMUTATIONS, len(count_k)):
            kept_rk = rng.binomial(count_k, 0.5, size=(size, len(count_k)))
            extreme += int((np.abs((2 * kept_rk - count_k) @ size_k) >= observed).sum())
        return (extreme + 1) / (PERMUTATIONS + 1)

    @cached_property
    def _share_c(self) -> np.ndarray:
        """What each cluster adds to the value, as a share of the most that there is."""
        return (self.sums_ct / self.counts_ct.sum(axis=0)) @ self.weights_t / self.most

    def _values(self, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The estimate from sums and counts whose last axis is ``t``; NaN where a term has no item."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (sums / counts) @ self.weights_t

    def _replicates(self, sums_ct: np.ndarray) -> np.ndarray:
        drawn_rj = resampled_sums(np.concatenate([sums_ct, self.counts_ct], axis=1))
        values_r = self._values(*np.split(drawn_rj, 2, axis=1))
        return values_r[np.isfinite(values_r)]


def is_binary(scores_q: np.ndarray) -> bool:
    """Whether every score is 0 or 1."""
    return bool(np.isin(scores_q, (0.0, 1.0)).all())


def paired(a: Sample, b: Sample, noise: Noise = UNKNOWN, runs: tuple[int, int] = (1, 1)) -> Difference:
    """``a`` minus ``b`` on the same items, as `difference` tests it.

    Against the sample of questions alone: exact McNemar for shares of independent items, otherwise a permutation of the
    two within whole clusters; the standard error is a paired cluster bootstrap's.
    """
    change = Sample.combined([a, b], [1.0, -1.0])
    exact = a.proportion and b.proportion
    p = mcnemar_exact(a.sums_ct, b.sums_ct) if exact else change.sign_flip_p()
    return difference(change.value, change.difference_error(), change.clusters, p, noise, runs, change.most)


def resolves(error: float | None, most: float = 1.0) -> float | None:
    """The smallest true difference that is found with ``POWER`` at ``ALPHA``, from its standard error."""
    spreads = scipy.stats.norm.ppf(1 - ALPHA / 2) + scipy.stats.norm.ppf(POWER)
    return None if error is None else min(float(spreads) * error, most)


def difference(
    value: float | None,
    error_questions: float | None,
    num_clusters: int,
    p_questions: float | None,
    noise: Noise = UNKNOWN,
    runs: tuple[int, int] = (1, 1),
    most: float = 1.0,
) -> Difference:
    """Test a difference of two arms' mean scores against question sampling and training noise together.

    error^2 = error_questions^2 + noise variance x (1/runs_a + 1/runs_b), a two-sided t test with the degrees of
    freedom of Welch (1947) and Satterthwaite (1946): clusters - 1 for the first term, the noise's own for the second.
    The part of training noise that differs from question to question is in both terms, so the error is up to
    sqrt(2) too wide and the test conservative, most so where runs hardly differ. Without an estimate of noise, ``p`` is
    ``p_questions`` and the interval covers questions only.

    Args:
        value: the difference of means over all runs.
        error_questions: from `Sample.difference_error`.
        num_clusters: clusters of questions in the sample.
        p_questions: McNemar's or the permutation test's p value.
        noise: run-to-run noise of this score.
        runs: number of runs averaged in each arm.
        most: the largest difference that there can be.
    """
    if value is None or error_questions is None or num_clusters < 2:
        return Difference(value, p_questions, p_questions)
    from_questions = error_questions**2
    from_runs = 0.0 if noise.variance is None else noise.variance * (1 / runs[0] + 1 / runs[1])
    squared = from_questions + from_runs
    df = squared**2 / (from_questions**2 / (num_clusters - 1) + (from_runs**2 / noise.df if noise.df else 0.0))
    error = float(np.sqrt(squared))
    low, high, p = _t_test(value, error, df, most)
    known = noise.variance is not None
    return Difference(value, p_questions, p if known else p_questions, error, error_questions, df, low, high, known)


def noise_band(noise: Noise, runs: tuple[int, int]) -> float | None:
    """Half-width of the range that holds ``CONFIDENCE`` of the differences between two sets of runs of one arm."""
    if noise.variance is None:
        return None
    error = np.sqrt(noise.variance * (1 / runs[0] + 1 / runs[1]))
    return float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, noise.df) * error)


def contrast(values_s: Sequence[float], error_questions: float | None, bound: float) -> Difference:
    """Test a weighted sum of arms' scores that was taken at each seed apart.

    error^2 = error_questions^2 + variance of the sum between seeds / seeds; a two-sided t test with seeds - 1 degrees
    of freedom. Taken seed by seed, the sum is free of what a seed does to arms alike, whatever these share: a language
    model, an encoder, or all of their weights. It borrows no noise from other arms, which may have more or less of it.

    All of the error is given the degrees of freedom of its part from seeds. Those of Welch (1947) and Satterthwaite
    (1946) would make intervals narrower where questions matter as well, and too narrow: of two or three seeds they hold
    the truth in 87 to 93 of 100 cases where seeds move the sum two to four times as much as questions do.

    Args:
        values_s: the sum at every seed.
        error_questions: standard error of its mean from the sample of questions; None if unknown.
        bound: the largest value that the sum can have.
    """
    value, seeds = float(np.mean(values_s)), len(values_s)
    if error_questions is None or seeds < 2:
        return Difference(value)
    error = float(np.sqrt(error_questions**2 + np.var(values_s, ddof=1) / seeds))
    low, high, p = _t_test(value, error, seeds - 1, bound)
    return Difference(value, None, p, error, error_questions, seeds - 1, low, high, True)


def _t_test(value: float, error: float, df: float, most: float) -> tuple[float, float, float]:
    """Ends of the interval within what there can be, and the two-sided p value."""
    half = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, df)) * error
    p = float(2 * scipy.stats.t.sf(abs(value) / error, df)) if error else float(value == 0)
    return max(value - half, -most), min(value + half, most), p
