"""Concentric positions (CCA): a token's position is its ring, counted from the border of the image inwards.

Source: Concentric Causal Attention (arXiv 2410.15926). The mask follows the rings too: an image token sees the tokens
of its own image whose ring is at most its own, in both directions; see `blindspot.positions.language.masking`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindspot.positions.language.scheme import Layout, Scheme, rows_and_columns

if TYPE_CHECKING:
    from torch import Tensor


def rings(height: int, width: int) -> Tensor:
    """Ring of every patch, min(i, j, H - 1 - i, W - 1 - j), shape (height * width,)."""
    import torch

    row_n, column_n = rows_and_columns(height, width)
    return torch.stack([row_n, column_n, height - 1 - row_n, width - 1 - column_n]).amin(dim=0)


def layout(height: int, width: int) -> Layout:
    """A token of ring r at s + r; the next text behind the innermost ring."""
    ring_n = rings(height, width)
    return Layout(ring_n[None], (min(height, width) + 1) // 2)


CONCENTRIC = Scheme(layout, rings=rings, named={"concentric": ("LM concentric", {})})
