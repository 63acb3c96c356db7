"""What an answerer gets and gives: a prompt with pictures, and a raw answer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

PICTURE = "<image>"
"""Stands for one picture in `Prompt.content` and `Prompt.text`."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked, before its own template.

    Attributes:
        content: the user's turn: texts, and `PICTURE` for each picture, in order.
        system: the system turn; None: whatever the model's template does by itself.
        text: the whole text that the model continues, template included, with `PICTURE` marks; it then replaces
            ``content`` and ``system``. Only models on this machine can be asked like that.
        longest: most tokens of the answer.
    """

    content: tuple[str, ...]
    system: str | None = None
    text: str | None = None
    longest: int = 2048


@dataclass(frozen=True, slots=True)
class Asked:
    """One question on its way to a model.

    Attributes:
        id: of the question, unique in a run.
        prompt: what is asked.
        pictures: the image files' bytes, in the order of the marks.
        picture_keys: equal keys say equal pictures, so that a model computes an image once.
        options: answers whose likelihood is wanted, by label; empty: generate an answer.
    """

    id: str
    prompt: Prompt
    pictures: tuple[bytes, ...] = ()
    picture_keys: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        id: of the question.
        raw: the answer as the model gave it, special tokens left out.
        stopped: ``end`` if the model ended it, ``length`` if it was cut off.
        likelihood: log-probability of each option, summed over its tokens, where they were asked for.
        error: why there is no answer; such a question is asked again when the run is continued.
    """

    id: str
    raw: str
    stopped: str = "end"
    likelihood: Mapping[str, float] | None = None
    error: str | None = None


class Answerer(Protocol):
    """Anything that turns prompts into raw answers."""

    @property
    def identity(self) -> dict[str, Any]:
        """What results are labelled with: model, hash of its weights or address, settings that can change an answer."""
        ...

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        """Replies as they are ready, in any order, exactly one for each."""
        ...
