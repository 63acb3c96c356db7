"""A key-value cache whose rows begin with what was computed once for many of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

GROWTH = 64
"""Tokens by which a full cache grows; transformers' own copies everything at every token."""


class Placed(NamedTuple):
    """Where a row of a new cache gets its beginning from.

    Attributes:
        source: number of the prefix.
        row: row within that prefix.
        end: where in the new row the prefix ends.
    """

    source: int
    row: int
    end: int


class GrowingLayer(DynamicLayer):
    """Keys and values of a layer in storage that is longer than what is in it.

    Attributes:
        length: tokens in it.
        kept_bn: places of the next update, shape (batch, n), whose old content stays; None: none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.kept_bn: Tensor | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write behind what is there; views of all that is there then."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        self.keys, keys = self._write(self.keys, key_states, start)
        self.values, values = self._write(self.values, value_states, start)
        return keys, values

    def _write(self, store_bhnd: Tensor | None, new_bhnd: Tensor, start: int) -> tuple[Tensor, Tensor]:
        assert store_bhnd is not None, "update initialises"
        missing = self.length - store_bhnd.shape[2]
        if missing > 0:
            store_bhnd = torch.nn.functional.pad(store_bhnd, (0, 0, 0, missing + GROWTH))
        if self.kept_bn is not None:
            new_bhnd = torch.where(self.kept_bn[:, None, :, None], store_bhnd[:, :, start : self.length], new_bhnd)
        store_bhnd[:, :, start : self.length] = new_bhnd
        return store_bhnd, store_bhnd[:, :, : self.length]

    def get_seq_length(self) -> int:
        return self.length


class GrowingCache(DynamicCache):
    """A cache of `GrowingLayer`; behaves as transformers' ``DynamicCache``."""

    def __init__(self) -> None:
        Cache.__init__(self, layer_class_to_replicate=GrowingLayer)

    def keep(self, kept_bn: Tensor | None) -> None:
        """Of the next update, leave these places as they are."""
        for layer in self.layers:
            layer.kept_bn = kept_bn  # pyright: ignore[reportAttributeAccessIssue]


def spread(prefixes: Sequence[DynamicCache], rows: Sequence[Placed], length: int, room: int) -> GrowingCache:
    """A cache of a row for each of ``rows``, that begins with its prefix; what lies before the prefix is zero.

    Args:
        prefixes: caches of plain dynamic layers.
        rows: from which prefix.
        length: of what the new cache holds by its own account; prefixes may reach beyond.
        room: tokens to make room for.

    Raises:
        TypeError: if a prefix has other layers, or layers differ in number.
    """
    made = GrowingCache()
    for layers in zip(*(prefix.layers for prefix in prefixes), strict=True):
        if {type(layer) for layer in layers} != {DynamicLayer}:
            raise TypeError(f"a layer of the cache is a {type(layers[0]).__name__}")
        layer = GrowingLayer()
        layer.lazy_initialization(layers[0].keys, layers[0].values)
        layer.keys = _spread([layer.keys for layer in layers], rows, room)
        layer.values = _spread([layer.values for layer in layers], rows, room)
        layer.length = length
        made.layers.append(layer)
    return made


def _spread(sources: Sequence[Tensor], rows: Sequence[Placed], room: int) -> Tensor:
    _, heads, _, width = sources[0].shape
    store_bhnd = sources[0].new_empty(len(rows), heads, room, width)
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end] != rows[start]:  # a run of rows that begin alike is one copy
            source, row, stop = rows[start]
            prefix_hnd = sources[source][row]
            length = prefix_hnd.shape[1]
            store_bhnd[start:end, :, : stop - length] = 0  # masked, but what is there may be no number
            store_bhnd[start:end, :, stop - length : stop] = prefix_hnd
            start = end
    return store_bhnd
