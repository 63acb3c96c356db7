"""The scoring profiles by name."""

from dataclasses import replace

from blindspot.benchmarks.scoring.base import Profile
from blindspot.benchmarks.scoring.likelihood import LIKELIHOOD
from blindspot.benchmarks.scoring.lmms_eval import LMMS_EVAL
from blindspot.benchmarks.scoring.official import OFFICIAL
from blindspot.benchmarks.scoring.thinking import HARNESS, STRIP, THINKING
from blindspot.benchmarks.scoring.vlmevalkit import VLMEVALKIT_2025_09, VLMEVALKIT_2026_08
from blindspot.errors import one_of

_ALL = (VLMEVALKIT_2025_09, VLMEVALKIT_2026_08, LMMS_EVAL, OFFICIAL, LIKELIHOOD)
_BY_NAME = {each.name: each for each in _ALL}

PROFILES = tuple(_BY_NAME)
"""Names of the profiles, the paper's first."""

DEFAULT = PROFILES[0]


def profile(name: str, thinking: str = HARNESS) -> Profile:
    """The profile of that name, with thoughts treated as told: one of `THINKING`.

    Raises:
        UserError: if there is none; it names the nearest one and all of them.
    """
    one_of(name, PROFILES, "--profile", "scoring profile")
    one_of(thinking, THINKING, "--thinking", "treatment of thoughts")
    found = _BY_NAME[name]
    return found if thinking == HARNESS else replace(found, thoughts="strip" if thinking == STRIP else "keep")
