"""Shares of right answers with intervals, as rows of a table show them, and intervals of other numbers."""

import numpy as np

from blindspot.diagnostics.rows import Against, Value
from blindspot.evaluation.statistics import CONFIDENCE, Sample, difference, mcnemar_exact, wilson


def share(right_b: np.ndarray) -> Value:
    """How often something is true, with its Wilson interval; None of nothing."""
    count = len(right_b)
    interval = wilson(float(right_b.sum()), count)
    value = float(right_b.mean()) if count else None
    return {"value": value, "low": interval.low, "high": interval.high, "n": count}


def one_by_one(count: int) -> Sample:
    """A sample of so many stimuli, each drawn by itself."""
    return Sample([str(number) for number in range(count)])


def bounds(drawn_rs: np.ndarray) -> np.ndarray:
    """Lower and upper ends of percentile intervals, shape (2, series), of numbers under a bootstrap."""
    return np.quantile(drawn_rs, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2), axis=0)


def against(first_b: np.ndarray, second_b: np.ndarray) -> Against:
    """Paired difference of two shares of the same stimuli, its interval from a bootstrap's error, and McNemar's p."""
    differences_b = first_b.astype(float) - second_b
    sample = one_by_one(len(differences_b))
    error = sample.error(differences_b, sample.replicates(differences_b[:, None])[:, 0])
    p = mcnemar_exact(first_b, second_b)
    found = difference(float(differences_b.mean()), error, sample.num_clusters, p)
    return {"difference": found.value, "difference_low": found.low, "difference_high": found.high, "p": found.p}
