"""Scoring profiles: from a raw answer to what was extracted and its score, as a named harness does it.

A profile is put together from the rules that each benchmark states in its own file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rows import KINDS, read_row
from blindspot.benchmarks.rules import vlmevalkit
from blindspot.benchmarks.rules.common import LIKELIHOOD, LMMS_EVAL, OFFICIAL, Item, Rule, Scored, likeliest
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

        Raises:
            UserError: if the row is malformed (`rows.read_row`) or not defined in this profile.
        """
        return self.judge(read_row(row))

    def judge(self, item: Item) -> Scored:
        """Score a row that has been read.

        Raises:
            UserError: if it is not defined in this profile.
        """
        if problem := self.why_not(item):
            raise UserError(f"{item.where}: {problem}")
        rule = self.rules[_key(item)]
        said = [rule(self._said(each)) for each in item.passes or (item,)]
        return _circular(said) if item.passes else said[0]

    def why_not(self, item: Item) -> str | None:
        """Why this profile has no score for a row; None if it has one."""
        if _key(item) not in self.rules:
            return f"{item.benchmark} is not defined in {self.name}; choose another --profile"
        if self.needs_likelihood and not item.likelihood:
            return f"no likelihood of options, which {self.name} reads; evaluate with it or choose another --profile"
        return None

    def _said(self, item: Item) -> Item:
        raw = without_thoughts(item.raw, self.thoughts)
        return item if raw is item.raw else replace(item, raw=raw)


def _key(item: Item) -> str:
    return item.benchmark if item.benchmark in BENCHMARKS else item.kind


def _circular(passes: list[Scored]) -> Scored:
    """CircularEval: a question is right if it is right in every rotation of its options."""
    right = prod(each.score for each in passes)
    return Scored(
        " ".join(str(each.extracted or "-") for each in passes),
        right,
        all(each.parsed for each in passes),
        guess=prod(each.score + each.guess for each in passes) - right,
    )


def _profile(name: str, others: Mapping[str, Rule] | None = None, thoughts: Thoughts = "keep") -> Profile:
    own = {benchmark.name: benchmark.rules[name] for benchmark in BENCHMARKS.values() if name in benchmark.rules}
    return Profile(name, {**(others or {}), **own}, needs_likelihood=name == LIKELIHOOD, thoughts=thoughts)


def _vlmevalkit(version: str) -> Profile:
    rules = {"mcq": vlmevalkit.MCQ, "yes_no": vlmevalkit.YES_NO, "count": vlmevalkit.COUNT, "text": vlmevalkit.TEXT}
    return _profile(version, {kind: rule[version] for kind, rule in rules.items()})


_BY_NAME = {
    each.name: each
    for each in (
        *map(_vlmevalkit, vlmevalkit.VERSIONS),
        _profile(LMMS_EVAL, thoughts="closed"),
        _profile(OFFICIAL),
        _profile(LIKELIHOOD, dict.fromkeys((*BENCHMARKS, *KINDS), likeliest)),
    )
}

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
