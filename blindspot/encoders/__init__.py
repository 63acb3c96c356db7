"""Image encoder families: one file each, one line each in the registry."""

from blindspot.encoders.aimv2 import AIMV2
from blindspot.encoders.base import (
    Encoder,
    TowerShape,
    build_tower,
    normalise_pixels,
    normed_tokens,
    patch_features,
)
from blindspot.encoders.clip import CLIP
from blindspot.encoders.siglip import SIGLIP
from blindspot.encoders.siglip2 import SIGLIP2

ENCODERS: dict[str, Encoder] = {
    "clip": CLIP,
    "siglip": SIGLIP,
    "siglip2": SIGLIP2,
    "aimv2": AIMV2,
}

__all__ = ["ENCODERS", "Encoder", "TowerShape", "build_tower", "normalise_pixels", "normed_tokens", "patch_features"]
