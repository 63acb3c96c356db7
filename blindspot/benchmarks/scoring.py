"""Scoring profiles: from a raw answer to what was extracted and its score, as a named harness does it.

A profile is put together from the rules that each benchmark states in its own file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

from blindspot.benchmarks.coco_boxes import right_box
from blindspot.benchmarks.points import in_region
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rows import KINDS, read_row
from blindspot.benchmarks.rules import (
    COUNT,
    LATER,
    LIKELIHOOD,
    LMMS_EVAL,
    MCQ,
    OFFICIAL,
    REPAIRED,
    TEXT,
    VLMEVALKIT,
    YES_NO,
    Item,
    Rule,
    Scored,
    likeliest,
    number,
)
from blindspot.errors import UserError, one_of
from blindspot.plugins import extend, owner

__all__ = ["DEFAULT", "PROFILES", "Profile", "Scored", "borrows", "profile"]

Thoughts = Literal["keep", "closed", "strip"]
"""What is done with them: nothing; those that end are taken off, as lmms-eval does by default; or all of them."""

HARNESS, STRIP, KEEP = "harness", "strip", "keep"
THINKING = (HARNESS, STRIP, KEEP)
"""What a user may ask for: as the profile's harness does it, without thoughts, with them."""

TAGS = (("<think>", "</think>"), ("<analysis>", "</analysis>"))
"""Of a thought: its beginning and its end."""


class RuleFailed(UserError):
    """A rule of a plug-in raised at an answer."""


@dataclass(frozen=True)
class Profile:
    """How one harness scores."""

    name: str  # of the profile
    rules: Mapping[str, Rule]
    """By benchmark, and by kind for rows of other benchmarks; what is not here is not defined in this harness."""
    needs_likelihood: bool = False  # whether rows must carry the likelihood of every option
    thoughts: Thoughts = "keep"  # which of them it takes off an answer before it reads it

    def score(self, row: Mapping[str, Any]) -> Scored:
        """Score one row of an answers file. Equal rows score equally; no text in ``raw`` makes it raise.

        A row that is malformed (`rows.read_row`) or not defined in this profile is a UserError.
        """
        return self.judge(read_row(row))

    def judge(self, item: Item) -> Scored:
        """Score a row that has been read. CircularEval: right is what is right in every rotation of its options."""
        if problem := self.why_not(item):
            raise UserError(f"{item.where}: {problem}")
        passes = []
        for each in item.passes or (item,):
            raw = without_thoughts(each.raw, self.thoughts)
            passes.append(self._apply(each if raw is each.raw else replace(each, raw=raw)))
        if not item.passes:
            return passes[0]
        right = prod(each.score for each in passes)
        return Scored(
            " ".join(str(each.extracted or "-") for each in passes),
            right,
            all(each.parsed for each in passes),
            guess=prod(each.score + each.guess for each in passes) - right,
        )

    def _apply(self, item: Item) -> Scored:
        """The rule; one of a plug-in may fail at an answer, which is told with its name."""
        rule = self.rules[item.benchmark if item.benchmark in BENCHMARKS else item.kind]
        who = owner(_OTHERS, self.name) or owner(BENCHMARKS, item.benchmark)
        if who is None:
            return rule(item)
        try:
            scored = rule(item)
            if not (isinstance(scored, Scored) and 0 <= scored.score <= 1):
                raise TypeError(f"it gave {scored!r}, not a Scored with a score from 0 to 1"[:100])
            return scored
        except Exception as error:
            what = f"{who}: its rule fails at this answer ({type(error).__name__}: {error})"
            raise RuleFailed(f"{item.where}: {what}; the answer is kept: mend the rule and score it again") from error

    def attempt(self, item: Item) -> Scored | str:
        """The score of a row that has been read, or why there is none."""
        if problem := self.why_not(item):
            return f"{item.where}: {problem}"
        try:
            return self.judge(item)
        except RuleFailed as error:
            return str(error)

    def why_not(self, item: Item) -> str | None:
        """Why this profile has no score for a row; None if it has one."""
        if (item.benchmark if item.benchmark in BENCHMARKS else item.kind) not in self.rules:
            return f"{item.benchmark} is not defined in {self.name}; choose another --profile"
        if self.needs_likelihood and not item.likelihood:
            return f"no likelihood of options, which {self.name} reads; evaluate with it or choose another --profile"
        return None


BY_KIND: Mapping[str, Mapping[str, Rule]] = {
    "mcq": MCQ,
    "yes_no": YES_NO,
    "count": COUNT,
    "text": TEXT,
    "number": dict.fromkeys(VLMEVALKIT, number),
    "points": dict.fromkeys(VLMEVALKIT, in_region),
    "boxes": dict.fromkeys(VLMEVALKIT, right_box),
}
"""VLMEvalKit's rules, by the kind of a row and by version; what it lacks is scored as later benchmarks are."""

_OTHERS: dict[str, dict[str, Rule]] = {
    **{version: {kind: rules[version] for kind, rules in BY_KIND.items()} for version in VLMEVALKIT},
    LMMS_EVAL: {},
    OFFICIAL: {},
    LIKELIHOOD: dict.fromkeys((*BENCHMARKS, *KINDS), likeliest),
    REPAIRED: {kind: rules[LATER] for kind, rules in BY_KIND.items()},
}
"""Rules of kinds and benchmarks without any of their own, by profile."""

extend("rules", _OTHERS, dict)

DEFAULT = next(iter(_OTHERS))
"""The study's. Benchmarks that its harness did not have are scored by the first rules that they have: `borrows`."""


def borrows(name: str, benchmark: str) -> str | None:
    """Whose rules of a benchmark a profile takes, having none of its own; None where it takes nobody's."""
    own = BENCHMARKS[benchmark].rules if benchmark in BENCHMARKS else {}
    if name in own or not own:
        return None
    return next(iter(own)) if name == DEFAULT else LATER if name == REPAIRED and LATER in own else None


_BY_NAME = {
    name: Profile(
        name,
        {
            **others,
            **{
                each.name: each.rules[borrows(name, each.name) or name]
                for each in BENCHMARKS.values()
                if name in each.rules or borrows(name, each.name)
            },
        },
        needs_likelihood=name == LIKELIHOOD,
        thoughts="closed" if name == LMMS_EVAL else "keep",
    )
    for name, others in _OTHERS.items()
}

PROFILES = tuple(_BY_NAME)
"""Names of the profiles, the paper's first."""


def profile(name: str, thinking: str = HARNESS) -> Profile:
    """The profile of that name, with thoughts treated as told: one of `THINKING`."""
    one_of(name, PROFILES, "--profile", "scoring profile")
    one_of(thinking, THINKING, "--thinking", "treatment of thoughts")
    found = _BY_NAME[name]
    return found if thinking == HARNESS else replace(found, thoughts="strip" if thinking == STRIP else "keep")


def has_thought(answer: str) -> bool:
    """Whether a tag of a thought is in the answer; a template may have opened it, so that only its end is there."""
    return any(tag in answer for pair in TAGS for tag in pair)


def is_cut_off(answer: str) -> bool:
    """Whether the answer opens a thought and never closes it."""
    return any(opening in without_thoughts(answer, "closed") for opening, _ in TAGS)


def without_thoughts(answer: str, which: Thoughts = "strip") -> str:
    """What an answer says besides its thoughts, without blanks around it; an answer without thoughts as it stands.

    Of an end without a beginning, what follows the last one. Tags are compared as they stand, case included.
    """
    if which == "keep" or not has_thought(answer):
        return answer
    for opening, closing in TAGS:
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
