"""Shares of right answers with intervals, as rows of a table show them, and intervals of other numbers."""

import numpy as np

from blindspot.diagnostics.rows import Against, Value
from blindspot.evaluation.statistics import CONFIDENCE, Sample, paired, resampled_sums, wilson


def share(right_b: np.ndarray) -> Value:
    """How often something is true, with its Wilson interval; None of nothing."""
    count = len(right_b)
    interval = wilson(float(right_b.sum()), count)
    value = float(right_b.mean()) if count else None
    return {"value": value, "low": interval.low, "high": interval.high, "n": count}


def resampled_means(values_bs: np.ndarray) -> np.ndarray:
    """Means of several series under a bootstrap of their stimuli, shape (replicates, series)."""
    return resampled_sums(values_bs) / len(values_bs)


def bounds(drawn_rs: np.ndarray) -> np.ndarray:
    """Lower and upper ends of percentile intervals, shape (2, series), of numbers under a bootstrap."""
    return np.quantile(drawn_rs, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2), axis=0)


def against(first_b: np.ndarray, second_b: np.ndarray) -> Against:
    """Paired difference of two shares of the same stimuli, its interval from a bootstrap's error, and McNemar's p."""
    found = paired(Sample.of(first_b), Sample.of(second_b))
    return {"difference": found.value, "difference_low": found.low, "difference_high": found.high, "p": found.p}
