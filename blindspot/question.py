"""A question: what every scene task and benchmark produces and every answerer receives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any, Literal

Kind = Literal["choice", "mcq", "yes_no", "count", "number", "text", "boxes", "points"]


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one or more images."""

    id: str  # unique within its benchmark
    benchmark: str  # the column it belongs to, e.g. ``vsr``
    kind: Kind  # how its answer is read
    prompt: str  # what is asked, without any template
    answer: str
    """The gold answer, words separated by one space; of ``mcq`` the letter (``A`` is the first choice); ``boxes`` are
    ``x0 y0 x1 y1`` in the benchmark's units; of ``points`` a region or a polygon (`blindspot.benchmarks.points`)."""
    choices: tuple[str, ...] = ()
    """The allowed answers when they are few and fixed; of ``mcq`` the texts of the options; else empty."""
    images: tuple[int, ...] = ()  # keys of its images in the collection that the question travels with
    groups: dict[str, Any] = field(default_factory=dict)
    """Labels to report by. ``cluster`` names questions that share an image or a pair; the rest is benchmark-specific
    (``task``, ``relation``, ``split``, ...). ``set`` names questions that count as one where a benchmark demands all of
    them right (a pair, the passes of a circular question)."""

    @property
    def letters(self) -> str:
        """``ABC...``: one for each of its choices."""
        return ascii_uppercase[: len(self.choices)]

    def row(self, raw: str, prompt: str, images: Sequence[int], **said: Any) -> dict[str, Any]:
        """A row of ``answers.jsonl``: the question with its answer.

        Args:
            raw: the answer as the model gave it.
            images: keys of the images that were shown.
            said: what else is known of the answer.
        """
        row: dict[str, Any] = {"id": self.id, "benchmark": self.benchmark, "kind": self.kind}
        if self.choices:
            lettered = self.kind == "mcq"
            row["choices"] = dict(zip(self.letters, self.choices, strict=True)) if lettered else list(self.choices)
        row |= {"answer": self.answer, "raw": raw, **said}
        return row | {"prompt": prompt, "groups": self.groups, "images": list(images)}
