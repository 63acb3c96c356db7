"""Intervals and tests for scores on shared, clustered questions.

Suffixes: ``q`` questions, ``c`` clusters (questions that share an image or a pair), ``s`` series (one per model or
run), ``r`` bootstrap replicates. Where a number cannot be computed the answer is ``None``, never NaN.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy  # loads scipy.stats when that is first used

CONFIDENCE = 0.95
ALPHA = 0.05
RESAMPLES = 2000
PERMUTATIONS = 9999
_BLOCK = 250


@dataclass(frozen=True)
class Interval:
    """An interval of confidence ``CONFIDENCE`` and the way it was made: ``wilson``, ``bootstrap`` or ``none``."""

    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True)
class Noise:
    """Variance of a score between runs of one configuration, pooled over configurations.

    Attributes:
        variance: pooled variance; None without any configuration that ran twice.
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
    """A difference of two means with its test.

    Attributes:
        value: mean of the first minus mean of the second.
        low, high: interval of confidence ``CONFIDENCE`` from ``error`` and ``df``.
        error: standard error, of questions and (with ``noise_included``) of runs.
        error_questions: standard error from the sample of questions alone.
        df: degrees of freedom of the t distribution.
        p: two-sided p value of ``value / error``; without noise, ``p_questions``.
        p_questions: two-sided p value against the sample of questions alone.
        noise_included: whether ``error`` holds run-to-run noise.
    """

    value: float | None
    low: float | None
    high: float | None
    error: float | None
    error_questions: float | None
    df: float | None
    p: float | None
    p_questions: float | None
    noise_included: bool


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


def run_noise(configurations: Sequence[Sequence[float]]) -> Noise:
    """Pooled variance of scores between runs, from one sequence of run scores per configuration."""
    repeated = [np.asarray(runs, dtype=float) for runs in configurations if len(runs) > 1]
    df = sum(len(runs) - 1 for runs in repeated)
    if df == 0:
        return UNKNOWN
    variance = sum(float(np.sum((runs - runs.mean()) ** 2)) for runs in repeated) / df
    return Noise(variance, df, sum(len(runs) for runs in repeated))


class Sample:
    """A fixed sample of clustered questions, resampled by cluster and in the same way for every series.

    What is estimated is the mean, or a weighted sum of the means of several terms that each have questions of their
    own (a benchmark's total over its parts). Equal samples give equal numbers.

    Args:
        labels_q: the cluster that each question belongs to.
        term_q: the term that each question counts in; by default there is one.
        weights: of the terms' means.
    """

    def __init__(
        self, labels_q: Sequence[str], term_q: np.ndarray | None = None, weights: Sequence[float] = (1.0,)
    ) -> None:
        self.n = len(labels_q)
        numbers: dict[str, int] = {}
        self._cluster_q = np.array([numbers.setdefault(label, len(numbers)) for label in labels_q], dtype=np.int64)
        self.num_clusters = len(numbers)
        self._terms = [(1.0, np.arange(self.n))]
        if len(weights) > 1 and term_q is not None:
            own = [(weight, np.flatnonzero(term_q == number)) for number, weight in enumerate(weights)]
            self._terms = [(weight, places) for weight, places in own if len(places)]
        self._sizes_tc = [np.bincount(self._cluster_q[q], minlength=self.num_clusters) for _, q in self._terms]

    @cached_property
    def single(self) -> bool:
        """Whether every cluster holds one question, and all count alike."""
        return self.n == self.num_clusters and len(self._terms) == 1

    def mean(self, scores_q: np.ndarray) -> float:
        """What is estimated, of one series."""
        if len(self._terms) == 1:
            return float(scores_q.mean())
        return float(sum(weight * scores_q[places].mean() for weight, places in self._terms))

    def sums(self, scores_qs: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Sums of some questions' scores by cluster, shape ``(clusters, series)``."""
        sums_cs = np.zeros((self.num_clusters, scores_qs.shape[1]))
        np.add.at(sums_cs, self._cluster_q[places], scores_qs[places])
        return sums_cs

    def replicates(self, scores_qs: np.ndarray) -> np.ndarray:
        """Estimates under cluster bootstrap, shape ``(RESAMPLES, series)``; all series share the same draws. A draw
        that misses a term leaves it out."""
        sums_tcs = [self.sums(scores_qs, places) for _, places in self._terms]
        weights = [weight for weight, _ in self._terms]
        blocks = []
        for counts_rc in self._draws():
            if len(weights) == 1:
                blocks.append(counts_rc @ sums_tcs[0] / (counts_rc @ self._sizes_tc[0])[:, None])
                continue
            drawn_rt = np.stack([counts_rc @ size_c for size_c in self._sizes_tc], axis=1)
            means_trs = [
                counts_rc @ sums / np.maximum(size_r, 1)[:, None]
                for sums, size_r in zip(sums_tcs, drawn_rt.T, strict=True)
            ]
            share_rt = np.where(drawn_rt > 0, weights, 0.0)
            share_rt *= sum(weights) / np.maximum(share_rt.sum(axis=1, keepdims=True), 1e-12)
            blocks.append(np.einsum("rt,trs->rs", share_rt, np.stack(means_trs)))
        return np.concatenate(blocks)

    def interval(self, scores_q: np.ndarray, replicates_r: np.ndarray) -> Interval:
        """Interval of the mean score.

        Wilson when each cluster is one question with a 0/1 score. Otherwise the percentile interval of the
        replicates; where all clusters score the same, resampling shows no spread and Wilson on the number of clusters
        is given instead.
        """
        if self.n == 0:
            return Interval(None, None, "none")
        if self.single and is_binary(scores_q):
            return wilson(float(scores_q.sum()), self.n)
        if np.ptp(replicates_r) < 1e-12:
            return wilson(self.mean(scores_q) * self.num_clusters, self.num_clusters)
        low, high = np.quantile(replicates_r, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Interval(float(low), float(high), "bootstrap")

    def error(self, differences_q: np.ndarray, replicates_r: np.ndarray) -> float | None:
        """Standard error of a mean difference: standard deviation of its replicates.

        Where all clusters differ by the same amount, one cluster of +1 and one of -1 are added, the adjustment of
        Bonett and Price (2012) for paired proportions.
        """
        if self.num_clusters < 2:
            return None
        deviation = float(replicates_r.std(ddof=1))
        if deviation > 1e-12:
            return deviation
        n = self.num_clusters + 2
        mean = self.mean(differences_q) * self.num_clusters / n
        square = (self.mean(differences_q**2) * self.num_clusters + 2) / n
        return float(np.sqrt((square - mean**2) / n))

    def sign_flip_p(self, differences_qs: np.ndarray) -> list[float | None]:
        """Two-sided p values of a paired permutation test that swaps the two arms within whole clusters.

        Monte Carlo with ``PERMUTATIONS`` draws, the observed one counted (Phipson and Smyth 2010).
        """
        if self.num_clusters < 2:
            return [None] * differences_qs.shape[1]
        if len(self._terms) == 1:
            sums_cs = self.sums(differences_qs, self._terms[0][1])
        else:
            shares = [self.sums(differences_qs * (w / len(places)), places) for w, places in self._terms]
            sums_cs = self.n * np.sum(shares, axis=0)  # of the size of the questions' own differences
        observed_s = np.abs(sums_cs.sum(axis=0)) - 1e-9
        rng = np.random.default_rng([0, 1])
        extreme_s = np.zeros(sums_cs.shape[1])
        for start in range(0, PERMUTATIONS, _BLOCK):
            size = (min(_BLOCK, PERMUTATIONS - start), self.num_clusters)
            signs_rc = rng.integers(0, 2, size=size, dtype=np.int8) * 2.0 - 1.0
            extreme_s += (np.abs(signs_rc @ sums_cs) >= observed_s).sum(axis=0)
        return ((extreme_s + 1) / (PERMUTATIONS + 1)).tolist()

    def _draws(self) -> Iterator[np.ndarray]:
        rng = np.random.default_rng([0, 0])
        for start in range(0, RESAMPLES, _BLOCK):
            rows = min(_BLOCK, RESAMPLES - start)
            drawn_rc = rng.integers(0, self.num_clusters, size=(rows, self.num_clusters))
            drawn_rc += np.arange(rows)[:, None] * self.num_clusters
            counts = np.bincount(drawn_rc.ravel(), minlength=rows * self.num_clusters)
            yield counts.reshape(rows, self.num_clusters).astype(float)


def is_binary(scores_q: np.ndarray) -> bool:
    """Whether every score is 0 or 1."""
    return bool(np.isin(scores_q, (0.0, 1.0)).all())


def difference(
    value: float | None,
    error_questions: float | None,
    num_clusters: int,
    p_questions: float | None,
    noise: Noise = UNKNOWN,
    runs: tuple[int, int] = (1, 1),
) -> Difference:
    """Test a difference of two arms' mean scores against question sampling and training noise together.

    error^2 = error_questions^2 + noise variance x (1/runs_a + 1/runs_b), a two-sided t test with the degrees of
    freedom of Welch (1947) and Satterthwaite (1946): clusters - 1 for the first term, the noise's own for the second.
    The part of training noise that differs from question to question is in both terms, so the error is up to
    sqrt(2) too wide and the test conservative, most so where runs hardly differ. Without an estimate of noise, ``p`` is
    ``p_questions`` and the interval covers questions only.

    Args:
        value: the difference of means over all runs.
        error_questions: from ``Sample.error``.
        num_clusters: clusters of questions in the sample.
        p_questions: McNemar's or the permutation test's p value.
        noise: run-to-run noise of this score.
        runs: number of runs averaged in each arm.
    """
    if value is None or error_questions is None or num_clusters < 2:
        return Difference(value, None, None, None, None, None, None, p_questions, False)
    from_questions, from_runs = error_questions**2, 0.0
    if noise.variance is not None:
        from_runs = noise.variance * (1 / runs[0] + 1 / runs[1])
    squared = from_questions + from_runs
    df = squared**2 / (from_questions**2 / (num_clusters - 1) + (from_runs**2 / noise.df if noise.df else 0.0))
    error = float(np.sqrt(squared))
    half = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, df)) * error
    p = p_questions if noise.variance is None else float(2 * scipy.stats.t.sf(abs(value) / error, df))
    low, high = max(value - half, -1.0), min(value + half, 1.0)
    return Difference(value, low, high, error, error_questions, df, p, p_questions, noise.variance is not None)


def noise_band(noise: Noise, runs: tuple[int, int]) -> float | None:
    """Half-width of the range that holds ``CONFIDENCE`` of the differences between two sets of runs of one arm."""
    if noise.variance is None:
        return None
    return float(
        scipy.stats.t.ppf((1 + CONFIDENCE) / 2, noise.df) * np.sqrt(noise.variance * (1 / runs[0] + 1 / runs[1]))
    )
