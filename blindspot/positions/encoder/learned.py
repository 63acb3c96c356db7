"""Learned absolute positions: what every family does by default."""

import torch
from torch import Tensor

BASE = 100.0


def angles(height: int, width: int, head_dim: int, base: float) -> None:
    """No rotation: the encoder knows places only through the position table it was built with."""


def initial_table(height: int, width: int, channels: int) -> Tensor:
    """Where a position table that is trained from nothing starts: two-dimensional sines and cosines.

    The table of a released encoder is large enough to read a patch's row and column from its token. From the small
    random start of transformers, the few hundred steps of a miniature leave it far too small for that: tokens would
    hold no place, whatever the objective. Source of the layout: posemb_sincos_2d of big_vision, with a base for small
    grids.

    Args:
        height: rows of the patch grid.
        width: columns of the patch grid.
        channels: width of a token, a multiple of 4.

    Returns:
        Shape (height * width, channels), patches in raster order: [sin x, cos x, sin y, cos y].

    Raises:
        ValueError: if ``channels`` is not a multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"a sine-cosine position table needs channels in multiples of 4, got {channels}")
    frequencies_m = BASE ** (-4 * torch.arange(channels // 4, dtype=torch.float64) / channels)
    row_hm, column_wm = (
        torch.outer(torch.arange(size, dtype=torch.float64), frequencies_m) for size in (height, width)
    )
    row_nm, column_nm = row_hm.repeat_interleave(width, dim=0), column_wm.repeat(height, 1)
    return torch.cat([column_nm.sin(), column_nm.cos(), row_nm.sin(), row_nm.cos()], dim=1).float()
