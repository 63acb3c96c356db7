"""CLIP (Radford et al. 2021): a ViT with a CLS token, trained with a softmax contrastive loss.

transformers: ``CLIPVisionModel``. LayerNorm, also once before the first block (``pre_layrnorm``, the released
spelling); quick GELU; patch convolution without bias. One learned table of 1 + grid^2 rows, CLS first; at another size
transformers resizes its patch rows bicubically. LLaVA-1.5 reads layer -2: block 23 of 24, not normed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blindspot.encoders.base import VIT_LARGE, Checkpoint, Encoder
from blindspot.encoders.images import CLIP_MEAN, CLIP_STD, Images

if TYPE_CHECKING:
    from torch import Tensor


def _embed(tower: Any, pixels_bchw: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    return tower.pre_layrnorm(tower.embeddings(pixels_bchw, interpolate_pos_encoding=True)), {}


CLIP = Encoder(
    name="clip",
    label="CLIP",
    model_classes={"clip_vision_model": "CLIPVisionModel"},
    cls_token=True,
    embed=_embed,
    blocks="encoder.layers",
    final_norm="post_layernorm",
    norm="LayerNorm",
    table="learned",
    table_at="embeddings.position_embedding",
    other_sizes="resized bicubically",
    images=Images("crop", CLIP_MEAN, CLIP_STD),
    checkpoints=(
        Checkpoint(
            "openai/clip-vit-large-patch14-336",
            "clip_vision_model",
            {**VIT_LARGE, "image_size": 336, "patch_size": 14, "projection_dim": 768},
            336,
            ("public code",),
            1.71e9,
        ),
        Checkpoint(
            "openai/clip-vit-large-patch14",
            "clip_vision_model",
            {**VIT_LARGE, "image_size": 224, "patch_size": 14, "projection_dim": 768},
            224,
            ("matched",),
            1.71e9,
        ),
    ),
)
