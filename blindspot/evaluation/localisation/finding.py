"""One phrase, one picture, several models: what each found."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blindspot.benchmarks.boxes import Box, Located, locate
from blindspot.benchmarks.scoring import without_thoughts
from blindspot.errors import UserError
from blindspot.evaluation.localisation.questions import unknown
from blindspot.evaluation.localisation.single import Subject
from blindspot.model import images


@dataclass(frozen=True)
class Finding:
    """What a model found.

    Attributes:
        model: its name.
        convention: of its answer.
        prompt: what it was asked.
        raw: its answer.
        stopped: ``end``, or ``length`` if it was cut off.
        located: the answer read.
    """

    model: str
    convention: str
    prompt: str
    raw: str
    stopped: str
    located: Located

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is wrong or unusual, one line each."""
        several = len(self.located.places) - 1
        return (
            *self.located.problems,
            *([f"{several} more, not counted"] if several > 0 else ()),
            *(["cut off at its longest"] if self.stopped == "length" else ()),
        )

    def to_dict(self, gold: Box | None) -> dict[str, Any]:
        """As JSON: ``boxes`` and ``points`` in pixels of the picture; with a gold box ``iou`` and ``right``."""
        places, first = self.located.places, self.located.first
        scores: dict[str, Any] = {}
        if gold is not None:
            scores = {"iou": first and first.overlap(gold), "right": first is not None and first.hits(gold)}
        return {
            "model": self.model,
            "prompt": self.prompt,
            "raw": self.raw,
            "stopped": self.stopped,
            "convention": self.convention,
            "boxes": [list(place.numbers) for place in places if place.box],
            "points": [list(place.numbers) for place in places if place.point],
            "problems": list(self.located.problems),
            **scores,
        }


def find(subject: Subject, picture: Path, phrase: str, prompt: str | None = None) -> Finding:
    """Ask a model where the phrase is.

    Args:
        subject: the model.
        picture: the image file.
        phrase: what to find.
        prompt: instead of the family's own; ``{phrase}`` stands for the phrase.

    Raises:
        UserError: as `Subject.ask`, or if it is not known how the model writes boxes.
    """
    if subject.form is None:
        raise UserError(unknown(f"{subject.name} is asked for boxes"))
    form = subject.form if prompt is None else replace(subject.form, prompt=prompt)
    asked = form.ask(phrase)
    reply = subject.ask(picture, asked)
    view = form.view(images.open_image(picture).size)
    located = locate(without_thoughts(reply.raw), form.convention, view)
    return Finding(subject.name, form.convention.name, asked, reply.raw, reply.stopped, located)
