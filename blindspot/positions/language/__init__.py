"""How the language model knows where image tokens are among the text, as studies and configs hold it. Loads no torch.

`schemes` says where each scheme puts them; `position_ids.place` computes the positions of a batch, `position_ids.mask`
its attention mask, and `rotation.install` makes a transformers language model take them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from blindspot.errors import UserError, one_of
from blindspot.positions.language.schemes import SCHEMES, Scheme, Sections

__all__ = ["SCHEMES", "LanguagePositions", "Scheme", "check"]


@dataclass(frozen=True)
class LanguagePositions:
    """How the language model knows where an image token is.

    A parameter that the scheme doesn't read must keep its default.
    """

    scheme: str = "rope1d"  # a key of `SCHEMES`
    sections: Sections | None = None
    """Rotary pairs (``mrope``, ``circle``) or key-value heads (``mhrope``) for time, rows and columns; None shares them
    in the proportion of the scheme's source."""
    interleaved: bool = False
    """``mrope``: sections alternate pair by pair (Qwen3-VL) instead of following each other (Qwen2-VL)."""
    spatial_reset: bool = False  # ``mrope``, ``mhrope``: rows and columns count from 0 in every image
    delta: float = 0.25  # ``v2pe``: step from one image token to the next, in (0, 1]
    alpha: float = 0.5  # ``circle``: share of the direction from the centre against the reading order, in [0, 1]
    radius: float = 10.0  # ``circle``: radius, in positions
    columns_first: bool = False  # ``mrope``: columns turn the faster pairs, which are rows' in the published models
    spacing: float = 2.0  # ``videorope``: positions from one frame to the next

    def __post_init__(self) -> None:
        one_of(self.scheme, SCHEMES, "language positions", "scheme")
        if isinstance(self.sections, list):
            object.__setattr__(self, "sections", tuple(self.sections))
        for field in fields(self)[1:]:
            unread = field.name not in SCHEMES[self.scheme].parameters
            if unread and getattr(self, field.name) != field.default:
                raise UserError(
                    f"language positions {self.scheme!r} have no {field.name}; leave it out "
                    f"({', '.join(name for name in SCHEMES if field.name in SCHEMES[name].parameters)} have)"
                )
        sizes = self.sections if isinstance(self.sections, tuple) else ()
        least = (0, 1, 1)
        whole = all(type(size) is int and size >= low for size, low in zip(sizes, least, strict=False))
        if self.sections is not None and not (len(sizes) == len(least) and whole):
            raise UserError(
                "language positions: sections must be three whole numbers, for time (0 or more), rows and columns (1 "
                f"or more), got {self.sections!r}"
            )
        for name in ("interleaved", "spatial_reset", "columns_first"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"language positions: {name} must be true or false, got {getattr(self, name)!r}")
        numbers: list[tuple[str, Callable[[float], bool], str]] = [
            ("delta", lambda x: 0 < x <= 1, "above 0 and at most 1"),
            ("alpha", lambda x: 0 <= x <= 1, "from 0 to 1"),
            ("radius", lambda x: 0 < x < math.inf, "above 0"),
            ("spacing", lambda x: 0 < x < math.inf, "above 0"),
        ]
        for name, right, words in numbers:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not right(value):
                raise UserError(f"language positions: {name} must be a number {words}, got {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """The scheme and its own parameters, JSON-serialisable; `from_dict` reads it back."""
        read = {name: getattr(self, name) for name in sorted(SCHEMES[self.scheme].parameters)}
        return {"scheme": self.scheme} | {k: list(v) if isinstance(v, tuple) else v for k, v in read.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LanguagePositions":
        """Read `to_dict`'s form; absent keys take their defaults."""
        for key in values:
            one_of(key, [field.name for field in fields(cls)], "language positions", "key")
        return cls(**values)


def check(positions: LanguagePositions, output_grid: tuple[int, int] | None) -> None:
    """Refuse a scheme that needs rows and columns behind a connector that leaves none.

    Args:
        output_grid: rows and columns of the connector's output; None for unordered queries (Q-Former, resampler).
    """
    if output_grid is None and SCHEMES[positions.scheme].needs_grid:
        ordered = ", ".join(name for name, scheme in SCHEMES.items() if not scheme.needs_grid)
        raise UserError(
            f"language positions {positions.scheme!r} give every image token a row and a column, but this connector's "
            f"outputs are unordered queries that have neither; use {ordered}, or a connector that keeps the grid"
        )
