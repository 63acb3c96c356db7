"""SigLIP (Zhai et al. 2023): a ViT without CLS, trained with a pairwise sigmoid loss.

transformers: ``SiglipVisionModel``. LayerNorm, tanh GELU, biases everywhere; the attention-pooling head of the released
checkpoints is not used. One learned table of grid^2 rows; at another size transformers resizes it bicubically. Images
are warped to a square. Every token is a patch: the study's public code drops the first one by mistake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blindspot.encoders.base import VIT_BASE, VIT_LARGE, VIT_SO400M, Checkpoint, Encoder, Role
from blindspot.encoders.images import HALF, Images

if TYPE_CHECKING:
    from torch import Tensor


def checkpoint(name: str, vit: dict[str, int], size: int, patch_size: int, download: float, *roles: Role) -> Checkpoint:
    """A checkpoint of Google's, fixed resolution."""
    arguments = {**vit, "image_size": size, "patch_size": patch_size}
    return Checkpoint(f"google/{name}", "siglip_vision_model", arguments, size, roles, download)


def _embed(tower: Any, pixels_bchw: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    return tower.embeddings(pixels_bchw, interpolate_pos_encoding=True), {}


SIGLIP = Encoder(
    name="siglip",
    label="SigLIP",
    model_classes={"siglip_vision_model": "SiglipVisionModel"},
    cls_token=False,
    arguments=lambda shape: {**shape.arguments, "vision_use_head": False},  # that head belongs to the objective
    embed=_embed,
    blocks="encoder.layers",
    final_norm="post_layernorm",
    norm="LayerNorm",
    table="learned",
    table_at="embeddings.position_embedding",
    other_sizes="resized bicubically",
    images=Images("warp", HALF, HALF),
    checkpoints=(
        checkpoint("siglip-base-patch16-256", VIT_BASE, 256, 16, 0.81e9, "public code"),
        checkpoint("siglip-large-patch16-256", VIT_LARGE, 256, 16, 2.61e9, "matched"),
        checkpoint("siglip-so400m-patch14-384", VIT_SO400M, 384, 14, 3.51e9),
    ),
)
