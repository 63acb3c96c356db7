"""Images that keep their own aspect ratio: pictures to rows of patches, and batches of unequal numbers of patches.

The layout is Siglip2's, (images, most patches, patch * patch * 3), padded within the batch. Importing this registers
the image processor with transformers.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoImageProcessor, PreTrainedConfig
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import SizeDict
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    Siglip2ImageProcessorPil,
    convert_image_to_patches,
    pad_along_first_dim,
)


def pack(pixel_values: Tensor, grids_n2: Tensor | None, patch_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut a batch to its largest image and clear its padding, whatever was in it.

    Args:
        pixel_values: (b, n, patch * patch * 3), or ordinary pixels (b, 3, height, width), which are cut into patches.
        grids_n2: rows and columns of each image (transformers' ``spatial_shapes``); None for ordinary pixels.
        patch_size: side of a patch in pixels.

    Returns:
        Values of each patch in the order row, column, colour, with zeros as padding; rows and columns of each image,
        shape (b, 2); and where there is a patch, shape (b, n).
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
    return patches_bnp[:, :most].masked_fill(~mask_bn[..., None], 0), grids_b2, mask_bn


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


class NativeImageProcessor(Siglip2ImageProcessorPil):
    """Siglip2's patch layout without its resizing.

    What is left over at the right and the bottom after whole patches is cut off, as the encoder's convolution would.
    Two kinds of picture are resized, with their aspect ratio as near as whole patches allow: one with more than
    ``max_num_patches`` patches is shrunk to that many, and a side shorter than a patch is stretched to one.
    """

    def _preprocess(
        self,
        images: list[np.ndarray],
        patch_size: int,
        max_num_patches: int,
        resample: Any,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: list[float],
        image_std: list[float],
        return_tensors: str | None,
        **kwargs: Any,
    ) -> BatchFeature:
        shapes, rows = [], []
        for image_chw in images:
            height, width = image_chw.shape[-2:]
            grid = patch_grid(height, width, patch_size, max_num_patches)
            target = (grid[0] * patch_size, grid[1] * patch_size)
            if grid == (height // patch_size, width // patch_size):
                image_chw = image_chw[:, : target[0], : target[1]]
            else:
                image_chw = self.resize(image_chw, SizeDict(height=target[0], width=target[1]), resample=resample)
            if do_rescale:
                image_chw = self.rescale(image_chw, rescale_factor)
            if do_normalize:
                image_chw = self.normalize(image_chw, image_mean, image_std)
            shapes.append(grid)
            rows.append(convert_image_to_patches(image_chw, patch_size))
        longest = max(len(patches_nd) for patches_nd in rows)
        padded = [pad_along_first_dim(patches_nd, longest) for patches_nd in rows]
        return BatchFeature(
            data={
                "pixel_values": np.stack([patches_nd for patches_nd, _ in padded]),
                "pixel_attention_mask": np.stack([mask_n for _, mask_n in padded]),
                "spatial_shapes": np.array(shapes),
            },
            tensor_type=return_tensors,
        )


def patch_grid(height: int, width: int, patch_size: int, most: int) -> tuple[int, int]:
    """Whole patches (rows, columns) of a picture, shrunk alike on both sides where there are more than ``most``."""
    rows, columns = max(1, height // patch_size), max(1, width // patch_size)
    if rows * columns > most:
        scale = math.sqrt(most / (rows * columns))
        rows = max(1, math.floor(rows * scale))
        columns = max(1, min(math.floor(columns * scale), most // rows))
        rows = min(rows, most // columns)  # where a side of one patch was kept, the other must give way
    return rows, columns


class _NativeImagesConfig(PreTrainedConfig):
    """transformers registers image processors under a config class; no model has this one."""

    model_type = "blindspot_native_images"


AutoImageProcessor.register(
    _NativeImagesConfig,
    image_processor_classes={"pil": NativeImageProcessor, "torchvision": NativeImageProcessor},
    exist_ok=True,
)
