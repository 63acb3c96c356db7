"""Attention masks of schemes that change which image tokens see each other."""

from collections.abc import Sequence

import torch
from torch import Tensor

from blindspot.positions.language.config import SCHEMES, LanguagePositions
from blindspot.positions.language.position_ids import Grid, find_spans


def mask(
    positions: LanguagePositions,
    image_bl: Tensor,
    grids: Sequence[Grid],
    attention_mask: Tensor | None,
    dtype: torch.dtype = torch.float32,
) -> Tensor | None:
    """What the language model is to take as its attention mask.

    Only ``concentric`` changes it: inside an image a token sees the tokens of rings up to its own, in both directions.
    Everything else, from text to other images, stays as it was.

    Args:
        positions: the scheme.
        image_bl: whether a query token is an image's, shape (batch, length).
        grids: rows and columns of every image, in reading order over the batch.
        attention_mask: what the model would take otherwise: None, (batch, keys) with 0 for padding, or
            (batch, 1, length, keys), added to scores or boolean. The queries are the last ``length`` keys.
        dtype: dtype of the hidden states, for a mask that is made here.

    Returns:
        ``attention_mask`` itself where the scheme changes nothing, else a mask of shape (batch, 1, length, keys) to be
        added to scores, or a boolean one if the argument was.
    """
    rings = SCHEMES[positions.scheme].rings
    if rings is None or not grids:
        return attention_mask
    length = image_bl.shape[1]
    spans = find_spans(positions, image_bl, grids)
    image_bl, ring_bl = torch.full_like(image_bl, -1, dtype=torch.long), torch.zeros_like(image_bl, dtype=torch.long)
    number_k = torch.arange(len(grids), device=image_bl.device)
    image_bl.view(-1)[spans.token_t] = number_k.repeat_interleave(spans.counts_k)
    ring_bl.view(-1)[spans.token_t] = torch.cat([rings(*grid) for grid in grids]).to(image_bl.device)
    together_b1ll = ((image_bl[:, :, None] == image_bl[:, None]) & (image_bl[:, :, None] >= 0))[:, None]
    sees_b1ll = (ring_bl[:, None] <= ring_bl[:, :, None])[:, None]

    mask_b1lm = _four_dimensional(image_bl, attention_mask, dtype)
    # Everything that is masked already is as low as this, or lower.
    shown, hidden = (True, False) if mask_b1lm.dtype == torch.bool else (0.0, torch.finfo(mask_b1lm.dtype).min)
    queries_b1ll = mask_b1lm[..., -length:].masked_fill(together_b1ll & sees_b1ll, shown)
    queries_b1ll = queries_b1ll.masked_fill(together_b1ll & ~sees_b1ll, hidden)
    return torch.cat([mask_b1lm[..., :-length], queries_b1ll], dim=-1)


def _four_dimensional(image_bl: Tensor, attention_mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    if attention_mask is not None and attention_mask.ndim == 4:
        return attention_mask
    kept_bm = torch.ones_like(image_bl) if attention_mask is None else attention_mask
    batch, length, keys = *image_bl.shape, kept_bm.shape[1]
    causal_lm = torch.ones(length, keys, dtype=torch.bool, device=image_bl.device).tril(keys - length)
    seen_blm = causal_lm & kept_bm.bool()[:, None]
    # Padding that sees nothing would come out of sdpa as NaN, and reach everything through its keys.
    seen_blm |= ~seen_blm.any(dim=-1, keepdim=True)
    zeros_blm = torch.zeros(batch, length, keys, dtype=dtype, device=image_bl.device)
    return zeros_blm.masked_fill_(~seen_blm, torch.finfo(dtype).min)[:, None]
