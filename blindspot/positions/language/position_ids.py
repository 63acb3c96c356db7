"""From ordinary positions to a scheme's: where every token of a batch with images is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from blindspot.errors import UserError
from blindspot.positions.language.config import SCHEMES, LanguagePositions
from blindspot.positions.language.scheme import Layout

Grid = tuple[int, int]


@dataclass(frozen=True)
class Placement:
    """Positions of a batch.

    Attributes:
        ids_abl: shape (axes, batch, length); long, or float64 (float32 on mps) for schemes between whole numbers.
        delta_b: what to add to a row's ordinary positions in later decoding steps, on all axes alike; same dtype.
    """

    ids_abl: Tensor
    delta_b: Tensor


@dataclass(frozen=True)
class Spans:
    """Where the images of a batch are; tokens are counted through the flattened batch.

    Attributes:
        token_t: every image token.
        counts_k: tokens of each image.
        first_k: the first token of each image.
    """

    token_t: Tensor
    counts_k: Tensor
    first_k: Tensor


def tokens_per_image(positions: LanguagePositions, grid: Grid) -> int:
    """Tokens that an image of this grid takes in the sequence."""
    return _layout(positions, *grid).offsets_an.shape[1]


def place(positions: LanguagePositions, logical_bl: Tensor, image_bl: Tensor, grids: Sequence[Grid]) -> Placement:
    """Give every token of a batch its position under a scheme.

    An image's tokens follow the scheme, counted from where text has got to; text behind it is moved by what the image
    takes more or less than its number of tokens. An image moves the tokens behind it until ordinary positions fall
    back to before its end: so turns of a packed row that restart behind a shared image are moved, the next document of
    a packed row is not.

    Args:
        positions: the scheme.
        logical_bl: ordinary one-dimensional positions, shape (batch, length): arange, the running count of the
            attention mask under left padding, or those of packed rows. When decoding goes on behind a cache, with the
            cache's delta added. Positions of padding don't matter.
        image_bl: whether a token is an image's, shape (batch, length).
        grids: rows and columns of every image, in reading order over the batch. Unordered tokens count as one row.

    Raises:
        UserError: if image tokens and grids don't fit each other.
    """
    batch, length = logical_bl.shape
    device = logical_bl.device
    layouts = [_layout(positions, *grid) for grid in grids]
    dtype = _layout(positions, 1, 1).offsets_an.dtype
    if dtype.is_floating_point and device.type == "mps":
        dtype = torch.float32
    axes = _layout(positions, 1, 1).offsets_an.shape[0]
    logical_bl = logical_bl.to(torch.promote_types(dtype, logical_bl.dtype))
    spans = find_spans(positions, image_bl, grids)
    begin_k, row_k = logical_bl.flatten()[spans.first_k], spans.first_k // length
    end_k, last_k = begin_k + spans.counts_k, spans.first_k % length + spans.counts_k - 1
    gain_k = torch.tensor([layout.advance for layout in layouts], dtype=logical_bl.dtype, device=device)
    gain_k = gain_k - spans.counts_k

    # Rows of k: the tokens of the batch row that image k is in.
    behind_kl = torch.arange(length, device=device) > last_k[:, None]
    left_kl = (behind_kl & (logical_bl[row_k] < end_k[:, None])).cumsum(dim=1) > 0
    moved_kl = (behind_kl & ~left_kl) * gain_k[:, None]
    ids_bl = logical_bl.index_add(0, row_k, moved_kl)

    offsets_at = torch.cat([layout.offsets_an for layout in layouts] or [torch.empty(axes, 0)], dim=1)
    from_zero = _layout(positions, 1, 1).from_zero
    start_t = ids_bl.flatten()[spans.first_k].repeat_interleave(spans.counts_k, output_size=offsets_at.shape[1])
    start_at = torch.stack([torch.zeros_like(start_t) if axis in from_zero else start_t for axis in range(axes)])
    ids_abl = ids_bl.expand(axes, batch, length).clone()
    ids_abl.view(axes, -1)[:, spans.token_t] = start_at + offsets_at.to(device, start_at.dtype)

    # Generation goes on behind the token that is furthest, wherever padding is: of several the image's, or the last.
    rank_bl = (logical_bl * 2 + image_bl) * length + torch.arange(length, device=device)
    final_k = rank_bl.argmax(dim=1)[row_k]
    holds_k = (final_k >= last_k) & ~left_kl.gather(1, final_k[:, None])[:, 0]
    delta_b = torch.zeros(batch, dtype=logical_bl.dtype, device=device).index_add_(0, row_k, gain_k * holds_k)
    return Placement(ids_abl, delta_b)


def find_spans(positions: LanguagePositions, image_bl: Tensor, grids: Sequence[Grid]) -> Spans:
    """Divide the image tokens of a batch among its images.

    Raises:
        UserError: if there are more or fewer than the grids ask for, or those of one image don't lie side by side.
    """
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
    return Spans(token_t, counts_k, first_k)


@lru_cache(maxsize=1024)
def _layout(positions: LanguagePositions, height: int, width: int) -> Layout:
    return SCHEMES[positions.scheme].layout_of(height, width, positions)
