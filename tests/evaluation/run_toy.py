"""A run whose answerer is slow and writes down what it was asked: ``run_toy.py OUT LOG SECONDS [failing ids]``.

A line of LOG is ``asked N`` for each call with N questions, and an id for each answer.
"""

import io
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from blindspot.benchmarks.base import Benchmark, Collection
from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Asked, Prompt, Reply
from blindspot.evaluation.run.opening import Opened
from blindspot.evaluation.run.runner import Evaluation
from blindspot.question import Question

PICTURES, EACH = 8, 5


class Pictures:
    """Drawn pictures, every one of another size."""

    def __init__(self, missing: frozenset[int] = frozenset()) -> None:
        self.missing = missing
        self.reads = 0

    def read(self, key: int) -> bytes:
        self.reads += 1
        if key in self.missing:
            raise UserError(f"picture {key} is missing")
        file = io.BytesIO()
        Image.new("RGB", (10 + key, 20), (key, 0, 0)).save(file, "PNG")
        return file.getvalue()

    def __len__(self) -> int:
        return PICTURES


class Slow:
    """Answers in another order than it is asked, with what the prompt and the first picture say."""

    def __init__(
        self, log: Path, seconds: float = 0.0, failing: frozenset[str] = frozenset(), name: str = "slow"
    ) -> None:
        self.log, self.seconds, self.failing, self.name = log, seconds, failing, name

    @property
    def identity(self) -> dict[str, str]:
        return {"model": self.name}

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        self._note(f"asked {len(asked)}")
        for one in sorted(asked, key=lambda one: one.id[::-1]):
            time.sleep(self.seconds)
            self._note(one.id)
            if one.id in self.failing:
                yield Reply(one.id, "", error="it is out of order")
            else:
                size = Image.open(io.BytesIO(one.pictures[0])).size if one.pictures else None
                likelihood = {label: -len(label) / 3 for label in one.options} or None
                yield Reply(one.id, f"{one.prompt.content[-1]} {size} é\n", "length", likelihood)

    def _note(self, line: str) -> None:
        with self.log.open("a") as log:
            log.write(f"{line}\n")


def prompts(question: Question) -> Prompt:
    """A prompt profile."""
    return Prompt((*([PICTURE] * len(question.images)), f"{question.prompt} {' '.join(question.choices)}".strip()))


def benchmark(name: str) -> Benchmark:
    return Benchmark(name, name.upper(), "none", "nobody", (), ())


def collection(name: str, missing: frozenset[int] = frozenset(), digest: str = "d1") -> Collection:
    """Questions about pictures, neighbours never about the same one; every third is lettered."""
    questions = tuple(
        Question(
            id=f"q{number}",
            benchmark=name,
            kind="mcq" if number % 3 == 0 else "yes_no",
            prompt=f"Question {number}?",
            answer="B" if number % 3 == 0 else "Yes",
            choices=("left", "right", "above") if number % 3 == 0 else (),
            images=(number % PICTURES,),
            groups={"cluster": f"picture {number % PICTURES}"},
        )
        for number in range(PICTURES * EACH)
    )
    return Collection(benchmark(name), "tsv", questions, Pictures(missing), ("a note",), digest)


def evaluation(answerer: Slow, *collections: Collection, **changed: Any) -> Evaluation:
    opened = Opened(answerer, "toy")
    return Evaluation(**{"opened": opened, "collections": collections, "prompts": "toy", "ask": prompts, **changed})


def run(out: Path, answerer: Slow) -> dict[str, dict[str, str]]:
    """Why questions of two benchmarks have no answer."""
    return evaluation(answerer, collection("one"), collection("two")).run(out)


if __name__ == "__main__":
    out, log, seconds, *failing = sys.argv[1:]
    try:
        print(run(Path(out), Slow(Path(log), float(seconds), frozenset(failing))))
    except UserError as error:
        sys.exit(str(error))
