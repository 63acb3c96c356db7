"""An earlier form in the study's public code: one angle for row plus column.

A negative control; facts in specs/released_code.md, item 4 (B).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindspot.positions.encoder.axial import axis_frequencies
from blindspot.positions.encoder.scheme import Scheme

if TYPE_CHECKING:
    from torch import Tensor


def angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """Patch (row i, column j) turns by (i + j) f: a rotation, but places on one anti-diagonal look alike.

    The public file states this formula with frequencies f_m = base^(-4m/D), m < D/4, given to pairs m and D/4 + m. It
    then reshapes its table to half as many rows as there are patches, so that it could not have run as it stands.

    Returns:
        Radians, shape (height * width, head_dim / 2), float64.

    Raises:
        ValueError: if ``head_dim`` is not a multiple of 4.
    """
    import torch

    rows_n = torch.arange(height, dtype=torch.float64).repeat_interleave(width)
    columns_n = torch.arange(width, dtype=torch.float64).repeat(height)
    return torch.outer(rows_n + columns_n, axis_frequencies(head_dim, base).repeat(2))


SCHEME = Scheme(
    base=10000.0,
    angles=angles,
    treatments=("keep", "replace", "released"),
    named={"released_sum": ("2D-RoPE as released, sum", {"table": "replace"})},
)
