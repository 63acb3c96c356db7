"""DINOv3 (Simeoni et al. 2025): self-supervised, CLS and four registers, and a rotary encoder by birth.

transformers: ``DINOv3ViTModel``. LayerNorm, GELU, no bias on keys, a learned scale on each residual branch. No table:
every block turns queries and keys of the patches by the row and column of their centres in [-1, 1] (base 100), so any
size works. In training mode transformers scales these coordinates at random; keep a frozen tower in evaluation mode.
The released processor needs torchvision and resizes pixels as floats; here they are resized as 8-bit integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blindspot.encoders.base import VIT_LARGE, Checkpoint, Encoder
from blindspot.encoders.images import IMAGENET_MEAN, IMAGENET_STD, Images

if TYPE_CHECKING:
    from torch import Tensor

REGISTERS = 4


def _embed(tower: Any, pixels_bchw: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    pixels_bchw = pixels_bchw.to(tower.embeddings.patch_embeddings.weight.dtype)
    return tower.embeddings(pixels_bchw), {"position_embeddings": tower.rope_embeddings(pixels_bchw)}


DINOV3 = Encoder(
    name="dinov3",
    label="DINOv3",
    model_classes={"dinov3_vit": "DINOv3ViTModel"},
    cls_token=True,
    arguments=lambda shape: {**shape.arguments, "num_register_tokens": REGISTERS},
    embed=_embed,
    blocks="model.layer",
    final_norm="norm",
    norm="LayerNorm",
    table="rotary",
    table_at="rope_embeddings",
    other_sizes="computed at every grid",
    images=Images("warp", IMAGENET_MEAN, IMAGENET_STD, "bilinear"),
    checkpoints=(
        Checkpoint(
            "facebook/dinov3-vitl16-pretrain-lvd1689m",
            "dinov3_vit",
            {**VIT_LARGE, "image_size": 224, "patch_size": 16, "num_register_tokens": REGISTERS, "rope_theta": 100.0},
            224,
            download=1.22e9,
        ),
    ),
    registers=REGISTERS,
)
