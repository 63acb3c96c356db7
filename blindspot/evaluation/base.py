"""What an answerer gets and gives: a prompt with pictures, and a raw answer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol


class Picture(Enum):
    """A part of a prompt that is a picture: the first one its question's first, and so on."""

    NEXT = "<image>"


PICTURE: Final = Picture.NEXT
"""Its value is how a prompt is written down for people; no text is ever read for it."""

Part = str | Picture
LONGEST = 2048
"""Most tokens of an answer where a harness says nothing else."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked, before its own template."""

    content: tuple[Part, ...]  # the user's turn, texts and pictures in order
    system: str | None = None  # the system turn; None: whatever the model's template does by itself
    whole: bool = False
    """``content`` is all that the model continues, template included. Only models on this machine can be asked like
    that."""
    longest: int = LONGEST  # most tokens of the answer
    thinking: bool | None = None
    """Whether the model thinks before it answers; None: whatever its template does by itself."""

    @property
    def pictures(self) -> int:
        """How many pictures are shown: the first ones of the question."""
        return self.content.count(PICTURE)

    def __str__(self) -> str:
        """As one text, for people and for files."""
        texts = [part.value if isinstance(part, Picture) else part for part in self.content]
        return "".join(texts) if self.whole else "\n".join(filter(None, (self.system, *texts)))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn: token by token from the likeliest that together reach ``top_p``, by a seed of its own."""

    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One question on its way to a model."""

    id: str  # of the question, unique in a run; of a further answer to it `numbered`
    prompt: Prompt  # what is asked
    pictures: tuple[bytes, ...] = ()  # the image files' bytes, in the order in which the prompt shows them
    picture_keys: tuple[str, ...] = ()  # equal keys say equal pictures, so that a model computes an image once
    options: Mapping[str, str] = field(default_factory=dict)
    """Answers whose likelihood is wanted, by label; empty: generate an answer."""
    draw: Sampling | None = None  # how the answer is drawn; None: the likeliest token each time


def numbered(name: str, place: int) -> str:
    """The id of a question's first, second, ... answer, counted from 0; of the first it is the question's own."""
    return f"{name} sample {place + 1}" if place else name


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    id: str  # of the question
    raw: str  # the answer as the model gave it, special tokens left out
    stopped: str = "end"
    """``end`` if the model ended it, ``length`` if it was cut off, ``thought`` if that was inside a thought."""
    likelihood: Mapping[str, float] | None = None
    """Log-probability of each option, summed over its tokens, where they were asked for."""
    error: str | None = None  # why there is no answer; such a question is asked again when the run is continued
    tokens: tuple[int, int] | None = None  # how many were read and said, where that is known


class Answerer(Protocol):
    """Anything that turns prompts into raw answers."""

    @property
    def identity(self) -> dict[str, Any]:
        """What results are labelled with: model, hash of its weights or address, settings that can change an answer."""
        ...

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        """Replies as they are ready, in any order, exactly one for each."""
        ...
