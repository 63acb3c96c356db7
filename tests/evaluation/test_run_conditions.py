"""Conditions: what they change, and that they change nothing else."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from blindspot.errors import UserError
from blindspot.evaluation.run import Condition
from blindspot.evaluation.run.conditions import GreyImages, grey, shuffled, swapped, without_images
from blindspot.question import Question


def ask(number: int, *images: int, cluster: str | None = None) -> Question:
    return Question(f"q{number}", "toy", "text", "Where?", "here", (), images, {"cluster": cluster or str(images)})


mcqs = st.lists(st.text(min_size=1), min_size=1, max_size=9).flatmap(
    lambda texts: st.integers(0, len(texts) - 1).map(
        lambda gold: Question("q", "toy", "mcq", "Which?", "ABCDEFGHI"[gold], tuple(texts))
    )
)


@settings(max_examples=50)
@given(mcqs)
def test_swapping_options_keeps_the_gold_text_and_undoes_itself(question: Question) -> None:
    other = swapped(question)
    gold: Callable[[Question], str] = lambda one: one.choices["ABCDEFGHI".index(one.answer)]  # noqa: E731
    assert gold(other) == gold(question)
    assert other.choices == tuple(reversed(question.choices))
    assert swapped(other) == question


def test_swapping_leaves_other_kinds_alone() -> None:
    fixed = replace(ask(0, 0), kind="yes_no", choices=("Yes", "No"), answer="Yes")
    open_question = replace(ask(0, 0), kind="mcq", answer="24")
    assert swapped(fixed) == fixed
    assert swapped(open_question) == open_question


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
    assert [replace(after, images=()) for after in others] == [without_images(before) for before in questions]


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


def test_a_broken_picture_has_no_grey_one() -> None:
    with pytest.raises(UserError, match="not an image"):
        grey(b"\x89PNG\r\n\x1a\nrubbish")


def test_a_condition_applies_what_it_names() -> None:
    questions = [replace(ask(n, n), kind="mcq", answer="A", choices=("left", "right")) for n in range(4)]
    images = GreyImages.__new__(GreyImages)
    assert Condition().questions(questions) == tuple(questions)
    assert Condition().images(images) is images
    assert [q.images for q in Condition(blind="none").questions(questions)] == [()] * 4
    assert isinstance(Condition(blind="grey").images(images), GreyImages)
    both = Condition(blind="shuffled", swap=True).questions(questions)
    assert [q.answer for q in both] == ["B"] * 4
    assert all(q.images != before.images for q, before in zip(both, questions, strict=True))
    with pytest.raises(UserError, match='did you mean "grey"'):
        Condition(blind="gray")
