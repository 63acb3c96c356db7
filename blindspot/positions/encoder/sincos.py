"""Fixed two-dimensional sines and cosines in the place of the learned table, never trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindspot.positions.encoder.scheme import Scheme

if TYPE_CHECKING:
    from torch import Tensor


def table(height: int, width: int, channels: int, base: float) -> Tensor:
    """Sines and cosines of every patch's column and row.

    With d = ``channels`` and w_m = base^(-4m/d) for m < d/4, the patch in row i and column j reads
    [sin j w, cos j w, sin i w, cos i w]. Source: MAE (He et al. 2022) and posemb_sincos_2d of big_vision, which spaces
    the frequencies by m / (d/4 - 1).

    Args:
        height: rows of the patch grid.
        width: columns of the patch grid.
        channels: width of a token, a multiple of 4.
        base: wavelengths run from 2 pi to about 2 pi ``base`` patches.

    Returns:
        Shape (height * width, channels), float32, patches in raster order.

    Raises:
        ValueError: if ``channels`` is not a multiple of 4.
    """
    import torch

    if channels % 4:
        raise ValueError(f"a sine-cosine position table needs channels in multiples of 4, got {channels}")
    frequencies_m = base ** (-4 * torch.arange(channels // 4, dtype=torch.float64) / channels)
    row_hm, column_wm = (
        torch.outer(torch.arange(size, dtype=torch.float64), frequencies_m) for size in (height, width)
    )
    row_nm, column_nm = row_hm.repeat_interleave(width, dim=0), column_wm.repeat(height, 1)
    return torch.cat([column_nm.sin(), column_nm.cos(), row_nm.sin(), row_nm.cos()], dim=1).float()


SCHEME = Scheme(
    base=10000.0, table=table, treatments=("replace",), named={"sincos": ("sin-cos table", {"table": "replace"})}
)
