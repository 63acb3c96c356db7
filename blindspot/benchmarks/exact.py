"""From a raw answer to a score where answers must be exact, as in the miniature. Pure: equal input, equal score."""

import re
from dataclasses import dataclass

from blindspot.benchmarks.boxes import Box, iou
from blindspot.question import Question

# A longer run of digits is degenerate output, not a count or a coordinate (and int() refuses 4,300 digits).
_LONGEST_NUMBER = 32
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")


@dataclass(frozen=True, slots=True)
class Scored:
    """The score of one raw answer.

    Attributes:
        value: 0 to 1.
        parsed: whether the raw answer had the form that its question asks for. False implies ``value == 0``.
    """

    value: float
    parsed: bool


UNPARSED = Scored(0.0, False)


def score(question: Question, raw: str) -> Scored:
    """Score a raw answer by the kind of its question.

    ``choice`` and ``yes_no``: the answer must be one of the choices (``yes``, ``no`` when none are given). ``count``:
    the first word must be an integer in decimal digits of any script. ``text``: the whole answer must equal the gold.
    Letter case and runs of white space never matter. ``boxes``: four numbers ``x0 y0 x1 y1`` with ``x0 < x1`` and
    ``y0 < y1``; the value is the IoU with the gold box.

    Never raises, whatever ``raw`` is.

    Raises:
        ValueError: if the gold answer of a ``count`` or ``boxes`` question is malformed, or the question is ``mcq``.
    """
    match question.kind:
        case "choice" | "yes_no":
            return _score_choice(question, raw)
        case "count":
            return _score_count(question, raw)
        case "text":
            folded = fold(raw)
            return Scored(float(folded == fold(question.answer)), True) if folded else UNPARSED
        case "boxes":
            return _score_box(question, raw)
        case "mcq":
            raise ValueError(f"question {question.id}: lettered options are scored by a profile, not exactly")


def fold(text: str) -> str:
    """Lower case, no white space at the ends, single spaces between words."""
    return " ".join(text.lower().split())


def _score_choice(question: Question, raw: str) -> Scored:
    folded = fold(raw)
    if folded not in {fold(choice) for choice in question.choices or ("yes", "no")}:
        return UNPARSED
    return Scored(float(folded == fold(question.answer)), True)


def _score_count(question: Question, raw: str) -> Scored:
    first = raw.split(maxsplit=1)[:1]
    if not first or len(first[0]) > _LONGEST_NUMBER or not first[0].isdecimal():
        return UNPARSED
    return Scored(float(int(first[0]) == int(question.answer)), True)


def _score_box(question: Question, raw: str) -> Scored:
    gold = _parse_box(question.answer)
    if gold is None:
        raise ValueError(f"question {question.id}: the gold box {question.answer!r} is malformed")
    given = _parse_box(raw)
    return UNPARSED if given is None else Scored(iou(gold, given), True)


def _parse_box(text: str) -> Box | None:
    words = text.split(maxsplit=4)
    if len(words) != 4 or any(len(word) > _LONGEST_NUMBER or not _NUMBER.fullmatch(word) for word in words):
        return None
    x0, y0, x1, y1 = map(float, words)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
