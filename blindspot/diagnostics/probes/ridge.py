"""Ridge regression whose strength is chosen by cross-validation, all strengths at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

STRENGTHS = 10.0 ** np.arange(-5, 4.5, 0.5)
"""Tried; in units of the mean eigenvalue of the features' covariance."""
NOTHING = 1e-5
"""A channel that varies by less than this share of the features' size is rounding, and left out."""


class Linear(NamedTuple):
    """A fitted map from features to outputs.

    Attributes:
        weight_dk: shape (width, outputs).
        bias_k: shape (outputs,).
        strength: of the penalty, as in `STRENGTHS`.
    """

    weight_dk: np.ndarray
    bias_k: np.ndarray
    strength: float

    def __call__(self, x_nd: np.ndarray) -> np.ndarray:
        """Outputs of rows of features, shape (rows, outputs)."""
        return x_nd @ self.weight_dk + self.bias_k


def ridge(x_nd: np.ndarray, targets: Sequence[np.ndarray], fold_n: np.ndarray) -> list[Linear]:
    """Fit several targets to the same features, each with the strength that predicts left-out folds best.

    Channels are standardised. One eigendecomposition a fold serves all strengths and targets; where there are more
    channels than rows, features are first turned into the space that the rows span, which changes no prediction.

    Args:
        x_nd: features, shape (rows, width).
        targets: each of shape (rows, outputs).
        fold_n: the fold of every row; rows that belong together share one.
    """
    mean_d, scale_d = standard(x_nd)
    z_nd = (x_nd - mean_d) * scale_d
    turn_dr = _spanned(z_nd)
    z_nr = z_nd if turn_dr is None else z_nd @ turn_dr
    errors = np.zeros((len(targets), len(STRENGTHS)))
    for fold in np.unique(fold_n):
        rest, left = fold_n != fold, fold_n == fold
        solved = _Solved(z_nr[rest])
        seen_mr = (z_nr[left] - solved.mean_r) @ solved.vector_rr
        for row, y_nk in zip(errors, targets, strict=True):
            mean_k = y_nk[rest].mean(axis=0)
            shrunk_srk = solved.shrunk(y_nk[rest] - mean_k, STRENGTHS)
            row += np.square(seen_mr @ shrunk_srk + mean_k - y_nk[left]).sum(axis=(1, 2))
    solved, fitted = _Solved(z_nr), []
    for row, y_nk in zip(errors, targets, strict=True):
        strength = STRENGTHS[row.argmin()]
        weight_rk = solved.vector_rr @ solved.shrunk(y_nk - y_nk.mean(axis=0), strength[None])[0]
        weight_dk = scale_d[:, None] * (weight_rk if turn_dr is None else turn_dr @ weight_rk)
        fitted.append(Linear(weight_dk, y_nk.mean(axis=0) - mean_d @ weight_dk, float(strength)))
    return fitted


def standard(x_nd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of every channel, and what to multiply it with: one over its spread, 0 for a channel that is constant."""
    x_nd = x_nd.astype(np.float64)
    mean_d, spread_d = x_nd.mean(axis=0), x_nd.std(axis=0)
    kept_d = spread_d > NOTHING * np.sqrt(np.square(x_nd).mean())
    return mean_d, np.where(kept_d, 1 / np.where(kept_d, spread_d, 1), 0)


def _spanned(z_nd: np.ndarray) -> np.ndarray | None:
    """An orthonormal basis of what the rows span, shape (width, rank), where that is less than the width."""
    if z_nd.shape[1] <= z_nd.shape[0]:
        return None
    value_n, vector_nn = np.linalg.eigh(z_nd @ z_nd.T)
    kept_n = value_n > 1e-10 * max(value_n[-1], 1e-30)
    return z_nd.T @ (vector_nn[:, kept_n] / np.sqrt(value_n[kept_n]))


class _Solved:
    """Features decomposed, so that weights for any target and strength are a product."""

    def __init__(self, z_nr: np.ndarray) -> None:
        self.mean_r = z_nr.mean(axis=0)
        self._centred_nr = z_nr - self.mean_r
        self._value_r, self.vector_rr = np.linalg.eigh(self._centred_nr.T @ self._centred_nr)
        self._unit = max(float(self._value_r.mean()) if self._value_r.size else 0.0, 1e-12)

    def shrunk(self, y_nk: np.ndarray, strength_s: np.ndarray) -> np.ndarray:
        """Weights along the eigenvectors for a centred target, shape (strengths, rank, outputs)."""
        loads_rk = self.vector_rr.T @ (self._centred_nr.T @ y_nk)
        return loads_rk / (self._value_r.clip(0) + strength_s[:, None] * self._unit)[..., None]
