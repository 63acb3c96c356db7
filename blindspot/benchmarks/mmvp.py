"""MMVP: 150 pairs of pictures that CLIP cannot tell apart, one question a pair, opposite answers.

Groups: ``set`` and ``cluster`` (the pair, from 1), ``known_issue`` where the original's label is known wrong.

Its own grader asks GPT-4: the rule ``official`` is Cambrian-1's, by the same group, an option's letter or its whole
text.
"""

import re

from blindspot.benchmarks.base import Benchmark, Metric, Row, Source, Term, Wording
from blindspot.benchmarks.rules import LMMS_EVAL, MCQ, OFFICIAL, Item, Scored, behind_cue
from blindspot.benchmarks.sources.forms import hub, original, tsv
from blindspot.question import Question

COUNTS = {"questions": 300, "images": 300, "sets": 150}
SWAPPED = (99, 100, 279, 280)
"""Rows, from 1, whose gold labels are exchanged in the original (lmms-eval issue 1018)."""

_LEADING = re.compile(r"\(?([ab])\)?(?:[.\s]|\Z)", re.IGNORECASE)
_ANYWHERE = (
    re.compile(r"answer\s+is\s+\(?([ab])", re.IGNORECASE),
    re.compile(r"option\s+\(?([ab])", re.IGNORECASE),
    re.compile(r"([ab])\)?(?:\s|\Z)", re.IGNORECASE),
)
_COLUMNS = ("Index", "Question", "Options", "Correct Answer")


def _from_tsv(row: Row) -> Question:
    return _question(row, row.text("index"), row.number, row.asked, row.lettered(), "answer")


def _from_columns(row: Row) -> Question:
    number = row.whole("Index")
    options = tuple(re.findall(r"\([a-z]\)\s*(.*?)\s*(?=\([a-z]\)|$)", row.text("Options"), re.DOTALL))
    return _question(row, str(number), number, row.text("Question"), options, "Correct Answer")


def _from_original(row: Row) -> Question:
    question = _from_columns(row)
    if row.whole("Index") in SWAPPED:
        question.groups["known_issue"] = "gold label exchanged with the other picture of its pair"
    return question


def _question(row: Row, identifier: str, number: int, prompt: str, options: tuple[str, ...], gold: str) -> Question:
    pair = str((number + 1) // 2)
    groups = {"set": pair, "cluster": pair}
    return Question(identifier, "mmvp", "mcq", prompt, row.letter(gold), options, row.images, groups)


def _lmms_eval(item: Item) -> Scored:
    text = item.raw.strip()
    match = _LEADING.match(text)
    for pattern in _ANYWHERE:
        match = match or pattern.search(text)
    letter = match[1] if match else text[:1] if text[:1] in ("A", "B", "a", "b") else ""
    return Scored(letter.upper(), float(letter.upper() == item.gold), bool(letter))


def _official(item: Item) -> Scored:
    answer = behind_cue(item.raw).rstrip(".:,").lstrip("(").rstrip(")")
    # The gold option first, as the harness compares with no other: an option may read "a".
    order = (item.gold, *item.choices) if answer else ()
    letter = next((each for each in order if answer in (each.lower(), item.choices[each].lower())), None)
    return Scored(letter, float(letter == item.gold), letter is not None)


MMVP = Benchmark(
    name="mmvp",
    title="MMVP",
    licence="MIT (of the code; of the data not stated)",
    citation="Tong et al., Eyes Wide Shut?, CVPR 2024, arxiv.org/abs/2401.06209",
    sources=(
        tsv(
            "MMVP.tsv",
            "8cb732b141a0cba5b42159df2839e557",
            COUNTS,
            _from_tsv,
            notes=("not verified: whether this file corrects the labels of pairs (99, 100) and (279, 280)",),
        ),
        hub("lmms-lab-eval/MMVP", "train", COUNTS, _from_columns, _COLUMNS),
        Source(
            "original",
            original(
                lambda row: f"MMVP Images/{row.get('Index')}.jpg",
                "they are `MMVP Images/` of huggingface.co/datasets/MMVP/MMVP",
            ),
            _from_original,
            "MMVP/MMVP",
            counts=COUNTS,
            marks=("Questions.csv",),
            notes=("the gold labels of pairs (99, 100) and (279, 280) are exchanged as published; they are kept so",),
        ),
    ),
    metrics=(
        Metric("overall", (Term(),), 0.5),
        Metric("pair_accuracy", (Term(unit="set"),), 0.25),
    ),
    kinds={"mcq": "mcq"},
    rules={**MCQ, LMMS_EVAL: _lmms_eval, OFFICIAL: _official},
    headlines={"vlmevalkit-2026-08": "pair_accuracy", OFFICIAL: "pair_accuracy"},
    vlmevalkit="MMVP",
    wording=Wording(lettered=True),
)
