"""Standing between the attention modules of a language model and what computes their attention."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from blindspot.errors import UserError

IMPLEMENTATION = "blindspot_attending"
See = Callable[[int, Tensor, Tensor], None]
Add = Callable[[int, Tensor], Tensor]


class _Watch(NamedTuple):
    layer: int
    see: See | None
    add: Add | None
    called: list[int]


@contextmanager
def attending(layers: Sequence[nn.Module], see: See | None = None, add: Add | None = None) -> Iterator[None]:
    """Watch and change attention, layer by layer as it is computed, while the block lasts.

    Nothing is kept here, so a whole model's attention need not fit into memory. The model's own eager attention goes on
    doing the work.

    Args:
        layers: blocks of the language model.
        see: is given the layer, its weights of shape (batch, heads, queries, keys), and the scores of the last query
            before the mask and the softmax, of shape (batch, heads, keys).
        add: is given the layer and the last query's scores; what it returns is added to them.

    Raises:
        UserError: if some layer computes its attention by itself, so that there is nothing to stand between.
    """
    watched: list[Any] = []
    configs: dict[int, Any] = {}
    called: list[int] = []
    for number, layer in enumerate(layers):
        for module in layer.modules():
            config = getattr(module, "config", None)
            if hasattr(config, "_attn_implementation") and hasattr(_home(module), "eager_attention_forward"):
                holder: Any = module
                holder.blindspot_watch = _Watch(number, see, add, called)
                watched.append(holder)
                configs[id(config)] = config
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = IMPLEMENTATION
        yield
        if len(set(called)) < len(layers):
            raise UserError("this model computes attention in a way of its own, which cannot be watched or changed")
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        for holder in watched:
            del holder.blindspot_watch


def _home(module: nn.Module) -> Any:
    return sys.modules[type(module).__module__]


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    watch: _Watch = module.blindspot_watch
    eager = _home(module).eager_attention_forward
    if query.shape[2] != key.shape[2]:  # cross-attention
        return eager(module, query, key, value, attention_mask, **kwargs)
    watch.called.append(watch.layer)
    scores_bhk = _last_scores(query, key, kwargs.get("scaling"), kwargs.get("softcap"))
    if watch.add is not None:
        added_bhqk = query.new_zeros(*query.shape[:3], key.shape[2])
        added_bhqk[:, :, -1] = watch.add(watch.layer, scores_bhk).to(query.dtype)
        attention_mask = added_bhqk if attention_mask is None else attention_mask + added_bhqk
    output, weights_bhqk = eager(module, query, key, value, attention_mask, **kwargs)
    if watch.see is not None:
        watch.see(watch.layer, weights_bhqk.float(), scores_bhk)
    return output, weights_bhqk


def _last_scores(query: Tensor, key: Tensor, scaling: float | None, softcap: float | None) -> Tensor:
    keys_bhkd = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores_bhk = torch.einsum("bhd,bhkd->bhk", query[:, :, -1].float(), keys_bhkd.float())
    scores_bhk = scores_bhk * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    return scores_bhk if softcap is None else softcap * torch.tanh(scores_bhk / softcap)


AttentionInterface.register(IMPLEMENTATION, _attend)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)
