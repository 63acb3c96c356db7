"""AIMv2 (Fini et al. 2024), fixed resolution: trained autoregressively on pixels and caption, without CLS.

transformers: ``Aimv2VisionModel``. RMSNorm, also after the patch convolution; SwiGLU; no biases in the blocks; 8 heads
of 128 channels at width 1024, where CLIP and SigLIP have 16 of 64. One learned table of grid^2 rows. transformers
cannot run another size; here the table is resized bicubically, as its CLIP and SigLIP do. The checkpoints name CLIP's
image processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blindspot.encoders.base import Checkpoint, Encoder, Role
from blindspot.encoders.images import CLIP_MEAN, CLIP_STD, Images

if TYPE_CHECKING:
    from torch import Tensor

AIMV2_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 8, "intermediate_size": 2816}


def _embed(tower: Any, pixels_bchw: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    module = tower.embeddings
    patches_bdhw = module.patch_embed(pixels_bchw.to(module.patch_embed.weight.dtype))
    tokens_bnd = module.rms_norm(patches_bdhw.flatten(2).transpose(1, 2))
    return tokens_bnd + _table(module.position_embedding.weight, patches_bdhw.shape[2], patches_bdhw.shape[3]), {}


def _table(table_nd: Tensor, height: int, width: int) -> Tensor:
    import torch.nn.functional as F

    side = round(len(table_nd) ** 0.5)
    if (height, width) == (side, side):
        return table_nd
    table_1dhw = table_nd.T.unflatten(1, (side, side))[None]
    resized_1dhw = F.interpolate(table_1dhw, size=(height, width), mode="bicubic", align_corners=False)
    return resized_1dhw.flatten(2)[0].T


def _checkpoint(size: int, *roles: Role) -> Checkpoint:
    arguments = {**AIMV2_LARGE, "image_size": size, "patch_size": 14, "use_head": False}
    return Checkpoint(f"apple/aimv2-large-patch14-{size}", "aimv2_vision_model", arguments, size, roles, 1.24e9)


AIMV2 = Encoder(
    name="aimv2",
    label="AIMv2",
    model_classes={"aimv2_vision_model": "Aimv2VisionModel"},
    cls_token=False,
    arguments=lambda shape: {**shape.arguments, "use_head": False},
    embed=_embed,
    blocks="encoder.layers",
    final_norm="rms_norm",
    norm="RMSNorm",
    table="learned",
    table_at="embeddings.position_embedding",
    other_sizes="resized bicubically (not in transformers)",
    images=Images("crop", CLIP_MEAN, CLIP_STD),
    gated=True,
    checkpoints=(_checkpoint(224, "public code", "matched"), _checkpoint(336), _checkpoint(448)),
)
