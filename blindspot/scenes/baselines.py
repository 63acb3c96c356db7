"""What answers score that look at no picture, at one object of it, or along one axis: shortcuts, learned from turns.

A rule sees one view of a question (its prompt, the cell of one object that the prompt names, or the rows or columns of
both) and gives the answer that was most frequent with that view in training. A model that scores no more has shown
nothing about relations.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from blindspot.question import Question
from blindspot.scenes.relations import PHRASE
from blindspot.scenes.tasks import Task, Turn
from blindspot.scenes.world import COLOURS, SHAPES, Scene

View = Callable[[Any, str], Hashable | None]
"""What a rule sees of a scene (of a world with depth: of its shots) and a prompt; None where it does not apply."""

Rule = Callable[[Any, Turn | Question], str]
Train = Sequence[tuple[Scene, Sequence[tuple[Task, Turn]]]]

WRONG_AXES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("left-of", "right-of", "left-or-right", "more-left", "more-right"), (0,)),
    **dict.fromkeys(("above", "below", "above-or-below", "higher", "lower"), (1,)),
    **dict.fromkeys(("relative-to", "way"), (0, 1)),
}
"""The axes, 0 for rows, that do not answer a question with this word; of a direction, neither does alone."""

NAMES = frozenset(COLOURS + SHAPES)


def baselines(train: Train, scenes: Sequence[Scene], questions: Sequence[Question]) -> dict[str, dict[str, float]]:
    """Scores of the best shortcuts in each column.

    Args:
        train: draws of a `TrainingWorld`; the rules are learned and chosen on them, a few thousand scenes are enough.
        scenes: what the questions' ``images`` index.
        questions: test questions of one split.

    Returns:
        For each column ``blind rule`` (sees the prompt) and, where prompts name two objects or a relation,
        ``one-object rule`` (sees the prompt and the cell of one object it names); where prompts relate two objects,
        ``wrong-axis rule`` (sees the prompt and both columns where it asks about above or below, both rows where it
        asks about left or right, and one of these where it asks for the direction). The score is accuracy, in which a
        cluster such as a minimal pair counts only if all its answers are right; for boxes it is the mean intersection
        over union.
    """
    found: dict[str, dict[str, float]] = {}
    for column in dict.fromkeys(question.benchmark for question in questions):
        asked = [question for question in questions if question.benchmark == column]
        turns = column_turns(train, column)
        found[column] = {"blind rule": score(learn(BLIND, turns), scenes, asked)}
        if any(_compares(question.prompt) for question in asked):
            found[column]["one-object rule"] = score(learn({**BLIND, **ONE_OBJECT}, turns), scenes, asked)
        if any(_wrong_axes(question.prompt) for question in asked):
            found[column]["wrong-axis rule"] = score(learn({**BLIND, **WRONG_AXIS}, turns), scenes, asked)
    return found


def column_turns(train: Train, column: str) -> list[tuple[Scene, Turn]]:
    """The training turns of a column; all turns for a column that is only tested."""
    drawn = [(scene, task.column, turn) for scene, asked in train for task, turn in asked]
    own = [(scene, turn) for scene, name, turn in drawn if name == column]
    return own or [(scene, turn) for scene, _, turn in drawn]


def learn(views: Mapping[str, View], turns: Sequence[tuple[Any, Turn]]) -> Rule:
    """The rule that uses, for every template, the view that answers best.

    Views are compared on turns that their answers were not learned from, so that a fine view does not win by chance.
    Of boxes it gives the one with the highest mean overlap with others.
    """

    def table(view: View, learned: Sequence[tuple[Any, Turn]]) -> dict[Hashable, str | int]:
        counts: dict[Hashable, Counter[str | int]] = defaultdict(Counter)
        for scene, turn in learned:
            if (seen := view(scene, turn.prompt)) is not None:
                counts[seen][_code(turn)] += 1
        return {seen: answers.most_common(1)[0][0] for seen, answers in counts.items()}

    half = len(turns) // 2
    tables = {name: table(view, turns[:half]) for name, view in views.items()}
    right: dict[str, Counter[str]] = defaultdict(Counter)
    for scene, turn in turns[half:]:
        for name, view in views.items():
            right[template(turn.prompt)][name] += tables[name].get(view(scene, turn.prompt)) == _code(turn)
    tables = {name: table(view, turns) for name, view in views.items()}
    boxes = [turn.answer for _, turn in turns if _is_box(turn.answer)][:1000]
    box = boxes[int(_overlaps(boxes, boxes).mean(1).argmax())] if boxes else ""

    def rule(scene: Any, asked: Turn | Question) -> str:
        if _is_box(asked.answer):
            return box
        counts = right[template(asked.prompt)]
        best = max(views, key=lambda name: counts[name])
        code = tables[best].get(views[best](scene, asked.prompt), "")
        return asked.choices[code] if isinstance(code, int) else code

    return rule


def score(rule: Rule, scenes: Sequence[Scene], questions: Sequence[Question]) -> float:
    """Mean score of a rule over clusters; a cluster scores what its worst answer scores."""
    clusters: dict[str, float] = {}
    for question in questions:
        answer = rule(scenes[question.images[0]], question)
        right = float(answer == question.answer)
        value = float(_overlaps([answer], [question.answer])[0, 0]) if question.kind == "boxes" and answer else right
        cluster = question.groups["cluster"]
        clusters[cluster] = min(value, clusters.get(cluster, 1.0))
    return float(np.mean(list(clusters.values())))


@cache
def template(prompt: str) -> str:
    """A prompt with its colours, shapes and cells left out."""
    return " ".join("_" if word in NAMES or word[1:].isdigit() else word for word in prompt.split())


@cache
def named(prompt: str) -> tuple[str, ...]:
    """The colours and shapes in a prompt, in order."""
    return tuple(word for word in prompt.split() if word in NAMES)


@cache
def _compares(prompt: str) -> bool:
    """Whether a prompt names two objects, or one and a relation: others may well be answered from one object."""
    return len(named(prompt)) + len({*PHRASE.values()}.intersection(prompt.split())) >= 2


@cache
def _wrong_axes(prompt: str) -> tuple[int, ...]:
    """The axes of cells, 0 for rows, that do not answer a question about two objects; none where it is not one."""
    asked = [axes for word, axes in WRONG_AXES.items() if word in prompt.split()]
    return asked[0] if asked and len(named(prompt)) == 2 else ()


def _cell(number: int, scene: Scene, prompt: str) -> Hashable | None:
    words = named(prompt)
    if not _compares(prompt) or number >= len(words):
        return None
    return template(prompt), tuple(thing.cell for thing in scene.things if thing.has(words[number]))


def _along(axis: int, scene: Scene, prompt: str) -> Hashable | None:
    if axis not in _wrong_axes(prompt):
        return None
    places = (tuple(thing.cell[axis] for thing in scene.things if thing.has(word)) for word in named(prompt))
    return template(prompt), *places


BLIND: dict[str, View] = {"template": lambda scene, prompt: template(prompt), "prompt": lambda scene, prompt: prompt}
ONE_OBJECT: dict[str, View] = {"cell of the first": partial(_cell, 0), "cell of the second": partial(_cell, 1)}
WRONG_AXIS: dict[str, View] = {"both rows": partial(_along, 0), "both columns": partial(_along, 1)}


def _code(turn: Turn) -> str | int:
    """The answer, or its number among the choices where the prompt lists them: a rule may be "the first"."""
    listed = bool(turn.choices) and set(turn.choices) <= set(turn.prompt.split())
    return turn.choices.index(turn.answer) if listed else turn.answer


def _is_box(answer: str) -> bool:
    return len(answer.split()) == 4


def _overlaps(boxes: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Intersection over union of all pairs of boxes written as ``x0 y0 x1 y1``: ``(boxes, others)``."""
    a_n122, b_1m22 = (np.array([box.split() for box in group], float).reshape(-1, 2, 2) for group in (boxes, others))
    a_n122, b_1m22 = a_n122[:, None], b_1m22[None]
    sides = np.minimum(a_n122[..., 1, :], b_1m22[..., 1, :]) - np.maximum(a_n122[..., 0, :], b_1m22[..., 0, :])
    shared = np.maximum(sides, 0).prod(-1)
    areas = (a_n122[..., 1, :] - a_n122[..., 0, :]).prod(-1) + (b_1m22[..., 1, :] - b_1m22[..., 0, :]).prod(-1)
    return shared / (areas - shared)
