"""What a benchmark is: rows of a published form become questions, and scores of questions become numbers."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from blindspot.benchmarks.rules.common import Rule
from blindspot.benchmarks.sources.table import Images, Row, Table
from blindspot.errors import UserError
from blindspot.question import Question

SUFFIX_FORMS = {".tsv": "tsv", ".parquet": "hub", ".arrow": "hub"}

_HASH = re.compile(r"[0-9a-f]{16,64}")
_NUMBERED = re.compile(r"(.*)-\d{5}-of-(\d{5})[^/]*")

__all__ = ["Benchmark", "Collection", "Images", "Metric", "Source", "Term", "Wording"]


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

    @property
    def most(self) -> float:
        """Its value when everything is right."""
        return sum(term.weight for term in self.terms)


@dataclass(frozen=True)
class Source:
    """A form of a benchmark: where it can be had, and how it is read.

    Attributes:
        form: ``tsv``, ``hub`` or ``original``.
        table: from the files that the marks found to their rows.
        question: from a row to a question.
        repository: Hugging Face data set, or None.
        files: paths inside the repository (``*`` matches), or URLs; empty: all of it.
        md5: of single files, by path, where published.
        counts: numbers in it as published: ``questions``, ``images``, ``sets``, and of questions with a label,
            e.g. ``complexity=simple``.
        marks: patterns of paths in a folder; one that matches says that the folder holds this form.
        page: where a person finds what cannot be downloaded by itself, and how to lay it out.
        links: pictures that lie elsewhere: from the folder of the form to their URLs by relative path.
        notes: what is known to be wrong with this form.
    """

    form: str
    table: Callable[[Sequence[Path]], Table]
    question: Callable[[Row], Question]
    repository: str | None = None
    files: tuple[str, ...] = ()
    md5: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    page: str = ""
    links: Callable[[Path], Mapping[str, str]] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wording:
    """What harnesses say around the questions of a benchmark: VLMEvalKit's words are of September 2025, the study's.

    Attributes:
        lettered: VLMEvalKit has it as multiple choice, its questions without options included.
        suffix: VLMEvalKit's data set puts this behind the question.
        listed: VLMEvalKit's data set sends CV-Bench's own text: the question, this, and a line "(A) ..." per option.
        named_pictures: the text names its pictures, ``<image 1>``, and VLMEvalKit's data set puts them there.
        smolvlm: which of the SmolVLM adapter's templates it gets.
    """

    lettered: bool = False
    suffix: str = ""
    listed: str | None = None
    named_pictures: bool = False
    smolvlm: Literal["default", "brief", "letter", "mmbench", "mmmu"] = "default"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: its name here and in the paper's results (``mmvp``, ``cvbench_2d``, ...).
        title: as people write it.
        licence: of the data.
        citation: one line: authors, title, year, link.
        sources: forms, the one to prefer first.
        metrics: the paper's columns first.
        kinds: of the rows of answers files, by the kind that rules see.
        rules: from a raw answer to its score, by scoring profile; what is not here is not defined in that harness.
        headlines: the metric that a profile's harness calls the score, where it is not ``overall``.
        vlmevalkit: its name in VLMEvalKit.
        wording: what harnesses say around its questions.
    """

    name: str
    title: str
    licence: str
    citation: str
    sources: tuple[Source, ...]
    metrics: tuple[Metric, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    headlines: Mapping[str, str] = field(default_factory=dict)
    vlmevalkit: str = ""
    wording: Wording = Wording()

    def headline(self, profile: str) -> str:
        """The metric that a profile's harness calls the score."""
        return self.headlines.get(profile, "overall")

    @property
    def set_size(self) -> int | None:
        """How many questions a set has, if the published counts say so."""
        sizes = {divmod(one.counts["questions"], one.counts["sets"]) for one in self.sources if "sets" in one.counts}
        return next((size for size, rest in sizes if len(sizes) == 1 and not rest), None)

    def read(self, path: Path) -> "Collection":
        """Read whichever form lies at a path, a folder or a file.

        Raises:
            UserError: if there is none, or it is malformed: a missing column or picture, an id that occurs twice, a
                gold answer that is not among the options.
        """
        source, paths = _choose(self, path)
        table = source.table(paths)
        questions = tuple(source.question(row) for row in table.rows)
        _refuse_faults(table, questions)
        notes = (
            *source.notes,
            *_different(source, questions, len(table.images)),
            *_unlabelled(self, questions),
            *_unreported(self, questions),
        )
        return Collection(self, source.form, questions, table.images, notes, table.digest)


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

    benchmark: Benchmark
    form: str
    questions: tuple[Question, ...]
    images: Images
    notes: tuple[str, ...]
    digest: str


def found(marks: Sequence[str], folder: Path) -> list[Path]:
    """The files of a folder that match the marks of a form, sorted; of several marks the first that matches.

    Files that are numbered ``-00000-of-00004`` count only if all of them are there.
    """
    for mark in marks:
        if paths := _newest(sorted(path for path in folder.glob(mark) if path.is_file())):
            return paths if _whole(paths) else []
    return []


def _newest(paths: Sequence[Path]) -> list[Path]:
    """Without older versions: the cache of datasets keeps each in a folder that is named by its hash."""
    versions = {path.parent for path in paths if _HASH.fullmatch(path.parent.name)}
    newest = {folder.parent: folder for folder in sorted(versions, key=lambda folder: folder.stat().st_mtime)}
    return [path for path in paths if path.parent not in versions or path.parent in newest.values()]


def _whole(paths: Sequence[Path]) -> bool:
    numbered = [(match[1], int(match[2])) for path in paths if (match := _NUMBERED.fullmatch(str(path)))]
    return all(count == total for (_, total), count in Counter(numbered).items())


def _choose(benchmark: Benchmark, path: Path) -> tuple[Source, list[Path]]:
    """The form that lies at a path, and its files.

    A file is of the form of its suffix. Of a folder with several forms, the one that the benchmark prefers; a form
    may also lie in a sub-folder of its name.

    Raises:
        UserError: if there is none; says what was expected.
    """
    if path.is_file():
        form = SUFFIX_FORMS.get(path.suffix, "original")
        for source in benchmark.sources:
            if source.form == form:
                return source, [path]
    for source in benchmark.sources:
        for folder in (path / source.form, path):
            if paths := found(source.marks, folder):
                return source, paths
    expected = "; ".join(f"{source.form}: {' or '.join(source.marks)}" for source in benchmark.sources)
    what = "nothing" if not path.exists() else f"no data of {benchmark.title}"
    raise UserError(
        f"{what} at {path}; expected is one of {expected}; "
        f"get it with `blindspot data get {benchmark.name}` or see `blindspot benchmarks`"
    )


def _different(source: Source, questions: Sequence[Question], images: int) -> list[str]:
    """What of the published counts the data does not have, one line each. Equal pictures count as one."""
    labels = Counter(f"{name}={label}" for question in questions for name, label in question.groups.items())
    sets = {question.groups.get("set") for question in questions} - {None}
    counted = {"questions": len(questions), "images": images, "sets": len(sets)}
    return [
        f"{counted.get(name, labels[name]):,} {name}, published {published:,}"
        for name, published in source.counts.items()
        if counted.get(name, labels[name]) != published
    ]


def _unlabelled(benchmark: Benchmark, questions: Sequence[Question]) -> list[str]:
    """The metrics that not every question of this form can count for, one line for each label that is missing."""
    carried = Counter(name for question in questions for name in question.groups)
    wanted = {
        name: metric.name for metric in reversed(benchmark.metrics) for term in metric.terms for name in term.where
    }
    return [
        f"no question of this form has a label {name!r}: {wanted[name]} and the like are not reported"
        if name not in carried
        else f"{len(questions) - carried[name]:,} questions have no label {name!r}: {wanted[name]} and the like are of "
        f"the other {carried[name]:,}"
        for name in sorted(wanted)
        if carried[name] < len(questions)
    ]


def _unreported(benchmark: Benchmark, questions: Sequence[Question]) -> list[str]:
    """The labels that no metric asks for although it asks for others of the name, as when a file spells them anew."""
    wanted: dict[str, set[str]] = {}
    for metric in benchmark.metrics:
        for term in metric.terms:
            for name, label in term.where.items():
                wanted.setdefault(name, set()).add(label)
    carried = Counter(pair for question in questions for pair in question.groups.items() if pair[0] in wanted)
    return [
        f"{count:,} questions have the {name} {label!r}, which no metric reports"
        for (name, label), count in carried.items()
        if label not in wanted[name]
    ]


def _refuse_faults(table: Table, questions: Sequence[Question]) -> None:
    if not questions:
        raise UserError(f"{table.source} holds no rows; get it again")
    first: dict[str, Row] = {}
    for row, question in zip(table.rows, questions, strict=True):
        if (before := first.setdefault(question.id, row)) is not row:
            raise row.error(f"id {question.id!r} is also that of {before.place}; remove one of the two")
        letters = [chr(ord("A") + number) for number in range(len(question.choices))]
        if question.kind == "mcq" and question.answer not in letters:
            raise row.error(f"the gold answer {question.answer!r} is not one of the options {', '.join(letters)}")
        if question.kind == "yes_no" and question.answer not in ("Yes", "No"):
            raise row.error(f"the gold answer {question.answer!r} is neither Yes nor No")
