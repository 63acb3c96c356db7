"""Contrasts of arms, taken seed by seed: the interval, and how often it is wrong."""

import numpy as np
import pytest
from scipy import stats

from blindspot.evaluation.contrasts import Contrast, contrast


def test_interval_by_hand() -> None:
    test = contrast([0.1, 0.3, 0.5], 0.03, 1)
    squared = 0.0009 + 0.04 / 3
    half = stats.t.ppf(0.975, 2) * squared**0.5
    assert (test.low, test.high) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))
    assert test.p == pytest.approx(2 * stats.t.sf(0.3 / squared**0.5, 2))


def test_without_an_error_of_questions_it_is_the_paired_t_test() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 5))
    test, known = contrast((first - second).tolist(), 0.0, 100), stats.ttest_rel(first, second)
    interval = known.confidence_interval(0.95)
    assert (test.value, test.p, test.df) == (pytest.approx((first - second).mean()), pytest.approx(known.pvalue), 4)
    assert (test.low, test.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_what_a_seed_does_to_all_arms_is_no_noise() -> None:
    seed = np.array([0.0, 0.05, -0.1])
    arms = np.array([0.2, 0.5, 0.9])[:, None] + seed
    test = contrast((arms[2] - arms[0]).tolist(), 1e-6, 1)
    assert (test.low, test.high) == (pytest.approx(0.7, abs=1e-5), pytest.approx(0.7, abs=1e-5))


@pytest.mark.parametrize(("values", "error"), [([0.2], 0.02), ([0.2, 0.3], None)])
def test_one_seed_or_one_cluster_leaves_noise_unknown(values: list[float], error: float | None) -> None:
    assert contrast(values, error, 1) == Contrast(float(np.mean(values)), None, None, None, None)


def test_intervals_stay_within_what_a_contrast_can_be() -> None:
    assert contrast([0.8, 1.0], 0.2, 1).high == 1.0
    assert contrast([1.1, 1.3], 0.2, 2).high == 2.0


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("from_questions", [0.0, 0.01, 0.05])
def test_at_least_ninety_five_of_a_hundred_intervals_hold_the_truth(seeds: int, from_questions: float) -> None:
    """One arm has noise, the other none; both share what their seed does. Pooled noise would be too small for them."""
    rng = np.random.default_rng(1)
    noisy, shared = rng.normal(0, 0.06, size=(2000, seeds)), rng.normal(0, 0.2, size=(2000, seeds))
    questions = rng.normal(0, from_questions, size=(2000, 1)) if from_questions else 0.0
    values = (0.4 + noisy + shared) - (0.5 + shared) + questions
    tests = [contrast(row.tolist(), from_questions, 100) for row in values]
    held = np.mean([test.low <= -0.1 <= test.high for test in tests if test.low is not None and test.high is not None])
    assert held > 0.94
    if not from_questions:
        assert held < 0.96
