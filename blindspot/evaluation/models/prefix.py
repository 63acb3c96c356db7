"""Prompts that begin alike are computed once up to where they part.

A picture and the text before it go through the model once for all questions about it. The rest of every prompt then
runs as one batch on a cache whose rows begin with their picture's keys and values. A row's tokens lie side by side, as
in ordinary left padding, so that sliding windows and positions are those of the question alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from blindspot.evaluation.models.rows import Row
from blindspot.model.body import Seen

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


ROOM = 16
"""Tokens that a new cache has room for beyond the prompts: most answers are short."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """What questions about the same pictures have in common.

    Attributes:
        cache: keys and values of several prefixes of one length; None for an empty prefix.
        row: which of them.
        length: of the prefix.
        next_a1: position of the token behind it, on every axis that the model has; shape (axes, 1) or (1,).
    """

    cache: DynamicCache | None
    row: int
    length: int
    next_a1: Tensor


@dataclass
class State:
    """A batch up to the last token of every row.

    Attributes:
        cache: keys and values.
        mask_bl: 1 for tokens, 0 for padding.
        next_ab1: position of the next token; shape (axes, batch, 1) or (batch, 1).
        logits_bv: what the next token is.
    """

    cache: GrowingCache
    mask_bl: Tensor
    next_ab1: Tensor
    logits_bv: Tensor

    def pick(self, rows_b: Tensor) -> None:
        """Only these rows, in this order; a row may come more than once."""
        self.cache.batch_select_indices(rows_b)
        seen: Seen | None = getattr(self.cache, "blindspot_seen", None)
        if seen is not None:
            self.cache.blindspot_seen = _pick_seen(seen, rows_b)  # pyright: ignore[reportAttributeAccessIssue]
        self.mask_bl, self.logits_bv = self.mask_bl[rows_b], self.logits_bv[rows_b]
        self.next_ab1 = self.next_ab1[..., rows_b, :]


def prefixes(model: Any, groups: Sequence[Sequence[Row]], most: int) -> list[Prefix]:
    """The prefix of each group of rows, computed up to ``most`` at a time where they have one shape."""
    alike: dict[Any, list[int]] = {}
    for number, group in enumerate(groups):
        alike.setdefault(_shape(group[0]), []).append(number)
    made: dict[int, Prefix] = {}
    for numbers in alike.values():
        for start in range(0, len(numbers), most):
            some = numbers[start : start + most]
            made.update(zip(some, _prefill(model, [groups[number][0] for number in some]), strict=True))
    return [made[number] for number in range(len(groups))]


def begin(model: Any, rows: Sequence[Row], prefix_of: Sequence[Prefix]) -> State:
    """The rest of the rows' prompts, on top of their prefixes; either all prefixes are empty or none is."""
    lengths = [len(row.ids) for row in rows]
    rest = [length - prefix.length for length, prefix in zip(lengths, prefix_of, strict=True)]
    total, longest = max(lengths), max(rest)
    start = total - longest
    padding_b1 = torch.tensor([[longest - own] for own in rest])
    ids_bs = torch.tensor([[0] * (longest - own) + [*row.ids[-own:]] for own, row in zip(rest, rows, strict=True)])
    mask_bl = (torch.arange(total) >= total - torch.tensor(lengths)[:, None]).long()
    step_bs = (torch.arange(longest) - padding_b1).clamp(min=0)
    positions_abs = torch.stack([prefix.next_a1 for prefix in prefix_of], dim=-2) + step_bs
    cache = _joined(prefix_of, [total - own for own in rest], start, total + ROOM)
    if padding_b1.any():
        cache.keep((torch.arange(longest) < padding_b1).to(model.device))
    inputs = on_device(model, {"input_ids": ids_bs, "attention_mask": mask_bl, "position_ids": positions_abs})
    logits_b1v = forward(model, cache, inputs, keep=1)
    cache.keep(None)
    return State(cache, inputs["attention_mask"], inputs["position_ids"][..., -1:] + 1, logits_b1v[:, -1])


def advance(model: Any, state: State, ids_bn: Tensor) -> Tensor:
    """Let every row go on with these tokens.

    Returns:
        Logits behind each of them, shape (batch, n, vocabulary).
    """
    new = ids_bn.shape[1]
    positions = state.next_ab1 + torch.arange(new, device=ids_bn.device)
    state.mask_bl = torch.cat([state.mask_bl, torch.ones_like(ids_bn)], dim=1)
    state.next_ab1 = state.next_ab1 + new
    inputs = {"input_ids": ids_bn, "attention_mask": state.mask_bl, "position_ids": positions}
    logits_bnv = forward(model, state.cache, inputs, keep=new)
    state.logits_bv = logits_bnv[:, -1]
    return logits_bnv


@torch.no_grad()
def forward(model: Any, cache: DynamicCache, inputs: Mapping[str, Any], keep: int) -> Tensor:
    """Logits of the last ``keep`` tokens; keys and values go to ``cache``."""
    return model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=keep).logits[:, -keep:].float()


def _shape(row: Row) -> Any:
    """Equal for rows whose prefixes can be stacked without padding."""
    return row.head, tuple((name, row.media[name].shape) for name in sorted(row.media))


def _prefill(model: Any, rows: Sequence[Row]) -> list[Prefix]:
    """Prefixes of rows of equal `_shape`."""
    length = rows[0].head
    positions = [_positions(model, row) for row in rows]
    nexts = [positions_a1l[..., 0, length : length + 1] for positions_a1l in positions]
    if not length:
        return [Prefix(None, 0, 0, next_a1) for next_a1 in nexts]
    inputs: dict[str, Tensor] = {
        "input_ids": torch.tensor([row.ids[:length] for row in rows]),
        "attention_mask": torch.ones(len(rows), length, dtype=torch.long),
        "position_ids": torch.cat([positions_a1l[..., :length] for positions_a1l in positions], dim=-2),
    }
    inputs |= {name: torch.cat([row.types[name][:, :length] for row in rows]) for name in rows[0].types}
    inputs |= {name: torch.cat([row.media[name] for row in rows]) for name in rows[0].media}
    cache = DynamicCache()
    forward(model, cache, on_device(model, inputs), keep=1)
    return [Prefix(cache, number, length, next_a1) for number, next_a1 in enumerate(nexts)]


def _positions(model: Any, row: Row) -> Tensor:
    """Positions of a prompt's tokens as ``generate`` counts them; shape (axes, 1, length) or (1, length)."""
    ids_1l = torch.tensor([row.ids])
    inputs = {"input_ids": ids_1l, "attention_mask": torch.ones_like(ids_1l), **row.types, **row.media}
    return model._prepare_position_ids_for_generation(ids_1l, inputs)


def _joined(prefix_of: Sequence[Prefix], ends: Sequence[int], length: int, room: int) -> GrowingCache:
    """A cache whose rows begin with their prefixes, which end at ``ends``."""
    caches = list({id(prefix.cache): prefix.cache for prefix in prefix_of if prefix.cache is not None}.values())
    if not caches:
        return GrowingCache()
    number = {id(cache): place for place, cache in enumerate(caches)}
    placed = [Placed(number[id(prefix.cache)], prefix.row, end) for prefix, end in zip(prefix_of, ends, strict=True)]
    cache = spread(caches, placed, length, room)
    if hasattr(caches[0], "blindspot_seen"):
        seen = [one.blindspot_seen for one in caches]  # pyright: ignore[reportAttributeAccessIssue]
        cache.blindspot_seen = _spread_seen(seen, placed, length)  # pyright: ignore[reportAttributeAccessIssue]
    return cache


def _spread_seen(seen: Sequence[Seen], placed: Sequence[Placed], length: int) -> Seen:
    """What a variant remembers of the pictures in several caches, for the rows of the new one."""
    shift_b1 = torch.stack([seen[one.source].shift_b1[one.row] for one in placed])
    if seen[0].media is None:
        return Seen(length, shift_b1)
    first = [0, *accumulate(len(one.media or ()) for one in seen)]
    last_b = [first[one.source] + int(seen[one.source].last_image_b[one.row]) for one in placed]  # pyright: ignore
    media = [image for one in seen for image in one.media or ()]
    return Seen(length, shift_b1, media, torch.tensor(last_b, device=shift_b1.device))


def _pick_seen(seen: Seen, rows_b: Tensor) -> Seen:
    last_b = None if seen.last_image_b is None else seen.last_image_b[rows_b]
    return replace(seen, shift_b1=seen.shift_b1[rows_b], last_image_b=last_b)


def on_device(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs where the model is; pictures in its precision."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }
