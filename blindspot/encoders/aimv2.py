"""AIMv2 (Fini et al. 2024): trained autoregressively on pixels and caption, without CLS; fixed and native resolution.

transformers: ``Aimv2VisionModel``. RMSNorm, also after the patch convolution; SwiGLU; no biases in the blocks; 8 heads
of 128 channels at width 1024, where CLIP and SigLIP have 16 of 64. The checkpoints name CLIP's image processor.

Fixed: one learned table of grid^2 rows. transformers cannot run another size; here the table is resized bicubically, as
its CLIP and SigLIP do.

Native (``is_native``): images at their own size and aspect ratio. transformers takes one image size per batch. A batch
of several comes in Siglip2's patch layout: the patch convolution is applied as the linear map that it is, and each
image gets the sines and cosines of its own grid. There is no table: transformers' function computes them, columns
before rows. Images are not resized unless they have more than the 2^12 patches of the largest area in training, or a
side below one patch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blindspot.encoders.base import CLIP_MEAN, CLIP_STD, Checkpoint, Encoder, Images, Role

if TYPE_CHECKING:
    from torch import Tensor

_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 8, "intermediate_size": 2816}


def _embed(tower: Any, pixels_bchw: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    import torch.nn.functional as F

    module = tower.embeddings
    patches_bdhw = module.patch_embed(pixels_bchw.to(module.patch_embed.weight.dtype))
    tokens_bnd = module.rms_norm(patches_bdhw.flatten(2).transpose(1, 2))
    table_nd, size = module.position_embedding.weight, patches_bdhw.shape[2:]
    side = round(len(table_nd) ** 0.5)
    if size != (side, side):
        table_1dhw = table_nd.T.unflatten(1, (side, side))[None]
        table_nd = F.interpolate(table_1dhw, size=size, mode="bicubic", align_corners=False).flatten(2)[0].T
    return tokens_bnd + table_nd, {}


def _embed_native(tower: Any, pixel_values: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    import torch
    import torch.nn.functional as F
    from transformers.models.aimv2.modeling_aimv2 import build_2d_sinusoidal_position_embedding

    from blindspot.encoders.variable_resolution import attention_mask, pack
    from blindspot.positions.encoder.attach import silenced

    module, convolution = tower.embeddings, tower.embeddings.patch_embed
    if grids_n2 is None:
        return module(pixel_values.to(convolution.weight.dtype)), {}
    patches_bnp, grids_b2, mask_bn = pack(pixel_values, grids_n2, tower.config.patch_size)
    weight_dp = convolution.weight.permute(0, 2, 3, 1).flatten(1)  # patches hold row, column, colour
    tokens_bnd = module.rms_norm(F.linear(patches_bnp.to(weight_dp.dtype), weight_dp, convolution.bias))
    if not silenced(tower):
        places_bnd = torch.zeros_like(tokens_bnd)  # and so at the padding
        for image, (height, width) in enumerate(grids_b2.tolist()):
            rows_nd, columns_nd = build_2d_sinusoidal_position_embedding(
                height, width, tokens_bnd.shape[2], device=tokens_bnd.device, dtype=tokens_bnd.dtype
            ).chunk(2, dim=1)
            places_bnd[image, : height * width] = torch.cat([columns_nd, rows_nd], dim=1)
        tokens_bnd = tokens_bnd + places_bnd
    return tokens_bnd, {"attention_mask": attention_mask(tower, tokens_bnd, mask_bn)}


def _checkpoint(name: str, size: int, *roles: Role, download: float = 1.24e9, **more: Any) -> Checkpoint:
    arguments = {**_LARGE, "image_size": size, "patch_size": 14, "use_head": False, **more}
    return Checkpoint(f"apple/aimv2-large-patch14-{name}", "aimv2_vision_model", arguments, size, roles, download)


AIMV2 = Encoder(
    name="aimv2",
    label="AIMv2",
    model_classes={"aimv2_vision_model": "Aimv2VisionModel"},
    cls_token=False,
    arguments=lambda shape: {**shape.arguments, "use_head": False},
    embed=_embed,
    final_norm="rms_norm",
    norm="RMSNorm",
    other_sizes="resized bicubically (not in transformers)",
    images=Images("crop", CLIP_MEAN, CLIP_STD),
    gated=True,
    checkpoints=(_checkpoint("224", 224, "public code", "matched"), _checkpoint("336", 336), _checkpoint("448", 448)),
)
AIMV2_NATIVE = replace(
    AIMV2,
    name="aimv2_native",
    label="AIMv2 native",
    arguments=lambda shape: {**shape.arguments, "use_head": False, "is_native": True},
    embed=_embed_native,
    table="computed",
    table_at="embeddings",
    other_sizes="computed at every grid",
    images=Images("native", CLIP_MEAN, CLIP_STD, most_patches=2**12),
    checkpoints=(_checkpoint("native", 224, download=0, is_native=True),),
    variable_resolution=True,
)
