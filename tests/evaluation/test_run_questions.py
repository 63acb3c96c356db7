"""Conditions change what they name and nothing else; in what order, portions and by which process is asked."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.evaluation.run import questions as run_questions
from blindspot.evaluation.run.questions import (
    Asking,
    Condition,
    GreyImages,
    allowed_answers,
    cut,
    drawn,
    grey,
    share,
    shuffled,
    swapped,
)
from blindspot.question import Question

from .run_toy import Pictures, collection, prompts

TOY = collection("toy")
KEYS = st.lists(st.lists(st.integers(0, 3), max_size=2).map(tuple), max_size=30)
MCQS = st.lists(st.text(min_size=1), min_size=1, max_size=9).flatmap(
    lambda texts: st.integers(0, len(texts) - 1).map(
        lambda gold: Question("q", "toy", "mcq", "Which?", "ABCDEFGHI"[gold], tuple(texts))
    )
)


def ask(number: int, *images: int, cluster: str | None = None) -> Question:
    return Question(f"q{number}", "toy", "text", "Where?", "here", (), images, {"cluster": cluster or str(images)})


def about(pictures: list[tuple[int, ...]]) -> list[Question]:
    return [ask(number, *images) for number, images in enumerate(pictures)]


def fail(question: Question, why: str) -> None:
    raise AssertionError(f"{question.id}: {why}")


def test_options_that_a_text_names_itself_are_not_swapped() -> None:
    asked = Question("1", "mmsi", "mcq", "Where to? Options: A: North, B: South", "A", ("North", "South"), (0,))
    with pytest.raises(UserError, match=r"^mmsi: its questions name their options themselves"):
        swapped(asked)
    assert swapped(replace(asked, prompt="Where to?")).choices == ("South", "North")


@settings(max_examples=50)
@given(MCQS)
def test_swapping_options_keeps_the_gold_text_and_undoes_itself(question: Question) -> None:
    other = swapped(question)
    gold: Callable[[Question], str] = lambda one: one.choices["ABCDEFGHI".index(one.answer)]  # noqa: E731
    assert gold(other) == gold(question)
    assert other.choices == tuple(reversed(question.choices))
    assert swapped(other) == question


def test_swapping_leaves_other_kinds_alone() -> None:
    fixed = replace(ask(0, 0), kind="yes_no", choices=("Yes", "No"), answer="Yes")
    open_question = replace(ask(0, 0), kind="mcq", answer="24")
    assert [swapped(fixed), swapped(open_question)] == [fixed, open_question]


@settings(max_examples=50)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=12), st.integers(0, 5), st.integers(1, 3))
def test_shuffling_shows_every_picture_in_another_cluster(sizes: list[int], seed: int, repeats: int) -> None:
    clusters = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    questions = [
        ask(key * repeats + i, key, cluster=clusters[key]) for key in range(len(clusters)) for i in range(repeats)
    ]
    if 2 * max(sizes) > len(clusters):
        with pytest.raises(UserError, match="too few pictures"):
            shuffled(questions, seed)
        return
    others = shuffled(questions, seed)
    assert others == shuffled(questions, seed)
    shown = {before.images: after.images for before, after in zip(questions, others, strict=True)}
    assert len(set(shown.values())) == len(clusters)  # a permutation, the same for all questions of a picture
    assert all(clusters[before[0]] != clusters[after[0]] for before, after in shown.items())
    alone = Condition(blind="none").questions(questions)
    assert tuple(replace(after, images=()) for after in others) == alone


def test_shuffling_depends_on_the_seed_and_takes_pictures_one_by_one() -> None:
    questions = [ask(number, 2 * number, 2 * number + 1) for number in range(20)]
    assert shuffled(questions, 0) != shuffled(questions, 1)
    assert all(len(question.images) == 2 for question in shuffled(questions, 0))
    text_only = [ask(0), ask(1)]
    assert shuffled(text_only, 0) == tuple(text_only)


@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 20)), (6, (20, 30))])
def test_a_grey_picture_is_as_large_as_the_picture_is_shown(orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new("RGB", (30, 20), (200, 0, 0)).save(file, "JPEG", exif=exif)
    made = Image.open(io.BytesIO(grey(file.getvalue())))
    assert (made.size, made.getcolors()) == (size, [(600, (128, 128, 128))])
    with pytest.raises(UserError, match="not an image"):
        grey(b"\x89PNG\r\n\x1a\nrubbish")


def test_a_condition_applies_what_it_names() -> None:
    questions = [replace(ask(n, n), kind="mcq", answer="A", choices=("left", "right")) for n in range(4)]
    images = Pictures()
    assert Condition().questions(questions) == tuple(questions)
    assert Condition().images(images) is images
    assert [q.images for q in Condition(blind="none").questions(questions)] == [()] * 4
    assert isinstance(Condition(blind="grey").images(images), GreyImages)
    both = Condition(blind="shuffled", swap=True).questions(questions)
    assert [q.answer for q in both] == ["B"] * 4
    assert all(q.images != before.images for q, before in zip(both, questions, strict=True))
    with pytest.raises(UserError, match='did you mean "grey"'):
        Condition(blind="gray")


@settings(max_examples=50)
@given(KEYS)
def test_questions_about_a_picture_are_neighbours(pictures: list[tuple[int, ...]]) -> None:
    ordered = [one for portion in cut(about(pictures)) for one in portion]
    assert sorted(ordered, key=lambda one: int(one.id[1:])) == about(pictures)
    runs = [
        one.images
        for one, before in zip(ordered, [None, *ordered], strict=False)
        if not before or before.images != one.images
    ]
    with_picture = [images for images in runs if images]
    assert len(with_picture) == len(set(with_picture))


@settings(max_examples=50)
@given(KEYS, st.integers(1, 4))
def test_processes_share_out_all_questions_and_no_picture_twice(pictures: list[tuple[int, ...]], world: int) -> None:
    shares = [share(about(pictures), rank, world) for rank in range(world)]
    assert sorted(one.id for part in shares for one in part) == sorted(one.id for one in about(pictures))
    held = [{one.images for one in part if one.images} for part in shares]
    assert sum(map(len, held)) == len(set().union(*held))
    numbers = [len({one.images or one.id for one in part}) for part in shares]
    assert max(numbers) - min(numbers) <= 1


def test_a_portion_holds_each_picture_once_and_not_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = Pictures()
    asking = Asking(TOY, TOY.questions, pictures, prompts)
    monkeypatch.setattr(run_questions, "MOST_QUESTIONS", 15)
    portions = list(asking.portions(TOY.questions, (), fail))
    assert [len(portion) for portion in portions] == [15, 15, 10]
    assert pictures.reads == 8
    assert portions[0][0].pictures[0] is portions[0][4].pictures[0]
    assert [one.picture_keys for one in portions[0][:6]] == [("toy/0",)] * 5 + [("toy/1",)]
    whole = [[one.id for one in portion] for portion in portions]
    done = {*whole[0], *whole[1][:7]}
    left = [[one.id for one in portion] for portion in asking.portions(TOY.questions, done, fail)]
    assert left == [whole[1][7:], whole[2]], "what is left stays in its portion"
    assert pictures.reads == 8 + 4, "of what is done, nothing is read"
    monkeypatch.setattr(run_questions, "MOST_PICTURES", 2)
    assert [len(portion) for portion in asking.portions(TOY.questions, (), fail)] == [10] * 4


def test_only_the_pictures_that_the_prompt_shows_are_read() -> None:
    pair = replace(TOY.questions[0], images=(1, 2))
    pictures = Pictures(frozenset({2}))
    first_only = Asking(TOY, [pair], pictures, lambda question: Prompt((PICTURE, question.prompt)))
    ((asked,),) = first_only.portions([pair], (), fail)
    assert (asked.picture_keys, pictures.reads) == (("toy/1",), 1)


def test_likelihood_is_asked_of_the_answers_that_are_allowed() -> None:
    mcq, yes_no = TOY.questions[:2]
    assert allowed_answers(yes_no) == {"Yes": "Yes", "No": "No"}
    assert list(allowed_answers(replace(yes_no, kind="count"))) == [str(number) for number in range(21)]
    assert allowed_answers(ask(0)) == {}
    told = Asking(TOY, [mcq], Pictures(), prompts, Condition(likelihood=True)).portions([mcq], (), fail)
    assert next(told)[0].options == {"A": "A", "B": "B", "C": "C"}


def test_every_sample_is_asked_by_a_seed_of_its_own_and_none_twice() -> None:
    asking = Asking.of(TOY, prompts, Condition(temperature=0.7, top_p=0.9, samples=3, max_tokens=5), None)
    one, other = asking.questions[:2]
    (asked,) = asking.portions([one, other], {"q0", "q1 sample 2"}, fail)
    assert [each.id for each in asked] == ["q0 sample 2", "q0 sample 3", "q1", "q1 sample 3"]
    assert {each.prompt.longest for each in asked} == {5}
    draws = [each.draw for each in asked if each.draw]
    assert {(draw.temperature, draw.top_p) for draw in draws} == {(0.7, 0.9)}
    assert len({draw.seed for draw in draws}) == 4 and all(0 <= draw.seed < 2**31 for draw in draws)
    for changed in (Condition(temperature=0.7, seed=1), Condition(temperature=0.7)):
        (again,) = Asking.of(TOY, prompts, changed, None).portions([other], (), fail)
        assert ([each.draw and each.draw.seed for each in again] == [draws[2].seed]) == (changed.seed == 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 0.0}, "--temperature must be above 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "--top-p must be above 0"),
        ({"likelihood": True, "temperature": 1.0}, "--likelihood asks for no answer, which --temperature is about"),
        ({"likelihood": True, "samples": 2}, "--likelihood asks for no answer, which --samples is about"),
    ],
)
def test_what_cannot_be_drawn_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Condition(**settings)


def test_a_limit_draws_whole_sets_from_all_of_a_benchmark() -> None:
    passes = [Question(f"{p}-{n}", "toy", "text", "?", "x", groups={"set": n}) for p in range(4) for n in range(100)]
    few, more = ([one.id for one in drawn(passes, limit)] for limit in (37, 61))
    assert (len(few), len(more)) == (40, 64) and set(few) < set(more)
    assert len({name.split("-")[1] for name in few}) == 10, "whole sets"
    assert few == [one.id for one in passes if one.id in few], "in their order"
    assert few == [one.id for one in drawn(passes, 37)] and max(int(name.split("-")[1]) for name in few) > 50
    assert drawn(passes, None) == drawn(passes, 400) == drawn(passes, 999) == tuple(passes)
    assert len(drawn(TOY.questions, 3)) == 3
