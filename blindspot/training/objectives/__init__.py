"""Objectives that pre-train an image encoder: one file each, one line each in the registry."""

from blindspot.training.objectives.aimv2 import Aimv2Objective
from blindspot.training.objectives.base import CaptionShape, Objective
from blindspot.training.objectives.clip import ClipObjective
from blindspot.training.objectives.dinov2 import Dinov2Objective
from blindspot.training.objectives.siglip import SiglipObjective
from blindspot.training.objectives.siglip2 import Siglip2Objective

OBJECTIVES: dict[str, type[Objective]] = {
    "clip": ClipObjective,
    "siglip": SiglipObjective,
    "siglip2": Siglip2Objective,
    "aimv2": Aimv2Objective,
    "dinov2": Dinov2Objective,
}

__all__ = ["OBJECTIVES", "CaptionShape", "Objective"]
