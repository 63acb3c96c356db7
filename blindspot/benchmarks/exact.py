"""From a raw answer to a score where answers must be exact, as in the miniature. Pure: equal input, equal score."""

import re

from blindspot.benchmarks.boxes import Box, iou
from blindspot.benchmarks.rules import Scored
from blindspot.question import Question

# A longer run of digits is degenerate output, not a count or a coordinate (and int() refuses 4,300 digits).
_LONGEST_NUMBER = 32
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_UNPARSED = Scored(None, 0.0, False)


def score(question: Question, raw: str) -> Scored:
    """Score a raw answer by the kind of its question.

    ``choice`` and ``yes_no``: the answer must be one of the choices (``yes``, ``no`` when none are given). ``count``:
    the first word must be an integer in decimal digits of any script. ``text``: the whole answer must equal the gold.
    Letter case and runs of white space never matter. ``boxes``: four numbers ``x0 y0 x1 y1`` with ``x0 < x1`` and
    ``y0 < y1``; the score is the IoU with the gold box.

    Never raises because of ``raw``. A malformed gold answer, or a question of kind ``mcq``, is a ValueError.
    """
    folded, gold = fold(raw), fold(question.answer)
    match question.kind:
        case "choice" | "yes_no":
            parsed = folded in map(fold, question.choices or ("yes", "no"))
        case "text":
            parsed = bool(folded)
        case "count":
            folded, gold = folded.partition(" ")[0], int(question.answer)
            parsed = len(folded) <= _LONGEST_NUMBER and folded.isdecimal()
            folded = int(folded) if parsed else folded
        case "boxes":
            box, given = _box(question.answer), _box(raw)
            if box is None:
                raise ValueError(f"question {question.id}: the gold box {question.answer!r} is malformed")
            return _UNPARSED if given is None else Scored(folded, iou(box, given), True)
        case "mcq":
            raise ValueError(f"question {question.id}: lettered options are scored by a profile, not exactly")
    return Scored(folded, float(folded == gold), True) if parsed else _UNPARSED


def fold(text: str) -> str:
    """Lower case, no white space at the ends, single spaces between words."""
    return " ".join(text.lower().split())


def _box(text: str) -> Box | None:
    words = text.split(maxsplit=4)
    if len(words) != 4 or any(len(word) > _LONGEST_NUMBER or not _NUMBER.fullmatch(word) for word in words):
        return None
    x0, y0, x1, y1 = map(float, words)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
