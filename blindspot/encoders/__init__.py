"""Image encoder families: one file and one line in the registry each. Plain data: torch comes with a tower."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindspot.encoders.aimv2 import AIMV2, AIMV2_NATIVE
from blindspot.encoders.base import Checkpoint, Encoder, TowerShape
from blindspot.encoders.clip import CLIP
from blindspot.encoders.dino import DINOV2, DINOV3
from blindspot.encoders.features import build_tower, features, grid_of, native_grid, normalise_pixels, normed_tokens
from blindspot.encoders.siglip import SIGLIP, SIGLIP2, SIGLIP2_NAFLEX
from blindspot.errors import UserError
from blindspot.plugins import extend

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = [
    "ENCODERS",
    "Checkpoint",
    "Encoder",
    "TowerShape",
    "build_tower",
    "detect",
    "features",
    "grid_of",
    "native_grid",
    "normalise_pixels",
    "normed_tokens",
]

ENCODERS: dict[str, Encoder] = {
    "clip": CLIP,
    "siglip": SIGLIP,
    "siglip2": SIGLIP2,
    "siglip2_naflex": SIGLIP2_NAFLEX,
    "aimv2": AIMV2,
    "aimv2_native": AIMV2_NATIVE,
    "dinov2": DINOV2,
    "dinov3": DINOV3,
}
extend("encoders", ENCODERS, Encoder)


def detect(vision_config: PreTrainedConfig) -> Encoder:
    """The family of a tower's configuration.

    Fixed SigLIP2 has SigLIP's class and configuration, and is reported as SigLIP: they differ in weights and in the
    interpolation of their image processor, not in how a tower is read.
    """
    for encoder in ENCODERS.values():
        native = getattr(vision_config, "is_native", encoder.variable_resolution)
        if vision_config.model_type in encoder.model_classes and native == encoder.variable_resolution:
            return encoder
    known = sorted({model_type for encoder in ENCODERS.values() for model_type in encoder.model_classes})
    raise UserError(f"image encoder: unknown model_type {vision_config.model_type!r}; known are {', '.join(known)}")
