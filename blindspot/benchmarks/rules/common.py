"""Items and their scores, and rules that benchmarks share whatever the harness."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_TRUTH = {"true": "Yes", "yes": "Yes", "false": "No", "no": "No"}
_CUES = ("answer is", "answer:")

UP_TO_TWENTY = {word: number for number, word in enumerate(_WORDS.split())}
LMMS_EVAL, OFFICIAL, LIKELIHOOD = "lmms-eval-0.7.3", "official", "likelihood"
"""Names of profiles; those of VLMEvalKit are in `rules.vlmevalkit`."""

API_FAILED = "Failed to obtain answer via API"


@dataclass(frozen=True, slots=True)
class Item:
    """A row of an answers file that is well formed.

    Attributes:
        benchmark: our name of it; another benchmark's as it stands in the row.
        kind: ``mcq``, ``yes_no``, ``count``, ``text``, ``boxes`` or ``circular``.
        gold: a letter, ``Yes`` or ``No``, decimal digits, or a text; of ``circular`` empty.
        raw: the answer; of ``circular`` empty.
        choices: option texts by letter; empty texts where a circular group came without them.
        golds: accepted texts, where there are several (MMMU).
        likelihood: log-probability by label, if the row has it.
        passes: of ``circular``, the rotated questions.
        seen: of ``boxes``, the convention of the answer and what the model saw of the picture.
        where: of the row, for messages.
    """

    benchmark: str
    kind: str
    gold: str
    raw: str
    choices: Mapping[str, str] = field(default_factory=dict)
    golds: tuple[str, ...] = ()
    likelihood: Mapping[str, float] | None = None
    passes: tuple["Item", ...] = ()
    seen: tuple[str, str] = ("", "")
    where: str = "row"


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

    def numbers(self) -> dict[str, Any]:
        """What a study keeps of it beside the answer."""
        partial = {} if self.partial is None else {"partial": round(self.partial, 6)}
        return {"score": round(self.score, 6), "parsed": self.parsed, **partial}


Rule = Callable[[Item], Scored]


def overlap(one: str, other: str) -> float:
    """Words in common by the larger number of words: TopViewRS's partial match. Case does not matter."""
    a, b = set(one.lower().split()), set(other.lower().split())
    return len(a & b) / max(len(a), len(b), 1)


def behind_cue(raw: str) -> str:
    """What stands behind the last "answer is" or "answer:", in lower case, as Cambrian-1's scripts cut it."""
    text = raw.lower().strip()
    for cue in _CUES:
        text = text.rpartition(cue)[2]
    return text.strip()


def true_or_false(item: Item) -> Scored:
    """The first word must be true or yes, false or no."""
    words = item.raw.split(maxsplit=1)
    said = _TRUTH.get(words[0].strip(".,;:!\"'").lower()) if words else None
    return Scored(said, float(said == item.gold), said is not None)


def count(item: Item) -> Scored:
    """The whole answer as digits: a number word up to twenty becomes digits, and "none" is 0."""
    word = item.raw.strip().lower()
    number = 0 if word == "none" else UP_TO_TWENTY.get(word)
    answer = word if number is None else str(number)
    return Scored(answer, float(answer == item.gold), answer.isdecimal())


def likeliest(item: Item) -> Scored:
    """The option that the model finds likeliest: no generation, no parsing, so no answer is lost to its form.

    Labels are compared without regard to case; of equally likely ones the first in the row counts.
    """
    likelihood = item.likelihood or {}
    label = max(likelihood, key=likelihood.__getitem__)
    return Scored(label, float(label.strip().lower() == item.gold.strip().lower()), True)
