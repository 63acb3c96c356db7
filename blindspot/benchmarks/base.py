"""What a benchmark is: rows of a published form become questions, and scores of questions become numbers."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, Protocol

from blindspot import files
from blindspot.benchmarks.points import of_another_size
from blindspot.benchmarks.rules import Rule
from blindspot.errors import UserError
from blindspot.question import Question


class Images(Protocol):
    """The pictures of a collection, as they were published: nothing is re-encoded."""

    def read(self, key: int) -> bytes:
        """The bytes of the image file."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file, numbered from 1: its cells by column, and keys of its pictures.

    What it lacks or has in another form is a UserError that names the row.
    """

    source: Path
    number: int
    cells: Mapping[str, Any]
    images: tuple[int, ...] = ()

    @property
    def cluster(self) -> str:
        """The label that questions about the same pictures share."""
        return "-".join(map(str, self.images))

    @property
    def asked(self) -> str:
        """The question of a TSV, after its hint where it has one."""
        hint, question = self.find("hint"), self.text("question")
        return question if hint is None else f"{hint}\n{question}"

    def error(self, what: str) -> UserError:
        return UserError(f"{self.source}: row {self.number}: {what}")

    def find(self, *columns: str) -> str | None:
        """The first of the columns that is there and not empty, as it is written."""
        written = (str(self.cells[column]) for column in columns if self.cells.get(column) is not None)
        return next((text for text in written if text.strip()), None)

    def text(self, *columns: str) -> str:
        """Like `find`, but it must be there."""
        found = self.find(*columns)
        if found is None:
            names, there = " or ".join(columns), ", ".join(map(str, self.cells))
            raise self.error(f"nothing in column {names} (columns: {there}); get the published file again")
        return found

    def whole(self, *columns: str) -> int:
        """A whole number from 0; ``3.0`` is one."""
        match = re.fullmatch(r"([0-9]{1,18})(\.0+)?", text := self.text(*columns).strip())
        if match is None:
            raise self.error(f"{columns[0]} is {text[:40]!r}, not a whole number")
        return int(match[1])

    def lettered(self) -> tuple[str, ...]:
        """The two or more options in columns ``A``, ``B``, ... up to the first empty one, behind which none may be."""
        options = {letter: option for letter in ascii_uppercase if (option := self.find(letter)) is not None}
        if len(options) < 2 or "".join(options) != ascii_uppercase[: len(options)]:
            there = ", ".join(options) or "none"
            raise self.error(f"options {there}: expected are A, B and so on without a gap")
        return tuple(options.values())

    def letter(self, column: str) -> str:
        """A gold letter, written ``B``, ``(B)``, ``(b)`` or ``B.``."""
        match = re.fullmatch(r"\(?([A-Za-z])[).]?", text := self.text(column).strip())
        if match is None:
            raise self.error(f"the gold answer {text[:40]!r} is not the letter of an option")
        return match[1].upper()

    def yes_no(self, column: str) -> str:
        """``Yes`` or ``No``, however it is written."""
        text = self.text(column).strip().lower()
        if text not in ("yes", "1", "true", "no", "0", "false"):
            raise self.error(f"the gold answer {text[:40]!r} is neither yes nor no")
        return "Yes" if text in ("yes", "1", "true") else "No"

    def strings(self, column: str) -> list[str]:
        """A list of texts: a list, or one written as Python or JSON."""
        value: Any = self.cells.get(column)
        if isinstance(value, str):
            try:
                value = ast.literal_eval(value)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
                raise self.error(f"{column} is not a list ({value[:40]!r})") from error
        if not isinstance(value, list | tuple):
            raise self.error(f"{column} is not a list")
        return [str(item) for item in value]


@dataclass(frozen=True, slots=True)
class Table:
    """A published form of a benchmark, read: ``images`` are what ``Row.images`` index.

    ``shortcuts`` is what rules score that do not read what is asked for, by metric and rule, where that is known.
    """

    source: Path
    rows: Sequence[Row]
    images: Images
    digest: str
    shortcuts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def with_rows(self, rows: Sequence[Row]) -> "Table":
        """Rows that took something from another file, with these pictures; the digest is of both."""
        return replace(self, rows=rows, digest=digest(rows, [self.digest]))


@dataclass(frozen=True)
class Draw:
    """How a benchmark is drawn that is drawn here: nothing of it can have leaked into training data."""

    size: int = 448  # pixels along a side of its pictures
    cue: str = "shadow"  # what tells depth in them
    seed: int = 0  # another one is another benchmark
    questions: int | None = None  # at least so many; None: its usual number

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())

    @classmethod
    def of(cls, digest: str) -> "Draw":
        """That of a collection with a digest; the usual one of a collection that was not drawn."""
        told = dict(part.split("=", 1) for part in digest.split() if "=" in part)
        cue = told.pop("cue", cls.cue)
        return cls(cue=cue, **{name: int(value) for name, value in told.items() if value != "None"})


USUAL = Draw()


@dataclass(frozen=True)
class Pictures:
    """The pictures of a published form: those written alike share a key, so that a model sees one for all questions.

    Keys are by hex SHA-256 of the picture's bytes, in a TSV of its base64 text; ``fetch`` gets a picture's bytes from
    its place.
    """

    fetch: Callable[[Any], bytes]
    places: list[Any] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)

    def key(self, digest: str, place: Any) -> int:
        if digest not in self.keys:
            self.keys[digest] = len(self.places)
            self.places.append(place)
        return self.keys[digest]

    def read(self, key: int) -> bytes:
        return self.fetch(self.places[key])

    def __len__(self) -> int:
        return len(self.places)


def digest(rows: Sequence[Row], pictures: Iterable[str]) -> str:
    """SHA-256 of all cells, of which row has which picture, and of the pictures' own digests."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value if isinstance(value, int | str | None) else str(value)

    return files.fingerprint({"rows": [[plain(row.cells), row.images] for row in rows], "pictures": list(pictures)})


def slug(label: str) -> str:
    """A label as metrics name it: lower case, words joined by one underscore."""
    return "_".join(re.findall(r"\w+", label.lower().replace("_", " ")))


@dataclass(frozen=True)
class Source:
    """A form of a benchmark: where it can be had, and how it is read."""

    form: str  # ``tsv``, ``hub``, ``original`` or ``drawn``
    table: Callable[[Sequence[Path]], Table]  # from the files that the marks found to their rows
    question: Callable[[Row], Question]  # from a row to a question; of which benchmark is said by that which reads it
    repository: str | None = None  # Hugging Face data set, or None
    files: tuple[str, ...] = ()  # paths inside the repository (``*`` matches), or URLs; empty: all of it
    md5: Mapping[str, str] = field(default_factory=dict)  # of single files, by path, where published
    counts: Mapping[str, int] = field(default_factory=dict)
    """Numbers in it as published: ``questions``, ``images``, ``sets``, and of questions with a label, e.g.
    ``complexity=simple``."""
    marks: tuple[str, ...] = ()  # patterns of paths in a folder; one that matches says that the folder holds this form
    page: str = ""  # where a person finds what cannot be downloaded by itself, and how to lay it out
    links: Callable[[Path], Mapping[str, str]] | None = None
    """Pictures that lie elsewhere: from the folder of the form to their URLs by relative path."""
    notes: tuple[str, ...] = ()  # what is known to be wrong with this form
    blind: Callable[[Sequence[Path]], Table] | None = None
    """Like ``table``, but pictures need not be there, and are known by their names; None where the rows hold them."""


def found(marks: Sequence[str], folder: Path) -> list[Path]:
    """The files of a folder that match the marks of a form, sorted; of several marks the first that matches.

    Files that are numbered ``-00000-of-00004`` count only if all of them are there. Of versions in the cache of
    datasets, each in a folder that is named by its hash, the newest counts.
    """
    for mark in marks:
        paths = sorted(path for path in folder.glob(mark) if path.is_file())
        versions = {path.parent for path in paths if re.fullmatch(r"[0-9a-f]{16,64}", path.parent.name)}
        newest = {each.parent: each for each in sorted(versions, key=lambda each: each.stat().st_mtime)}
        paths = [path for path in paths if path.parent not in versions or path.parent in newest.values()]
        numbered = (re.fullmatch(r"(.*)-\d{5}-of-(\d{5})[^/]*", str(path)) for path in paths)
        counts = Counter((match[1], int(match[2])) for match in numbered if match)
        if paths:
            return paths if all(count == total for (_, total), count in counts.items()) else []
    return []


@dataclass(frozen=True)
class Term:
    """A mean over units of a benchmark."""

    where: Mapping[str, str] = field(default_factory=dict)
    """Labels that a question must carry in its ``groups``; empty: all questions."""
    unit: str = "question"
    """``question``, or a group, ``set`` as a rule: questions of one label of it, right only if all of them are."""
    weight: float = 1.0  # of the mean in its metric
    value: Literal["score", "partial", "above_chance"] = "score"
    """Which number of a scored question: ``score``; ``partial`` (partial match); or ``above_chance``, the score less
    what guessing among its ``groups["options"]`` gives, where 1 is all right and 0 what guessing gives."""


@dataclass(frozen=True)
class Metric:
    """A number of a benchmark: a weighted sum of means."""

    name: str  # as in the paper's tables where it is there (``overall``, ``coco``, ``choose``)
    terms: tuple[Term, ...]  # summed
    chance: float | None  # what guessing gives, on the same scale; None where there is no such thing
    scale: float = 1.0  # the factor by which the paper prints it (100 for per cent)

    @property
    def most(self) -> float:
        """Its value when everything is right."""
        return sum(term.weight for term in self.terms)


def by(
    group: str, labels: Iterable[str], chance: float | None = None, scale: float = 1.0, **term: Any
) -> tuple[Metric, ...]:
    """A metric ``GROUP/LABEL`` of each label of a group, the mean over its questions; ``term``: what else it is."""
    return tuple(Metric(f"{group}/{label}", (Term({group: label}, **term),), chance, scale) for label in labels)


@dataclass(frozen=True)
class Wording:
    """What harnesses say around the questions of a benchmark: VLMEvalKit's words are of September 2025, the study's."""

    lettered: bool = False  # VLMEvalKit has it as multiple choice, its questions without options included
    suffix: str = ""  # VLMEvalKit's data set puts this behind the question
    listed: str | None = None
    """VLMEvalKit's data set sends CV-Bench's own text: the question, this, and a line "(A) ..." per option."""
    named_pictures: bool = False
    """The text names its pictures, ``<image 1>``, and VLMEvalKit's data set puts them there."""
    smolvlm: Literal["default", "brief", "letter", "mmbench", "mmmu"] = "default"
    """Which of the SmolVLM adapter's templates it gets."""
    captions: bool = False
    """Its options are captions: how likely they are is asked behind the pictures alone, without words."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark."""

    name: str  # its name here and in the paper's results (``mmvp``, ``cvbench_2d``, ...)
    title: str  # as people write it
    licence: str  # of the data
    citation: str  # one line: authors, title, year, link
    sources: tuple[Source, ...]  # forms, the one to prefer first
    metrics: tuple[Metric, ...]  # the paper's columns first
    kinds: Mapping[str, str] = field(default_factory=dict)  # of the rows of answers files, by the kind that rules see
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """From a raw answer to its score, by scoring profile; what is not here is not defined in that harness."""
    headlines: Mapping[str, str] = field(default_factory=dict)
    """The metric that a profile's harness calls the score, where it is not ``overall``."""
    vlmevalkit: str = ""  # its name in VLMEvalKit
    wording: Wording = Wording()  # what harnesses say around its questions
    prompts: Mapping[str, Callable[[Question], str]] = field(default_factory=dict)
    """The text of a question by the harness that says it, its pictures in front or where it names them."""
    longest: Mapping[str, int] = field(default_factory=dict)  # most tokens of an answer, by a harness that has few
    place: Path | None = None  # where it lies, of a user's own; None: it is looked for
    draw: Callable[[Draw], Table] | None = None
    """Makes it, where it is drawn and not published; its one source then says how a row becomes a question."""

    def headline(self, profile: str) -> str:
        """The metric that a profile's harness calls the score."""
        return self.headlines.get(profile, "overall")

    @property
    def size(self) -> int:
        """How many questions it has as published, in the form with the most; 0 where that is the user's to say."""
        return max(source.counts.get("questions", 0) for source in self.sources)

    @property
    def set_size(self) -> int | None:
        """How many questions a set has, if the published counts say so."""
        sizes = {divmod(one.counts["questions"], one.counts["sets"]) for one in self.sources if "sets" in one.counts}
        return next((size for size, rest in sizes if len(sizes) == 1 and not rest), None)

    def read(self, path: Path, draw: Draw = USUAL, blind: bool = False) -> "Collection":
        """Read whichever form lies at a path, or draw what is drawn; ``blind``: for its words alone; pictures
        may be missing then.

        A file is of the form of its suffix. Of a folder with several forms, the one that the benchmark prefers; a form
        may also lie in a sub-folder of its name. A missing column or picture, an id that occurs twice and a gold answer
        that is not among the options are refused.
        """
        form = {".tsv": "tsv", ".parquet": "hub", ".arrow": "hub"}.get(path.suffix, "original")
        here = [(one, [path]) for one in self.sources if path.is_file() and (self.place or one.form == form)]
        below = ((one, found(one.marks, folder)) for one in self.sources for folder in (path / one.form, path))
        source, paths = next((each for each in chain(here, below) if each[1]), (None, []))
        if self.draw is not None:
            source = self.sources[0]
        if source is None:
            expected = "; ".join(f"{source.form}: {' or '.join(source.marks)}" for source in self.sources)
            what = "nothing" if not path.exists() else f"no data of {self.title}"
            raise UserError(
                f"{what} at {path}; expected is one of {expected}; "
                f"get it with `blindspot data get {self.name}` or see `blindspot benchmarks`"
            )
        read = source.blind if blind and source.blind else source.table
        table = read(paths) if self.draw is None else self.draw(draw)
        if not table.rows:
            raise UserError(f"{table.source} holds no rows; get it again")
        questions = tuple(replace(source.question(row), benchmark=self.name) for row in table.rows)
        first: dict[str, Row] = {}
        for row, question in zip(table.rows, questions, strict=True):
            if (before := first.setdefault(question.id, row)) is not row:
                raise row.error(f"id {question.id!r} is also that of row {before.number}; remove one of the two")
            letters = ascii_uppercase[: len(question.choices)]
            if question.kind == "mcq" and question.answer not in tuple(letters):
                raise row.error(f"the gold answer {question.answer!r} is not one of the options {', '.join(letters)}")
        notes = [*source.notes, *_notes(self, source, questions, len(table.images))]
        masks = [(one.groups.get("mask", one.answer), one.images[0]) for one in questions if one.kind == "points"]
        if odd := sum(of_another_size(mask, table.images.read(picture)) for mask, picture in masks):
            notes.append(f"{odd:,} masks have another size than their picture; points in pixels are read as the mask's")
        if self.place:
            kinds = Counter(question.kind for question in questions)
            notes = (f"asked by kind: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}", *notes)
        return Collection(self, source.form, questions, table.images, tuple(notes), table.digest, table.shortcuts)


@dataclass(frozen=True)
class Collection:
    """The questions of a benchmark with their pictures, as one published form holds them."""

    benchmark: Benchmark
    form: str  # ``tsv`` (VLMEvalKit), ``hub`` (a Hugging Face data set) or ``original``
    questions: tuple[Question, ...]  # in the order of the file
    images: Images  # what ``Question.images`` index
    notes: tuple[str, ...]  # what is not as published (counts that differ, known wrong labels), one line each
    digest: str  # SHA-256 of the data that the questions and the pictures come from; of what was drawn, behind how
    shortcuts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # as in `Table`


def _notes(benchmark: Benchmark, source: Source, questions: Sequence[Question], images: int) -> list[str]:
    """What of the published counts the data does not have, and which metrics or labels come short, one line each.

    Equal pictures count as one. A metric comes short where questions have no label of its name; a label, where no
    metric asks for it although metrics ask for others of the name, as when a file spells them anew.
    """
    labels = Counter(pair for question in questions for pair in question.groups.items())
    counts = {f"{name}={label}": count for (name, label), count in labels.items()}
    counts |= {"questions": len(questions), "images": images, "sets": sum(name == "set" for name, _ in labels)}
    notes = [
        f"{counts.get(name, 0):,} {name}, published {published:,}"
        for name, published in source.counts.items()
        if counts.get(name, 0) != published
    ]
    metric_of: dict[str, str] = {}
    wanted: set[tuple[str, str]] = set()
    for metric in benchmark.metrics:
        for term in metric.terms:
            wanted |= term.where.items()
            metric_of = dict.fromkeys(term.where, metric.name) | metric_of
    carried = Counter(name for question in questions for name in question.groups)
    for name in sorted(metric_of):
        if not carried[name]:
            notes.append(
                f"no question of this form has a label {name!r}: {metric_of[name]} and the like are not reported"
            )
        elif carried[name] < len(questions):
            notes.append(
                f"{len(questions) - carried[name]:,} questions have no label {name!r}: {metric_of[name]} and the like "
                f"are of the other {carried[name]:,}"
            )
    return notes + [
        f"{count:,} questions have the {name} {label!r}, which no metric reports"
        for (name, label), count in labels.items()
        if name in metric_of and (name, label) not in wanted
    ]
