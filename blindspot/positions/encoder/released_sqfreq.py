"""The first form in the study's public code: a valid axial rotation whose frequencies fall twice as fast as meant.

A negative control; facts in specs/released_code.md, item 4 (A).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blindspot.positions.encoder import axial

if TYPE_CHECKING:
    from torch import Tensor


def angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """As `axial.angles`, with f_m = base^(-8m/D): the exponent is divided by D/4 where D/2 was meant.

    Rows turn neighbouring channels of a head's first half, columns those of its second half. CLS is at (0, 0), which is
    no turn at all. With D = 64 and base 10000, 9 of the 16 frequencies of an axis turn less than 0.01 rad over 24
    patches. The public code computed the angles in the dtype of the model; here they are exact.
    """
    return axial.angles(height, width, head_dim, base**2)


SCHEME = replace(
    axial.SCHEME,
    base=10000.0,
    angles=angles,
    pairing="neighbours",
    conventions={},
    named={"released_sqfreq": ("2D-RoPE as released, squared", {"table": "replace"})},
)
