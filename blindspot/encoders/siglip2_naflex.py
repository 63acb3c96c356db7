"""SigLIP2 NaFlex (Tschannen et al. 2025): images at their own aspect ratio, padded and masked within a batch.

transformers: ``Siglip2VisionModel``, another class than that of the fixed checkpoints: it takes rows of patches and a
linear patch embedding. LayerNorm, tanh GELU, no CLS. One learned table of 16 x 16 rows, resized for every image to its
grid (bilinear, antialiased). The image processor resizes to the most patches that keep the aspect ratio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blindspot.encoders.base import VIT_BASE, VIT_SO400M, Checkpoint, Encoder, TowerShape
from blindspot.encoders.images import HALF, Images

if TYPE_CHECKING:
    from torch import Tensor


def _arguments(shape: TowerShape) -> dict[str, Any]:
    arguments = {key: value for key, value in shape.arguments.items() if key != "image_size"}
    return {**arguments, "num_patches": shape.grid**2, "vision_use_head": False}


def _embed(tower: Any, pixel_values: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    from blindspot.encoders.variable_resolution import attention_mask, pack

    batch = pack(pixel_values, grids_n2, tower.config.patch_size)
    tokens_bnd = tower.embeddings(batch.patches_bnp, batch.grids_b2)
    return tokens_bnd, {"attention_mask": attention_mask(tower, tokens_bnd, batch.mask_bn)}


def _checkpoint(name: str, vit: dict[str, int]) -> Checkpoint:
    return Checkpoint(
        f"google/{name}-patch16-naflex", "siglip2_vision_model", {**vit, "patch_size": 16, "num_patches": 256}, 256
    )


SIGLIP2_NAFLEX = Encoder(
    name="siglip2_naflex",
    label="SigLIP2 NaFlex",
    model_classes={"siglip2_vision_model": "Siglip2VisionModel"},
    cls_token=False,
    arguments=_arguments,
    embed=_embed,
    blocks="encoder.layers",
    final_norm="post_layernorm",
    norm="LayerNorm",
    table="learned",
    table_at="embeddings.position_embedding",
    other_sizes="resized per image, bilinear with antialias",
    images=Images("bound", HALF, HALF, "bilinear", most_patches=256),
    checkpoints=(_checkpoint("siglip2-base", VIT_BASE), _checkpoint("siglip2-so400m", VIT_SO400M)),
    variable_resolution=True,
)
