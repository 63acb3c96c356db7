"""What a benchmark is: rows of a published form become questions, and scores of questions become numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from blindspot.question import Question


class Images(Protocol):
    """The pictures of a collection, as they were published: nothing is re-encoded."""

    def read(self, key: int) -> bytes:
        """The bytes of the image file.

        Raises:
            UserError: if it is missing or cannot be read.
        """
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Collection:
    """The questions of a benchmark with their pictures, as one published form holds them.

    Attributes:
        benchmark: which.
        form: the form that was read: ``tsv`` (VLMEvalKit), ``hub`` (a Hugging Face data set), ``original``.
        questions: in the order of the file.
        images: what ``Question.images`` index.
        notes: what is not as published (counts that differ, known wrong labels), one line each.
        digest: SHA-256 of the data that the questions and the pictures come from.
    """

    benchmark: "Benchmark"
    form: str
    questions: tuple[Question, ...]
    images: Images
    notes: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Term:
    """A mean over units of a benchmark.

    Attributes:
        where: labels that a question must carry in its ``groups``; empty: all questions.
        unit: ``question``, or ``set``: questions of one ``groups["set"]``, right only if all of them are.
        weight: of the mean in its metric.
        value: which number of a scored question: ``score``, or ``partial`` (partial match).
    """

    where: Mapping[str, str] = field(default_factory=dict)
    unit: Literal["question", "set"] = "question"
    weight: float = 1.0
    value: Literal["score", "partial"] = "score"


@dataclass(frozen=True)
class Metric:
    """A number of a benchmark: a weighted sum of means.

    Attributes:
        name: as in the paper's tables where it is there (``overall``, ``coco``, ``choose``).
        terms: summed.
        chance: what guessing gives, on the same scale; None where there is no such thing.
        scale: the factor by which the paper prints it (100 for per cent).
    """

    name: str
    terms: tuple[Term, ...]
    chance: float | None
    scale: float = 1.0


@dataclass(frozen=True)
class Source:
    """Where a form of a benchmark can be had.

    Attributes:
        form: ``tsv``, ``hub`` or ``original``.
        repository: Hugging Face data set, or None.
        revision: commit that is read, or None for the newest.
        files: paths inside the repository (``*`` matches), or URLs; empty: all of it.
        sha256, md5: of single files, by path, where published.
        counts: numbers in it as published: ``questions``, ``images``, ``sets``, and of questions with a label,
            e.g. ``complexity=simple``.
        marks: patterns of paths in a folder; one that matches says that the folder holds this form.
        page: where a person finds what cannot be downloaded by itself, and how to lay it out.
        links: pictures that lie elsewhere: from the folder of the form to their URLs by relative path.
    """

    form: str
    repository: str | None = None
    revision: str | None = None
    files: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    md5: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    page: str = ""
    links: Callable[[Path], Mapping[str, str]] | None = None


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: its name here and in the paper's results (``mmvp``, ``cvbench_2d``, ...).
        title: as people write it.
        vlmevalkit: its name in VLMEvalKit, which scoring profiles know it by.
        licence: of the data.
        citation: one line: authors, title, year, link.
        sources: forms, the one to prefer first.
        metrics: the paper's columns first.
        read: a folder or a file of any of the forms to a collection.
    """

    name: str
    title: str
    vlmevalkit: str
    licence: str
    citation: str
    sources: tuple[Source, ...]
    metrics: tuple[Metric, ...]
    read: Callable[[Path], Collection]
