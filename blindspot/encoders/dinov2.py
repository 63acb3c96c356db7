"""DINOv2 (Oquab et al. 2023): self-supervised on images alone, with a CLS token.

transformers: ``Dinov2Model``, and ``Dinov2WithRegistersModel`` for the checkpoints with four register tokens between
CLS and the patches (Darcet et al. 2023). LayerNorm, GELU, a learned scale on each residual branch. One learned table
(a parameter, not an embedding) of 1 + 37 x 37 rows, CLS first and none for registers: it is from 518 px, so at the 224
px of the released preprocessor transformers always resizes it, bicubically (with registers: antialiased).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blindspot.encoders.base import VIT_LARGE, Checkpoint, Encoder, TowerShape
from blindspot.encoders.images import IMAGENET_MEAN, IMAGENET_STD, Images

if TYPE_CHECKING:
    from torch import Tensor


def _arguments(shape: TowerShape) -> dict[str, Any]:
    if shape.mlp_width % shape.width:
        raise ValueError(f"DINOv2: the MLP's width {shape.mlp_width} must be a multiple of the width {shape.width}")
    arguments = {key: value for key, value in shape.arguments.items() if key != "intermediate_size"}
    return {**arguments, "mlp_ratio": shape.mlp_width // shape.width}


def _embed(tower: Any, pixels_bchw: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    return tower.embeddings(pixels_bchw), {}


_LARGE = {key: value for key, value in VIT_LARGE.items() if key != "intermediate_size"}
_LARGE |= {"mlp_ratio": 4, "image_size": 518, "patch_size": 14}

DINOV2 = Encoder(
    name="dinov2",
    label="DINOv2",
    model_classes={"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"},
    cls_token=True,
    arguments=_arguments,
    embed=_embed,
    blocks="encoder.layer",
    final_norm="layernorm",
    norm="LayerNorm",
    table="learned",
    table_at="embeddings.position_embeddings",
    other_sizes="resized bicubically",
    images=Images("crop", IMAGENET_MEAN, IMAGENET_STD, margin=256 / 224),
    checkpoints=(
        Checkpoint("facebook/dinov2-large", "dinov2", _LARGE, 224, download=1.22e9),
        Checkpoint(
            "facebook/dinov2-with-registers-large",
            "dinov2_with_registers",
            {**_LARGE, "num_register_tokens": 4},
            224,
            download=1.22e9,
        ),
    ),
)
