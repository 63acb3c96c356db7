"""The positions that the family was built with: a learned table, or what it computes by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindspot.positions.encoder import sincos
from blindspot.positions.encoder.scheme import Scheme

if TYPE_CHECKING:
    from torch import Tensor

BASE = 100.0


def initial_table(height: int, width: int, channels: int) -> Tensor:
    """Where a position table that is trained from nothing starts: two-dimensional sines and cosines.

    The table of a released encoder is large enough to read a patch's row and column from its token. From the small
    random start of transformers, the few hundred steps of a miniature leave it far too small for that: tokens would
    hold no place, whatever the objective. The base suits small grids.

    Returns:
        Shape (height * width, channels), as `sincos.table`.
    """
    return sincos.table(height, width, channels, BASE)


SCHEME = Scheme(
    base=BASE,
    named={"learned": ("learned positions", {}), "none": ("no encoder positions", {"table": "replace"})},
)
