"""SigLIP (Zhai et al. 2023), SigLIP2 and SigLIP2 NaFlex (Tschannen et al. 2025): ViTs without CLS.

SigLIP is trained with a pairwise sigmoid loss. transformers: ``SiglipVisionModel``. LayerNorm, tanh GELU, biases
everywhere; the attention-pooling head of the released checkpoints is not used. One learned table of grid^2 rows; at
another size transformers resizes it bicubically. Images are warped to a square. Every token is a patch: the study's
public code drops the first one by mistake.

Fixed SigLIP2 has SigLIP's own class (``Siglip2VisionModel`` is only for the NaFlex checkpoints). It differs from SigLIP
in its objective, and in one detail of preprocessing: bilinear, not bicubic, resizing.

NaFlex takes images at their own aspect ratio, as rows of patches that are padded and masked within a batch. Its one
learned table of 16 x 16 rows is resized for every image to its grid (bilinear, antialiased). The image processor
resizes to the most patches that keep the aspect ratio.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blindspot.encoders.base import (
    HALF,
    VIT_BASE,
    VIT_LARGE,
    VIT_SO400M,
    Checkpoint,
    Encoder,
    Images,
    Role,
    TowerShape,
)

if TYPE_CHECKING:
    from torch import Tensor


def _fixed(name: str, vit: dict[str, int], size: int, patch_size: int, download: float, *roles: Role) -> Checkpoint:
    arguments = {**vit, "image_size": size, "patch_size": patch_size}
    return Checkpoint(f"google/{name}", "siglip_vision_model", arguments, size, roles, download)


def _naflex(name: str, vit: dict[str, int]) -> Checkpoint:
    return Checkpoint(
        f"google/{name}-patch16-naflex", "siglip2_vision_model", {**vit, "patch_size": 16, "num_patches": 256}, 256
    )


def _embed(tower: Any, pixels_bchw: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    return tower.embeddings(pixels_bchw, interpolate_pos_encoding=True), {}


def _embed_naflex(tower: Any, pixel_values: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    from blindspot.encoders.variable_resolution import attention_mask, pack

    patches_bnp, grids_b2, mask_bn = pack(pixel_values, grids_n2, tower.config.patch_size)
    tokens_bnd = tower.embeddings(patches_bnp, grids_b2)
    return tokens_bnd, {"attention_mask": attention_mask(tower, tokens_bnd, mask_bn)}


def _naflex_arguments(shape: TowerShape) -> dict[str, Any]:
    arguments = {key: value for key, value in shape.arguments.items() if key != "image_size"}
    return {**arguments, "num_patches": shape.grid**2, "vision_use_head": False}


SIGLIP = Encoder(
    name="siglip",
    label="SigLIP",
    model_classes={"siglip_vision_model": "SiglipVisionModel"},
    cls_token=False,
    arguments=lambda shape: {**shape.arguments, "vision_use_head": False},  # that head belongs to the objective
    embed=_embed,
    images=Images("warp", HALF, HALF),
    checkpoints=(
        _fixed("siglip-base-patch16-256", VIT_BASE, 256, 16, 0.81e9, "public code"),
        _fixed("siglip-large-patch16-256", VIT_LARGE, 256, 16, 2.61e9, "matched"),
        _fixed("siglip-so400m-patch14-384", VIT_SO400M, 384, 14, 3.51e9),
    ),
)
SIGLIP2 = replace(
    SIGLIP,
    name="siglip2",
    label="SigLIP2",
    images=Images("warp", HALF, HALF, "bilinear"),
    checkpoints=(
        _fixed("siglip2-base-patch16-256", VIT_BASE, 256, 16, 1.50e9, "public code"),
        _fixed("siglip2-large-patch16-256", VIT_LARGE, 256, 16, 3.53e9, "matched"),
        _fixed("siglip2-so400m-patch16-256", VIT_SO400M, 256, 16, 4.54e9),
    ),
)
SIGLIP2_NAFLEX = Encoder(
    name="siglip2_naflex",
    label="SigLIP2 NaFlex",
    model_classes={"siglip2_vision_model": "Siglip2VisionModel"},
    cls_token=False,
    arguments=_naflex_arguments,
    embed=_embed_naflex,
    other_sizes="resized per image, bilinear with antialias",
    images=Images("bound", HALF, HALF, "bilinear", most_patches=256),
    checkpoints=(_naflex("siglip2-base", VIT_BASE), _naflex("siglip2-so400m", VIT_SO400M)),
    variable_resolution=True,
)
