"""Mixed two-dimensional rotary positions: every channel pair turns along a direction that is learned.

The frequencies are parameters of each attention module (``rotation.frequencies`` in the state dict), one set per head
and layer. Source: RoPE-ViT (Heo et al. 2024), which trains them without weight decay.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from blindspot.positions.encoder.axial import axis_frequencies
from blindspot.positions.encoder.scheme import Scheme

if TYPE_CHECKING:
    from torch import Tensor


def initial_frequencies(heads: int, head_dim: int, base: float) -> Tensor:
    """Where training starts: axial frequencies in a frame that every head turns by its own random angle.

    With f_m = base^(-4m/D), m < D/4, and a direction phi per head, pair m turns by f_m (cos phi, sin phi) per column
    and row, pair D/4 + m by the same at phi + pi/2. The directions come from torch's global generator.

    Returns:
        Radians per row and per column, shape (2, heads, head_dim / 2), float32.

    Raises:
        ValueError: if ``head_dim`` is not a multiple of 4.
    """
    import torch

    frequencies_m = axis_frequencies(head_dim, base).float()
    phi_h1 = 2 * math.pi * torch.rand(heads, 1, dtype=torch.float32)
    directions_hx = torch.cat([phi_h1, phi_h1 + math.pi / 2], dim=1)
    by_axis_ahx = torch.stack([directions_hx.sin(), directions_hx.cos()])
    return (by_axis_ahx[..., None] * frequencies_m.to(by_axis_ahx.device)).flatten(2)


def angles(places_na: Tensor, frequencies_ahp: Tensor) -> Tensor:
    """Pair p of head h turns by row * frequencies[0, h, p] + column * frequencies[1, h, p].

    Args:
        places_na: float32 rows and columns, shape (..., 2).
        frequencies_ahp: shape (2, heads, head_dim / 2).

    Returns:
        Radians, shape (..., heads, head_dim / 2), in float32 whatever the model computes in: at column 30, bfloat16
        would round angles by a tenth of a radian.
    """
    row_hp, column_hp = frequencies_ahp.float()
    return places_na[..., 0, None, None] * row_hp + places_na[..., 1, None, None] * column_hp


SCHEME = Scheme(base=10.0, frequencies=initial_frequencies, named={"mixed": ("mixed 2D-RoPE", {"table": "replace"})})
