"""Which image each token looks at, in gated cross-attention."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class ImageTokens(NamedTuple):
    """The images of a batch, as tokens at the width of the language model.

    Attributes:
        given: the object that they came in.
        tokens_mnd: tokens of every image, padded to the longest.
        real_mn: False at padding; None: nothing is padded.
        kept: keys and values of each block, filled during inference for later steps of decoding.
    """

    given: object
    tokens_mnd: Tensor
    real_mn: Tensor | None
    kept: dict[int, tuple[Tensor, Tensor]]


class Visible(NamedTuple):
    """What the tokens of one forward pass look at.

    Attributes:
        media: the images.
        images_br: the images of each row.
        mask_b1lk: which of its row's image tokens (k = r * n) each token looks at; None: all of them.
        sighted_bl1: tokens with an image before them; a block leaves the others as they are.
    """

    media: ImageTokens
    images_br: Tensor
    mask_b1lk: Tensor | None
    sighted_bl1: Tensor


def last_image(image_bl: Tensor) -> Tensor:
    """For each token the index of the last image up to it in its row, counted over the batch in reading order.

    Args:
        image_bl: True at image placeholders.

    Returns:
        Same shape, long; -1 where the row has had no image yet. A placeholder sees its own image.
    """
    seen_bl = image_bl.long().cumsum(1)
    earlier_b1 = seen_bl[:, -1:].cumsum(0) - seen_bl[:, -1:]
    return torch.where(seen_bl > 0, earlier_b1 + seen_bl - 1, -1)


def collect(media: Tensor | Sequence[Tensor]) -> ImageTokens:
    """Images of shape (m, n, d), or a sequence of (n, d) that may differ in n, as one padded tensor."""
    if isinstance(media, Tensor):
        return ImageTokens(media, media, None, {})
    tokens_mnd = pad_sequence(list(media), batch_first=True)
    lengths_m1 = torch.tensor([[len(image)] for image in media], device=tokens_mnd.device)
    real_mn = torch.arange(tokens_mnd.shape[1], device=tokens_mnd.device) < lengths_m1
    return ImageTokens(media, tokens_mnd, None if len({len(image) for image in media}) == 1 else real_mn, {})


def look(media: ImageTokens, last_image_bl: Tensor) -> Visible:
    """What each token sees, given the index of its image or -1.

    The images of a row follow each other, so a row is given those from its first to its last. A token without an
    image is masked as if it saw its row's first, because attention over nothing is not a number.
    """
    sighted_bl, highest = last_image_bl >= 0, last_image_bl.max()
    first_b1 = last_image_bl.where(sighted_bl, highest).amin(1, keepdim=True)
    which_bl = (last_image_bl - first_b1).clamp(min=0)
    index_r = torch.arange(int(which_bl.max()) + 1, device=which_bl.device)
    images_br = (first_b1 + index_r).clamp(max=highest)
    if len(index_r) == 1 and media.real_mn is None:
        return Visible(media, images_br, None, sighted_bl[..., None])
    mask_blrn = (which_bl[..., None] == index_r)[..., None].expand(-1, -1, -1, media.tokens_mnd.shape[1])
    if media.real_mn is not None:
        mask_blrn = mask_blrn & media.real_mn[images_br][:, None]
    return Visible(media, images_br, mask_blrn.flatten(2)[:, None], sighted_bl[..., None])
