"""The drawn worlds as benchmarks for any model: pictures of solids, questions in plain English, answers drawn first.

Twins, which differ in what is asked about and are alike in the rest, are a set: ``pairs`` counts those that are all
right. Beside every score stands what shortcuts score on the very questions that were asked. Groups: ``task``, ``cue``,
``cluster``, ``set``.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from blindspot.benchmarks.base import USUAL, Benchmark, Draw, Metric, Row, Source, Table, Term, digest
from blindspot.benchmarks.rules import (
    LATER,
    YES_NO,
    Item,
    Scored,
    both,
    mcq,
    mean_relative_accuracy,
    number,
)
from blindspot.errors import UserError
from blindspot.question import Question
from blindspot.scenes.solid import registry

if TYPE_CHECKING:
    from blindspot.scenes.solid.tasks import SolidExample, SolidTask
    from blindspot.scenes.solid.world import Shot

QUESTIONS = 100
"""Of each task, unless more or fewer are asked for."""
SMALLEST = 96
"""Pixels along a side in which every object that is asked about has eight."""


@dataclass(frozen=True)
class Drawn:
    """Pictures that are drawn when they are asked for."""

    shots: "Sequence[Shot]"
    size: int

    def read(self, key: int) -> bytes:
        from PIL import Image

        from blindspot.scenes.solid.cast import render

        held = io.BytesIO()
        Image.fromarray(render([self.shots[key]], self.size).rgb[0]).save(held, "PNG")
        return held.getvalue()

    def __len__(self) -> int:
        return len(self.shots)


def draw(name: str, how: Draw) -> Table:
    """A benchmark of the tasks that can be asked by the cue."""
    from blindspot.scenes.solid import rules

    asked = registry.asked(name, how.cue, "leave it out or ask solid")
    if how.size < SMALLEST:
        raise UserError(f"--size {how.size}: should be at least {SMALLEST}, or objects have fewer than eight pixels")
    each = QUESTIONS if how.questions is None else -(-how.questions // len(asked))
    rows: list[Row] = []
    shots: dict[Shot, int] = {}
    shortcuts: dict[str, dict[str, float]] = {}
    for task, _ in asked.values():
        clusters = rules.questions(task, each, f"{name}/{how.seed}", how.cue)
        for place, cluster in enumerate(clusters):
            group = {"task": task.name, "cue": how.cue, "cluster": f"{task.name}/{place}"}
            group |= {"set": group["cluster"]} if len(cluster) > 1 else {}
            for step, example in enumerate(cluster):
                images = tuple(shots.setdefault(shot, len(shots)) for shot in example.shots)
                cells = {"id": f"{group['cluster']}/{step}", **_cells(task, example), "groups": group}
                rows.append(Row(Path(name), len(rows) + 1, cells, images))
        score = relative if task.kind == "number" else str.__eq__
        found = rules.shortcuts(task, [one for own in clusters for one in own], how.cue, score=score)
        shortcuts[f"task/{task.name}"] = {rule: round(value, 4) for rule, value in found.items()}
    told = f"{how} {digest(rows, map(repr, shots))}"
    return Table(Path(name), rows, Drawn(list(shots), how.size), told, shortcuts)


def _cells(task: "SolidTask", example: "SolidExample") -> dict[str, Any]:
    question, options = task.in_english(example)
    answer = example.turn.answer
    if task.kind == "choice":
        answer = ascii_uppercase[example.turn.choices.index(answer)]
    kind = "mcq" if task.kind == "choice" else task.kind
    return {"kind": kind, "question": question, "options": options, "answer": answer}


def _question(row: Row) -> Question:
    kind, options = row.cells["kind"], tuple(row.cells["options"]) if row.cells["kind"] == "mcq" else ()
    answer = row.yes_no("answer") if kind == "yes_no" else row.text("answer")
    return Question(
        row.text("id"), row.source.name, kind, row.text("question"), answer, options, row.images, row.cells["groups"]
    )


def relative(said: str, gold: str) -> float:
    return float(mean_relative_accuracy(float(said), float(gold))) if said else 0.0


def _rule(item: Item, said: bool) -> Scored:
    if item.kind == "number":
        return number(item)
    return mcq(item, said) if item.kind == "mcq" else YES_NO[LATER](item)


def drawn(name: str, title: str) -> Benchmark:
    """A benchmark of the registry's tasks of that name."""
    columns = registry.WORLDS[name]
    twins = [task for task, column in columns.items() if column.twins]
    return Benchmark(
        name=name,
        title=title,
        licence="Apache-2.0",
        citation="drawn by Blindspot",
        sources=(Source("drawn", lambda _: draw(name, USUAL), _question, page="drawn when it is asked"),),
        metrics=(
            Metric("overall", (Term(),), None),
            *(Metric(f"task/{task}", (Term({"task": task}),), columns[task].chance) for task in columns),
            *(Metric(f"pairs/{task}", (Term({"task": task}, unit="set"),), None) for task in twins),
        ),
        kinds={"mcq": "mcq", "yes_no": "yes_no", "number": "number"},
        rules=both(_rule),
        draw=partial(draw, name),
    )


SOLID = drawn("solid", "Solids, drawn")
