"""From the questions of a benchmark to what a model gets: changed how, which of them, in what order and portions."""

import hashlib
import io
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image

from blindspot.benchmarks.base import Collection, Images
from blindspot.errors import UserError, one_of
from blindspot.evaluation.base import PICTURE, Asked, Prompt, Sampling, numbered
from blindspot.evaluation.prompts import Profile
from blindspot.files import shown_size
from blindspot.model import images
from blindspot.question import Question

BLIND = ("none", "grey", "shuffled")
MOST_QUESTIONS, MOST_PICTURES = 8192, 1024
"""Of a portion: enough to sort by length and to share pictures in, little enough for memory."""
GENERATION = ("max_tokens", "temperature", "top_p", "samples", "guided")
"""Of a `Condition`, what is about the text of an answer."""
MOST_COUNTED = 20
"""The largest count whose likelihood is asked for; TallyQA's answers end at 15, CountBenchQA's at 10."""


@dataclass(frozen=True)
class Condition:
    """How a run departs from the benchmark and its prompt profile, to see what an answer rests on."""

    blind: str | None = None
    """None: the benchmark's pictures; ``none``: no picture; ``grey``: a grey one of the same size; ``shuffled``: that
    of another question."""
    swap: bool = False  # show lettered options in reverse order
    likelihood: bool = False  # ask for the likelihood of every allowed answer instead of an answer, where they are few
    seed: int = 0  # of the shuffling, and of answers and benchmarks that are drawn
    max_tokens: int | None = None  # most tokens of an answer; None: as many as the prompt profile says
    temperature: float | None = None  # answers are drawn at it; None: the likeliest token each time
    top_p: float | None = None  # draw from the likeliest tokens that together are so likely; None: from all
    samples: int | None = None  # answers to each question; None: one
    think: str | None = None  # ``on`` or ``off``: whether the model thinks first; None: as its template has it
    tiles: str | None = None  # ``on`` or ``off``: whether pictures are cut into tiles; None: as its processor has it
    guided: bool | None = None
    """Let a server's answer be one of the allowed ones, where they are few; None: whatever it says."""
    size: int | None = None  # pixels along a side of the pictures of benchmarks that are drawn; None: as usual
    cue: str | None = None  # what tells depth in them; None: the usual one

    def __post_init__(self) -> None:
        if self.blind is not None:
            one_of(self.blind, BLIND, "--blind", "way to blind a model")
        for name in ("think", "tiles"):
            if getattr(self, name) is not None:
                one_of(getattr(self, name), ("on", "off"), f"--{name}", "setting")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise UserError("--temperature must be above 0; without it answers are the likeliest tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError("--top-p must be above 0 and at most 1")
        told = [f"--{name.replace('_', '-')}" for name in GENERATION if getattr(self, name) is not None]
        if self.likelihood and told:
            raise UserError(f"--likelihood asks for no answer, which {told[0]} is about; leave out one of the two")

    def draw(self, benchmark: str, name: str) -> Sampling | None:
        """How the answer with that id is drawn: by the seed, the benchmark and the id, whatever else is asked."""
        if self.temperature is None:
            return None
        digest = hashlib.sha256(f"{self.seed} {benchmark} {name}".encode()).digest()
        return Sampling(self.temperature, self.top_p or 1.0, int.from_bytes(digest[:4]) >> 1)  # servers take 31 bits

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
    """A question with lettered options, these in reverse order and the gold letter with its text; others unchanged.

    One whose text names its options under their letters is refused: it would go on naming them so.
    """
    if question.kind != "mcq" or not question.choices:
        return question
    options = zip(question.letters, question.choices, strict=True)
    if all(re.search(rf"\b{letter}\s*[.:]\s*{re.escape(text)}", question.prompt) for letter, text in options):
        raise UserError(
            f"{question.benchmark}: its questions name their options themselves, which cannot be swapped; leave it out "
            "of --benchmarks, or --swap-options"
        )
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
        return _grey(*shown_size(image))


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
    condition: Condition = AS_PUBLISHED

    @classmethod
    def of(cls, collection: Collection, prompts: Profile, condition: Condition, limit: int | None) -> "Asking":
        """The benchmark under a condition, its questions as `drawn`."""
        questions = drawn(condition.questions(collection.questions), limit)
        built: dict[str, Prompt] = {}

        def prompt(question: Question) -> Prompt:
            if question.id not in built:
                captions = condition.likelihood and collection.benchmark.wording.captions
                said = Prompt((PICTURE,) * len(question.images)) if captions else prompts(question)
                thinking = None if condition.think is None else condition.think == "on"
                built[question.id] = replace(said, longest=condition.max_tokens or said.longest, thinking=thinking)
            return built[question.id]

        return cls(collection, questions, condition.images(collection.images), prompt, condition)

    @property
    def name(self) -> str:
        return self.collection.benchmark.name

    def names(self, question: Question) -> list[str]:
        """The ids of the answers to a question: its own, and one for every further sample."""
        return [numbered(question.id, place) for place in range(self.condition.samples or 1)]

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
                left = [name for name in self.names(question) if name not in done]
                if not left:
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
                few = self.condition.likelihood or (self.condition.guided and question.kind != "text")
                options = allowed_answers(question) if few else {}
                one = Asked("", self.prompt(question), shown, names, options)
                asked += [replace(one, id=name, draw=self.condition.draw(self.name, name)) for name in left]
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
