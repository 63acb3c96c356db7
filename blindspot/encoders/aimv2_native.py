"""AIMv2-native (Fini et al. 2024): images at their own size and aspect ratio, padded and masked within a batch.

transformers: ``Aimv2VisionModel`` with ``is_native``, which takes one image size per batch. A batch of several comes in
Siglip2's patch layout: the patch convolution is applied as the linear map that it is, and each image gets the sines and
cosines of its own grid. There is no table: transformers' function computes them, columns before rows. Images are not
resized unless they have more than the 2^12 patches of the largest area in training, or a side below one patch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blindspot.encoders.aimv2 import AIMV2, AIMV2_LARGE
from blindspot.encoders.base import Checkpoint
from blindspot.encoders.images import CLIP_MEAN, CLIP_STD, Images

if TYPE_CHECKING:
    from torch import Tensor


def _embed(tower: Any, pixel_values: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    import torch.nn.functional as F

    from blindspot.encoders.variable_resolution import attention_mask, pack
    from blindspot.positions.encoder.own import silenced

    module, convolution = tower.embeddings, tower.embeddings.patch_embed
    if grids_n2 is None:
        return module(pixel_values.to(convolution.weight.dtype)), {}
    batch = pack(pixel_values, grids_n2, tower.config.patch_size)
    weight_dp = convolution.weight.permute(0, 2, 3, 1).flatten(1)  # patches hold row, column, colour
    tokens_bnd = module.rms_norm(F.linear(batch.patches_bnp.to(weight_dp.dtype), weight_dp, convolution.bias))
    if not silenced(tower):
        tokens_bnd = tokens_bnd + _places(batch.grids_b2, tokens_bnd)
    return tokens_bnd, {"attention_mask": attention_mask(tower, tokens_bnd, batch.mask_bn)}


def _places(grids_b2: Tensor, like_bnd: Tensor) -> Tensor:
    """Sines and cosines of every image's grid, zero at the padding."""
    import torch
    from transformers.models.aimv2.modeling_aimv2 import build_2d_sinusoidal_position_embedding

    places_bnd = torch.zeros_like(like_bnd)
    for image, (height, width) in enumerate(grids_b2.tolist()):
        rows_nd, columns_nd = build_2d_sinusoidal_position_embedding(
            height, width, like_bnd.shape[2], device=like_bnd.device, dtype=like_bnd.dtype
        ).chunk(2, dim=1)
        places_bnd[image, : height * width] = torch.cat([columns_nd, rows_nd], dim=1)
    return places_bnd


AIMV2_NATIVE = replace(
    AIMV2,
    name="aimv2_native",
    label="AIMv2 native",
    arguments=lambda shape: {**shape.arguments, "use_head": False, "is_native": True},
    embed=_embed,
    table="computed",
    table_at="embeddings",
    other_sizes="computed at every grid",
    images=Images("native", CLIP_MEAN, CLIP_STD, most_patches=2**12),
    checkpoints=(
        Checkpoint(
            "apple/aimv2-large-patch14-native",
            "aimv2_vision_model",
            {**AIMV2_LARGE, "image_size": 224, "patch_size": 14, "use_head": False, "is_native": True},
            224,
        ),
    ),
    variable_resolution=True,
)
