"""Axial two-dimensional rotary positions: half of the channel pairs turn with the row, half with the column."""

import torch
from torch import Tensor


def angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """Rotation angles of every patch in raster order.

    With D = ``head_dim`` and f_m = base^(-4m/D) for m < D/4, patch (row i, column j) turns channel pair m by i f_m and
    pair D/4 + m by j f_m. Pair k holds channels k and k + D/2 (the rotate-half pairing), so the channels read
    [rows, columns, rows, columns]: both members of a pair turn by one angle, which makes the map a true rotation.
    Source: RoPE-ViT (Heo et al. 2024), equation of the axial variant; base 100 suits grids of a few dozen patches.

    Args:
        height: rows of the patch grid.
        width: columns of the patch grid.
        head_dim: channels D of one attention head, a multiple of 4.
        base: wavelengths run from 2 pi to about 2 pi ``base`` patches.

    Returns:
        Angles in radians, shape (height * width, head_dim / 2), float64.

    Raises:
        ValueError: if ``head_dim`` is not a multiple of 4.
    """
    if head_dim % 4:
        raise ValueError(f"axial positions need a head dimension that is a multiple of 4, got {head_dim}")
    frequencies_m = base ** (-4 * torch.arange(head_dim // 4, dtype=torch.float64) / head_dim)
    row_angles_hm = torch.outer(torch.arange(height, dtype=torch.float64), frequencies_m)
    column_angles_wm = torch.outer(torch.arange(width, dtype=torch.float64), frequencies_m)
    return torch.cat(
        [row_angles_hm.repeat_interleave(width, dim=0), column_angles_wm.repeat(height, 1)],
        dim=1,
    )
