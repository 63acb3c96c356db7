"""From ordinary positions to a scheme's: where every token of a batch with images is, and which others it sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from blindspot.errors import UserError
from blindspot.positions.language import SCHEMES, LanguagePositions
from blindspot.positions.language.schemes import Layout

Grid = tuple[int, int]


@dataclass(frozen=True)
class Placement:
    """Positions of a batch."""

    ids_abl: Tensor  # shape (axes, batch, length); long, or float64 (float32 on mps) for schemes between whole numbers
    delta_b: Tensor  # what to add to a row's ordinary positions in later decoding steps, on all axes alike; same dtype


def tokens_per_image(positions: LanguagePositions, grid: Grid) -> int:
    """Tokens that an image of this grid takes in the sequence."""
    return _layout(positions, *grid).offsets_an.shape[1]


def place(positions: LanguagePositions, logical_bl: Tensor, image_bl: Tensor, grids: Sequence[Grid]) -> Placement:
    """Give every token of a batch its position under a scheme.

    An image's tokens follow the scheme, counted from where text has got to; text behind it is moved by what the image
    takes more or less than its number of tokens. Under a scheme with a time axis images of one size that follow each
    other directly are the frames of a film. An image moves the tokens behind it until ordinary positions fall
    back to before its end: so turns of a packed row that restart behind a shared image are moved, the next document of
    a packed row is not.

    Args:
        logical_bl: ordinary one-dimensional positions, shape (batch, length): arange, the running count of the
            attention mask under left padding, or those of packed rows. When decoding goes on behind a cache, with the
            cache's delta added. Positions of padding don't matter.
        image_bl: whether a token is an image's, shape (batch, length).
        grids: rows and columns of every image, in reading order over the batch. Unordered tokens count as one row.
    """
    batch, length = logical_bl.shape
    device = logical_bl.device
    one = _layout(positions, 1, 1)
    axes, dtype = one.offsets_an.shape[0], one.offsets_an.dtype
    if dtype.is_floating_point and device.type == "mps":
        dtype = torch.float32
    logical_bl = logical_bl.to(torch.promote_types(dtype, logical_bl.dtype))
    token_t, counts_k, first_k = _spans(positions, image_bl, grids)
    films = [(grid, 1) for grid in grids]
    if SCHEMES[positions.scheme].film is not None:
        films, counts_k, first_k = _films(grids, counts_k, first_k, length)
    layouts = [_layout(positions, *grid, frames) for grid, frames in films]
    begin_k, row_k = logical_bl.flatten()[first_k], first_k // length
    end_k, last_k = begin_k + counts_k, first_k % length + counts_k - 1
    gain_k = torch.tensor([layout.advance for layout in layouts], dtype=logical_bl.dtype, device=device)
    gain_k = gain_k - counts_k

    # Rows of k: the tokens of the batch row that image k is in.
    behind_kl = torch.arange(length, device=device) > last_k[:, None]
    left_kl = (behind_kl & (logical_bl[row_k] < end_k[:, None])).cumsum(dim=1) > 0
    moved_kl = (behind_kl & ~left_kl) * gain_k[:, None]
    ids_bl = logical_bl.index_add(0, row_k, moved_kl)

    offsets_at = torch.cat([layout.offsets_an for layout in layouts] or [torch.empty(axes, 0)], dim=1)
    start_t = ids_bl.flatten()[first_k].repeat_interleave(counts_k, output_size=offsets_at.shape[1])
    start_at = torch.stack([torch.zeros_like(start_t) if axis in one.from_zero else start_t for axis in range(axes)])
    ids_abl = ids_bl.expand(axes, batch, length).clone()
    ids_abl.view(axes, -1)[:, token_t] = start_at + offsets_at.to(device, start_at.dtype)

    # Generation goes on behind the token that is furthest, wherever padding is: of several the image's, or the last.
    rank_bl = (logical_bl * 2 + image_bl) * length + torch.arange(length, device=device)
    final_k = rank_bl.argmax(dim=1)[row_k]
    holds_k = (final_k >= last_k) & ~left_kl.gather(1, final_k[:, None])[:, 0]
    delta_b = torch.zeros(batch, dtype=logical_bl.dtype, device=device).index_add_(0, row_k, gain_k * holds_k)
    return Placement(ids_abl, delta_b)


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
    token_t, counts_k, _ = _spans(positions, image_bl, grids)
    image_bl, ring_bl = torch.full_like(image_bl, -1, dtype=torch.long), torch.zeros_like(image_bl, dtype=torch.long)
    number_k = torch.arange(len(grids), device=image_bl.device)
    image_bl.view(-1)[token_t] = number_k.repeat_interleave(counts_k)
    ring_bl.view(-1)[token_t] = torch.cat([rings(*grid) for grid in grids]).to(image_bl.device)
    together_b1ll = ((image_bl[:, :, None] == image_bl[:, None]) & (image_bl[:, :, None] >= 0))[:, None]
    sees_b1ll = (ring_bl[:, None] <= ring_bl[:, :, None])[:, None]

    if attention_mask is not None and attention_mask.ndim == 4:
        mask_b1lm = attention_mask
    else:
        kept_bm = torch.ones_like(image_bl) if attention_mask is None else attention_mask
        causal_lm = torch.ones(length, kept_bm.shape[1], dtype=torch.bool, device=image_bl.device)
        seen_blm = causal_lm.tril(kept_bm.shape[1] - length) & kept_bm.bool()[:, None]
        # Padding that sees nothing would come out of sdpa as NaN, and reach everything through its keys.
        seen_blm |= ~seen_blm.any(dim=-1, keepdim=True)
        zeros_blm = torch.zeros(seen_blm.shape, dtype=dtype, device=image_bl.device)
        mask_b1lm = zeros_blm.masked_fill_(~seen_blm, torch.finfo(dtype).min)[:, None]
    # Everything that is masked already is as low as this, or lower.
    shown, hidden = (True, False) if mask_b1lm.dtype == torch.bool else (0.0, torch.finfo(mask_b1lm.dtype).min)
    queries_b1ll = mask_b1lm[..., -length:].masked_fill(together_b1ll & sees_b1ll, shown)
    queries_b1ll = queries_b1ll.masked_fill(together_b1ll & ~sees_b1ll, hidden)
    return torch.cat([mask_b1lm[..., :-length], queries_b1ll], dim=-1)


def _spans(positions: LanguagePositions, image_bl: Tensor, grids: Sequence[Grid]) -> tuple[Tensor, Tensor, Tensor]:
    """Every image token, counted through the flattened batch; and of each image the number of tokens and the first."""
    device, length = image_bl.device, image_bl.shape[1]
    counts = [tokens_per_image(positions, grid) for grid in grids]
    token_t = image_bl.flatten().nonzero()[:, 0]
    if len(token_t) != sum(counts):
        raise UserError(
            f"{len(grids)} images need {sum(counts)} image tokens under language positions {positions.scheme!r}, but "
            f"the text has {len(token_t)}; expand every image placeholder to as many tokens as its image has"
        )
    counts_k = torch.tensor(counts, dtype=torch.long, device=device)
    end_k = counts_k.cumsum(0)
    first_k, last_k = token_t[end_k - counts_k], token_t[end_k - 1]
    whole_k = (last_k - first_k == counts_k - 1) & (last_k // length == first_k // length)
    if not whole_k.all():
        broken = int(whole_k.int().argmin())
        raise UserError(
            f"image {broken + 1} of the batch has a grid of {grids[broken][0]}x{grids[broken][1]}, but its "
            f"{counts[broken]} tokens don't lie side by side in one row of text; check the order of the grids"
        )
    return token_t, counts_k, first_k


def _films(
    grids: Sequence[Grid], counts_k: Tensor, first_k: Tensor, length: int
) -> tuple[list[tuple[Grid, int]], Tensor, Tensor]:
    """Images of one size that follow each other in a row without a token between, as one: grids and numbers of frames,
    tokens, first tokens."""
    films: list[tuple[Grid, int]] = []
    counts, firsts = counts_k.tolist(), first_k.tolist()
    begins: list[int] = []
    for grid, count, first in zip(grids, counts, firsts, strict=True):
        frames = films[-1][1] if films and films[-1][0] == grid else 0
        if frames and first == begins[-1] + frames * count and first // length == begins[-1] // length:
            films[-1] = (grid, frames + 1)
        else:
            films.append((grid, 1))
            begins.append(first)
    each = dict(zip(grids, counts, strict=True))
    total_k = torch.tensor([each[grid] * frames for grid, frames in films], dtype=torch.long, device=counts_k.device)
    return films, total_k, torch.tensor(begins, dtype=torch.long, device=first_k.device)


@lru_cache(maxsize=1024)
def _layout(positions: LanguagePositions, height: int, width: int, frames: int = 1) -> Layout:
    return SCHEMES[positions.scheme].layout_of(height, width, positions, frames)
