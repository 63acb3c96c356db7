"""Every gold answer, worked out again from the scene graph by a second reader of the prompts.

This file alone knows what prompts look like. It takes words from constants where there are any.
"""

from collections import Counter, defaultdict
from typing import Any

import pytest

from blindspot.question import Question
from blindspot.scenes.relations import PHRASE
from blindspot.scenes.tasks import TASKS
from blindspot.scenes.text import place_word
from blindspot.scenes.world import COLOURS, HELD_OUT, SHAPES, Scene, Thing

Graph = dict[str, Any]
NAMES = COLOURS + SHAPES
SIDES = {phrase: name for name, phrase in PHRASE.items()}
HEADINGS = {"above": "north", "below": "south", "right": "east", "left": "west"}
MORE = {"higher": ("row", -1), "lower": ("row", 1), "more-left": ("column", -1), "more-right": ("column", 1)}


def _answer(graph: Graph, prompt: str) -> str:
    """Answer a prompt from a scene graph."""

    def having(*words: str) -> list[Graph]:
        return [thing for thing in graph["objects"] if {thing["colour"], thing["shape"]} >= set(words)]

    def the(word: str) -> Graph:
        (thing,) = having(word)
        return thing

    def side(one: Graph, other: Graph) -> str:
        down, across = one["row"] - other["row"], one["column"] - other["column"]
        assert abs(down) != abs(across), "an exact diagonal was asked about"
        if abs(down) > abs(across):
            return "below" if down > 0 else "above"
        return "right" if across > 0 else "left"

    def dominant(one: Graph, other: Graph) -> str | None:
        same = abs(one["row"] - other["row"]) == abs(one["column"] - other["column"])
        return None if same else side(one, other)

    def yes(holds: bool) -> str:
        return "yes" if holds else "no"

    match prompt.split():
        case ["how-many", "objects"]:
            return str(len(graph["objects"]))
        case ["how-many", word]:
            return str(len(having(word)))
        case ["how-many", phrase, word] if phrase in SIDES:
            others = [thing for thing in graph["objects"] if thing != the(word)]
            return str(sum(dominant(thing, the(word)) == SIDES[phrase] for thing in others))
        case ["any", one, "and", other]:
            return yes(bool(having(one)) and bool(having(other)))
        case ["any", one, "or", other]:
            return yes(bool(having(one)) or bool(having(other)))
        case ["any", colour, shape]:
            return yes(bool(having(colour, shape)))
        case ["shape", "of", word]:
            return the(word)["shape"]
        case ["colour", "of", word]:
            return the(word)["colour"]
        case ["at", *place]:
            (thing,) = (one for one in graph["objects"] if place_word((one["row"], one["column"])) == " ".join(place))
            return thing["colour"]
        case ["cell", "of", word]:
            return place_word((the(word)["row"], the(word)["column"]))
        case ["box", "of", word]:
            x, y, size = (the(word)[key] for key in ("x", "y", "size"))
            return f"{x} {y} {x + size} {y + size}"
        case [one, phrase, other] if phrase in SIDES:
            return yes(side(the(one), the(other)) == SIDES[phrase])
        case [one, "relative-to", other]:
            return side(the(one), the(other))
        case ["way", start, "to", goal]:
            return HEADINGS[side(the(goal), the(start))]
        case [one, options, other] if "-or-" in options:
            assert side(the(one), the(other)) in options.split("-or-")
            return side(the(one), the(other))
        case [more, one, "or", other] if more in MORE:
            key, sign = MORE[more]
            gap = sign * (the(one)[key] - the(other)[key])
            assert gap, "neither has more"
            return one if gap > 0 else other
        case [word, one, "or", other]:
            assert the(word)["shape"] in (one, other)
            return the(word)["shape"]
    raise AssertionError(f"no reading of {prompt!r}")


@pytest.mark.parametrize("split", ["iid", "compositional"])
def test_test_answers_follow_from_the_graph(split: str, request: pytest.FixtureRequest) -> None:
    scenes, questions = request.getfixturevalue(split)
    graphs = [scene.graph() for scene in scenes]
    for question in questions:
        assert _answer(graphs[question.images[0]], question.prompt) == question.answer, question
        assert not question.choices or question.answer in question.choices, question


def test_training_answers_follow_from_the_graph(train) -> None:
    for scene, turns in train[:1500]:
        graph = scene.graph()
        for task, turn in turns:
            assert _answer(graph, turn.prompt) == turn.answer, (task.name, turn)
            assert not turn.choices or turn.answer in turn.choices, turn
        assert len({turn.prompt for _, turn in turns}) == len(turns)


def test_every_task_is_trained_and_tested_in_its_column(train, iid, compositional) -> None:
    trained = {task.name for _, turns in train for task, _ in turns}
    assert trained == {task.name for task in TASKS if task.turns}
    for split, (_, questions) in (("iid", iid), ("compositional", compositional)):
        tested = {(question.groups["task"], question.benchmark, question.kind) for question in questions}
        assert tested == {(task.name, task.column, task.kind) for task in TASKS if split in task.splits}
        assert {question.groups["split"] for question in questions} == {split}
        assert len({question.id for question in questions}) == len(questions)


@pytest.mark.parametrize("split", ["iid", "compositional"])
def test_every_answer_of_every_task_comes_equally_often(split: str, request: pytest.FixtureRequest) -> None:
    _, questions = request.getfixturevalue(split)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        counts[question.groups["task"]][_target(question)] += 1
    for task in TASKS:
        if split in task.splits and task.kind != "boxes":
            answers = counts[task.name]
            assert set(answers) == set(task.targets(split))
            assert max(answers.values()) - min(answers.values()) <= 1, (task.name, answers)


def _target(question: Question) -> str:
    """The answer, or which of the options it is where the prompt lists them."""
    options = [word for word in question.prompt.split() if word in question.choices]
    return ("first", "second")[options.index(question.answer)] if options else question.answer


def test_training_answers_are_balanced_where_scenes_admit_it(train) -> None:
    """Crowds admit few words that fit five objects, and scenes of two or three objects no three beside another."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for _, turns in train:
        for task, turn in turns:
            counts[task.name][turn.answer] += 1
    for task in TASKS:
        answers = counts[task.name]
        admits_all = task.scenes == "distinct" and task.name != "count_related"
        if task.turns and admits_all and set(answers) == set(task.answers):
            even = answers.total() / len(task.answers)
            assert 0.8 * even < min(answers.values()) <= max(answers.values()) < 1.2 * even, (task.name, answers)


def test_minimal_pairs_differ_in_one_exchange_and_have_opposite_answers(iid) -> None:
    scenes, questions = iid
    pairs: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        if question.benchmark == "mmvp":
            pairs[question.groups["cluster"]].append(question)
    first = Counter(pair[0].answer for pair in pairs.values())
    assert first["yes"] == first["no"]
    for one, other in pairs.values():
        assert one.prompt == other.prompt
        assert {one.answer, other.answer} == {"yes", "no"}
        assert _exchange(scenes[one.images[0]], scenes[other.images[0]]) == one.groups["task"]


def _exchange(one: Scene, other: Scene) -> str:
    """What two things exchanged; everything else is the same."""
    assert one.background == other.background
    (a, c), (b, d) = zip(*((x, y) for x, y in zip(one.things, other.things, strict=True) if x != y), strict=True)
    if (a.shape, c.shape) == (b.shape, d.shape) and (a.colour, c.colour) == (d.colour, b.colour):
        assert (a[2:], c[2:]) == (b[2:], d[2:])
        assert not HELD_OUT.intersection([(b.colour, b.shape), (d.colour, d.shape)])
        return "swapped_colours"
    assert (a.cell, c.cell) == (d.cell, b.cell)
    for before, after in ((a, b), (c, d)):
        assert _in_cell(before) == _in_cell(after)
    return "swapped_places"


def _in_cell(thing: Thing) -> tuple[object, ...]:
    """A thing without its cell."""
    x0, y0, _, _ = thing.box
    return thing.colour, thing.shape, thing.size, x0 - 8 * thing.column, y0 - 8 * thing.row


@pytest.mark.parametrize("split", ["iid", "compositional"])
def test_a_question_needs_no_guess_about_what_it_names(split: str, request: pytest.FixtureRequest) -> None:
    """Where objects are asked about one by one, each name fits one object at most."""
    scenes, questions = request.getfixturevalue(split)
    crowded = {task.name for task in TASKS if task.scenes == "crowd"}
    for question in questions:
        if question.groups["task"] not in crowded:
            things = scenes[question.images[0]].things
            for word in set(question.prompt.split()) & set(NAMES):
                assert sum(thing.has(word) for thing in things) <= 1
