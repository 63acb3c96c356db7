"""The loss of a micro-batch: cross-entropy summed over supervised tokens, with logits of these alone.

Documents stand side by side in a row and none sees another. There are three ways to attend so, of the same result:
``documents``, scaled dot products of one document after the other, which computes nothing in vain on any device;
``varlen``, torch's flash attention for rows of documents, on GPUs in bfloat16; ``mask``, a mask of shape
(1, 1, length, length) for models whose attention is their own. A fourth, ``turns``, is for rows of turns on a CPU: the
decoder is computed by `turns.computing`.
"""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from blindspot.errors import UserError
from blindspot.positions.language import SCHEMES
from blindspot.training import turns
from blindspot.training.packing import PREFIX, Micro

CHUNK = 1024
Way = Literal["documents", "varlen", "mask", "turns"]


class AnswerLoss(nn.Module):
    """A variant, or a language model, that computes in ``dtype``, with its loss as ``forward``.

    It is the root of what is sharded, so that the head is gathered with it. ``way`` is how documents of a packed row
    attend; None if rows are padded.
    """

    def __init__(self, variant: Any, way: Way | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.variant = variant
        self._way: Way | None = way
        self._dtype = dtype
        text = variant.config.get_text_config()
        self._before = text._attn_implementation
        if way in ("documents", "varlen"):
            text._attn_implementation = f"blindspot_{way}"
        elif "flash" in self._before:
            text._attn_implementation = "sdpa"

    def release(self) -> None:
        """Let the variant attend as before, to be used otherwise than packed."""
        self.variant.config.get_text_config()._attn_implementation = self._before

    def forward(self, micro: Micro) -> tuple[Tensor, Tensor]:
        """Sums of the losses of supervised tokens in nats: of all, and without gradient of each document."""
        head = self.variant.lm_head
        if self._way == "turns":
            body = self.variant.model
            with turns.computing(getattr(body, "language_model", body), micro):
                given = {"attention_mask": torch.ones_like(micro.ids_bl), "position_ids": micro.positions_bl}
                hidden_nd = body(micro.ids_bl, use_cache=False, **micro.pixels, **given).last_hidden_state[0]
            return _sums(token_losses(hidden_nd, head.weight, micro.label_n), micro)
        text = self.variant.config.get_text_config()
        if self._way is None:
            arguments: dict[str, Any] = {"attention_mask": (micro.document_bl >= 0).long()}
        else:
            arguments = attention_arguments(self._way, text, micro, self._dtype)
        hidden_bld = self.variant.model(
            input_ids=micro.ids_bl,
            use_cache=False,
            **micro.pixels,  # which sharding has cast to the dtype of the weights
            **arguments,
        ).last_hidden_state
        if not micro.supervised:  # a sum of nothing would leave this rank without gradients that others wait for
            return head(hidden_bld[:1, :1]).float().sum() * 0, hidden_bld.new_zeros(len(micro.lengths))
        return _sums(token_losses(hidden_bld.flatten(0, 1)[micro.predictor_n], head.weight, micro.label_n), micro)


def _sums(loss_n: Tensor, micro: Micro) -> tuple[Tensor, Tensor]:
    document_k = loss_n.new_zeros(len(micro.lengths)).index_add_(0, micro.owner_n, loss_n.detach())
    return loss_n.sum(), document_k


def token_losses(hidden_nd: Tensor, head_vd: Tensor, label_n: Tensor) -> Tensor:
    """Cross-entropy of each token in float32; of many, in chunks, so that logits of all are never in memory.

    Not `F.linear_cross_entropy`: of bfloat16 it gives losses, and takes their gradients, in bfloat16.
    """

    def losses(hidden_cd: Tensor, label_c: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden_cd, head_vd).float(), label_c, reduction="none")

    if len(hidden_nd) <= CHUNK:
        return losses(hidden_nd, label_n)
    chunks = zip(hidden_nd.split(CHUNK), label_n.split(CHUNK), strict=True)
    again = partial(checkpoint, losses, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(*chunk) for chunk in chunks])


def choose_attention(variant: Any, wish: str, device: torch.device, dtype: torch.dtype, compiled: bool) -> Way:
    """The way in which a variant attends that computes in ``dtype`` on ``device``, by the ``wish``: ``auto``, or a way.

    Where its blocks are compiled, lengths of documents as plain numbers would compile them anew each step.
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


def attention_arguments(way: Way, text_config: Any, micro: Micro, dtype: torch.dtype) -> dict[str, Any]:
    """What of positions and documents the model is called with for a micro-batch."""
    longest = max(micro.lengths)
    window = getattr(text_config, "sliding_window", None)
    kinds = getattr(text_config, "layer_types", None) or ("sliding_attention",)  # Mistral's layers are all of one kind
    if window and "sliding_attention" in kinds and longest > window:
        raise UserError(
            f"a sample of {longest} tokens is longer than the window of {window} that this language model's "
            "layers see; lower the maximum length"
        )
    arguments: dict[str, Any] = {"position_ids": micro.positions_bl}
    if way == "mask":
        bools = text_config._attn_implementation == "sdpa"
        return arguments | {"attention_mask": seen_keys(micro.document_bl, micro.turn_bl, None if bools else dtype)}
    if way == "documents":
        return arguments | {"document_lengths": micro.lengths}
    starts = torch.tensor([0, *micro.lengths], device=micro.ids_bl.device).cumsum(0, dtype=torch.int32)
    return arguments | {"document_starts": starts, "longest_document": longest}


def seen_keys(document_bl: Tensor, turn_bl: Tensor | None, dtype: torch.dtype | None) -> Tensor:
    """Which keys each query sees: those of its document's prefix and of its own turn, up to itself; see `Micro`.

    Boolean, or of a ``dtype`` to be added to scores.
    """
    seen_bll = document_bl[:, :, None] == document_bl[:, None]
    if turn_bl is not None:
        seen_bll &= (turn_bl[:, None] == PREFIX) | (turn_bl[:, None] == turn_bl[:, :, None])
    seen_b1ll = seen_bll.tril()[:, None]
    if dtype is None:
        return seen_b1ll
    zeros_b1ll = torch.zeros(seen_b1ll.shape, dtype=dtype, device=seen_b1ll.device)
    return zeros_b1ll.masked_fill_(~seen_b1ll, torch.finfo(dtype).min)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """transformers' interface: query (1, heads, length, D), result (1, length, heads, D); see `attention_arguments`."""
    grouped = query.shape[1] != key.shape[1]
    if "document_lengths" in given:
        parts = zip(*(states.split(given["document_lengths"], dim=2) for states in (query, key, value)), strict=True)
        attended = [
            F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
            for q, k, v in parts
        ]
        return torch.cat([part_1hnd.transpose(1, 2) for part_1hnd in attended], dim=1), None
    from torch.nn.attention.varlen import varlen_attn

    q_nhd, k_ngd, v_ngd = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    starts, longest = given["document_starts"], given["longest_document"]
    bounds: Any = (starts, starts, longest, longest)
    out_nhd: Any = varlen_attn(q_nhd, k_ngd, v_ngd, *bounds, scale=scaling, window_size=(-1, 0), enable_gqa=grouped)
    return out_nhd[None], None


# Without a mask function of the same name transformers makes no mask for these.
AttentionInterface.register("blindspot_documents", _attend)
AttentionInterface.register("blindspot_varlen", _attend)
