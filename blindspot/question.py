"""A question: what every scene task and benchmark produces and every answerer receives."""

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["choice", "yes_no", "count", "text", "boxes"]


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one or more images.

    Attributes:
        id: unique within its benchmark.
        benchmark: the column it belongs to, e.g. ``vsr``.
        kind: how its answer is read.
        prompt: what is asked, without any template.
        answer: the gold answer, words separated by one space; ``boxes`` are ``x0 y0 x1 y1`` in the benchmark's units.
        choices: the allowed answers when they are few and fixed, else empty.
        images: keys of its images in the collection that the question travels with.
        groups: labels to report by. ``cluster`` names questions that share an image or a pair; the rest is
            benchmark-specific (``task``, ``relation``, ``split``, ...).
    """

    id: str
    benchmark: str
    kind: Kind
    prompt: str
    answer: str
    choices: tuple[str, ...] = ()
    images: tuple[int, ...] = ()
    groups: dict[str, Any] = field(default_factory=dict)
