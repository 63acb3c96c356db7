"""What a positional scheme of the image encoder is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Grid = tuple[int, int]
"""Rows and columns of patches."""

Pairing = Literal["halves", "neighbours"]
"""Which two channels of a head turn together: (k, k + D/2), or (2k, 2k + 1)."""


@dataclass(frozen=True)
class Scheme:
    """One way to tell an encoder where a patch is. At most one of ``angles``, ``frequencies`` and ``table`` is given.

    Attributes:
        base: base of its frequencies, where the configuration names none.
        angles: (height, width, head_dim, base) -> rotation angles of queries and keys in radians, patches in raster
            order: shape (patches, head_dim / 2), or (patches, head_dim / 2, 2) where the two channels of a pair turn by
            different angles, which is no rotation.
        frequencies: (heads, head_dim, base) -> where learnable frequencies start, shape (2, heads, head_dim / 2):
            radians per row and per column.
        table: (height, width, channels, base) -> a fixed table that takes the learned one's place.
        pairing: which channels of a head turn together.
        treatments: what may happen to the learned table, see `EncoderPositions`.
        conventions: variants of the scheme by name, the default one first.
        named: its settings that studies have a name for: name -> (label in tables, fields of `EncoderPositions`).
    """

    base: float
    angles: Callable[[int, int, int, float], Tensor] | None = None
    frequencies: Callable[[int, int, float], Tensor] | None = None
    table: Callable[[int, int, int, float], Tensor] | None = None
    pairing: Pairing = "halves"
    treatments: tuple[str, ...] = ("keep", "replace")
    conventions: Mapping[str, Scheme] = field(default_factory=dict)
    named: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def rotates(self) -> bool:
        """Whether queries and keys are turned."""
        return self.angles is not None or self.frequencies is not None
