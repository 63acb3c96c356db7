"""What a positional scheme of the language model says: where the tokens of an image are, and what each axis turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Sections = tuple[int, int, int]


@dataclass(frozen=True)
class Layout:
    """Positions of one image's tokens.

    Attributes:
        offsets_an: shape (axes, tokens), in reading order: position on every axis, counted from the position that the
            first token would have in ordinary text. Whole numbers (long) or float64.
        advance: how far the next text token is from there.
        from_zero: axes that count from 0 instead.
    """

    offsets_an: Tensor
    advance: float
    from_zero: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Scheme:
    """One positional scheme.

    Attributes:
        layout: (height, width, **parameters) -> `Layout`; its parameters are fields of `LanguagePositions`.
        allocate: (count, **parameters) -> for each of ``count`` rotary pairs the axis that turns it; likewise. None:
            axis 0.
        per_head: ``allocate`` hands out key-value heads, not rotary pairs.
        needs_grid: image tokens must have rows and columns.
        rings: (height, width) -> ring of each token; image tokens see rings up to their own. None: causal.
        named: its settings that studies have a name for: name -> (label in tables, fields of `LanguagePositions`).
    """

    layout: Callable[..., Layout]
    allocate: Callable[..., tuple[int, ...]] | None = None
    per_head: bool = False
    needs_grid: bool = True
    rings: Callable[[int, int], Tensor] | None = None
    named: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def parameters(self) -> set[str]:
        """Every field of `LanguagePositions` that the scheme reads."""
        return {*_parameters(self.layout, 2), *_parameters(self.allocate, 1)}

    def layout_of(self, height: int, width: int, positions: Any) -> Layout:
        """The layout of one image under the parameters in ``positions``."""
        return self.layout(height, width, **{name: getattr(positions, name) for name in _parameters(self.layout, 2)})

    def axes_of(self, count: int, positions: Any) -> tuple[int, ...]:
        """For each of ``count`` pairs (or key-value heads) the axis that turns it.

        Raises:
            UserError: if they can't be handed out as ``positions`` asks.
        """
        if self.allocate is None:
            return (0,) * count
        return self.allocate(count, **{name: getattr(positions, name) for name in _parameters(self.allocate, 1)})


@cache
def _parameters(function: Callable[..., Any] | None, behind: int) -> list[str]:
    """Names of what a function takes behind its first arguments."""
    return [] if function is None else [*signature(function).parameters][behind:]


def rows_and_columns(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column of every patch in reading order, shape (height * width,) each."""
    import torch

    return torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
