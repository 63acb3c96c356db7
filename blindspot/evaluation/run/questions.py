"""From the questions of a benchmark to what a model gets: changed how, which of them, in what order and portions."""

import io
import random
from collections import Counter
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import ExifTags, Image

from blindspot.benchmarks.base import Collection, Images
from blindspot.errors import UserError, one_of
from blindspot.evaluation.base import Asked, Prompt
from blindspot.evaluation.prompts import Profile
from blindspot.model import images
from blindspot.question import Question

BLIND = ("none", "grey", "shuffled")
MOST_QUESTIONS, MOST_PICTURES = 8192, 1024
"""Of a portion: enough to sort by length and to share pictures in, little enough for memory."""
MOST_COUNTED = 20
"""The largest count whose likelihood is asked for; TallyQA's answers end at 15, CountBenchQA's at 10."""


@dataclass(frozen=True)
class Condition:
    """How a run departs from the benchmark, to see what an answer rests on.

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

    def questions(self, questions: Sequence[Question]) -> tuple[Question, ...]:
        """What is asked instead of all the questions of a benchmark, in the same order."""
        if self.blind == "none":
            questions = [replace(question, images=()) for question in questions]
        elif self.blind == "shuffled":
            questions = shuffled(questions, self.seed)
        return tuple(map(swapped, questions) if self.swap else questions)

    def images(self, images: Images) -> Images:
        """What is shown instead of a benchmark's pictures."""
        return GreyImages(images) if self.blind == "grey" else images


AS_PUBLISHED = Condition()


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
    """A grey PNG as large as a picture is shown."""
    with images.opened(io.BytesIO(picture), "the picture") as image:
        width, height = image.size
        lying = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return _grey(height, width) if lying else _grey(width, height)


@lru_cache(maxsize=64)
def _grey(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Asking:
    """How a run puts one benchmark: what is asked of it, with which pictures and prompts."""

    collection: Collection
    questions: Sequence[Question]
    images: Images
    prompt: Profile
    likelihood: bool = False

    @classmethod
    def of(cls, collection: Collection, prompts: Profile, condition: Condition, limit: int | None) -> "Asking":
        """The benchmark under a condition, its questions as `drawn`."""
        questions = drawn(condition.questions(collection.questions), limit)
        built: dict[str, Prompt] = {}

        def prompt(question: Question) -> Prompt:
            if question.id not in built:
                built[question.id] = prompts(question)
            return built[question.id]

        return cls(collection, questions, condition.images(collection.images), prompt, condition.likelihood)

    @property
    def name(self) -> str:
        return self.collection.benchmark.name

    def shown(self, question: Question) -> tuple[int, ...]:
        """The pictures of a question that its prompt shows; some models take the first one only."""
        return question.images[: self.prompt(question).pictures]

    def portions(
        self, questions: Sequence[Question], done: Container[str], failed: Callable[[Question, str], None]
    ) -> Iterator[list[Asked]]:
        """What is left of the questions, with their pictures, those of a picture together.

        Portions are cut from all questions of this process, also those that are ``done``, so that a run which was
        killed goes on with the one that it was in. A question whose picture cannot be read is left out, and told.
        """
        for portion in cut(questions):
            pictures: dict[int, bytes] = {}
            asked: list[Asked] = []
            for question in portion:
                if question.id in done:
                    continue
                keys = self.shown(question)
                try:
                    for key in keys:
                        if key not in pictures:
                            pictures[key] = self.images.read(key)
                except UserError as error:
                    failed(question, str(error))
                    continue
                shown, names = tuple(pictures[key] for key in keys), tuple(f"{self.name}/{key}" for key in keys)
                options = allowed_answers(question) if self.likelihood else {}
                asked.append(Asked(question.id, self.prompt(question), shown, names, options))
            if asked:
                yield asked


def allowed_answers(question: Question) -> dict[str, str]:
    """The answers that a question allows, as a model would write them, by label; empty: too many to list."""
    allowed: dict[str, Iterable[str]] = {
        "mcq": question.letters,
        "yes_no": ("Yes", "No"),
        "count": map(str, range(MOST_COUNTED + 1)),
    }
    return {answer: answer for answer in allowed.get(question.kind, question.choices)}


def drawn(questions: Sequence[Question], limit: int | None) -> tuple[Question, ...]:
    """At least ``limit`` questions in their order, with all of a set where only all of them right count; None: all.

    They are as few sets as it takes, drawn by a fixed seed: files are sorted by task, and their beginning is not like
    the rest. A larger limit has all of a smaller one.
    """
    if limit is None:
        return tuple(questions)
    names = [f"set {one.groups['set']}" if "set" in one.groups else f"question {one.id}" for one in questions]
    sizes = Counter(names)
    kept: set[str] = set()
    total = 0
    for name in random.Random(0).sample(list(sizes), len(sizes)):
        if total >= limit:
            break
        kept.add(name)
        total += sizes[name]
    return tuple(question for question, name in zip(questions, names, strict=True) if name in kept)


def share(questions: Sequence[Question], rank: int, world: int) -> list[Question]:
    """The questions of one of ``world`` processes: pictures are dealt out in turn, with all their questions."""
    return [one for number, one in zip(_by_pictures(questions), questions, strict=True) if number % world == rank]


def cut(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """The questions in portions, those about the same pictures together, where the first of them stood."""
    number = dict(zip((question.id for question in questions), _by_pictures(questions), strict=True))
    portion: list[Question] = []
    pictures: set[int] = set()
    for question in sorted(questions, key=lambda question: number[question.id]):
        new = len({*question.images} - pictures)
        if portion and (len(portion) >= MOST_QUESTIONS or len(pictures) + new > MOST_PICTURES):
            yield portion
            portion, pictures = [], set()
        portion.append(question)
        pictures.update(question.images)
    if portion:
        yield portion


def _by_pictures(questions: Sequence[Question]) -> list[int]:
    """A number for the pictures of each question, counted as they first come; without any it has one for itself."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(question.images or question.id, len(numbers)) for question in questions]
