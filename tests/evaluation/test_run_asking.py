"""In what order, in what portions and by which process questions are asked."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.evaluation.run import asking as run_asking
from blindspot.evaluation.run.asking import Asking, allowed_answers, by_picture, drawn, share
from blindspot.question import Question

from .run_toy import Pictures, benchmark, collection, prompts

keys = st.lists(st.lists(st.integers(0, 3), max_size=2).map(tuple), max_size=30)


def about(pictures: list[tuple[int, ...]]) -> list[Question]:
    return [Question(f"q{n}", "toy", "text", "Where?", "here", (), images) for n, images in enumerate(pictures)]


def fail(question: Question, why: str) -> None:
    raise AssertionError(f"{question.id}: {why}")


@settings(max_examples=50)
@given(keys)
def test_questions_about_a_picture_are_neighbours(pictures: list[tuple[int, ...]]) -> None:
    ordered = by_picture(about(pictures))
    assert sorted(ordered, key=lambda one: int(one.id[1:])) == about(pictures)
    runs = [
        one.images
        for one, before in zip(ordered, [None, *ordered], strict=False)
        if not before or before.images != one.images
    ]
    with_picture = [images for images in runs if images]
    assert len(with_picture) == len(set(with_picture))


@settings(max_examples=50)
@given(keys, st.integers(1, 4))
def test_processes_share_out_all_questions_and_no_picture_twice(pictures: list[tuple[int, ...]], world: int) -> None:
    shares = [share(about(pictures), rank, world) for rank in range(world)]
    assert sorted(one.id for part in shares for one in part) == sorted(one.id for one in about(pictures))
    held = [{one.images for one in part if one.images} for part in shares]
    assert sum(map(len, held)) == len(set().union(*held))
    numbers = [len({one.images or one.id for one in part}) for part in shares]
    assert max(numbers) - min(numbers) <= 1


def test_a_portion_holds_each_picture_once_and_not_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    toy, pictures = collection("toy"), Pictures()
    asking = Asking(toy.benchmark, pictures, prompts)
    monkeypatch.setattr(run_asking, "MOST_QUESTIONS", 15)
    portions = list(asking.portions(toy.questions, (), fail))
    assert [len(portion) for portion in portions] == [15, 15, 10]
    assert pictures.reads == 8
    assert portions[0][0].pictures[0] is portions[0][4].pictures[0]
    assert [one.picture_keys for one in portions[0][:6]] == [("toy/0",)] * 5 + [("toy/1",)]
    monkeypatch.setattr(run_asking, "MOST_PICTURES", 2)
    assert [len(portion) for portion in asking.portions(toy.questions, (), fail)] == [10] * 4


def test_what_is_left_stays_in_its_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_asking, "MOST_QUESTIONS", 15)
    toy, pictures = collection("toy"), Pictures()
    asking = Asking(toy.benchmark, pictures, prompts)
    whole = [[one.id for one in portion] for portion in asking.portions(toy.questions, (), fail)]
    done = {*whole[0], *whole[1][:7]}
    assert [[one.id for one in left] for left in asking.portions(toy.questions, done, fail)] == [whole[1][7:], whole[2]]
    assert pictures.reads == 8 + 4  # of what is done, nothing is read


def test_a_question_whose_picture_is_missing_is_left_out_and_named() -> None:
    toy = collection("toy")
    failed: dict[str, str] = {}
    told = Asking(toy.benchmark, Pictures(frozenset({3})), prompts).portions(
        toy.questions, (), lambda question, why: failed.update({question.id: why})
    )
    assert sum(map(len, told)) == 35
    assert failed == {f"q{n}": "picture 3 is missing" for n in range(3, 40, 8)}


def test_only_the_pictures_that_the_prompt_shows_are_read() -> None:
    pair = replace(collection("toy").questions[0], images=(1, 2))
    pictures = Pictures(frozenset({2}))
    first_only = Asking(benchmark("toy"), pictures, lambda question: Prompt((PICTURE, question.prompt)))
    ((asked,),) = first_only.portions([pair], (), fail)
    assert (asked.picture_keys, pictures.reads) == (("toy/1",), 1)


def test_likelihood_is_asked_of_the_answers_that_are_allowed() -> None:
    mcq, yes_no = collection("toy").questions[:2]
    assert allowed_answers(mcq) == {"A": "A", "B": "B", "C": "C"}
    assert allowed_answers(yes_no) == {"Yes": "Yes", "No": "No"}
    assert allowed_answers(Question("q", "toy", "text", "Where?", "here")) == {}
    told = Asking(benchmark("toy"), Pictures(), prompts, likelihood=True).portions([mcq], (), fail)
    assert next(told)[0].options == {"A": "A", "B": "B", "C": "C"}


def test_a_limit_draws_whole_sets_from_all_of_a_benchmark() -> None:
    passes = [Question(f"{p}-{n}", "toy", "text", "?", "x", groups={"set": n}) for p in range(4) for n in range(100)]
    few, more = ([one.id for one in drawn(passes, limit)] for limit in (37, 61))
    assert (len(few), len(more)) == (40, 64) and set(few) < set(more)
    assert len({name.split("-")[1] for name in few}) == 10, "whole sets"
    assert few == [one.id for one in passes if one.id in few], "in their order"
    assert few == [one.id for one in drawn(passes, 37)] and max(int(name.split("-")[1]) for name in few) > 50
    assert drawn(passes, None) == drawn(passes, 400) == drawn(passes, 999) == tuple(passes)
    assert len(drawn(collection("toy").questions, 3)) == 3
