"""Axial two-dimensional rotary positions: half of the channel pairs turn with the row, half with the column."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from blindspot.positions.encoder.scheme import Scheme

if TYPE_CHECKING:
    from torch import Tensor


def angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """Rotation angles of every patch in raster order.

    With D = ``head_dim`` and f_m = base^(-4m/D) for m < D/4, patch (row i, column j) turns channel pair m by i f_m and
    pair D/4 + m by j f_m. Pair k holds channels k and k + D/2 (the rotate-half pairing), so the channels read
    [rows, columns, rows, columns]: both members of a pair turn by one angle, which makes the map a true rotation.
    Source: RoPE-ViT (Heo et al. 2024), equation of the axial variant (which counts columns first, a permutation of
    channels); base 100 suits grids of a few dozen patches. The vision tower of Qwen2-VL does the same with base 10000.

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
    import torch

    rows_h, columns_w = (torch.arange(size, dtype=torch.float64) for size in (height, width))
    return _of_places(rows_h, columns_w, head_dim, base)


def normalised_angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """As `angles`, with places measured in images instead of patches.

    Row i is at c = 2 (i + 1/2) / height - 1, columns likewise, and turns by 2 pi c f_m: an image cut into more patches
    spans the same angles. Source: DINOv3 (Siméoni et al. 2025), whose augmentation of c in training is left out.
    """
    import torch

    rows_h, columns_w = (
        2 * math.pi * (2 * (torch.arange(size, dtype=torch.float64) + 0.5) / size - 1) for size in (height, width)
    )
    return _of_places(rows_h, columns_w, head_dim, base)


def _of_places(rows_h: Tensor, columns_w: Tensor, head_dim: int, base: float) -> Tensor:
    import torch

    frequencies_m = axis_frequencies(head_dim, base)
    row_angles_hm = torch.outer(rows_h, frequencies_m)
    column_angles_wm = torch.outer(columns_w, frequencies_m)
    return torch.cat(
        [row_angles_hm.repeat_interleave(len(columns_w), dim=0), column_angles_wm.repeat(len(rows_h), 1)],
        dim=1,
    )


def axis_frequencies(head_dim: int, base: float) -> Tensor:
    """Frequencies f_m = base^(-4m/D) of one axis, shape (head_dim / 4,), float64.

    Raises:
        ValueError: if ``head_dim`` is not a multiple of 4.
    """
    import torch

    if head_dim % 4:
        raise ValueError(f"axial positions need a head dimension that is a multiple of 4, got {head_dim}")
    return base ** (-4 * torch.arange(head_dim // 4, dtype=torch.float64) / head_dim)


_ROPE_VIT = Scheme(base=100.0, angles=angles, treatments=("keep", "replace", "released"))
SCHEME = replace(
    _ROPE_VIT,
    named={"axial": ("2D-RoPE", {"table": "replace"}), "axial+keep": ("2D-RoPE and learned table", {"table": "keep"})},
    conventions={
        "rope_vit": _ROPE_VIT,
        "qwen2_vl": replace(_ROPE_VIT, base=10000.0),
        "dinov3": replace(_ROPE_VIT, angles=normalised_angles),
    },
)
