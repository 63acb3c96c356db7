"""What may be done to questions and pictures before a model sees them, to see what an answer rests on."""

import io
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from PIL import ExifTags, Image

from blindspot.benchmarks.base import Images
from blindspot.errors import UserError, one_of
from blindspot.model import images
from blindspot.question import Question

BLIND = ("none", "grey", "shuffled")

_GREY = (128, 128, 128)


@dataclass(frozen=True, slots=True)
class Condition:
    """How a run departs from the benchmark.

    Attributes:
        blind: None: the benchmark's pictures; ``none``: no picture; ``grey``: a grey one of the same size;
            ``shuffled``: that of another question.
        swap: show lettered options in reverse order.
        likelihood: ask for the likelihood of every allowed answer instead of an answer, where they are few.
        seed: of the shuffling.
    """

    blind: str | None = None
    swap: bool = False
    likelihood: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.blind is not None:
            one_of(self.blind, BLIND, "--blind", "way to blind a model")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def questions(self, questions: Sequence[Question]) -> tuple[Question, ...]:
        """What is asked instead of all the questions of a benchmark, in the same order."""
        changed = questions
        if self.blind == "none":
            changed = [without_images(question) for question in changed]
        elif self.blind == "shuffled":
            changed = shuffled(changed, self.seed)
        return tuple(swapped(question) for question in changed) if self.swap else tuple(changed)

    def images(self, images: Images) -> Images:
        """What is shown instead of a benchmark's pictures."""
        return GreyImages(images) if self.blind == "grey" else images


AS_PUBLISHED = Condition()


def without_images(question: Question) -> Question:
    """The question alone."""
    return replace(question, images=())


def swapped(question: Question) -> Question:
    """A question with lettered options, these in reverse order and the gold letter with its text; others unchanged."""
    if question.kind != "mcq" or not question.choices:
        return question
    last = ord("A") + len(question.choices) - 1
    return replace(question, choices=question.choices[::-1], answer=chr(last - (ord(question.answer) - ord("A"))))


def shuffled(questions: Sequence[Question], seed: int) -> tuple[Question, ...]:
    """Every question with the pictures of another one.

    Each picture is replaced by one of another cluster, always by the same, so that questions that shared a picture
    still do, and a pair's other picture, where the opposite holds, is never shown.

    Raises:
        UserError: if more than half of the pictures are of one cluster.
    """
    cluster_of: dict[int, str] = {}
    for question in questions:
        for key in question.images:
            cluster_of.setdefault(key, str(question.groups.get("cluster", key)))
    members: dict[str, list[int]] = {}
    for key, cluster in cluster_of.items():
        members.setdefault(cluster, []).append(key)
    if not members:
        return tuple(questions)
    clusters = list(members.values())
    random.Random(seed).shuffle(clusters)
    in_order = [key for keys in clusters for key in keys]
    step = max(map(len, clusters))  # further than any cluster is long: no picture stays in its own
    if 2 * step > len(in_order):
        raise UserError(
            f"--blind shuffled: {questions[0].benchmark} has too few pictures that have nothing to do with each other "
            f"({len(in_order)}, of which {step} belong together); use --blind grey"
        )
    other = dict(zip(in_order, in_order[step:] + in_order[:step], strict=True))
    return tuple(replace(question, images=tuple(other[key] for key in question.images)) for question in questions)


@dataclass(frozen=True)
class GreyImages:
    """Grey pictures of the sizes of others."""

    of: Images

    def read(self, key: int) -> bytes:
        return grey(self.of.read(key))

    def __len__(self) -> int:
        return len(self.of)


def grey(picture: bytes) -> bytes:
    """A grey PNG as large as a picture is shown.

    Raises:
        UserError: if its size cannot be read.
    """
    with images.opened(io.BytesIO(picture), "the picture") as image:
        width, height = image.size
        lying = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return _grey(height, width) if lying else _grey(width, height)


@lru_cache(maxsize=64)
def _grey(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), _GREY).save(file, "PNG")
    return file.getvalue()
