"""Rotation that differs between heads, in attention modules whose own rotation is the same for all heads.

The attention module gets cosines of one and sines of zero; queries and keys are turned where its projections leave
them. Keys enter the cache turned, so prefill and cached decoding agree, and the cosines travel with the layer's
arguments, so gradient checkpointing does too.
"""

from typing import Any

import torch
from torch import Tensor, nn

from blindspot.errors import UserError

# What lies between projection and rotation differs between models: nothing, or a norm over each head called q_norm.
KNOWN = ("gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3", "smollm3")


def attention_modules(decoder: nn.Module) -> list[Any]:
    """Self-attention modules of a decoder."""
    return [layer.self_attn for layer in decoder.layers if hasattr(layer, "self_attn")]  # pyright: ignore


def refuse_if_unfit(decoder: Any, scheme: str) -> None:
    """Raise a `UserError` if heads of this decoder can't be turned one by one."""
    kind = decoder.config.model_type
    if kind not in KNOWN:
        raise UserError(
            f"language positions {scheme!r} turn heads differently, which is known to work for language models "
            f"{', '.join(KNOWN)}, not for {kind!r}; use another scheme, such as 'mrope'"
        )


def turn_heads(module: Any) -> list[Any]:
    """Make one attention module turn every head by its own angles; returns the handles that undo it."""
    if not getattr(module, "use_rope", True):  # SmolLM3 has layers without positions
        return []
    handles = [module.register_forward_pre_hook(_take_over, with_kwargs=True)]
    for source in _sources(module):
        source.turns_heads = True
        handles.append(source.register_forward_hook(_turn))
    return handles


def _sources(module: Any) -> list[Any]:
    return [getattr(module, f"{kind}_norm", None) or getattr(module, f"{kind}_proj") for kind in "qk"]


def _take_over(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    cos_blgc, sin_blgc = kwargs["position_embeddings"]
    for source in _sources(module):
        if not source.__dict__.get("turns_heads"):
            raise RuntimeError(
                "projections of the language model were replaced after its positions were installed, which would drop "
                "them: call blindspot.positions.language.install again"
            )
        source.turn = (cos_blgc, sin_blgc)
    still = (torch.ones_like(cos_blgc[:, :, 0]), torch.zeros_like(sin_blgc[:, :, 0]))
    return args, kwargs | {"position_embeddings": still}


def _turn(source: Any, args: Any, output: Tensor) -> Tensor:
    """``output`` is (batch, length, heads * D) or (batch, length, heads, D); g key-value heads serve r heads each."""
    cos_blgc, sin_blgc = (table[:, :, :, None] for table in source.turn)
    del source.turn
    _, length, groups, _, dim = cos_blgc.shape
    x_blgrd = output.reshape(-1, length, groups, output[0, 0].numel() // (groups * dim), dim)
    first, second = x_blgrd.chunk(2, dim=-1)
    turned_blgrd = x_blgrd * cos_blgc + torch.cat([-second, first], dim=-1) * sin_blgc
    return turned_blgrd.reshape(output.shape)
