"""Families of models that can be evaluated, one file each: how they are asked and how they answer."""

from typing import Any

from blindspot.evaluation.families import (
    gemma3,
    generic,
    llava,
    llava_next,
    llava_onevision,
    molmo,
    paligemma,
    qwen2_5_vl,
    smolvlm,
)
from blindspot.evaluation.families.base import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        llava.FAMILY,
        llava_next.FAMILY,
        llava_onevision.FAMILY,
        qwen2_5_vl.FAMILY,
        smolvlm.FAMILY,
        gemma3.FAMILY,
        paligemma.FAMILY,
        molmo.FAMILY,
        generic.FAMILY,
    )
}
"""By name."""


def family_of(config: Any) -> Family:
    """The family of a model, by the ``model_type`` of its config; ``generic`` if it is none that is known."""
    kind = getattr(config, "model_type", None)
    return next((family for family in FAMILIES.values() if kind in family.model_types), FAMILIES["generic"])


__all__ = ["FAMILIES", "Family", "family_of"]
