"""From questions to what an answerer gets: in what order, in what portions, by which process."""

import random
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

from blindspot.benchmarks.base import Benchmark, Images
from blindspot.errors import UserError
from blindspot.evaluation.base import Asked, Prompt
from blindspot.evaluation.prompts import Profile
from blindspot.question import Question

MOST_QUESTIONS, MOST_PICTURES = 8192, 1024
"""Of a portion: enough to sort by length and to share pictures in, little enough for memory."""


MOST_COUNTED = 20
"""The largest count whose likelihood is asked for; TallyQA's answers end at 15, CountBenchQA's at 10."""


@dataclass(frozen=True)
class Asking:
    """How a benchmark's questions are put.

    Attributes:
        benchmark: which.
        images: its pictures, as they are to be shown.
        prompt: makes the prompt of a question.
        likelihood: ask for the likelihood of the allowed answers, where they are few.
    """

    benchmark: Benchmark
    images: Images
    prompt: Profile
    likelihood: bool = False

    def portions(
        self, questions: Sequence[Question], done: Container[str], failed: Callable[[Question, str], None]
    ) -> Iterator[list[Asked]]:
        """What is left of the questions, with their pictures, those of a picture together.

        Portions are cut from all the questions, so that a run which was killed goes on with those that it was in.

        Args:
            questions: all of this process.
            done: ids of those that have an answer.
            failed: told of each question whose picture cannot be read, and why; it is left out.
        """
        for portion in cut(questions):
            pictures: dict[int, bytes] = {}
            asked: list[Asked] = []
            for question in portion:
                if question.id in done:
                    continue
                try:
                    asked.append(self._asked(question, pictures))
                except UserError as error:
                    failed(question, str(error))
            if asked:
                yield asked

    def _asked(self, question: Question, pictures: dict[int, bytes]) -> Asked:
        """The question with its pictures, which are taken from ``pictures`` or read and put there."""
        prompt = self.prompt(question)
        keys = shown(question, prompt)
        for key in keys:
            if key not in pictures:
                pictures[key] = self.images.read(key)
        return Asked(
            id=question.id,
            prompt=prompt,
            pictures=tuple(pictures[key] for key in keys),
            picture_keys=tuple(f"{self.benchmark.name}/{key}" for key in keys),
            options=allowed_answers(question) if self.likelihood else {},
        )


def shown(question: Question, prompt: Prompt) -> tuple[int, ...]:
    """The pictures of a question that a prompt shows; some models take the first one only."""
    return question.images[: prompt.pictures]


def allowed_answers(question: Question) -> dict[str, str]:
    """The answers that a question allows, as a model would write them, by label; empty: too many to list."""
    if question.kind == "mcq":
        return {letter: letter for letter in letters(question)}
    if question.kind == "yes_no":
        return {"Yes": "Yes", "No": "No"}
    if question.kind == "count":
        return {str(number): str(number) for number in range(MOST_COUNTED + 1)}
    return {choice: choice for choice in question.choices}


def letters(question: Question) -> tuple[str, ...]:
    """``A``, ``B``, ... for each of its choices."""
    return tuple(chr(ord("A") + place) for place in range(len(question.choices)))


def by_picture(questions: Sequence[Question]) -> list[Question]:
    """The questions in their order, but those about the same pictures together, where the first of them stood."""
    first: dict[tuple[int, ...] | str, int] = {}
    for place, question in enumerate(questions):
        first.setdefault(_pictures(question), place)
    return sorted(questions, key=lambda question: first[_pictures(question)])


def cut(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """The questions in portions, ordered as by `by_picture`."""
    portion: list[Question] = []
    pictures: set[int] = set()
    for question in by_picture(questions):
        new = len({*question.images} - pictures)
        if portion and (len(portion) >= MOST_QUESTIONS or len(pictures) + new > MOST_PICTURES):
            yield portion
            portion, pictures = [], set()
        portion.append(question)
        pictures.update(question.images)
    if portion:
        yield portion


def share(questions: Sequence[Question], rank: int, world: int) -> list[Question]:
    """The questions of one of ``world`` processes: pictures are dealt out in turn, with all their questions."""
    number: dict[tuple[int, ...] | str, int] = {}
    for question in questions:
        number.setdefault(_pictures(question), len(number))
    return [question for question in questions if number[_pictures(question)] % world == rank]


def drawn(questions: Sequence[Question], limit: int | None) -> tuple[Question, ...]:
    """At least ``limit`` questions in their order, with all of a set where only all of them right count; None: all.

    They are as few sets as it takes, drawn by a fixed seed: files are sorted by task, and their beginning is not like
    the rest. A larger limit has all of a smaller one.
    """
    if limit is None:
        return tuple(questions)
    sizes: dict[str, int] = {}
    for question in questions:
        sizes[_set(question)] = sizes.get(_set(question), 0) + 1
    kept: set[str] = set()
    total = 0
    for name in random.Random(0).sample(list(sizes), len(sizes)):
        if total >= limit:
            break
        kept.add(name)
        total += sizes[name]
    return tuple(question for question in questions if _set(question) in kept)


def _set(question: Question) -> str:
    return f"set {question.groups['set']}" if "set" in question.groups else f"question {question.id}"


def _pictures(question: Question) -> tuple[int, ...] | str:
    return question.images or question.id
