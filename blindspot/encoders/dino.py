"""DINOv2 (Oquab et al. 2023) and DINOv3 (Simeoni et al. 2025): self-supervised on images alone, with a CLS token.

DINOv2 in transformers: ``Dinov2Model``, and ``Dinov2WithRegistersModel`` for the checkpoints with four register tokens
between CLS and the patches (Darcet et al. 2023). LayerNorm, GELU, a learned scale on each residual branch. One learned
table (a parameter, not an embedding) of 1 + 37 x 37 rows, CLS first and none for registers: it is from 518 px, so at
the 224 px of the released preprocessor transformers always resizes it, bicubically (with registers: antialiased).

DINOv3 in transformers: ``DINOv3ViTModel``, a rotary encoder by birth. As DINOv2, but always with registers and without
bias on keys. No table: every block turns queries and keys of the patches by the row and column of their centres in
[-1, 1] (base 100), so any size works. In training mode transformers scales these coordinates at random; keep a frozen
tower in evaluation mode. The released processor needs torchvision and resizes pixels as floats; here they are resized
as 8-bit integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blindspot.encoders.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VIT_BASE,
    VIT_LARGE,
    Checkpoint,
    Encoder,
    Images,
    TowerShape,
)

if TYPE_CHECKING:
    from torch import Tensor

REGISTERS = 4
_DINOV2_LARGE, _DINOV2_BASE = (
    {key: value for key, value in sizes.items() if key != "intermediate_size"}
    | {"mlp_ratio": 4, "image_size": 518, "patch_size": 14}
    for sizes in (VIT_LARGE, VIT_BASE)
)
_DINOV3_LARGE = {**VIT_LARGE, "image_size": 224, "patch_size": 16, "num_register_tokens": REGISTERS}


def _dinov2_arguments(shape: TowerShape) -> dict[str, Any]:
    if shape.mlp_width % shape.width:
        raise ValueError(f"DINOv2: the MLP's width {shape.mlp_width} must be a multiple of the width {shape.width}")
    arguments = {key: value for key, value in shape.arguments.items() if key != "intermediate_size"}
    return {**arguments, "mlp_ratio": shape.mlp_width // shape.width}


def _embed_dinov2(tower: Any, pixels_bchw: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    return tower.embeddings(pixels_bchw), {}


def _embed_dinov3(tower: Any, pixels_bchw: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    pixels_bchw = pixels_bchw.to(tower.embeddings.patch_embeddings.weight.dtype)
    return tower.embeddings(pixels_bchw), {"position_embeddings": tower.rope_embeddings(pixels_bchw)}


DINOV2 = Encoder(
    name="dinov2",
    label="DINOv2",
    model_classes={"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"},
    cls_token=True,
    arguments=_dinov2_arguments,
    embed=_embed_dinov2,
    blocks="encoder.layer",
    final_norm="layernorm",
    table_at="embeddings.position_embeddings",
    images=Images("crop", IMAGENET_MEAN, IMAGENET_STD, margin=256 / 224),
    checkpoints=(
        Checkpoint("facebook/dinov2-large", "dinov2", _DINOV2_LARGE, 224, download=1.22e9),
        Checkpoint("facebook/dinov2-base", "dinov2", _DINOV2_BASE, 224, download=0.35e9),
        Checkpoint(
            "facebook/dinov2-with-registers-large",
            "dinov2_with_registers",
            {**_DINOV2_LARGE, "num_register_tokens": REGISTERS},
            224,
            download=1.22e9,
        ),
    ),
)
DINOV3 = Encoder(
    name="dinov3",
    label="DINOv3",
    model_classes={"dinov3_vit": "DINOv3ViTModel"},
    cls_token=True,
    arguments=lambda shape: {**shape.arguments, "num_register_tokens": REGISTERS},
    embed=_embed_dinov3,
    blocks="model.layer",
    final_norm="norm",
    table="rotary",
    table_at="rope_embeddings",
    other_sizes="computed at every grid",
    images=Images("warp", IMAGENET_MEAN, IMAGENET_STD, "bilinear"),
    checkpoints=(
        Checkpoint(
            "facebook/dinov3-vitl16-pretrain-lvd1689m",
            "dinov3_vit",
            {**_DINOV3_LARGE, "rope_theta": 100.0},
            224,
            download=1.22e9,
        ),
    ),
    registers=REGISTERS,
)
