"""Prompts that begin alike are computed once up to where they part.

A picture and the text before it go through the model once for all questions about it. The rest of every prompt then
runs as one batch on a cache whose rows begin with their picture's keys and values. A row's tokens lie side by side, as
in ordinary left padding, so that sliding windows and positions are those of the question alone.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from blindspot.evaluation.base import Sampling
from blindspot.evaluation.models.rows import PromptRow, on_device, stacked
from blindspot.model.body import Seen

GROWTH = 64
"""Tokens by which a full cache grows; transformers' own copies everything at every token."""
ROOM = 16
"""Tokens that a new cache has room for beyond the prompts: most answers are short."""


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

    blindspot_seen: Seen | None = None  # what a variant of ours keeps on its cache

    def __init__(self) -> None:
        Cache.__init__(self, layer_class_to_replicate=GrowingLayer)

    def keep(self, kept_bn: Tensor | None) -> None:
        """Of the next update, leave these places as they are."""
        for layer in self.layers:
            layer.kept_bn = kept_bn  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True, eq=False)
class Prefix:
    """What questions about the same pictures have in common."""

    cache: Any  # keys and values of several prefixes of one length; None for an empty prefix
    row: int  # which of them
    length: int  # of the prefix
    next_a1: Tensor  # position of the token behind it, on every axis that the model has; shape (axes, 1) or (1,)


@dataclass
class State:
    """A batch up to the last token of every row."""

    cache: GrowingCache  # keys and values
    mask_bl: Tensor  # 1 for tokens, 0 for padding
    next_ab1: Tensor  # position of the next token; shape (axes, batch, 1) or (batch, 1)
    logits_bv: Tensor  # what the next token is

    def pick(self, rows_b: Tensor) -> None:
        """Only these rows, in this order; a row may come more than once."""
        self.cache.batch_select_indices(rows_b)
        seen = self.cache.blindspot_seen
        if seen is not None:
            last_b = None if seen.last_image_b is None else seen.last_image_b[rows_b]
            self.cache.blindspot_seen = replace(seen, shift_b1=seen.shift_b1[rows_b], last_image_b=last_b)
        self.mask_bl, self.logits_bv = self.mask_bl[rows_b], self.logits_bv[rows_b]
        self.next_ab1 = self.next_ab1[..., rows_b, :]


def prefixes(model: Any, groups: Sequence[Sequence[PromptRow]], most: int) -> list[Prefix]:
    """The prefix of each group of rows, computed up to ``most`` at a time where they have one shape."""
    alike: dict[Any, list[int]] = {}
    for number, group in enumerate(groups):
        media = group[0].media
        shapes = tuple((name, media[name].shape) for name in sorted(media))
        alike.setdefault((group[0].head, shapes), []).append(number)
    made: dict[int, Prefix] = {}
    for (length, _), numbers in alike.items():
        for start in range(0, len(numbers), most):
            some = numbers[start : start + most]
            rows, positions, cache = [groups[number][0] for number in some], [], None
            for row in rows:  # positions as ``generate`` counts them; shape (axes, 1, length) or (1, length)
                ids_1l = torch.tensor([row.ids])
                inputs = {"input_ids": ids_1l, "attention_mask": torch.ones_like(ids_1l), **row.types, **row.media}
                positions.append(model._prepare_position_ids_for_generation(ids_1l, inputs))
            if length:
                cut = [
                    replace(row, ids=row.ids[:length], types={name: of[:, :length] for name, of in row.types.items()})
                    for row in rows
                ]
                places = torch.cat([positions_a1l[..., :length] for positions_a1l in positions], dim=-2)
                cache = DynamicCache()
                forward(model, cache, {**stacked(model, cut), "position_ids": places.to(model.device)}, keep=1)
            for row, (number, positions_a1l) in enumerate(zip(some, positions, strict=True)):
                made[number] = Prefix(cache, row, length, positions_a1l[..., 0, length : length + 1])
    return [made[number] for number in range(len(groups))]


def spread(prefix_of: Sequence[Prefix], ends: Sequence[int], length: int, room: int) -> GrowingCache:
    """A cache whose rows begin with their prefixes, which end at ``ends``; what lies before a prefix is zero.

    Args:
        prefix_of: the prefix of each row; either all are empty or none is.
        ends: where in the new row each ends.
        length: of what the new cache holds by its own account; prefixes may reach beyond.
        room: tokens to make room for.

    Raises:
        TypeError: if a prefix has other layers than plain dynamic ones.
    """
    made = GrowingCache()
    caches = list({id(prefix.cache): prefix.cache for prefix in prefix_of if prefix.cache is not None}.values())
    if not caches:
        return made
    runs: list[tuple[Prefix, int, slice]] = []  # rows that begin alike are one copy
    for (_, end), run in groupby(range(len(ends)), key=lambda row: (id(prefix_of[row]), ends[row])):
        first, *rest = run
        runs.append((prefix_of[first], end, slice(first, first + 1 + len(rest))))
    for number, old in enumerate(caches[0].layers):
        if any(type(cache.layers[number]) is not DynamicLayer for cache in caches):
            raise TypeError(f"a layer of the cache is a {type(old).__name__}")
        layer = GrowingLayer()
        layer.lazy_initialization(old.keys, old.values)
        for name in ("keys", "values"):
            _, heads, _, width = getattr(old, name).shape
            store_bhnd = getattr(old, name).new_empty(len(ends), heads, room, width)
            for prefix, end, rows in runs:
                prefix_hnd = getattr(prefix.cache.layers[number], name)[prefix.row]
                start = end - prefix_hnd.shape[1]
                store_bhnd[rows, :, :start] = 0  # masked, but what is there may be no number
                store_bhnd[rows, :, start:end] = prefix_hnd
            setattr(layer, name, store_bhnd)
        layer.length = length
        made.layers.append(layer)
    if hasattr(caches[0], "blindspot_seen"):
        made.blindspot_seen = _spread_seen(caches, prefix_of, length)
    return made


def _spread_seen(caches: Sequence[Any], prefix_of: Sequence[Prefix], length: int) -> Seen:
    """What a variant remembers of the pictures in several caches, for the rows of the new one."""
    seen_of: list[Seen] = [prefix.cache.blindspot_seen for prefix in prefix_of]
    rows = [prefix.row for prefix in prefix_of]
    shift_b1 = torch.stack([seen.shift_b1[row] for seen, row in zip(seen_of, rows, strict=True)])
    if seen_of[0].media is None:
        return Seen(length, shift_b1)
    media = [image for cache in caches for image in cache.blindspot_seen.media or ()]
    counts = accumulate((len(cache.blindspot_seen.media or ()) for cache in caches), initial=0)
    first = {id(cache.blindspot_seen): count for cache, count in zip(caches, counts, strict=False)}
    last_b = [first[id(seen)] + int(seen.last_image_b[row]) for seen, row in zip(seen_of, rows, strict=True)]  # pyright: ignore
    return Seen(length, shift_b1, media, torch.tensor(last_b, device=shift_b1.device))


def begin(model: Any, rows: Sequence[PromptRow], prefix_of: Sequence[Prefix]) -> State:
    """The rest of the rows' prompts, on top of their prefixes; either all prefixes are empty or none is."""
    lengths = [len(row.ids) for row in rows]
    rest = [length - prefix.length for length, prefix in zip(lengths, prefix_of, strict=True)]
    total, longest = max(lengths), max(rest)
    padding_b1 = torch.tensor([[longest - own] for own in rest])
    ids_bs = torch.tensor([[0] * (longest - own) + [*row.ids[-own:]] for own, row in zip(rest, rows, strict=True)])
    mask_bl = (torch.arange(total) >= total - torch.tensor(lengths)[:, None]).long()
    step_bs = (torch.arange(longest) - padding_b1).clamp(min=0)
    positions_abs = torch.stack([prefix.next_a1 for prefix in prefix_of], dim=-2) + step_bs
    cache = spread(prefix_of, [total - own for own in rest], total - longest, total + ROOM)
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


class Chooser:
    """Chooses the next token of rows: the likeliest, or one that is drawn as each row says.

    A row's numbers come from its own seed, one a token, so that what is drawn depends on no other row. All rows draw at
    one temperature, or none does.
    """

    def __init__(self, draws: Sequence[Sampling | None]) -> None:
        self._draw = draws[0]
        self._numbers = [random.Random(draw.seed) for draw in draws if draw]

    def __call__(self, logits_bv: Tensor, rows: Sequence[int]) -> Tensor:
        """The tokens of these rows, of shape (batch,)."""
        if self._draw is None:
            return logits_bv.argmax(dim=-1)
        exact_bv = logits_bv.cpu().double() if logits_bv.device.type == "mps" else logits_bv.double()
        share_bv, token_bv = (exact_bv / self._draw.temperature).softmax(dim=-1).sort(descending=True, stable=True)
        before_bv = share_bv.cumsum(dim=-1) - share_bv
        upto_bv = torch.where(before_bv < self._draw.top_p, share_bv, 0.0).cumsum(dim=-1)
        drawn_b = upto_bv.new_tensor([self._numbers[row].random() for row in rows]) * upto_bv[:, -1]
        place_b = (upto_bv <= drawn_b[:, None]).sum(dim=-1)
        return token_bv.gather(1, place_b[:, None])[:, 0].to(logits_bv.device)


def generate(
    model: Any, state: State, rows: Sequence[PromptRow], ends: Collection[int]
) -> Iterator[tuple[int, list[int], str]]:
    """A token again and again, until it is one of ``ends`` or a row reaches its limit; uses up ``state``.

    Rows leave the batch once half of it is done, so that one long answer does not keep all others computing.

    Yields:
        Which row, its ids without the token that ended it, and ``end`` or ``length``.
    """
    said: dict[int, list[int]] = {row: [] for row in range(len(rows))}
    place, choose = list(said), Chooser([row.asked.draw for row in rows])
    while said:
        token_b = choose(state.logits_bv, place)
        for row, token in zip(place, token_b.tolist(), strict=True):
            if row not in said:
                continue
            if token in ends:
                yield row, said.pop(row), "end"
                continue
            said[row].append(token)
            if len(said[row]) == rows[row].limit:
                yield row, said.pop(row), "length"
        if not said:
            return
        if 2 * len(said) <= len(place):
            left_b = torch.tensor([number for number, row in enumerate(place) if row in said], device=token_b.device)
            place = [row for row in place if row in said]
            token_b = token_b[left_b]
            state.pick(left_b)
        advance(model, state, token_b[:, None])


def likelihoods(model: Any, state: State, options: Sequence[Mapping[str, Sequence[int]]]) -> list[dict[str, float]]:
    """Log-probability of each row's answers, summed over their tokens, by label; uses up ``state``."""
    first_bv = state.logits_bv.log_softmax(dim=-1)
    sums = [{label: float(first_bv[row, ids[0]]) for label, ids in few.items()} for row, few in enumerate(options)]
    longer = [(row, label, ids) for row, few in enumerate(options) for label, ids in few.items() if len(ids) > 1]
    if not longer:
        return sums
    most = max(len(ids) for _, _, ids in longer)
    ids_bn = torch.tensor([[*ids, *[0] * (most - len(ids))] for _, _, ids in longer], device=first_bv.device)
    state.pick(torch.tensor([row for row, _, _ in longer], device=first_bv.device))
    next_bn = of_tokens(advance(model, state, ids_bn[:, :-1]), ids_bn[:, 1:])
    for (row, label, ids), values in zip(longer, next_bn.tolist(), strict=True):
        sums[row][label] += sum(values[: len(ids) - 1])
    return sums


def of_tokens(logits_bnv: Tensor, ids_bn: Tensor) -> Tensor:
    """Log-probabilities of tokens, shape (batch, n)."""
    return logits_bnv.log_softmax(dim=-1).gather(-1, ids_bn[..., None])[..., 0]
