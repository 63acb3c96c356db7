"""Images with different numbers of patches in a batch: Siglip2's layout, (images, most patches, patch * patch * 3)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask


class Ragged(NamedTuple):
    """A batch that is ready for the tower.

    Attributes:
        patches_bnp: values of each patch in the order row, column, colour; padding is zero.
        grids_b2: rows and columns of each image.
        mask_bn: true where there is a patch.
    """

    patches_bnp: Tensor
    grids_b2: Tensor
    mask_bn: Tensor


def pack(pixel_values: Tensor, grids_n2: Tensor | None, patch_size: int) -> Ragged:
    """Cut a batch to its largest image and clear its padding, whatever was in it.

    Args:
        pixel_values: (b, n, patch * patch * 3), or ordinary pixels (b, 3, height, width), which are cut into patches.
        grids_n2: rows and columns of each image (transformers' ``spatial_shapes``); None for ordinary pixels.
        patch_size: side of a patch in pixels.

    Raises:
        ValueError: if patches come without grids, ordinary pixels with them, or a grid has more patches than there are.
    """
    if (pixel_values.ndim == 3) != (grids_n2 is not None):
        raise ValueError("rows of patches need the grid of each image, and ordinary pixels must come without")
    if grids_n2 is None:
        patches_bnp, grid = patchify(pixel_values, patch_size)
        grids_b2 = torch.tensor(grid, device=pixel_values.device).expand(len(patches_bnp), 2)
    else:
        patches_bnp, grids_b2 = pixel_values, grids_n2
    counts_b = grids_b2.prod(dim=1).to(patches_bnp.device)
    most = int(counts_b.max())
    if most > patches_bnp.shape[1]:
        raise ValueError(f"an image has {most} patches by its grid, and the batch holds {patches_bnp.shape[1]}")
    mask_bn = torch.arange(most, device=patches_bnp.device) < counts_b[:, None]
    return Ragged(patches_bnp[:, :most].masked_fill(~mask_bn[..., None], 0), grids_b2, mask_bn)


def patchify(pixels_bchw: Tensor, patch_size: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut images of one size into patches; what is left over at the right and the bottom is dropped.

    Returns:
        Patches of shape (b, rows * columns, patch * patch * channels) in raster order, and (rows, columns).
    """
    rows, columns = (side // patch_size for side in pixels_bchw.shape[-2:])
    whole_bchw = pixels_bchw[..., : rows * patch_size, : columns * patch_size]
    cut = whole_bchw.unflatten(3, (columns, patch_size)).unflatten(2, (rows, patch_size))
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2), (rows, columns)


def attention_mask(tower: Any, tokens_bnd: Tensor, mask_bn: Tensor) -> Tensor | None:
    """Padding as a mask in the form that the tower's attention implementation takes."""
    return create_bidirectional_mask(config=tower.config, inputs_embeds=tokens_bnd, attention_mask=mask_bn)
