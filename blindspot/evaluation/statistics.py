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
from functools import cache, cached_property
from typing import Any

import numpy as np
import scipy  # loads its parts when they are first used

CONFIDENCE = 0.95
ALPHA = 0.05
RESAMPLES = 2000
PERMUTATIONS = 9999
POWER = 0.8
CORRELATION = 0.5
"""Assumed, where only one model is known, between two models' values of one cluster."""
_SHARES = 400
"""Equal shares of a distribution that stand for it."""
_ENTRIES = 4_000_000
"""Most numbers in one block of draws."""


Part = tuple[float, float]
"""A variance and its degrees of freedom."""


@dataclass(frozen=True)
class Interval:
    """An interval of confidence ``CONFIDENCE`` and the way it was made: ``wilson``, ``bootstrap`` or ``none``."""

    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True)
class Estimated:
    """A value, its interval and its standard error; None where they cannot be computed."""

    value: float | None
    interval: Interval
    error: float | None


@dataclass(frozen=True)
class Noise:
    """Variance of a score between runs of one configuration, or pooled over several; `run_noise` estimates it."""

    variance: float | None  # None without any configuration that ran twice
    df: int  # degrees of freedom, the sum over configurations of runs - 1
    runs: int  # runs in the configurations that ran at least twice

    @property
    def deviation(self) -> float | None:
        """Run-to-run standard deviation."""
        return None if self.variance is None else float(np.sqrt(self.variance))


@dataclass(frozen=True)
class Difference:
    """A difference of two means, or a weighted sum of several, with its test; None where that cannot be computed."""

    value: float | None  # mean of the first minus mean of the second, or the sum
    p_questions: float | None = None  # two-sided p value against the sample of questions alone
    p: float | None = None  # two-sided p value of ``value / error``; without noise, ``p_questions``
    error: float | None = None  # standard error, of questions and (with ``noise_included``) of runs
    error_questions: float | None = None  # standard error from the sample of questions alone
    df: float | None = None
    """Degrees of freedom of the part of ``error`` that comes from runs; without it, of that from questions."""
    low: float | None = None  # with ``high``: interval of confidence ``CONFIDENCE`` from ``parts``
    high: float | None = None
    noise_included: bool = False  # whether ``error`` holds run-to-run noise
    parts: tuple[Part, ...] = ()
    """Variance and degrees of freedom of the parts of ``error``, as `detectable` takes them."""


UNKNOWN = Noise(None, 0, 0)


@cache
def wilson(successes: float, n: float) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927, equation 1 solved for p)."""
    if n <= 0:
        return Interval(None, None, "none")
    share, z = successes / n, float(scipy.special.ndtri((1 + CONFIDENCE) / 2))
    middle = share + z**2 / (2 * n)
    half = z * float(np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2))
    low, high = ((middle + side) / (1 + z**2 / n) for side in (-half, half))
    return Interval(max(low, 0.0), min(high, 1.0), "wilson")


@cache
def clopper_pearson(successes: int, n: int) -> tuple[float, float]:
    """Exact interval of a proportion (Clopper and Pearson 1934)."""
    found = scipy.stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)


def fisher_exact(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Exact two-sided p value (Fisher 1935) of two shares, each given as how many of how many."""
    table = [[some, total - some] for some, total in (first, second)]
    return float(scipy.stats.fisher_exact(table).pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def mcnemar_exact(first_q: np.ndarray, second_q: np.ndarray) -> float:
    """Exact two-sided McNemar p value of two 0/1 score vectors on the same questions."""
    better, worse = int(np.sum(first_q > second_q)), int(np.sum(first_q < second_q))
    return min(1.0, 2 * float(scipy.special.bdtr(min(better, worse), better + worse, 0.5)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p values (Holm 1979); None stays None and is not counted as a test."""
    known = np.array([p for p in p_values if p is not None])
    order = np.argsort(known, kind="stable")
    known[order] = np.minimum(np.maximum.accumulate(known[order] * np.arange(len(known), 0, -1)), 1.0)
    adjusted = iter(known.tolist())
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
    return np.concatenate([drawn_rk @ rows_kj for drawn_rk in resampled_counts(count_k)])


def resampled_counts(count_k: np.ndarray, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """How often each kind of rows is drawn when as many as there are are drawn with replacement, ``(r, k)`` a block."""
    rng, share_k = np.random.default_rng([0, 0]), count_k / count_k.sum()
    yield from (rng.multinomial(count_k.sum(), share_k, size=size) for size in _blocks(resamples, len(count_k)))


def _blocks(total: int, width: int) -> Iterator[int]:
    """Sizes of blocks that together have ``total`` rows of ``width`` numbers."""
    size = max(1, min(total, _ENTRIES // max(width, 1)))
    yield from (min(size, total - start) for start in range(0, total, size))


@dataclass(frozen=True)
class Sample:
    """Scored items of one model, or a weighted sum of models, as sums by cluster and term.

    What is estimated is the mean, or a weighted sum of the means of several terms that each have items of their own (a
    benchmark's total over its parts).
    """

    sums_ct: np.ndarray  # of the items' values
    counts_ct: np.ndarray  # of items
    weights_t: np.ndarray  # of the terms' means
    missing: int = 0  # terms without any item

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

    @classmethod
    def joined(cls, samples: Sequence["Sample"]) -> "Sample":
        """The mean of several columns' values; no cluster is taken to be in two of them."""
        sums_ct, counts_ct = (scipy.linalg.block_diag(*(getattr(one, name) for one in samples))
                              for name in ("sums_ct", "counts_ct"))  # fmt: skip
        weights_t = np.concatenate([one.weights_t for one in samples]) / len(samples)
        return cls(sums_ct, counts_ct, weights_t, sum(one.missing for one in samples))

    def estimate(self) -> Estimated:
        """Value, interval and standard error.

        Wilson's interval for a proportion of independent items; otherwise percentiles of a bootstrap over clusters, all
        terms from the same draws, those left out that miss a term. The percentiles are widened as t is wider than the
        normal distribution (Hesterberg 2015, "expanded percentile"), which few clusters need: simulated with 30, 64 and
        120 clusters of four, the interval holds the truth in 93 to 96 of 100 cases, a plain one in 92 to 95. Where all
        clusters are alike, resampling shows no spread, and Wilson on the number of clusters is given instead.
        """
        if self.value is None:
            return Estimated(None, Interval(None, None, "none"), None)
        share = min(max(self.value / self.most, 0.0), 1.0)  # below 0: less than chance, of scores above it
        replicates_r = np.array([]) if self.proportion else self._replicates(self.sums_ct)
        if len(replicates_r) < 2 or np.ptp(replicates_r) < 1e-12 * self.most:
            found = wilson(share * self.clusters, self.clusters)
            low, high = (None if end is None else end * self.most for end in (found.low, found.high))
            error = self.most * float(np.sqrt(share * (1 - share) / self.clusters)) if self.proportion else 0.0
            low = None if low is None else min(low, self.value)
            return Estimated(self.value, Interval(low, high, found.method), error)
        tail = scipy.special.ndtr(scipy.special.stdtrit(self.clusters - 1, (1 - CONFIDENCE) / 2) * self._few)
        low, high = np.quantile(replicates_r, [tail, 1 - tail]).tolist()
        interval = Interval(min(low, self.value), max(high, self.value), "bootstrap")
        return Estimated(self.value, interval, float(replicates_r.std(ddof=1)) * self._few)

    def difference_error(self) -> float | None:
        """Standard error of a mean difference: standard deviation of its replicates, without bias for few clusters.

        Where resampling shows no spread, one cluster of +1 and one of -1 are added, the adjustment of Bonett and Price
        (2012) for paired proportions.
        """
        if self.clusters < 2:
            return None
        skew_c = np.sort(self._share_c) - np.sort(-self._share_c)
        # The opposite for opposite values, so that turning a pair round draws the same resamples.
        direction = float(np.sign(skew_c[np.flatnonzero(skew_c)[:1]]).sum()) or 1.0
        replicates_r = self._replicates(direction * self.sums_ct)
        deviation = float(replicates_r.std(ddof=1)) * self._few if len(replicates_r) > 1 else 0.0
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

    @property
    def _few(self) -> float:
        """By how much the deviation of a mean of resamples is too small."""
        return float(np.sqrt(self.clusters / (self.clusters - 1)))

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


def paired(
    a: Sample, b: Sample, noises: tuple[Noise, Noise] = (UNKNOWN, UNKNOWN), runs: tuple[int, int] = (1, 1)
) -> Difference:
    """``a`` minus ``b`` on the same items, as `difference` tests it.

    Against the sample of questions alone: exact McNemar for shares of independent items, otherwise a permutation of the
    two within whole clusters; the standard error is a paired cluster bootstrap's.
    """
    change = Sample.combined([a, b], [1.0, -1.0])
    exact = a.proportion and b.proportion
    p = mcnemar_exact(a.sums_ct, b.sums_ct) if exact else change.sign_flip_p()
    return difference(change.value, change.difference_error(), change.clusters, p, noises, runs, change.most)


def resolves(error: float | None, most: float = 1.0) -> float | None:
    """The smallest true difference that is found with ``POWER`` at ``ALPHA``, from its standard error."""
    spreads = scipy.stats.norm.ppf(1 - ALPHA / 2) + scipy.stats.norm.ppf(POWER)
    return None if error is None else min(float(spreads) * error, most)


def detectable(parts: Sequence[Part], tests: int = 1) -> float | None:
    """The smallest true effect that is found with ``POWER`` at ``ALPHA`` over ``tests``: at Holm's first step.

    From the noncentral t distribution that the effect over its estimated error has, with the degrees of freedom of
    Satterthwaite (1946), beyond the critical value of `_cochran_cox`.

    Args:
        tests: how many are corrected together.
    """
    squared = sum(variance for variance, _ in parts)
    if not squared:
        return None
    df, shares_h = satterthwaite(parts), (np.arange(_SHARES) + 0.5) / _SHARES
    # What must be exceeded, in true errors: the estimated error is a root of chi squared.
    bars_h = _critical(ALPHA / tests, parts) * np.sqrt(2 / df * scipy.special.gammaincinv(df / 2, shares_h))

    def missed(away: float) -> float:
        return float(scipy.special.ndtr(bars_h - away).mean()) - (1 - POWER)

    return float(scipy.optimize.brentq(missed, 0.0, float(bars_h[-1]) + 9.0)) * squared**0.5


def satterthwaite(parts: Sequence[Part]) -> float:
    """Degrees of freedom of a sum of variances (Satterthwaite 1946, Welch 1947)."""
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / df for variance, df in parts)
    return total**2 / spread if spread else min(df for _, df in parts)


def difference(
    value: float | None,
    error_questions: float | None,
    num_clusters: int,
    p_questions: float | None,
    noises: tuple[Noise, Noise] = (UNKNOWN, UNKNOWN),
    runs: tuple[float, float] = (1, 1),
    most: float = 1.0,
) -> Difference:
    """Test a difference of two arms' mean scores against question sampling and training noise together.

    error^2 = error_questions^2 + variance of a / runs_a + variance of b / runs_b, where each arm has the variance of
    its own runs: one pooled over all arms calls a difference real too often where arms differ in noise. The part from
    runs has the degrees of freedom of Welch (1947); with those of the part from questions, clusters - 1, it makes the
    test of `_cochran_cox`. Satterthwaite's for both parts together find too much in two or three runs. The part of
    training noise that differs from question to question is in both, so the error is up to sqrt(2) too wide and the
    test conservative, most so where runs hardly differ. Without an estimate of noise, ``p`` is ``p_questions`` and the
    interval covers questions only.

    Args:
        value: the difference of means over all runs.
        error_questions: from `Sample.difference_error`.
        num_clusters: clusters of questions in the sample.
        p_questions: McNemar's or the permutation test's p value; None: that of the interval.
        noises: run-to-run noise of this score in each arm; equal ones are taken to be one estimate for both.
        runs: number of runs averaged in each arm.
        most: the largest difference that there can be.
    """
    if value is None or error_questions is None or num_clusters < 2:
        return Difference(value, p_questions, p_questions)
    each = [(one.variance / count, float(one.df)) for one, count in zip(noises, runs, strict=True)
            if one.variance is not None]  # fmt: skip
    parts: list[Part] = [(error_questions**2, num_clusters - 1.0)]
    if each:
        df = float(noises[0].df) if noises[0] == noises[1] else satterthwaite(each)
        parts.insert(0, (sum(variance for variance, _ in each), df))
    low, high, p = _cochran_cox(value, parts, most)
    error = sum(variance for variance, _ in parts) ** 0.5
    tested = p if each or p_questions is None else p_questions
    return Difference(value, p_questions, tested, error, error_questions, parts[0][1], low, high, bool(each),
                      tuple(parts))  # fmt: skip


def noise_band(noise: Noise, runs: tuple[int, int]) -> float | None:
    """Half-width of the range that holds ``CONFIDENCE`` of the differences between two sets of runs of one arm."""
    if noise.variance is None:
        return None
    error = np.sqrt(noise.variance * (1 / runs[0] + 1 / runs[1]))
    return float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, noise.df) * error)


def contrast(values_s: Sequence[float], error_questions: float | None, num_clusters: int, bound: float) -> Difference:
    """Test a weighted sum of arms' scores that was taken at each seed apart.

    error^2 = error_questions^2 + variance of the sum between seeds / seeds, tested by `_cochran_cox` with clusters - 1
    and seeds - 1 degrees of freedom. Taken seed by seed, the sum is free of what a seed does to arms alike, whatever
    these share: a language model, an encoder, or all of their weights. It borrows no noise from other arms, which may
    have more or less of it. Simulated without any effect, 3 to 12 seeds, noise of seeds 1 to 20 times that of
    questions: 3 to 6 of 100 tests find one. All of the error with seeds - 1 degrees of freedom finds 1 of 100 at 3
    seeds, Satterthwaite's finds 8.

    Args:
        values_s: the sum at every seed.
        error_questions: standard error of its mean from the sample of questions; None if unknown.
        num_clusters: clusters of questions in the sample.
        bound: the largest value that the sum can have.
    """
    value, seeds = float(np.mean(values_s)), len(values_s)
    if error_questions is None or seeds < 2:
        return Difference(value)
    parts = (float(np.var(values_s, ddof=1)) / seeds, seeds - 1.0), (error_questions**2, num_clusters - 1.0)
    low, high, p = _cochran_cox(value, parts, bound)
    error = sum(variance for variance, _ in parts) ** 0.5
    return Difference(value, None, p, error, error_questions, seeds - 1, low, high, True, parts)


def _critical(p: float, parts: Sequence[Part]) -> float:
    """What an effect over its error must exceed: the critical values of the parts, weighted by their variances."""
    weighted = sum(variance * -float(scipy.special.stdtrit(df, p / 2)) for variance, df in parts)
    return weighted / sum(variance for variance, _ in parts)


def _cochran_cox(value: float, parts: Sequence[Part], most: float) -> tuple[float, float, float]:
    """Ends of the interval within what there can be, and the two-sided p value, of an error with several parts.

    The test of Cochran and Cox (Experimental Designs, 1950, section 4.14): the critical value of t at the degrees of
    freedom of each part, weighted by the parts' variances. ``p`` is the level at which the value is just significant.
    """
    parts = [part for part in parts if part[0] > 0]
    if not parts:
        return value, value, float(value == 0)
    error = sum(variance for variance, _ in parts) ** 0.5
    half, size = _critical(1 - CONFIDENCE, parts) * error, abs(value) / error
    alone = [max(2 * float(scipy.special.stdtr(df, -size)), 1e-300) for _, df in parts]
    low, high = np.log(min(alone)), np.log(max(alone))

    def beyond(log_p: float) -> float:
        return _critical(float(np.exp(log_p)), parts) - size

    if beyond(high) >= 0:  # up to rounding, where one part is next to nothing
        low = high
    elif beyond(low) > 0:
        low = scipy.optimize.brentq(beyond, low, high)
    return max(value - half, -most), min(value + half, most), float(np.exp(low))
