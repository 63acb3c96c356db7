"""What a scoring profile is: one rule per benchmark, each from an answer to a score."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from blindspot.benchmarks.scoring.rows import BENCHMARKS, Item, read_row
from blindspot.benchmarks.scoring.thinking import Thoughts, without_thoughts
from blindspot.errors import UserError


@dataclass(frozen=True, slots=True)
class Scored:
    """The score of one raw answer.

    Attributes:
        extracted: what the harness took for the answer: a letter, ``Yes``, an int for counts, a text; where it found
            none, its own word for that (``Z``, ``Unknown``, ``other``, empty) or None.
        score: 0 to 1.
        parsed: whether an answer of the form that the question asks for was found. False implies ``score == 0``.
        partial: partial match, where the benchmark has it (TopViewRS).
        guess: what the harness would add on average by drawing a random option, having found none. Not in ``score``.
    """

    extracted: str | int | None
    score: float
    parsed: bool
    partial: float | None = None
    guess: float = 0.0


Rule = Callable[[Item], Scored]


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
