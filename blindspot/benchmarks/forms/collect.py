"""From a path to a collection: which form lies there, its rows as questions, and what is not as published."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blindspot.benchmarks.forms.table import Images, Row, Table
from blindspot.errors import UserError
from blindspot.question import Question

if TYPE_CHECKING:
    from blindspot.benchmarks.base import Benchmark, Source

SUFFIX_FORMS = {".tsv": "tsv", ".parquet": "hub", ".arrow": "hub"}

_HASH = re.compile(r"[0-9a-f]{16,64}")
_NUMBERED = re.compile(r"(.*)-\d{5}-of-(\d{5})[^/]*")


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


def _choose(benchmark: "Benchmark", path: Path) -> tuple["Source", list[Path]]:
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


def collected(benchmark: "Benchmark", path: Path) -> Collection:
    """Read whichever form lies at a path.

    Raises:
        UserError: if there is none, or it is malformed: a missing column or picture, an id that occurs twice, a gold
            answer that is not among the options.
    """
    source, paths = _choose(benchmark, path)
    table = source.table(paths)
    questions = tuple(source.question(row) for row in table.rows)
    _refuse_faults(table, questions)
    notes = (
        *source.notes,
        *_different(source, questions, len(table.images)),
        *_unlabelled(benchmark, questions),
        *_unreported(benchmark, questions),
    )
    return Collection(benchmark, source.form, questions, table.images, notes, table.digest)


def _different(source: "Source", questions: Sequence[Question], images: int) -> list[str]:
    """What of the published counts the data does not have, one line each. Equal pictures count as one."""
    labels = Counter(f"{name}={label}" for question in questions for name, label in question.groups.items())
    sets = {question.groups.get("set") for question in questions} - {None}
    counted = {"questions": len(questions), "images": images, "sets": len(sets)}
    return [
        f"{counted.get(name, labels[name]):,} {name}, published {published:,}"
        for name, published in source.counts.items()
        if counted.get(name, labels[name]) != published
    ]


def _unlabelled(benchmark: "Benchmark", questions: Sequence[Question]) -> list[str]:
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


def _unreported(benchmark: "Benchmark", questions: Sequence[Question]) -> list[str]:
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
