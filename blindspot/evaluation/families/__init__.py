"""Families of models that can be evaluated, one file each: how they are asked and how they answer."""

import re
from types import SimpleNamespace
from typing import Any

from blindspot.errors import one_of
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


def recognise(adapter: str | None, kind: str | None = None, name: str = "") -> tuple[Family, str]:
    """The family by which a model is asked, and a phrase that says how it was known.

    Args:
        adapter: the family that the user names.
        kind: the ``model_type`` of a model at hand.
        name: by which a server knows a model.

    Raises:
        UserError: if there is no such adapter.
    """
    if adapter is not None:
        one_of(adapter, FAMILIES, "--adapter", "adapter")
        return FAMILIES[adapter], f"{adapter}, as --adapter says"
    if kind is not None:
        family, mark = family_of(SimpleNamespace(model_type=kind)), f"model_type {kind}"
    else:
        last = name.rstrip("/").rpartition("/")[2]
        families = (family for family in FAMILIES.values() if family.names and re.search(family.names, last.lower()))
        family, mark = next(families, FAMILIES["generic"]), f"name {last}"
    known = f"by its {mark}" if family.names else f"for no family has the {mark}; --adapter names one"
    return family, f"{family.name}, {known}"


__all__ = ["FAMILIES", "Family", "family_of", "recognise"]
