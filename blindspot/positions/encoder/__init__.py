"""Positional schemes of the image encoder: the registry, their configuration, and how they are attached.

A scheme is a function (height, width, head_dim, base) -> rotation angles per patch, or None for no rotation. Adding
one means a file beside this one and a line in `SCHEMES`.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from blindspot.errors import UserError
from blindspot.positions.encoder import axial, learned, rotary

SCHEMES: dict[str, Callable[[int, int, int, float], Tensor | None]] = {
    "learned": learned.angles,
    "axial": axial.angles,
}
TABLES = ("keep", "replace")


@dataclass(frozen=True)
class EncoderPositions:
    """How an image encoder knows where a patch is.

    Attributes:
        scheme: a key of `SCHEMES`.
        base: base of the rotary frequencies; unused by ``learned``.
        table: ``keep`` the learned absolute position table, or ``replace`` it: zeroed and never trained.
            ``learned`` with ``replace`` is an encoder without any positions.

    Raises:
        UserError: on an unknown scheme or table, or a base that is not above 1.
    """

    scheme: str = "learned"
    base: float = 100.0
    table: str = "keep"

    def __post_init__(self) -> None:
        _one_of(self.scheme, SCHEMES, "positional scheme")
        _one_of(self.table, TABLES, "treatment of the position table")
        if isinstance(self.base, bool) or not isinstance(self.base, int | float) or not 1 < self.base < float("inf"):
            raise UserError(f"encoder positions: base must be a number above 1, got {self.base!r}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EncoderPositions":
        """Read `to_dict`'s form; absent keys take their defaults.

        Raises:
            UserError: on an unknown key, scheme or table, naming the nearest valid one.
        """
        for key in values:
            _one_of(key, [field.name for field in fields(cls)], "key")
        return cls(**values)


def attach(tower: PreTrainedModel, positions: EncoderPositions, grid: int, prefix_tokens: int) -> None:
    """Give ``tower`` the positions. Call again after loading weights or changing the attention implementation.

    The result depends only on the arguments, not on what was attached before, with one exception: a table zeroed by
    ``replace`` stays zero and frozen until weights are loaded into it.

    Args:
        tower: a transformers image encoder, alone or inside a larger model.
        positions: what to attach.
        grid: patches along one side of the (square) image.
        prefix_tokens: tokens before the patches (CLS), which are never rotated.

    Raises:
        ValueError: if the tower has no recognisable attention or position table, or a head dimension that the scheme
            cannot use.
    """
    rotary.remove(tower)
    if positions.table == "replace":
        table = _position_table(tower)
        with torch.no_grad():
            table.weight.zero_()
        table.weight.requires_grad_(False)
    scheme = SCHEMES[positions.scheme]
    head_dims = {module.head_dim for module in rotary.attention_modules(tower)}
    angles = {dim: scheme(grid, grid, dim, positions.base) for dim in head_dims}
    rotations = {dim: angle for dim, angle in angles.items() if angle is not None}
    if rotations:
        rotary.install(tower, rotations.__getitem__, prefix_tokens)


def start_table(tower: PreTrainedModel, grid: int, prefix_tokens: int) -> None:
    """Set the position table of a tower that is to be trained from nothing; see `learned.initial_table`."""
    table = _position_table(tower)
    with torch.no_grad():
        table.weight[:prefix_tokens] = 0
        table.weight[prefix_tokens:] = learned.initial_table(grid, grid, table.weight.shape[1])


def _position_table(tower: nn.Module) -> nn.Embedding:
    tables = [
        module
        for name, module in tower.named_modules()
        if name.endswith("position_embedding") and isinstance(module, nn.Embedding)
    ]
    if len(tables) != 1:
        raise ValueError(f"{type(tower).__name__}: expected one learned position table, found {len(tables)}")
    return tables[0]


def _one_of(value: Any, allowed: Iterable[str], what: str) -> None:
    names = list(allowed)
    if value in names:
        return
    nearest = difflib.get_close_matches(str(value), names, n=1, cutoff=0.0)[0]
    raise UserError(
        f"encoder positions: unknown {what} {value!r}; did you mean {nearest!r}? (one of: {', '.join(names)})"
    )
