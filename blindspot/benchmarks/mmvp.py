"""MMVP: 150 pairs of pictures that CLIP cannot tell apart, one question a pair, opposite answers.

Groups: ``set`` and ``cluster`` (the pair, from 1), ``known_issue`` where the original's label is known wrong.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from blindspot.benchmarks.base import Benchmark, Metric, Source, Term
from blindspot.benchmarks.forms import cells, hub, original, tsv
from blindspot.benchmarks.forms.table import Row, Table
from blindspot.question import Question

COUNTS = {"questions": 300, "images": 300, "sets": 150}
SWAPPED = (99, 100, 279, 280)
"""Rows, from 1, whose gold labels are exchanged in the original (lmms-eval issue 1018)."""

_COLUMNS = ("Index", "Question", "Options", "Correct Answer")


def _original(paths: Sequence[Path]) -> Table:
    rows = original.read_rows(paths[0])
    where = "they are `MMVP Images/` of huggingface.co/datasets/MMVP/MMVP"
    return original.table(paths[0], rows, lambda row: f"MMVP Images/{row.get('Index')}.jpg", where)


def _from_tsv(row: Row) -> Question:
    return _question(row, row.text("index"), row.number, cells.asked(row), cells.lettered(row), "answer")


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
    return Question(identifier, "mmvp", "mcq", prompt, cells.letter(row, gold), options, row.images, groups)


MMVP = Benchmark(
    name="mmvp",
    title="MMVP",
    licence="MIT (of the code; of the data not stated)",
    citation="Tong et al., Eyes Wide Shut?, CVPR 2024, arxiv.org/abs/2401.06209",
    sources=(
        tsv.source(
            "MMVP.tsv",
            "8cb732b141a0cba5b42159df2839e557",
            COUNTS,
            _from_tsv,
            notes=("not verified: whether this file corrects the labels of pairs (99, 100) and (279, 280)",),
        ),
        hub.source("lmms-lab-eval/MMVP", "train", COUNTS, _from_columns, _COLUMNS),
        Source(
            "original",
            _original,
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
)
