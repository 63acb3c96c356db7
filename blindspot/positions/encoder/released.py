"""The three forms of axial positions in the study's public code, none of them as meant: negative controls.

The public code computed the angles in the dtype of the model; here they
are exact.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blindspot.positions.encoder import axial
from blindspot.positions.encoder.scheme import Scheme

if TYPE_CHECKING:
    from torch import Tensor


def concat_angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """The last form: concatenated axes under the rotate-half pairing. No rotation.

    The channels of a head are given the angles [i f, i f, j f, j f], but pair k holds channels k and k + D/2. So the
    first channel of a pair turns with the row i and the second with the column j:
    x'_k = x_k cos(i f) - x_(k+D/2) sin(i f), x'_(k+D/2) = x_(k+D/2) cos(j f) + x_k sin(j f). The determinant of that
    map is cos((i - j) f) and its squared singular values are 1 +- |sin((i - j) f)|: a rotation on the diagonal only.

    Returns:
        Radians, shape (height * width, head_dim / 2, 2), float64: of the first and the second channel of each pair.

    Raises:
        ValueError: if ``head_dim`` is not a multiple of 4.
    """
    frequencies_p = axial.axis_frequencies(head_dim, base).repeat(2)
    return _places(height, width)[:, None, :] * frequencies_p[:, None]


def sum_angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """An earlier form: (row i, column j) turns by (i + j) f, so places on one anti-diagonal look alike.

    The public file states this formula with frequencies f_m = base^(-4m/D), m < D/4, given to pairs m and D/4 + m. It
    then reshapes its table to half as many rows as there are patches, so that it could not have run as it stands.

    Returns:
        Radians, shape (height * width, head_dim / 2), float64.

    Raises:
        ValueError: if ``head_dim`` is not a multiple of 4.
    """
    return _places(height, width).sum(dim=1).outer(axial.axis_frequencies(head_dim, base).repeat(2))


def sqfreq_angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """The first form: a valid axial rotation whose frequencies fall twice as fast as meant.

    As `axial.angles`, with f_m = base^(-8m/D): the exponent is divided by D/4 where D/2 was meant. Rows turn
    neighbouring channels of a head's first half, columns those of its second half. CLS is at (0, 0), which is no turn
    at all. With D = 64 and base 10000, 9 of the 16 frequencies of an axis turn less than 0.01 rad over 24 patches.
    """
    return axial.angles(height, width, head_dim, base**2)


def _places(height: int, width: int) -> Tensor:
    """Row and column of every patch, shape (height * width, 2), float64."""
    import torch

    return torch.cartesian_prod(torch.arange(height), torch.arange(width)).view(-1, 2).double()


CONCAT = Scheme(
    base=10000.0,
    angles=concat_angles,
    treatments=("keep", "replace", "released"),
    named={"released_concat": ("2D-RoPE as released", {"table": "replace"})},
)
SUM = replace(CONCAT, angles=sum_angles, named={"released_sum": ("2D-RoPE as released, sum", {"table": "replace"})})
SQFREQ = replace(
    CONCAT,
    angles=sqfreq_angles,
    pairing="neighbours",
    named={"released_sqfreq": ("2D-RoPE as released, squared", {"table": "replace"})},
)
