"""The loss of a micro-batch: cross-entropy summed over supervised tokens, with logits of these alone."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from blindspot.training import attention
from blindspot.training.packing import Micro

CHUNK = 1024


class AnswerLoss(nn.Module):
    """A variant with its loss as ``forward``: the root of what is sharded, so that the head is gathered with it.

    Args:
        variant: a `BlindspotForConditionalGeneration`, or a language model for documents without pictures.
        way: how documents of a packed row attend; None if rows are padded.
        dtype: in what it computes.
    """

    def __init__(self, variant: Any, way: attention.Way | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.variant = variant
        self._way: attention.Way | None = way
        self._dtype = dtype
        self._before = attention.use(variant, way)

    def release(self) -> None:
        """Let the variant attend as before, to be used otherwise than packed."""
        self.variant.config.get_text_config()._attn_implementation = self._before

    def forward(self, micro: Micro) -> tuple[Tensor, Tensor]:
        """Sums of the losses of supervised tokens in nats: of all, and without gradient of each document."""
        hidden_bld = self.variant.model(
            input_ids=micro.ids_bl,
            use_cache=False,
            **micro.pixels,  # which sharding has cast to the dtype of the weights
            **self._attention(micro),
        ).last_hidden_state
        head = self.variant.lm_head
        if not micro.supervised:  # a sum of nothing would leave this rank without gradients that others wait for
            return head(hidden_bld[:1, :1]).float().sum() * 0, hidden_bld.new_zeros(len(micro.lengths))
        loss_n = token_losses(hidden_bld.flatten(0, 1)[micro.predictor_n], head.weight, micro.label_n)
        document_k = loss_n.new_zeros(len(micro.lengths)).index_add_(0, micro.owner_n, loss_n.detach())
        return loss_n.sum(), document_k

    def _attention(self, micro: Micro) -> dict[str, Any]:
        if self._way is None:
            return {"attention_mask": (micro.document_bl >= 0).long()}
        text = self.variant.config.get_text_config()
        return {"position_ids": micro.positions_bl, **attention.arguments(self._way, text, micro, self._dtype)}


def token_losses(hidden_nd: Tensor, head_vd: Tensor, label_n: Tensor) -> Tensor:
    """Cross-entropy of each token in float32; of many, in chunks, so that logits of all are never in memory.

    Not `F.linear_cross_entropy`: of bfloat16 it gives losses, and takes their gradients, in bfloat16.
    """
    if len(hidden_nd) <= CHUNK:
        return _losses(hidden_nd, head_vd, label_n)
    chunks = zip(hidden_nd.split(CHUNK), label_n.split(CHUNK), strict=True)
    again = partial(checkpoint, _losses, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(hidden_cd, head_vd, label_c) for hidden_cd, label_c in chunks])


def _losses(hidden_nd: Tensor, head_vd: Tensor, label_n: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden_nd, head_vd).float(), label_n, reduction="none")
