"""Read-outs without a closed form: a probe that looks for one place, and one with a hidden layer.

Both are fitted to squared error, as the linear ones are, and kept as they were at the step that predicts best the
quarter of the pictures on which they are not fitted. Several targets are fitted at once, each with weights of its own.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from blindspot.diagnostics.probes.ridge import standard

STEPS, CHECK = 140, 10
RATE, DECAY = 0.01, 0.01
HIDDEN = 32
Make = Callable[[int, int, int], nn.Module]


class AttentionPool(nn.Module):
    """A weighted mean of the tokens, weights from one learned query, then a linear map; for each target.

    Args:
        width: channels.
        outputs: of a target.
        targets: how many.
    """

    def __init__(self, width: int, outputs: int, targets: int) -> None:
        super().__init__()
        self.query_td = nn.Parameter(torch.zeros(targets, width))
        self.read_tdk = nn.Parameter(torch.randn(targets, width, outputs) / width**0.5)
        self.bias_t1k = nn.Parameter(torch.zeros(targets, 1, outputs))

    def forward(self, x_nrd: Tensor) -> Tensor:
        """Outputs of shape (targets, rows, outputs)."""
        weight_tnr = (x_nrd @ self.query_td.T).permute(2, 0, 1).softmax(dim=-1)
        pooled_tnd = torch.einsum("tnr,nrd->tnd", weight_tnr, x_nrd)
        return pooled_tnd @ self.read_tdk + self.bias_t1k


class Hidden(nn.Module):
    """A hidden layer of `HIDDEN` units on one token; arguments as of `AttentionPool`."""

    def __init__(self, width: int, outputs: int, targets: int) -> None:
        super().__init__()
        self.inner_tdh = nn.Parameter(torch.randn(targets, width, HIDDEN) / width**0.5)
        self.inner_t1h = nn.Parameter(torch.zeros(targets, 1, HIDDEN))
        self.outer_thk = nn.Parameter(torch.randn(targets, HIDDEN, outputs) / HIDDEN**0.5)
        self.outer_t1k = nn.Parameter(torch.zeros(targets, 1, outputs))

    def forward(self, x_nrd: Tensor) -> Tensor:
        """Outputs of shape (targets, rows, outputs)."""
        hidden_tnh = nn.functional.gelu(x_nrd[:, 0] @ self.inner_tdh + self.inner_t1h)
        return hidden_tnh @ self.outer_thk + self.outer_t1k


def learn(
    make: Make, x_nrd: np.ndarray, targets: Sequence[np.ndarray], fold_n: np.ndarray, asked_mrd: np.ndarray, seed: int
) -> list[np.ndarray]:
    """Fit a read-out and predict.

    Args:
        make: the read-out, from width, outputs and number of targets.
        x_nrd: features, shape (rows, tokens, width).
        targets: each of shape (rows, outputs), all alike.
        fold_n: the fold of every row; fold 0 decides when to stop.
        asked_mrd: features to predict from.
        seed: of the first weights.

    Returns:
        Predictions for each target, shape (asked rows, outputs).
    """
    mean_d, scale_d = standard(x_nrd.reshape(-1, x_nrd.shape[-1]))
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
    best = np.full(len(targets), np.inf)
    kept = torch.zeros(len(targets), len(asked), y.shape[-1])
    for step in range(STEPS + 1):
        if step % CHECK == 0:
            with torch.no_grad():
                error_t = (readout(x[checked]) - y[:, checked]).square().mean(dim=(1, 2)).numpy()
                better = error_t < best
                kept[torch.from_numpy(better)] = readout(asked)[torch.from_numpy(better)]
                best = np.minimum(best, error_t)
        optimizer.zero_grad()
        (readout(seen) - wanted).square().mean(dim=(1, 2)).sum().backward()
        optimizer.step()
    return list(kept.numpy() * spread + mean_k)
