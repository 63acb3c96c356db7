"""Shortcuts score no more than is known: answers from the prompt, from one object, and from one axis of two.

Rules are learned twice: from training turns, as a model would, and from a second draw of the test questions
themselves, which finds every regularity that the test has.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable
from math import sqrt
from random import Random

import pytest

from blindspot.question import Question
from blindspot.scenes import sampling
from blindspot.scenes.baselines import (
    BLIND,
    ONE_OBJECT,
    WRONG_AXIS,
    View,
    baselines,
    column_turns,
    learn,
    named,
    template,
)
from blindspot.scenes.relations import PHRASE, RELATIONS, relation
from blindspot.scenes.tasks import TASKS, Task, Turn, ordered_pairs
from blindspot.scenes.world import COLOURS, Scene, draw_distinct
from blindspot.studies.relatives import SCENES

ERRORS = 4
"""Standard errors that chance may add; seeds are fixed, so a test that passes once passes always."""

BY_NAME = {task.name: task for task in TASKS}
Turns = list[tuple[Scene, Turn]]
Data = tuple[list[Scene], list[Question]]
Columns = dict[str, Turns]


def _occurs(position: int | None, scene: Scene, prompt: str) -> Hashable:
    words = named(prompt) if position is None else named(prompt)[position : position + 1]
    return template(prompt), *(any(thing.has(word) for thing in scene.things) for word in words)


OCCURRENCE: dict[str, View] = {
    "colour occurs": lambda scene, prompt: _occurs(0, scene, prompt),
    "shape occurs": lambda scene, prompt: _occurs(1, scene, prompt),
    "colour and shape occur": lambda scene, prompt: _occurs(None, scene, prompt),
}


@pytest.fixture(scope="module")
def columns(train) -> Columns:
    """The training turns that rules for a column learn from."""
    return {column: column_turns(train, column) for column in {task.column for task in TASKS}}


@pytest.fixture(scope="module")
def again() -> Data:
    return sampling.test_questions("iid", 2160, 6)


def _asked(data: Data, task: str, balanced: bool = False) -> list[Question]:
    chosen = [question for question in data[1] if question.groups["task"] == task]
    return [question for question in chosen if not balanced or question.groups.get("balanced")]


def _as_turns(data: Data, questions: list[Question]) -> Turns:
    return [(data[0][one.images[0]], Turn(one.prompt, one.answer, one.choices, one.groups)) for one in questions]


def _accuracy(view: View, turns: Turns, scenes: list[Scene], questions: list[Question]) -> float:
    rule = learn({"template": BLIND["template"], "view": view}, turns)
    return sum(rule(scenes[one.images[0]], one) == one.answer for one in questions) / len(questions)


def _chance(questions: list[Question]) -> float:
    task = BY_NAME[questions[0].groups["task"]]
    most = max(len(task.targets("iid")), 1)
    return sum(1 / len(one.choices) if one.choices else 1 / most for one in questions) / len(questions)


def _error(chance: float, questions: list[Question]) -> float:
    return ERRORS * sqrt(chance * (1 - chance) / len(questions))


@pytest.mark.parametrize("task", [task for task in TASKS if task.kind != "boxes"], ids=lambda task: task.name)
def test_answers_from_the_prompt_alone_are_at_chance(task: Task, columns: Columns, iid: Data, again: Data) -> None:
    questions = _asked(iid, task.name)
    chance = _chance(questions)
    learned_from = {"training": columns[task.column], "test": _as_turns(again, _asked(again, task.name))}
    scores = {
        (source, name): _accuracy(view, turns, iid[0], questions)
        for source, turns in learned_from.items()
        for name, view in BLIND.items()
    }
    best = max(scores.values())
    assert best == pytest.approx(chance, abs=_error(chance, questions)), scores


@pytest.mark.parametrize("task", [task for task in TASKS if "compositional" in task.splits], ids=lambda task: task.name)
def test_new_compositions_can_not_be_guessed_either(task: Task, columns: Columns, compositional: Data) -> None:
    """Training never shows the right answer to some of these prompts, so the prompt may mislead: at most chance."""
    questions = _asked(compositional, task.name)
    chance = max(_chance(questions), 1 / len(task.targets("compositional")))
    for name, view in BLIND.items():
        score = _accuracy(view, columns[task.column], compositional[0], questions)
        assert score <= chance + _error(chance, questions), name


def _one_object_bound(task: str) -> float:
    """What a rule on one object's cell may score: for relations the least that a grid allows, else chance."""
    return {"direction": 1 / 3, "statement": 0.612, "swapped_places": 0.619}.get(task, 1 / len(BY_NAME[task].answers))


@pytest.mark.parametrize("view", ONE_OBJECT)
@pytest.mark.parametrize("task", ["statement", "direction", "swapped_places", "swapped_colours", "exists"])
def test_one_objects_cell_does_not_answer_balanced_questions(
    task: str, view: str, columns: Columns, iid: Data, again: Data
) -> None:
    questions = _asked(iid, task, balanced=True)
    assert len(questions) > 900
    bound = _one_object_bound(task)
    for turns in (columns[BY_NAME[task].column], _as_turns(again, _asked(again, task, balanced=True))):
        score = _accuracy(ONE_OBJECT[view], turns, iid[0], questions)
        assert score <= bound + _error(bound, questions)


@pytest.mark.parametrize(
    ("task", "axes", "bound"),
    [
        ("statement", "wrong", 0.612),
        ("swapped_places", "wrong", 0.682),
        ("choose_side", "wrong", 0.5),
        ("compare", "wrong", 0.5),
        ("direction", 0, (0.75 + 0.695) / 2),
        ("direction", 1, (0.75 + 0.695) / 2),
        ("reasoning", 0, 0.73),
        ("reasoning", 1, 0.73),
    ],
)
def test_one_axis_of_two_objects_tells_what_is_known(
    task: str, axes: str | int, bound: float, iid: Data, again: Data
) -> None:
    """The best answer to both rows, or columns: counted on one draw of the questions, asked of another."""

    def seen(scene: Scene, prompt: str) -> Hashable:
        axis = int(not {"left", "right"} & set(re.split("[ -]", prompt))) if axes == "wrong" else int(axes)
        places = {thing.colour: thing.cell[axis] for thing in scene.things}
        return tuple(places.get(word, word) for word in prompt.split())

    counts: dict[Hashable, Counter[int]] = defaultdict(Counter)
    for one in _asked(again, task):
        counts[seen(again[0][one.images[0]], one.prompt)][one.choices.index(one.answer)] += 1
    questions = _asked(iid, task)
    best = [counts[seen(iid[0][one.images[0]], one.prompt)].most_common(1) or [(0, 0)] for one in questions]
    score = sum(one.choices.index(one.answer) == found[0][0] for one, found in zip(questions, best, strict=True))
    assert score / len(questions) <= bound + _error(bound, questions)


@pytest.mark.parametrize("view", OCCURRENCE)
@pytest.mark.parametrize("task", ["exists", "swapped_colours"])
def test_existence_needs_more_than_its_words_somewhere(
    task: str, view: str, columns: Columns, iid: Data, again: Data
) -> None:
    questions = _asked(iid, task, balanced=True)
    for turns in (columns[BY_NAME[task].column], _as_turns(again, _asked(again, task))):
        score = _accuracy(OCCURRENCE[view], turns, iid[0], questions)
        assert score == pytest.approx(0.5, abs=_error(0.5, questions))


def test_every_balanced_task_is_held_to_it(iid: Data) -> None:
    labelled = {question.groups["task"] for question in iid[1] if question.groups.get("balanced")}
    names_nothing = {task for task in labelled if not any(named(question.prompt) for question in _asked(iid, task))}
    held = {"statement", "direction", "swapped_places", "swapped_colours", "exists"}
    assert labelled - names_nothing == held


def test_both_answers_of_a_pair_seldom_come_from_a_shortcut(columns: Columns, iid: Data, again: Data) -> None:
    scenes, questions = iid
    pairs = [question for question in questions if question.benchmark == "mmvp"]
    own = _as_turns(again, [question for question in again[1] if question.benchmark == "mmvp"])
    for turns in (own, columns["mmvp"]):
        for view in (BLIND["prompt"], *ONE_OBJECT.values(), *OCCURRENCE.values(), *WRONG_AXIS.values()):
            bound = 0.36 if view in WRONG_AXIS.values() else 0.26
            rule = learn({"template": BLIND["template"], "view": view}, turns)
            right: dict[str, bool] = {}
            for one in pairs:
                cluster = one.groups["cluster"]
                right[cluster] = right.get(cluster, True) and rule(scenes[one.images[0]], one) == one.answer
            assert sum(right.values()) / len(right) <= bound + ERRORS * sqrt(bound * (1 - bound) / len(right))


def test_the_rules_find_the_shortcut_of_naive_questions() -> None:
    """With scenes and pairs drawn at random, knowing only the subject's cell answers most statements."""
    rng, turns = Random(0), []
    while len(turns) < 8000:
        scene = draw_distinct(rng, "train")
        a, b = rng.choice(ordered_pairs(scene))
        name = rng.choice(RELATIONS)
        if (found := relation(a.cell, b.cell)) and (found == name or rng.random() < 1 / 3):
            answer = "yes" if found == name else "no"
            turns.append((scene, Turn(f"{a.colour} {PHRASE[name]} {b.colour}", answer, ("yes", "no"))))
    rule = learn({**BLIND, **ONE_OBJECT}, turns[:6000])
    assert sum(rule(scene, turn) == turn.answer for scene, turn in turns[6000:]) / 2000 > 0.7
    blind = learn(BLIND, turns[:6000])
    assert sum(blind(scene, turn) == turn.answer for scene, turn in turns[6000:]) / 2000 < 0.56


def test_the_rules_find_an_answer_that_the_prompt_gives_away(iid: Data) -> None:
    turns = [
        (scene, turn._replace(answer="yes" if COLOURS[0] in turn.prompt else "no"))
        for scene, turn in _as_turns(iid, _asked(iid, "statement"))
    ]
    half = len(turns) // 2
    rule = learn(BLIND, turns[:half])
    assert sum(rule(scene, turn) == turn.answer for scene, turn in turns[half:]) / half > 0.9


def test_baselines_of_the_report(train, iid: Data) -> None:
    scenes, questions = iid
    found = baselines(train[:2000], scenes, questions)
    assert list(found) == list(dict.fromkeys(question.benchmark for question in questions))
    for column, scores in found.items():
        assert set(scores) <= {"blind rule", "one-object rule", "wrong-axis rule"}
        assert all(0 <= score < 1 for score in scores.values()), column
    assert found["mmvp"]["blind rule"] == 0
    two = {"mmvp", "cvbench_relation", "gqa_choose", "gqa_compare", "vsr", "topviewrs"}
    assert {column for column, scores in found.items() if "wrong-axis rule" in scores} == two
    chance = {column["id"]: column["chance"] for column in SCENES}
    for rule in ("one-object rule", "wrong-axis rule"):
        assert chance["vsr"] == pytest.approx(found["vsr"][rule], abs=0.05)
    assert 0.65 < found["cvbench_relation"]["wrong-axis rule"] < 0.75
    assert found["cvbench_relation"]["one-object rule"] > 0.28
    assert found["gqa_compare"]["one-object rule"] > 0.7
    assert 0.02 < found["boxes"]["blind rule"] < 0.1
    assert "one-object rule" not in found["boxes"]
