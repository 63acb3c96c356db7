"""Attention inside documents, none of which sees another, though several may stand side by side in one row.

Three ways, of the same result: ``documents``, scaled dot products of one document after the other, which computes
nothing in vain on any device; ``varlen``, torch's flash attention for rows of documents, on GPUs in bfloat16; ``mask``,
a mask of shape (1, 1, length, length) for models whose attention is their own.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

from blindspot.errors import UserError
from blindspot.positions.language import SCHEMES
from blindspot.training.packing import PREFIX, Micro

Way = Literal["documents", "varlen", "mask"]
_NAMES = {"documents": "blindspot_documents", "varlen": "blindspot_varlen"}


def choose(variant: Any, wish: str, device: torch.device, dtype: torch.dtype, compiled: bool) -> Way:
    """The way for a variant.

    Args:
        variant: a `BlindspotForConditionalGeneration`.
        wish: ``auto``, or a way.
        device: where it computes.
        dtype: in what it computes.
        compiled: whether its blocks are compiled, which lengths of documents as plain numbers would do anew each step.
    """
    text = variant.config.get_text_config()
    scheme = variant.model.parts.language_positions.scheme
    own = {
        "a mask of the positions' own": SCHEMES[scheme].rings is not None,
        "capped scores": bool(getattr(text, "attn_logit_softcapping", None)),
        "dropout of attention": bool(getattr(text, "attention_dropout", 0)),
    }
    reasons = [name for name, holds in own.items() if holds]
    half = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    if wish == "auto":
        return "mask" if reasons else "varlen" if half else "mask" if compiled else "documents"
    if wish != "mask" and reasons:
        raise UserError(f"attention {wish!r} has no {reasons[0]}, which this model needs; choose mask")
    if wish == "varlen" and not half:
        raise UserError("attention 'varlen' is flash attention, for GPUs and bf16; choose documents or mask")
    return wish  # pyright: ignore[reportReturnType]


def use(variant: Any, way: Way | None) -> str:
    """Let the language model attend in this way; None or ``mask``: as it does, but not with flash attention.

    Returns:
        Its attention implementation before, to be put back into its config.
    """
    text = variant.config.get_text_config()
    before: str = text._attn_implementation
    if way in _NAMES:
        text._attn_implementation = _NAMES[way]
    elif "flash" in before:
        text._attn_implementation = "sdpa"
    return before


def arguments(way: Way, text_config: Any, micro: Micro, dtype: torch.dtype) -> dict[str, Any]:
    """What the model is called with for a micro-batch."""
    longest = max(micro.lengths)
    window = getattr(text_config, "sliding_window", None)
    kinds = getattr(text_config, "layer_types", None) or ("sliding_attention",)  # Mistral's layers are all of one kind
    if window and "sliding_attention" in kinds and longest > window:
        raise UserError(
            f"a sample of {longest} tokens is longer than the window of {window} that this language model's "
            "layers see; lower the maximum length"
        )
    if way == "mask":
        bools = text_config._attn_implementation == "sdpa"
        return {"attention_mask": seen_keys(micro.document_bl, micro.turn_bl, None if bools else dtype)}
    if way == "documents":
        return {"document_lengths": micro.lengths}
    starts = torch.tensor([0, *micro.lengths], device=micro.ids_bl.device).cumsum(0, dtype=torch.int32)
    return {"document_starts": starts, "longest_document": longest}


def seen_keys(document_bl: Tensor, turn_bl: Tensor | None, dtype: torch.dtype | None) -> Tensor:
    """Which keys each query sees: those of its document's prefix and of its own turn, up to itself.

    Args:
        document_bl: number of each token's document.
        turn_bl: see `Micro`.
        dtype: of a mask that is added to scores; None for a boolean one.
    """
    seen_bll = document_bl[:, :, None] == document_bl[:, None]
    if turn_bl is not None:
        seen_bll &= (turn_bl[:, None] == PREFIX) | (turn_bl[:, None] == turn_bl[:, :, None])
    seen_b1ll = seen_bll.tril()[:, None]
    if dtype is None:
        return seen_b1ll
    return torch.zeros(seen_b1ll.shape, dtype=dtype, device=seen_b1ll.device).masked_fill_(
        ~seen_b1ll, torch.finfo(dtype).min
    )


def _documents(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    document_lengths: tuple[int, ...] = (),
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' interface: query (1, heads, length, D), result (1, length, heads, D)."""
    grouped = query.shape[1] != key.shape[1]
    parts = zip(*(states.split(document_lengths, dim=2) for states in (query, key, value)), strict=True)
    attended = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped) for q, k, v in parts
    ]
    return torch.cat([part_1hnd.transpose(1, 2) for part_1hnd in attended], dim=1), None


def _varlen(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    document_starts: Tensor | None = None,
    longest_document: int = 0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    from torch.nn.attention.varlen import varlen_attn

    assert document_starts is not None
    q_nhd, k_ngd, v_ngd = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    out: Any = varlen_attn(
        q_nhd,
        k_ngd,
        v_ngd,
        document_starts,
        document_starts,
        longest_document,
        longest_document,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out[None], None


# Without a mask function of the same name transformers makes no mask for these.
AttentionInterface.register(_NAMES["documents"], _documents)
AttentionInterface.register(_NAMES["varlen"], _varlen)
