"""The last form in the study's public code: concatenated axes under the rotate-half pairing. No rotation.

A negative control; facts in specs/released_code.md, item 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindspot.positions.encoder.axial import axis_frequencies
from blindspot.positions.encoder.scheme import Scheme

if TYPE_CHECKING:
    from torch import Tensor


def angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """The channels of a head are given the angles [i f, i f, j f, j f], but pair k holds channels k and k + D/2.

    So the first channel of a pair turns with the row i and the second with the column j:
    x'_k = x_k cos(i f) - x_(k+D/2) sin(i f), x'_(k+D/2) = x_(k+D/2) cos(j f) + x_k sin(j f). The determinant of that
    map is cos((i - j) f) and its squared singular values are 1 +- |sin((i - j) f)|: a rotation on the diagonal only.

    Returns:
        Radians, shape (height * width, head_dim / 2, 2), float64: of the first and the second channel of each pair.

    Raises:
        ValueError: if ``head_dim`` is not a multiple of 4.
    """
    import torch

    frequencies_p = axis_frequencies(head_dim, base).repeat(2)
    rows_n = torch.arange(height, dtype=torch.float64).repeat_interleave(width)
    columns_n = torch.arange(width, dtype=torch.float64).repeat(height)
    return torch.stack([rows_n, columns_n], dim=1)[:, None, :] * frequencies_p[:, None]


SCHEME = Scheme(
    base=10000.0,
    angles=angles,
    treatments=("keep", "replace", "released"),
    named={"released_concat": ("2D-RoPE as released", {"table": "replace"})},
)
