"""A small sample of the test, asked on the way through stage 2: the curves of accuracy against training step."""

from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any

from blindspot.question import Question
from blindspot.studies.relatives import PAIRED

PER_COLUMN = 16


def probe_questions(questions: Sequence[Question]) -> list[Question]:
    """Questions of every column, drawn at random but always the same; pairs stay together."""
    columns: dict[str, dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    for question in questions:
        if question.groups["split"] == "iid":
            columns[question.benchmark][_unit(question.benchmark, question.id, question.groups)].append(question)
    drawn: list[Question] = []
    for column, units in columns.items():
        for unit in Random(f"probe/{column}").sample(list(units), min(PER_COLUMN, len(units))):
            drawn += units[unit]
    return drawn


def column_scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean score of each column; a pair scores what its worse half does."""
    columns: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        unit = _unit(row["benchmark"], row["id"], row["groups"])
        scores = columns[row["benchmark"]]
        scores[unit] = min(scores.get(unit, 1.0), row["score"])
    return {column: round(sum(scores.values()) / len(scores), 6) for column, scores in columns.items()}


def _unit(column: str, own: str, groups: dict[str, Any]) -> str:
    return groups["cluster"] if column in PAIRED else own
