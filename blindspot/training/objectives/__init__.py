"""Objectives that pre-train an image encoder: one file each, one line each in the registry, which loads no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from blindspot.training.objectives.base import Objective


class Entry(NamedTuple):
    """What is known of an objective before it is used."""

    label: str  # as tables write it
    implementation: str  # its module beside this one and the class in it
    reads_captions: bool  # whether captions matter to it
    seconds: float  # that a sample takes at width 64, on one thread of a 2-core machine

    def load(self) -> type[Objective]:
        """The class. Imports torch."""
        module, kind = self.implementation.split(".")
        return getattr(import_module(f"{__name__}.{module}"), kind)


OBJECTIVES: dict[str, Entry] = {
    "clip": Entry("CLIP", "clip.ClipObjective", True, 0.5e-3),
    "siglip": Entry("SigLIP", "siglip.SiglipObjective", True, 0.55e-3),
    "siglip2": Entry("SigLIP2", "siglip2.Siglip2Objective", True, 0.75e-3),
    "aimv2": Entry("AIMv2", "aimv2.Aimv2Objective", True, 0.7e-3),
    "dinov2": Entry("DINOv2", "dinov2.Dinov2Objective", False, 1.6e-3),
}
