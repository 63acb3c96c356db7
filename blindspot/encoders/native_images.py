"""Pictures at their own size, as AIMv2-native takes them: one row of patches per picture, padded within the batch."""

import math
from typing import Any

import numpy as np
from transformers import AutoImageProcessor, PreTrainedConfig
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import SizeDict
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    Siglip2ImageProcessorPil,
    convert_image_to_patches,
    pad_along_first_dim,
)


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
