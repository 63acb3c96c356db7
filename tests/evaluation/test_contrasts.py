"""Contrasts of arms: the noise of a blocked design, the interval, and how often either is wrong."""

import numpy as np
import pytest
from scipy import stats

from blindspot.evaluation.contrasts import blocked_noise, contrast
from blindspot.evaluation.statistics import Noise


def test_what_a_seed_does_to_all_arms_is_no_noise() -> None:
    arm, seed = np.array([0.2, 0.5, 0.9]), np.array([0.0, 0.05, -0.1])
    noise = blocked_noise((arm[:, None] + seed).tolist())
    assert noise.variance == pytest.approx(0, abs=1e-12)
    assert noise.df == 4


def test_noise_is_the_residual_mean_square_of_least_squares() -> None:
    table = np.random.default_rng(0).normal(size=(5, 3))
    design = np.zeros((15, 8))
    for arm in range(5):
        for seed in range(3):
            design[3 * arm + seed, [arm, 5 + seed]] = 1
    fitted = design @ np.linalg.lstsq(design, table.ravel(), rcond=None)[0]
    assert blocked_noise(table.tolist()).variance == pytest.approx(np.sum((table.ravel() - fitted) ** 2) / 8)


def test_one_seed_leaves_noise_unknown() -> None:
    noise = blocked_noise([[0.4], [0.6]])
    assert noise == Noise(None, 0, 0)
    test = contrast(0.2, 0.02, 100, noise, [1, -1], seeds=1)
    assert (test.low, test.p) == (None, None)


def test_interval_by_hand() -> None:
    test = contrast(0.3, 0.03, 101, Noise(0.0036, 20, 33), [1, -1], seeds=3)
    squared = 0.0009 + 0.0036 * 2 / 3
    df = squared**2 / (0.0009**2 / 100 + 0.0024**2 / 20)
    half = stats.t.ppf(0.975, df) * squared**0.5
    assert (test.low, test.high) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))
    assert test.p == pytest.approx(2 * stats.t.sf(0.3 / squared**0.5, df))


def test_intervals_stay_within_what_a_contrast_can_be() -> None:
    test = contrast(0.9, 0.2, 50, Noise(0.04, 10, 12), [1, -1], seeds=2)
    assert test.high == 1.0
    twice = contrast(1.2, 0.2, 50, Noise(0.04, 10, 12), [1, -1, -1, 1], seeds=2)
    assert twice.high is not None and 1.2 < twice.high <= 2


def test_ninety_five_of_a_hundred_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(600):
        table = rng.normal(0, 0.06, size=(6, 3)) + rng.normal(0, 0.2, size=(1, 3)) + np.linspace(0.3, 0.8, 6)[:, None]
        value = float(table[0].mean() - table[1].mean())
        test = contrast(value, 1e-6, 500, blocked_noise(table.tolist()), [1, -1], seeds=3)
        assert test.low is not None and test.high is not None
        held += test.low <= -0.1 <= test.high
    assert 0.92 < held / 600 < 0.98
