"""The positional schemes of the image encoder: formulas of angles and tables, and their registry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from blindspot.plugins import extend

if TYPE_CHECKING:
    from torch import Tensor

Grid = tuple[int, int]
"""Rows and columns of patches."""

Pairing = Literal["halves", "neighbours"]
"""Which two channels of a head turn together: (k, k + D/2), or (2k, 2k + 1)."""


@dataclass(frozen=True)
class Scheme:
    """A way to tell an encoder where a patch is. At most one of ``angles``, ``frequencies`` and ``table`` is given."""

    base: float  # base of its frequencies, where the configuration names none
    angles: Callable[[int, int, int, float], Tensor] | None = None
    """(height, width, head_dim, base) -> rotation angles of queries and keys in radians, patches in raster order: shape
    (patches, head_dim / 2), or (patches, head_dim / 2, 2) where the two channels of a pair turn by different angles,
    which is no rotation."""
    frequencies: Callable[[int, int, float], Tensor] | None = None
    """(heads, head_dim, base) -> where learnable frequencies start, shape (2, heads, head_dim / 2): radians per row and
    per column."""
    table: Callable[[int, int, int, float], Tensor] | None = None
    """(height, width, channels, base) -> a fixed table that takes the learned one's place."""
    pairing: Pairing = "halves"  # which channels of a head turn together
    treatments: tuple[str, ...] = ("keep", "replace")  # what may happen to the learned table, see `EncoderPositions`
    conventions: Mapping[str, Scheme] = field(default_factory=dict)
    """Variants of the scheme by name, the default one first."""
    named: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Its settings that studies have a name for: name -> (label in tables, fields of `EncoderPositions`)."""

    @property
    def rotates(self) -> bool:
        """Whether queries and keys are turned."""
        return self.angles is not None or self.frequencies is not None


def sincos_table(height: int, width: int, channels: int, base: float) -> Tensor:
    """Fixed two-dimensional sines and cosines in the place of the learned table, never trained.

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
    """
    import torch

    if channels % 4:
        raise ValueError(f"a sine-cosine position table needs channels in multiples of 4, got {channels}")
    frequencies_m = base ** (-4 * torch.arange(channels // 4, dtype=torch.float64) / channels)
    row_nm, column_nm = (place_n.outer(frequencies_m) for place_n in _places(height, width).T)
    return torch.cat([column_nm.sin(), column_nm.cos(), row_nm.sin(), row_nm.cos()], dim=1).float()


def rope1d_angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """One-dimensional rotary positions over the raster order: what a language model would do with the patches.

    Patch n in raster order turns channel pair k by n base^(-2k/D). Two patches on top of each other are ``width``
    positions apart, and the end of a row is next to the start of the one below. Source: RoFormer (Su et al. 2021),
    eq. 15.

    Returns:
        Radians, shape (height * width, head_dim / 2), float64.
    """
    import torch

    if head_dim % 2:
        raise ValueError(f"rotary positions need an even head dimension, got {head_dim}")
    frequencies_p = base ** (-2 * torch.arange(head_dim // 2, dtype=torch.float64) / head_dim)
    return torch.outer(torch.arange(height * width, dtype=torch.float64), frequencies_p)


def axial_angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """Axial rotary positions: half of the channel pairs turn with the row, half with the column.

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
    """
    return _by_axis(_places(height, width), head_dim, base)


def axial_normalised_angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """As `axial_angles`, with places measured in images instead of patches.

    Row i is at c = 2 (i + 1/2) / height - 1, columns likewise, and turns by 2 pi c f_m: an image cut into more patches
    spans the same angles. Source: DINOv3 (Siméoni et al. 2025), whose augmentation of c in training is left out.
    """
    places_n2 = _places(height, width)
    return _by_axis(2 * math.pi * (2 * (places_n2 + 0.5) / places_n2.new_tensor([height, width]) - 1), head_dim, base)


def mixed_frequencies(heads: int, head_dim: int, base: float) -> Tensor:
    """Where mixed rotary positions start, which turn every channel pair along a direction that is learned.

    They start as axial frequencies in a frame that every head turns by its own random angle. With f_m = base^(-4m/D),
    m < D/4, and a direction phi per head, pair m turns by f_m (cos phi, sin phi) per column and row, pair D/4 + m by
    the same at phi + pi/2. The directions come from torch's global generator. The frequencies are parameters of each
    attention module (``rotation.frequencies`` in the state dict), one set per head and layer. Source: RoPE-ViT (Heo et
    al. 2024), which trains them without weight decay.

    Returns:
        Radians per row and per column, shape (2, heads, head_dim / 2), float32.
    """
    import torch

    frequencies_m = axis_frequencies(head_dim, base).float()
    phi_h1 = 2 * math.pi * torch.rand(heads, 1, dtype=torch.float32)
    directions_hx = torch.cat([phi_h1, phi_h1 + math.pi / 2], dim=1)
    by_axis_ahx = torch.stack([directions_hx.sin(), directions_hx.cos()])
    return (by_axis_ahx[..., None] * frequencies_m.to(by_axis_ahx.device)).flatten(2)


def mixed_angles(places_na: Tensor, frequencies_ahp: Tensor) -> Tensor:
    """Pair p of head h turns by row * frequencies[0, h, p] + column * frequencies[1, h, p].

    Args:
        places_na: float32 rows and columns, shape (..., 2).
        frequencies_ahp: shape (2, heads, head_dim / 2).

    Returns:
        Radians, shape (..., heads, head_dim / 2), in float32 whatever the model computes in: at column 30, bfloat16
        would round angles by a tenth of a radian.
    """
    row_hp, column_hp = frequencies_ahp.float()
    return places_na[..., 0, None, None] * row_hp + places_na[..., 1, None, None] * column_hp


def released_concat_angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """The last form of axial positions in the study's public code: concatenated axes under rotate-half. No rotation.

    The channels of a head are given the angles [i f, i f, j f, j f], but pair k holds channels k and k + D/2. So the
    first channel of a pair turns with the row i and the second with the column j:
    x'_k = x_k cos(i f) - x_(k+D/2) sin(i f), x'_(k+D/2) = x_(k+D/2) cos(j f) + x_k sin(j f). The determinant of that
    map is cos((i - j) f) and its squared singular values are 1 +- |sin((i - j) f)|: a rotation on the diagonal only.
    The public code computed the angles of its three forms in the dtype of the model; here they are exact.

    Returns:
        Radians, shape (height * width, head_dim / 2, 2), float64: of the first and the second channel of each pair.
    """
    return _places(height, width)[:, None, :] * axis_frequencies(head_dim, base).repeat(2)[:, None]


def released_sum_angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """An earlier form: (row i, column j) turns by (i + j) f, so places on one anti-diagonal look alike.

    The public file states this formula with frequencies f_m = base^(-4m/D), m < D/4, given to pairs m and D/4 + m. It
    then reshapes its table to half as many rows as there are patches, so that it could not have run as it stands.

    Returns:
        Radians, shape (height * width, head_dim / 2), float64.
    """
    return _places(height, width).sum(dim=1).outer(axis_frequencies(head_dim, base).repeat(2))


def released_sqfreq_angles(height: int, width: int, head_dim: int, base: float) -> Tensor:
    """The first form: a valid axial rotation whose frequencies fall twice as fast as meant.

    As `axial_angles`, with f_m = base^(-8m/D): the exponent is divided by D/4 where D/2 was meant. Rows turn
    neighbouring channels of a head's first half, columns those of its second half. CLS is at (0, 0), which is no turn
    at all. With D = 64 and base 10000, 9 of the 16 frequencies of an axis turn less than 0.01 rad over 24 patches.
    """
    return axial_angles(height, width, head_dim, base**2)


def axis_frequencies(head_dim: int, base: float) -> Tensor:
    """Frequencies f_m = base^(-4m/D) of one axis, shape (head_dim / 4,), float64."""
    import torch

    if head_dim % 4:
        raise ValueError(f"axial positions need a head dimension that is a multiple of 4, got {head_dim}")
    return base ** (-4 * torch.arange(head_dim // 4, dtype=torch.float64) / head_dim)


def _places(height: int, width: int) -> Tensor:
    """Row and column of every patch, shape (height * width, 2), float64."""
    import torch

    return torch.cartesian_prod(torch.arange(height), torch.arange(width)).view(-1, 2).double()


def _by_axis(places_n2: Tensor, head_dim: int, base: float) -> Tensor:
    import torch

    frequencies_m = axis_frequencies(head_dim, base)
    rows_nm, columns_nm = (place_n.outer(frequencies_m) for place_n in places_n2.T)
    return torch.cat([rows_nm, columns_nm], dim=1)


_AXIAL = Scheme(base=100.0, angles=axial_angles, treatments=("keep", "replace", "released"))
_RELEASED = Scheme(
    base=10000.0,
    angles=released_concat_angles,
    treatments=("keep", "replace", "released"),
    named={"released_concat": ("2D-RoPE as released", {"table": "replace"})},
)
SCHEMES: dict[str, Scheme] = {
    "learned": Scheme(
        base=100.0,
        named={"learned": ("learned positions", {}), "none": ("no encoder positions", {"table": "replace"})},
    ),
    "sincos": Scheme(
        base=10000.0,
        table=sincos_table,
        treatments=("replace",),
        named={"sincos": ("sin-cos table", {"table": "replace"})},
    ),
    "rope1d": Scheme(base=10000.0, angles=rope1d_angles, named={"rope1d": ("1D-RoPE", {"table": "replace"})}),
    "axial": replace(
        _AXIAL,
        named={
            "axial": ("2D-RoPE", {"table": "replace"}),
            "axial+keep": ("2D-RoPE and learned table", {"table": "keep"}),
        },
        conventions={
            "rope_vit": _AXIAL,
            "qwen2_vl": replace(_AXIAL, base=10000.0),
            "dinov3": replace(_AXIAL, angles=axial_normalised_angles),
        },
    ),
    "mixed": Scheme(base=10.0, frequencies=mixed_frequencies, named={"mixed": ("mixed 2D-RoPE", {"table": "replace"})}),
    "released_concat": _RELEASED,
    "released_sum": replace(
        _RELEASED,
        angles=released_sum_angles,
        named={"released_sum": ("2D-RoPE as released, sum", {"table": "replace"})},
    ),
    "released_sqfreq": replace(
        _RELEASED,
        angles=released_sqfreq_angles,
        pairing="neighbours",
        named={"released_sqfreq": ("2D-RoPE as released, squared", {"table": "replace"})},
    ),
}
extend("positions", SCHEMES, Scheme)
