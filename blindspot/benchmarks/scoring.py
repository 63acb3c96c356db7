"""Scoring profiles: from a raw answer to what was extracted and its score, as a named harness does it.

A profile is put together from the rules that each benchmark states in its own file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rows import KINDS, read_row
from blindspot.benchmarks.rules import (
    BY_KIND,
    LIKELIHOOD,
    LMMS_EVAL,
    OFFICIAL,
    VLMEVALKIT,
    Item,
    Rule,
    Scored,
    likeliest,
)
from blindspot.errors import UserError, one_of

__all__ = ["DEFAULT", "PROFILES", "Profile", "Scored", "profile"]

Thoughts = Literal["keep", "closed", "strip"]
"""What is done with them: nothing; those that end are taken off, as lmms-eval does by default; or all of them."""

HARNESS, STRIP, KEEP = "harness", "strip", "keep"
THINKING = (HARNESS, STRIP, KEEP)
"""What a user may ask for: as the profile's harness does it, without thoughts, with them."""

_TAGS = (("<think>", "</think>"), ("<analysis>", "</analysis>"))


@dataclass(frozen=True)
class Profile:
    """How one harness scores.

    Attributes:
        name: of the profile.
        rules: by benchmark, and by kind for rows of other benchmarks; what is not here is not defined in this harness.
        needs_likelihood: whether rows must carry the likelihood of every option.
        thoughts: which of them it takes off an answer before it reads it.
    """

    name: str
    rules: Mapping[str, Rule]
    needs_likelihood: bool = False
    thoughts: Thoughts = "keep"

    def score(self, row: Mapping[str, Any]) -> Scored:
        """Score one row of an answers file. Equal rows score equally; no text in ``raw`` makes it raise.

        A row that is malformed (`rows.read_row`) or not defined in this profile is a UserError.
        """
        return self.judge(read_row(row))

    def judge(self, item: Item) -> Scored:
        """Score a row that has been read. CircularEval: right is what is right in every rotation of its options."""
        if problem := self.why_not(item):
            raise UserError(f"{item.where}: {problem}")
        rule = self.rules[item.benchmark if item.benchmark in BENCHMARKS else item.kind]
        passes = []
        for each in item.passes or (item,):
            raw = without_thoughts(each.raw, self.thoughts)
            passes.append(rule(each if raw is each.raw else replace(each, raw=raw)))
        if not item.passes:
            return passes[0]
        right = prod(each.score for each in passes)
        return Scored(
            " ".join(str(each.extracted or "-") for each in passes),
            right,
            all(each.parsed for each in passes),
            guess=prod(each.score + each.guess for each in passes) - right,
        )

    def why_not(self, item: Item) -> str | None:
        """Why this profile has no score for a row; None if it has one."""
        if (item.benchmark if item.benchmark in BENCHMARKS else item.kind) not in self.rules:
            return f"{item.benchmark} is not defined in {self.name}; choose another --profile"
        if self.needs_likelihood and not item.likelihood:
            return f"no likelihood of options, which {self.name} reads; evaluate with it or choose another --profile"
        return None


_OTHERS: dict[str, dict[str, Rule]] = {
    **{version: {kind: rules[version] for kind, rules in BY_KIND.items()} for version in VLMEVALKIT},
    LMMS_EVAL: {},
    OFFICIAL: {},
    LIKELIHOOD: dict.fromkeys((*BENCHMARKS, *KINDS), likeliest),
}
"""Rules of kinds and benchmarks without any of their own, by profile."""

_BY_NAME = {
    name: Profile(
        name,
        {**others, **{each.name: each.rules[name] for each in BENCHMARKS.values() if name in each.rules}},
        needs_likelihood=name == LIKELIHOOD,
        thoughts="closed" if name == LMMS_EVAL else "keep",
    )
    for name, others in _OTHERS.items()
}

PROFILES = tuple(_BY_NAME)
"""Names of the profiles, the paper's first."""

DEFAULT = PROFILES[0]


def profile(name: str, thinking: str = HARNESS) -> Profile:
    """The profile of that name, with thoughts treated as told: one of `THINKING`."""
    one_of(name, PROFILES, "--profile", "scoring profile")
    one_of(thinking, THINKING, "--thinking", "treatment of thoughts")
    found = _BY_NAME[name]
    return found if thinking == HARNESS else replace(found, thoughts="strip" if thinking == STRIP else "keep")


def has_thought(answer: str) -> bool:
    """Whether a tag of a thought is in the answer; a template may have opened it, so that only its end is there."""
    return any(tag in answer for pair in _TAGS for tag in pair)


def is_cut_off(answer: str) -> bool:
    """Whether the answer opens a thought and never closes it."""
    return any(opening in without_thoughts(answer, "closed") for opening, _ in _TAGS)


def without_thoughts(answer: str, which: Thoughts = "strip") -> str:
    """What an answer says besides its thoughts, without blanks around it; an answer without thoughts as it stands.

    Of an end without a beginning, what follows the last one. Tags are compared as they stand, case included.
    """
    if which == "keep" or not has_thought(answer):
        return answer
    for opening, closing in _TAGS:
        parts, place = [], 0
        while (start := answer.find(opening, place)) >= 0 and (end := answer.find(closing, start)) >= 0:
            parts.append(answer[place:start])
            place = end + len(closing)
        answer = "".join((*parts, answer[place:]))
        if which == "strip":
            answer = answer.partition(opening)[0]
        if opening not in answer:
            answer = answer.rpartition(closing)[2]
    return answer.strip()
