"""Shares of right answers with intervals, as rows of a table show them."""

from typing import Any

import numpy as np

from blindspot.evaluation.statistics import Noise, Sample, difference, mcnemar_exact, wilson


def share(right_b: np.ndarray) -> dict[str, Any]:
    """How often something is true, with its Wilson interval; None of nothing."""
    count = len(right_b)
    interval = wilson(float(right_b.sum()), count)
    value = float(right_b.mean()) if count else None
    return {"value": value, "low": interval.low, "high": interval.high, "n": count}


def against(first_b: np.ndarray, second_b: np.ndarray) -> dict[str, Any]:
    """Paired difference of two shares of the same stimuli, its interval from a bootstrap's error, and McNemar's p."""
    differences_b = first_b.astype(float) - second_b
    sample = Sample([str(number) for number in range(len(differences_b))])
    error = sample.error(differences_b, sample.replicates(differences_b[:, None])[:, 0])
    p = mcnemar_exact(first_b, second_b)
    found = difference(float(differences_b.mean()), error, sample.num_clusters, p, Noise(None, 0, 0), (1, 1))
    return {"difference": found.value, "difference_low": found.low, "difference_high": found.high, "p": found.p}
