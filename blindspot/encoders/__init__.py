"""Image encoder families: one file each, one line each in the registry."""

from blindspot.encoders.base import Checkpoint, Encoder, TowerShape
from blindspot.encoders.build import build_tower
from blindspot.encoders.features import features, grid_of, native_grid, normalise_pixels, normed_tokens
from blindspot.encoders.registry import ENCODERS, detect, prefix_tokens

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
    "prefix_tokens",
]
