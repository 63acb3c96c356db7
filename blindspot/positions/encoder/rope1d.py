"""One-dimensional rotary positions over the raster order: what a language model would do with the patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindspot.positions.encoder.scheme import Scheme

if TYPE_CHECKING:
    from torch import Tensor


def angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """Patch n in raster order turns channel pair k by n base^(-2k/D). Source: RoFormer (Su et al. 2021), eq. 15.

    Two patches on top of each other are ``width`` positions apart, and the end of a row is next to the start of the
    one below.

    Returns:
        Radians, shape (height * width, head_dim / 2), float64.

    Raises:
        ValueError: if ``head_dim`` is odd.
    """
    import torch

    if head_dim % 2:
        raise ValueError(f"rotary positions need an even head dimension, got {head_dim}")
    frequencies_p = base ** (-2 * torch.arange(head_dim // 2, dtype=torch.float64) / head_dim)
    return torch.outer(torch.arange(height * width, dtype=torch.float64), frequencies_p)


SCHEME = Scheme(base=10000.0, angles=angles, named={"rope1d": ("1D-RoPE", {"table": "replace"})})
