"""What a diagnostic changes in a run, and the hooks that do it."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from blindspot.errors import UserError
from blindspot.positions.encoder.attach import computes, table_of
from blindspot.positions.encoder.rotary import Rotation, Tables

ATTENDING = "blindspot_attending"
CHUNK = 256
"""Queries whose attention is computed at a time."""
Part = Literal["encoder", "language"]
Change = Callable[[Tensor], Tensor | None]
"""From and to states of shape (batch, tokens, width); None leaves them as they are."""
Places = Tensor | Literal["zero"]


class Site(NamedTuple):
    """A place in the pipeline where states are read and changed: what enters block ``layer`` of a part.

    ``encoder`` layer 0 is what enters the image encoder's first block, the last layer what leaves its last; likewise
    ``language``, whose layer 0 at image tokens is what the connector gives.
    """

    part: Part
    layer: int


@dataclass(frozen=True)
class Changes:
    """Everything that is to be different in a run.

    Attributes:
        edits: of states, each at its site.
        language_places: whose place each token has in the language model, shape (batch, tokens): token t is rotated as
            token ``language_places[b, t]`` would be. Content and causal order stay.
        encoder_places: whose position each patch has in the encoder, shape (patches,), or ``zero`` for no positions.
        scores: added to attention scores of a language-model layer, by layer; shape (batch, 1, tokens, tokens).
    """

    edits: Sequence[tuple[Site, Change]] = ()
    language_places: Tensor | None = None
    encoder_places: Places | None = None
    scores: Mapping[int, Tensor] = field(default_factory=dict)


NOTHING = Changes()


@contextmanager
def on_state(module: nn.Module, before: bool, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let ``change`` see and replace the hidden states that enter (or leave) a block."""

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    def leave(_: nn.Module, __: Any, gave: Any) -> Any:
        return (change(gave[0]), *gave[1:]) if isinstance(gave, tuple) else change(gave)

    hook = module.register_forward_pre_hook(enter, with_kwargs=True) if before else module.register_forward_hook(leave)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def placed(rotary: Sequence[nn.Module], places_bt: Tensor) -> Iterator[None]:
    """Let every token be rotated as another one: ``rotary`` modules give the other's (cos, sin)."""

    def turn(_: nn.Module, __: Any, gave: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """The last dimensions are rows (or 1), tokens and channels."""
        angles = (part.expand(*part.shape[:-3], len(places_bt), *part.shape[-2:]) for part in gave)
        return tuple(part.gather(-2, places_bt[..., None].expand(part.shape)) for part in angles)

    with ExitStack() as stack:
        for module in rotary:
            stack.callback(module.register_forward_hook(turn).remove)
        yield


@contextmanager
def eager(config: Any) -> Iterator[None]:
    """Let a language model attend by eager attention, which is always given a mask, and takes twice the time.

    `attending` is given one too, and goes on.
    """
    before = config._attn_implementation
    config._attn_implementation = ATTENDING if before == ATTENDING else "eager"
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def added_scores(layer: nn.Module, scores_b1tt: Tensor) -> Iterator[None]:
    """Add to the attention mask that a language-model block is given, while it attends by `eager`."""

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = kwargs.get("attention_mask")
        if mask is None or mask.ndim != 4:  # as of linear attention
            raise UserError("this model has layers without attention scores, from which nothing can be hidden")
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=scores_b1tt.dtype).masked_fill(~mask, float("-inf"))
        lowest = torch.finfo(mask.dtype).min
        return args, {**kwargs, "attention_mask": (mask + scores_b1tt.to(mask.dtype)).clamp_min(lowest)}

    hook = layer.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def encoder_placed(model: nn.Module, patches: int, prefix: int, places: Places) -> Iterator[None]:
    """Give every patch of the image encoder the position of another one, or none, and change nothing else.

    Both sources of positions change together: a learned table, and rotation of queries and keys by Blindspot's schemes.
    A picture has so many patches, behind so many prefix tokens; places are as in `Changes`.
    """
    table = table_of(model)
    rotations: list[Any] = [module for module in model.modules() if isinstance(module, Rotation)]
    if computes(model) or (table is None and not rotations):
        raise UserError("this image encoder computes its positions in a way that cannot be changed from outside")
    if table is not None and table.shape[-2] not in (patches, patches + prefix):
        raise UserError(f"the position table has {table.shape[-2]} rows, and a picture has {patches} patches")

    def moved(ordinary: Callable[..., Tables], query_bhnd: Tensor, masked: bool) -> Tables:
        made = ordinary(query_bhnd, masked)
        if isinstance(places, str):
            return made._replace(cos=torch.ones_like(made.cos), sin=torch.zeros_like(made.sin))
        rest = torch.arange(prefix + patches, made.cos.shape[-2])
        order = torch.cat([torch.arange(prefix), places.cpu() + prefix, rest]).to(made.cos.device)
        return made._replace(cos=made.cos[..., order, :], sin=made.sin[..., order, :])

    kept = None if table is None else table.detach().clone()
    if table is not None:
        rows_nd = table.detach().view(-1, table.shape[-1])[-patches:]
        rows_nd.copy_(torch.zeros_like(rows_nd) if isinstance(places, str) else rows_nd[places.to(rows_nd.device)])
    for rotation in rotations:
        rotation.tables = partial(moved, rotation.tables)
    try:
        yield
    finally:
        for rotation in rotations:
            del rotation.tables
        if table is not None and kept is not None:
            table.detach().copy_(kept)


@contextmanager
def attending(
    layers: Sequence[nn.Module],
    queries_bq: Tensor | None = None,
    see: Callable[[int, Tensor, Tensor, Tensor], None] | None = None,
    add: Callable[[int, Tensor], Tensor] | None = None,
    every: bool = True,
) -> Iterator[None]:
    """Watch and change attention, layer by layer as it is computed, while the block lasts.

    The model's own eager attention goes on doing the work, for `CHUNK` queries at a time: of all heads' weights at most
    heads x `CHUNK` x tokens exist at once (32 heads, 2,100 tokens, float32: 69 MB, where a layer has 565 MB and 32
    layers have 18 GB). Where gradients are wanted they are computed again on the way back, so none are kept either.

    Args:
        layers: blocks of the language model.
        queries_bq: tokens whose weights ``see`` is given.
        see: is given the layer, the weights of these queries, shape (batch, heads, queries, keys), the mean over heads
            of all, shape (batch, tokens, keys), and the scores of the last query before the mask and the softmax, of
            shape (batch, heads, keys).
        add: is given the layer and the last query's scores; what it returns is added to them.
        every: that a layer which computes its attention by itself, so there is nothing to stand between, is refused.
    """
    watched: list[Any] = []
    configs: dict[int, Any] = {}
    called: set[int] = set()
    for number, layer in enumerate(layers):
        modules: Any = layer.modules()
        for module in modules:
            config = getattr(module, "config", None)
            if hasattr(config, "_attn_implementation") and hasattr(_home(module), "eager_attention_forward"):
                module.blindspot_watch = number, queries_bq, see, add, called
                watched.append(module)
                configs[id(config)] = config
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = ATTENDING
        yield
        if every and len(called) < len(layers):
            raise UserError("this model computes attention in a way of its own, which cannot be watched or changed")
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        for module in watched:
            del module.blindspot_watch


def _home(module: nn.Module) -> Any:
    return sys.modules[type(module).__module__]


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """What transformers calls for attention while `attending` lasts."""
    layer, queries_bq, see, add, called = module.blindspot_watch
    attend = _home(module).eager_attention_forward
    if query.shape[2] != key.shape[2]:  # cross-attention
        return attend(module, query, key, value, attention_mask, **kwargs)
    called.add(layer)
    scores_bhk = _last_scores(query, key, kwargs) if see is not None or add is not None else query
    if torch.is_grad_enabled():
        attend = partial(checkpoint, attend, use_reentrant=False)
    outputs, means, seen_bhqk = [], [], None
    for start in range(0, query.shape[2], CHUNK):
        part = query[:, :, start : start + CHUNK]
        mask = attention_mask
        if mask is not None and mask.shape[-2] == query.shape[2]:
            mask = mask[..., start : start + CHUNK, :]
        if add is not None and start + CHUNK >= query.shape[2]:
            added_bhqk = query.new_zeros(*part.shape[:3], key.shape[2])
            added_bhqk[:, :, -1] = add(layer, scores_bhk).to(query.dtype)
            mask = added_bhqk if mask is None else mask + added_bhqk
        output, weights_bhqk = attend(module, part, key, value, mask, **kwargs)
        outputs.append(output)
        if see is not None and queries_bq is not None:
            means.append(weights_bhqk.float().mean(dim=1))
            at_bhqk = (queries_bq - start).clamp(0, part.shape[2] - 1)[:, None, :, None]
            at_bhqk = at_bhqk.expand(-1, weights_bhqk.shape[1], -1, weights_bhqk.shape[3])
            inside_b1q1 = (queries_bq // CHUNK == start // CHUNK)[:, None, :, None]
            found_bhqk = weights_bhqk.gather(2, at_bhqk).float()
            seen_bhqk = found_bhqk if seen_bhqk is None else torch.where(inside_b1q1, found_bhqk, seen_bhqk)
    if see is not None and seen_bhqk is not None:
        see(layer, seen_bhqk, torch.cat(means, dim=1), scores_bhk)
    return torch.cat(outputs, dim=1), None


def _last_scores(query: Tensor, key: Tensor, settings: dict[str, Any]) -> Tensor:
    """Scores of the last query before mask and softmax, shape (batch, heads, keys)."""
    keys_bhkd = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores_bhk = torch.einsum("bhd,bhkd->bhk", query[:, :, -1].float(), keys_bhkd.float())
    scaling, softcap = settings.get("scaling"), settings.get("softcap")
    scores_bhk = scores_bhk * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    return scores_bhk if softcap is None else softcap * torch.tanh(scores_bhk / softcap)


AttentionInterface.register(ATTENDING, _attend)
AttentionMaskInterface.register(ATTENDING, eager_mask)
