"""Weighted sums of arms' scores, tested against question sampling and training noise together.

Suffixes: ``a`` arms, ``s`` seeds, ``u`` units of questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from blindspot.evaluation.statistics import CONFIDENCE, Noise


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of means with its test.

    Attributes:
        value: the sum.
        low, high: interval of confidence ``CONFIDENCE``; None where noise is unknown.
        p: two-sided p value of the sum being zero; None where noise is unknown.
        df: degrees of freedom.
        error: standard error.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    df: float | None
    error: float | None


def blocked_noise(scores_as: Sequence[Sequence[float]]) -> Noise:
    """Variance of an arm's score between seeds, after what a seed does to all arms alike is taken out.

    Arms of one seed share its language model, so a good seed lifts them together. The residual of the additive model
    arm + seed is what a contrast of arms is exposed to; it has (arms - 1)(seeds - 1) degrees of freedom.

    Args:
        scores_as: score of every arm at every seed.
    """
    table = np.asarray(scores_as, dtype=float)
    arms, seeds = table.shape
    df = (arms - 1) * (seeds - 1)
    if df == 0:
        return Noise(None, 0, 0)
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    return Noise(float(np.sum(residual**2)) / df, df, arms * seeds)


def contrast(
    value: float, error_questions: float | None, num_clusters: int, noise: Noise, weights: Sequence[float], seeds: int
) -> Contrast:
    """Test a weighted sum of arms' means over seeds.

    error^2 = error_questions^2 + noise variance x sum of weights^2 / seeds; a two-sided t test with the degrees of
    freedom of Welch (1947) and Satterthwaite (1946).

    Args:
        value: sum of weight x mean score.
        error_questions: standard error of it from the sample of questions.
        num_clusters: clusters in that sample.
        noise: from `blocked_noise`.
        weights: of the arms.
        seeds: that each arm was trained from.
    """
    if error_questions is None or noise.variance is None or num_clusters < 2:
        return Contrast(value, None, None, None, None, None)
    from_questions = error_questions**2
    from_runs = noise.variance * float(np.sum(np.square(weights))) / seeds
    squared = from_questions + from_runs
    if squared == 0:
        return Contrast(value, None, None, None, None, None)
    df = squared**2 / (from_questions**2 / (num_clusters - 1) + from_runs**2 / noise.df)
    error = float(np.sqrt(squared))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, df)) * error
    bound = float(np.sum(np.clip(weights, 0, None)))
    p = float(2 * stats.t.sf(abs(value) / error, df))
    return Contrast(value, max(value - half, -bound), min(value + half, bound), p, df, error)
