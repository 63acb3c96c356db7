"""CLIP (Radford et al. 2021): a ViT with a CLS token, trained with a softmax contrastive loss.

transformers: ``CLIPVisionModel``. LayerNorm, also once before the first block (``pre_layrnorm``, the released
spelling); quick GELU; patch convolution without bias. One learned table of 1 + grid^2 rows, CLS first; at another size
transformers resizes its patch rows bicubically. LLaVA-1.5 reads layer -2: block 23 of 24, not normed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blindspot.encoders.base import CLIP_MEAN, CLIP_STD, VIT_BASE, VIT_LARGE, Checkpoint, Encoder, Images, Role

if TYPE_CHECKING:
    from torch import Tensor


def _embed(tower: Any, pixels_bchw: Tensor, grids_n2: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    return tower.pre_layrnorm(tower.embeddings(pixels_bchw, interpolate_pos_encoding=True)), {}


def _large(name: str, size: int, role: Role) -> Checkpoint:
    arguments = {**VIT_LARGE, "image_size": size, "patch_size": 14, "projection_dim": 768}
    return Checkpoint(f"openai/{name}", "clip_vision_model", arguments, size, (role,), 1.71e9)


_BASE = {**VIT_BASE, "image_size": 224, "patch_size": 16, "projection_dim": 512}


CLIP = Encoder(
    name="clip",
    label="CLIP",
    model_classes={"clip_vision_model": "CLIPVisionModel"},
    cls_token=True,
    embed=_embed,
    images=Images("crop", CLIP_MEAN, CLIP_STD),
    checkpoints=(
        _large("clip-vit-large-patch14-336", 336, "public code"),
        _large("clip-vit-large-patch14", 224, "matched"),
        Checkpoint("openai/clip-vit-base-patch16", "clip_vision_model", _BASE, 224, download=0.60e9),
    ),
)
