"""Circle-RoPE: image tokens on a circle orthogonal to the line of text, equally far from every text position.

Source: Circle-RoPE (arXiv 2505.16416). Equal distance between positions is not equal rotation: the three coordinates
turn different pairs, as in chunked M-RoPE.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from blindspot.positions.language import mrope
from blindspot.positions.language.scheme import Layout, Scheme, rows_and_columns

if TYPE_CHECKING:
    from torch import Tensor


def layout(height: int, width: int, alpha: float, radius: float) -> Layout:
    """Token n at s + p_n with p = R cos(theta) u + R sin(theta) v; the next text at s + max(p) + 1, not a whole number.

    u = (-1, 1, 0) / sqrt 2 and v = (1, 1, 1) / sqrt 3 x u span the plane orthogonal to the line (p, p, p) of text.
    They are written as x, y, z: column, row, time, the axes of positions backwards.
    """
    import torch

    theta_n = angles(height, width, alpha)
    u_a = torch.tensor([-1.0, 1.0, 0.0], dtype=torch.float64) / math.sqrt(2)
    v_a = torch.linalg.cross(torch.full((3,), 1 / math.sqrt(3), dtype=torch.float64), u_a)
    offsets_xn = radius * (torch.outer(u_a, theta_n.cos()) + torch.outer(v_a, theta_n.sin()))
    return Layout(offsets_xn.flip(0), offsets_xn.max().item() + 1)


def angles(height: int, width: int, alpha: float) -> Tensor:
    """Angle of every token on the circle, in radians, shape (height * width,).

    ``alpha`` mixes the direction from the image's centre, stretched to [0, 2 pi], with the token's share of the
    reading order. At alpha = 1 tokens in one direction from the centre coincide; at 1/2 no two do on square grids up
    to 27 x 27, though two do on some others (7 x 3).
    """
    import torch

    row_n, column_n = (index_n.double() for index_n in rows_and_columns(height, width))
    direction_n = torch.atan2(row_n - (height - 1) / 2, column_n - (width - 1) / 2)
    low, high = direction_n.min(), direction_n.max()
    stretched_n = (direction_n - low) / (high - low) * (2 * math.pi) if high > low else torch.zeros_like(direction_n)
    order_n = torch.arange(height * width, dtype=torch.float64) * (2 * math.pi / (height * width))
    return alpha * stretched_n + (1 - alpha) * order_n


CIRCLE = Scheme(layout, mrope.chunked_axes, named={"circle": ("LM Circle-RoPE", {})})
