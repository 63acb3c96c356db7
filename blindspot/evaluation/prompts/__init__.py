"""Prompt profiles: from a question to what a model is asked.

A profile is a function ``Question -> Prompt``. A question whose ``images`` are empty is asked blind.
"""

from collections.abc import Callable

from blindspot.errors import one_of
from blindspot.evaluation.base import Prompt
from blindspot.evaluation.prompts import llava, plain, smolvlm, vlmevalkit
from blindspot.question import Question

Profile = Callable[[Question], Prompt]

PROFILES: dict[str, Profile] = {
    "llava": llava.llava,
    "paper": llava.paper,
    "plain": plain.plain,
    "llava_next": vlmevalkit.llava_next,
    "llava_onevision": vlmevalkit.llava_onevision,
    "qwen2_5_vl": vlmevalkit.qwen2_5_vl,
    "smolvlm": smolvlm.smolvlm,
    "gemma3": vlmevalkit.gemma3,
    "paligemma": vlmevalkit.paligemma,
    "molmo": vlmevalkit.molmo,
}
"""By name; a family's own has the family's name."""


def profile(name: str) -> Profile:
    """The prompt profile of that name.

    Raises:
        UserError: if there is none.
    """
    one_of(name, PROFILES, "prompts", "profile")
    return PROFILES[name]


__all__ = ["PROFILES", "Profile", "profile"]
