"""How read-outs are fitted: ridge regression in closed form, and by gradient steps what has no closed form."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

STRENGTHS = 10.0 ** np.arange(-5, 4.5, 0.5)
"""Of ridge regression; in units of the mean eigenvalue of the features' covariance."""
NOTHING = 1e-5
"""A channel that varies by less than this share of the features' size is rounding, and left out."""
STEPS, CHECK = 140, 10
RATE, DECAY = 0.01, 0.01
HIDDEN = 32


class LinearMap(NamedTuple):
    """A fitted map from features to outputs, and the strength of the penalty, one of `STRENGTHS`."""

    weight_dk: np.ndarray
    bias_k: np.ndarray
    strength: float

    def __call__(self, x_nd: np.ndarray) -> np.ndarray:
        """Outputs of rows of features, shape (rows, outputs)."""
        return x_nd @ self.weight_dk + self.bias_k


def ridge(x_nd: np.ndarray, targets: Sequence[np.ndarray], fold_n: np.ndarray) -> list[LinearMap]:
    """Fit several targets to the same features, each with the strength that predicts left-out folds best.

    Channels are standardised. One eigendecomposition a fold serves all strengths and targets; where there are more
    channels than rows, features are first turned into the space that the rows span, which changes no prediction.
    """
    mean_d, scale_d = _standard(x_nd)
    z_nr = z_nd = (x_nd - mean_d) * scale_d
    turn_dr = None
    if z_nd.shape[1] > z_nd.shape[0]:
        value_n, vector_nn = np.linalg.eigh(z_nd @ z_nd.T)
        kept_n = value_n > 1e-10 * max(value_n[-1], 1e-30)
        turn_dr = z_nd.T @ (vector_nn[:, kept_n] / np.sqrt(value_n[kept_n]))
        z_nr = z_nd @ turn_dr
    errors = np.zeros((len(targets), len(STRENGTHS)))
    for fold in np.unique(fold_n):
        rest, left = fold_n != fold, fold_n == fold
        mean_r, vector_rr, shrunk = _solved(z_nr[rest])
        seen_mr = (z_nr[left] - mean_r) @ vector_rr
        for row, y_nk in zip(errors, targets, strict=True):
            mean_k = y_nk[rest].mean(axis=0)
            told_smk = seen_mr @ shrunk(y_nk[rest] - mean_k, STRENGTHS) + mean_k
            row += np.square(told_smk - y_nk[left]).sum(axis=(1, 2))
    _, vector_rr, shrunk = _solved(z_nr)
    fitted = []
    for row, y_nk in zip(errors, targets, strict=True):
        strength = STRENGTHS[row.argmin()]
        weight_rk = vector_rr @ shrunk(y_nk - y_nk.mean(axis=0), strength[None])[0]
        weight_dk = scale_d[:, None] * (weight_rk if turn_dr is None else turn_dr @ weight_rk)
        fitted.append(LinearMap(weight_dk, y_nk.mean(axis=0) - mean_d @ weight_dk, float(strength)))
    return fitted


def _standard(x_nd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of every channel, and what to multiply it with: one over its spread, 0 for a channel that is constant."""
    x_nd = x_nd.astype(np.float64)
    mean_d, spread_d = x_nd.mean(axis=0), x_nd.std(axis=0)
    kept_d = spread_d > NOTHING * np.sqrt(np.square(x_nd).mean())
    return mean_d, np.where(kept_d, 1 / np.where(kept_d, spread_d, 1), 0)


def _solved(z_nr: np.ndarray) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Mean and eigenvectors of features, and what weighs these for a centred target, (strengths, rank, outputs)."""
    mean_r = z_nr.mean(axis=0)
    centred_nr = z_nr - mean_r
    value_r, vector_rr = np.linalg.eigh(centred_nr.T @ centred_nr)
    unit = max(float(value_r.mean()) if value_r.size else 0.0, 1e-12)

    def shrunk(y_nk: np.ndarray, strength_s: np.ndarray) -> np.ndarray:
        loads_rk = vector_rr.T @ (centred_nr.T @ y_nk)
        return loads_rk / (value_r.clip(0) + strength_s[:, None] * unit)[..., None]

    return mean_r, vector_rr, shrunk


class AttentionPool(nn.Module):
    """A weighted mean of the tokens, weights from one learned query, then a linear map; for each target."""

    def __init__(self, width: int, outputs: int, targets: int) -> None:
        super().__init__()
        self.query_td = nn.Parameter(torch.zeros(targets, width))
        self.read_tdk = nn.Parameter(torch.randn(targets, width, outputs) / width**0.5)
        self.bias_t1k = nn.Parameter(torch.zeros(targets, 1, outputs))

    def forward(self, x_nrd: Tensor) -> Tensor:
        weight_tnr = (x_nrd @ self.query_td.T).permute(2, 0, 1).softmax(dim=-1)
        pooled_tnd = torch.einsum("tnr,nrd->tnd", weight_tnr, x_nrd)
        return pooled_tnd @ self.read_tdk + self.bias_t1k


class HiddenLayer(nn.Module):
    """A hidden layer of `HIDDEN` units on one token; for each target."""

    def __init__(self, width: int, outputs: int, targets: int) -> None:
        super().__init__()
        self.inner_tdh = nn.Parameter(torch.randn(targets, width, HIDDEN) / width**0.5)
        self.inner_t1h = nn.Parameter(torch.zeros(targets, 1, HIDDEN))
        self.outer_thk = nn.Parameter(torch.randn(targets, HIDDEN, outputs) / HIDDEN**0.5)
        self.outer_t1k = nn.Parameter(torch.zeros(targets, 1, outputs))

    def forward(self, x_nrd: Tensor) -> Tensor:
        hidden_tnh = nn.functional.gelu(x_nrd[:, 0] @ self.inner_tdh + self.inner_t1h)
        return hidden_tnh @ self.outer_thk + self.outer_t1k


def learn(
    make: Callable[[int, int, int], nn.Module],
    x_nrd: np.ndarray,
    targets: Sequence[np.ndarray],
    fold_n: np.ndarray,
    asked_mrd: np.ndarray,
    seed: int,
) -> list[np.ndarray]:
    """Fit a read-out to squared error and predict, as it was at the step that predicts fold 0 best.

    Fold 0 is not fitted on. Several targets of one shape are fitted at once, each with weights of its own; ``make``
    takes width, outputs and number of targets. Predictions for each target have shape (asked rows, outputs).
    """
    mean_d, scale_d = _standard(x_nrd.reshape(-1, x_nrd.shape[-1]))
    x_nrd, asked_mrd = ((states - mean_d) * scale_d for states in (x_nrd, asked_mrd))
    y_tnk = np.stack(targets)
    mean_k, spread = y_tnk[:, fold_n != 0].mean(axis=1, keepdims=True), max(float(y_tnk.std()), 1e-12)
    x, asked, y = (torch.from_numpy(a.astype(np.float32)) for a in (x_nrd, asked_mrd, (y_tnk - mean_k) / spread))
    fitted, checked = torch.from_numpy(fold_n != 0), torch.from_numpy(fold_n == 0)
    seen, wanted = x[fitted], y[:, fitted]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        readout = make(x.shape[-1], y.shape[-1], len(targets))
    optimizer = torch.optim.AdamW(readout.parameters(), lr=RATE, weight_decay=DECAY)
    best_t = torch.full((len(targets),), torch.inf)
    kept = torch.zeros(len(targets), len(asked), y.shape[-1])
    for step in range(STEPS + 1):
        if step % CHECK == 0:
            with torch.no_grad():
                error_t = (readout(x[checked]) - y[:, checked]).square().mean(dim=(1, 2))
                better_t = error_t < best_t
                kept[better_t] = readout(asked)[better_t]
                best_t = torch.minimum(best_t, error_t)
        optimizer.zero_grad()
        (readout(seen) - wanted).square().mean(dim=(1, 2)).sum().backward()
        optimizer.step()
    return list(kept.numpy() * spread + mean_k)
