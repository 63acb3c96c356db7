"""Every answer of a run, as arrays over shared questions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blindspot.errors import UserError
from blindspot.evaluation.items import Questions
from blindspot.evaluation.statistics import Sample
from blindspot.files import read_jsonl
from blindspot.reporting.plan import Column, Plan, Step, as_made


class RunKey(NamedTuple):
    """One evaluated model."""

    arm: str
    stage: str
    seed: int


@dataclass(frozen=True)
class Answers:
    """Answers of all evaluated models to the same questions.

    Attributes:
        questions: rows of the first ``answers.jsonl``, in its order; their ``raw`` and ``score`` are not to be used.
        raw: per model, the answers as text, in the order of ``questions``.
        scores: per model, float array of shape ``(questions,)`` in 0..1.
        partial: likewise, partial scores; the scores where a question has none.
        parsed: per model, bool array of shape ``(questions,)``.
        missing: evaluations of the plan that are not done.
    """

    questions: list[dict[str, Any]]
    raw: dict[RunKey, list[str]]
    scores: dict[RunKey, np.ndarray]
    partial: dict[RunKey, np.ndarray]
    parsed: dict[RunKey, np.ndarray]
    missing: list[str]

    def runs(self, arm: str, stage: str) -> list[RunKey]:
        """The models of one arm after one stage, by seed."""
        return sorted(key for key in self.scores if key.arm == arm and key.stage == stage)

    def groups(self, place: int) -> dict[str, Any]:
        """The groups of the question at ``place``."""
        return self.questions[place].get("groups") or {}

    def of_column(self, column: Column) -> list[int]:
        """Places of a column's questions."""

        def asked(place: int) -> bool:
            groups = self.groups(place)
            return any(all(str(groups.get(key)) == label for key, label in one.where.items()) for one in column.terms)

        return [
            place
            for place, question in enumerate(self.questions)
            if question["benchmark"] == column.asks and asked(place)
        ]

    def samples(self, column: Column, places_q: np.ndarray) -> dict[RunKey, Sample]:
        """What every model scored on the column's questions at these places.

        Where no set is named, a cluster is one.
        """
        groups = [self.groups(place) for place in places_q.tolist()]
        questions = Questions.of([{"set": own["cluster"], **own} if "cluster" in own else own for own in groups])
        return {
            key: questions.sample(column.terms, scores_q[places_q], self.partial[key][places_q])
            for key, scores_q in self.scores.items()
        }

    def iid(self, column: Column) -> list[int]:
        """Places of those that no composition was held out for."""
        return [place for place in self.of_column(column) if self.groups(place).get("split", "iid") == "iid"]


def load_answers(run: Path, plan: Plan) -> Answers:
    """Read the answers of every finished evaluation of ``plan``.

    Raises:
        UserError: if no evaluation is finished, a file is not as its step made it, a row lacks a key, a score is
            outside 0..1, or two files hold different questions.
    """
    answers = Answers([], {}, {}, {}, {}, [])
    order: dict[tuple[str, str], int] = {}
    for step in plan.evaluations():
        folder = run / step.folder
        if not (folder / "done.json").exists():
            answers.missing.append(step.id)
            continue
        path = as_made(folder / "answers.jsonl")
        rows = list(_rows(path))
        if not answers.questions:
            answers.questions.extend(rows)
            order.update({(row["benchmark"], row["id"]): place for place, row in enumerate(rows)})
        _add(answers, order, rows, path, step)
    if not answers.scores:
        raise UserError(f"{run}: no evaluation is finished; run the study first")
    return answers


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(read_jsonl(path), start=1):
        absent = {"id", "benchmark", "prompt", "answer", "images", "raw", "score", "parsed"} - (
            row.keys() if isinstance(row, dict) else set()
        )
        if absent:
            raise UserError(
                f"{path}:{number}: no {min(absent)!r} in this row; delete the step's folder and run the study again"
            )
        lettered = isinstance(row.get("choices"), dict)
        yield row | {
            "image": next(iter(row["images"]), None),
            "choices": [*row["choices"].values()] if lettered else row.get("choices") or [],
        }


def _add(
    answers: Answers, order: dict[tuple[str, str], int], rows: list[dict[str, Any]], path: Path, step: Step
) -> None:
    places = [order.get((row["benchmark"], row["id"]), -1) for row in rows]
    if sorted(places) != list(range(len(order))):
        raise UserError(
            f"{path}: its questions are not those of the other evaluations; delete its folder and run again"
        )
    sequence = np.argsort(places, kind="stable")
    scores = np.array([row["score"] for row in rows], dtype=float)[sequence]
    if not ((scores >= 0) & (scores <= 1)).all():
        raise UserError(f"{path}: a score is outside 0..1; delete the step's folder and run the study again")
    key = RunKey(step.arm or "", step.stage or "", step.seed or 0)
    answers.raw[key] = [str(rows[place]["raw"]) for place in sequence]
    answers.scores[key] = scores
    partial = np.array([row.get("partial", row["score"]) for row in rows], dtype=float)
    answers.partial[key] = partial[sequence]
    answers.parsed[key] = np.array([bool(row["parsed"]) for row in rows])[sequence]
