"""Which patches an encoder is looking at, and the tables that turn them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blindspot.positions.encoder.config import EncoderPositions
from blindspot.positions.encoder.rotary import Tables, tables_of
from blindspot.positions.encoder.scheme import Grid

_GRIDS_KEPT = 64  # native aspect ratios come in dozens
_BATCHES_KEPT = 4


class _Recent:
    """The last results of a computation, by key."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            # Tables made inside inference_mode could not be used for training later.
            with torch.inference_mode(False), torch.no_grad():
                self._kept[key] = make()
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return self._kept[key]

    def __deepcopy__(self, memo: object) -> "_Recent":
        return _Recent(self._size)

    def __reduce__(self) -> Any:
        return _Recent, (self._size,)


class PatchGrid:
    """The grids of the images that a tower is given, shared by its attention modules.

    Tables are computed when they are first needed, on the device and in the dtype of the queries, and kept: a tower
    can be moved, cast and copied freely.
    """

    def __init__(self, positions: EncoderPositions, grid: Grid, prefix_tokens: int) -> None:
        self.positions = positions
        self.prefix_tokens = prefix_tokens
        self.grids: tuple[Grid, ...] = (grid,)
        self._per_grid = _Recent(_GRIDS_KEPT)
        self._per_batch = _Recent(_BATCHES_KEPT)

    def set(self, grids: Sequence[Grid]) -> None:
        """See `set_grids`."""
        named = tuple((int(height), int(width)) for height, width in grids)
        if not named or any(height < 1 or width < 1 for height, width in named):
            raise ValueError(f"grids need at least one patch each, got {named}")
        self.grids = named[:1] if len(set(named)) == 1 else named

    def fixed(self, query_bhnd: Tensor, masked: bool) -> Tables:
        """Tables of a scheme that is not learned, for queries of this shape.

        Args:
            query_bhnd: the queries.
            masked: whether an attention mask may hide tokens beyond an image's patches.

        Raises:
            ValueError: if the queries are not those of the grids.
        """
        batch, heads, tokens, dim = query_bhnd.shape
        self._check(batch, tokens, masked)
        key = (self.grids, heads, tokens, dim, query_bhnd.dtype, query_bhnd.device)
        return self._per_batch.get(key, lambda: self._tables(query_bhnd))

    def coordinates(self, query_bhnd: Tensor, masked: bool) -> Tensor:
        """Row and column of every token, shape (tokens, 2) or (batch, tokens, 2), float32; others are at (0, 0).

        Arguments and errors as `fixed`.
        """
        batch, _, tokens, _ = query_bhnd.shape
        self._check(batch, tokens, masked)
        key = (self.grids, tokens, query_bhnd.device)

        def make() -> Tensor:
            with torch.device("cpu"):
                places = [torch.cartesian_prod(torch.arange(h), torch.arange(w)).view(-1, 2) for h, w in self.grids]
                return self._rows(places, tokens, 0.0, self.prefix_tokens).to(query_bhnd.device, torch.float32)

        return self._per_batch.get(key, make)

    def _check(self, batch: int, tokens: int, masked: bool) -> None:
        if len(self.grids) not in (1, batch):
            raise ValueError(f"positions are set for {len(self.grids)} images, but the encoder is given {batch}")
        needed = self.prefix_tokens + max(height * width for height, width in self.grids)
        if tokens < needed or (tokens > needed and not masked):
            shown = ", ".join(f"{height} x {width}" for height, width in dict.fromkeys(self.grids))
            raise ValueError(
                f"the encoder is given {tokens} tokens, but positions are set for patches of {shown} and "
                f"{self.prefix_tokens} prefix tokens: call blindspot.positions.encoder.attach.set_grids first"
            )

    def _tables(self, query_bhnd: Tensor) -> Tables:
        _, heads, tokens, dim = query_bhnd.shape
        per_grid = [self._per_grid.get((grid, dim), lambda grid=grid: self._of_grid(grid, dim)) for grid in self.grids]
        cos_nd = self._rows([tables.cos for tables in per_grid], tokens, 1.0)
        sin_nd = self._rows([tables.sin for tables in per_grid], tokens, 0.0)
        precise = torch.float64 if query_bhnd.dtype == torch.float64 else torch.float32
        cos_nc, sin_nc = (
            x_nd.to(precise).to(query_bhnd.device).to(query_bhnd.dtype).repeat(*[1] * (x_nd.ndim - 1), heads)
            for x_nd in (cos_nd, sin_nd)
        )
        return Tables(cos_nc, sin_nc, per_grid[0].pairing, per_grid[0].is_rotation)

    def _of_grid(self, grid: Grid, head_dim: int) -> Tables:
        rule = self.positions.rule
        assert rule.angles is not None
        with torch.device("cpu"):  # a default device may lack float64, or be meta
            angles_np = rule.angles(*grid, head_dim, self.positions.base)
            return tables_of(angles_np, prefix_tokens=self.prefix_tokens, pairing=rule.pairing)

    def _rows(self, per_grid: Sequence[Tensor], tokens: int, filler: float, prefix: int = 0) -> Tensor:
        padded = [F.pad(x_nd, (0, 0, prefix, tokens - prefix - len(x_nd)), value=filler) for x_nd in per_grid]
        return padded[0] if len(padded) == 1 else torch.stack(padded)
