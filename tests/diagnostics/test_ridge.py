"""Ridge regression against a direct solution, and the strength that it chooses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindspot.diagnostics.probes.fits import STRENGTHS, ridge


def folds(rows: int) -> np.ndarray:
    return np.arange(rows) % 5


def direct(x_nd: np.ndarray, y_nk: np.ndarray, strength: float, asked_md: np.ndarray) -> np.ndarray:
    """The normal equations of the augmented least-squares problem, solved by lstsq."""
    mean, spread = x_nd.mean(axis=0), x_nd.std(axis=0)
    z_nd = (x_nd - mean) / spread
    unit = np.square(z_nd).sum() / min(x_nd.shape[0], np.linalg.matrix_rank(z_nd))
    rows = np.vstack([z_nd, np.sqrt(strength * unit) * np.eye(x_nd.shape[1])])
    wanted = np.vstack([y_nk - y_nk.mean(axis=0), np.zeros((x_nd.shape[1], y_nk.shape[1]))])
    weight_dk = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return (asked_md - mean) / spread @ weight_dk + y_nk.mean(axis=0)


@pytest.mark.parametrize("width", [7, 60])
def test_predictions_are_those_of_a_direct_solution(width: int) -> None:
    """With fewer channels than rows, and with more."""
    rng = np.random.default_rng(0)
    x_nd = rng.normal(size=(40, width)) * rng.uniform(0.1, 9, width) + rng.normal(size=width)
    targets = [x_nd[:, :2] + rng.normal(size=(40, 2)), rng.normal(size=(40, 3))]
    asked_md = rng.normal(size=(9, width))
    for fit, y_nk in zip(ridge(x_nd, targets, folds(40)), targets, strict=True):
        np.testing.assert_allclose(fit(asked_md), direct(x_nd, y_nk, fit.strength, asked_md), atol=1e-6)


def test_the_strength_is_the_one_that_predicts_left_out_folds_best() -> None:
    rng = np.random.default_rng(1)
    x_nd = rng.normal(size=(50, 8))
    y_nk = x_nd[:, :1] + rng.normal(size=(50, 1))
    errors = []
    for strength in STRENGTHS:
        error = 0.0
        for fold in range(5):
            rest = folds(50) != fold
            x_fold = (x_nd - x_nd.mean(axis=0)) / x_nd.std(axis=0)
            z_nd = x_fold[rest] - x_fold[rest].mean(axis=0)
            gram = z_nd.T @ z_nd
            weight = np.linalg.solve(gram + strength * np.trace(gram) / 8 * np.eye(8), z_nd.T @ y_nk[rest])
            told = (x_fold[~rest] - x_fold[rest].mean(axis=0)) @ weight + y_nk[rest].mean(axis=0)
            error += float(np.square(told - y_nk[~rest]).sum())
        errors.append(error)
    assert ridge(x_nd, [y_nk], folds(50))[0].strength == STRENGTHS[int(np.argmin(errors))]


def test_noise_is_shrunk_and_a_law_is_not() -> None:
    rng = np.random.default_rng(2)
    x_nd = rng.normal(size=(60, 20))
    law, noise = ridge(x_nd, [x_nd[:, :1] * 3, rng.normal(size=(60, 1))], folds(60))
    assert law.strength == STRENGTHS[0] and noise.strength > 1
    assert np.abs(law.weight_dk[0, 0] - 3) < 1e-3
    assert np.abs(noise(x_nd) - noise(x_nd).mean()).max() < 0.5


def test_channels_that_only_round_are_left_out() -> None:
    """A position-free state that differs by rounding must not be blown up into a signal."""
    rng = np.random.default_rng(3)
    y_nk = rng.normal(size=(40, 1))
    x_nd = np.full((40, 3), 2.0) + 1e-7 * y_nk
    x_nd[:, 2] = 5
    (fit,) = ridge(x_nd, [y_nk], folds(40))
    np.testing.assert_allclose(fit(x_nd), y_nk.mean(), atol=1e-12)


@settings(max_examples=25)
@given(seed=st.integers(0, 999), width=st.sampled_from([3, 30]))
def test_units_and_offsets_of_channels_change_nothing(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    x_nd, y_nk = rng.normal(size=(20, width)), rng.normal(size=(20, 2))
    scale, offset = rng.uniform(0.5, 20, width), rng.normal(size=width)
    (plain,), (other,) = ridge(x_nd, [y_nk], folds(20)), ridge(x_nd * scale + offset, [y_nk], folds(20))
    np.testing.assert_allclose(plain(x_nd), other(x_nd * scale + offset), atol=1e-6)
