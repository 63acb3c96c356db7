"""Answers from a file, as if a model gave them again."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from blindspot.benchmarks.rows import further
from blindspot.errors import UserError
from blindspot.evaluation.base import Asked, Reply, numbered
from blindspot.files import read_jsonl, sha256_file
from blindspot.text import encodable

INDEX, PREDICTION = "index", "prediction"


class RecordedAnswerer:
    """Gives the answers that a file holds, by the questions' ids; what it does not hold is an error of that question.

    The n-th answer to a question is its n-th sample.

    Args:
        path: the answers to one benchmark (ids repeat between benchmarks): ``.jsonl`` with ``id`` and ``raw`` (an
            ``answers.jsonl`` of ours keeps its likelihoods), or predictions of VLMEvalKit with ``index`` and
            ``prediction``: ``.tsv``, or ``.xlsx`` where openpyxl is installed.
        benchmark: its name; a row that names another is refused.
        samples: answers to each question; more are refused.
    """

    def __init__(self, path: Path, benchmark: str | None = None, samples: int = 1) -> None:
        readers = {".jsonl": _jsonl, ".tsv": _tsv, ".xlsx": _xlsx}
        kind = path.suffix.lower()
        if kind not in readers:
            raise UserError(f"{path}: recorded answers are read from {', '.join(readers)} files")
        if not path.is_file():
            raise UserError(f"no answers at {path}")
        self._path, self._replies = path, dict[str, Reply]()
        held = Counter[str]()
        for number, reply in enumerate(readers[kind](path, benchmark), start=1):
            held[reply.id] += 1
            if held[reply.id] > samples:
                where = f"{'line' if kind == '.jsonl' else 'row'} {number}"
                nth = "a second answer" if samples == 1 else f"answer {held[reply.id]}"
                told = "keep one of them" if samples == 1 else f"keep {samples}"
                raise UserError(f"{path}, {where}: {nth} to question {reply.id!r}; {told}, or ask for more --samples")
            name = numbered(reply.id, held[reply.id] - 1)
            self._replies[name] = replace(reply, id=name)
        self.identity: dict[str, Any] = {"answerer": "recorded", "file": path.name, "sha256": sha256_file(path)}

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        """The answers, in the order of the questions."""
        for question in asked:
            missing = Reply(question.id, "", error=f"{self._path.name} has no answer to it")
            yield self._replies.get(question.id, missing)


def _jsonl(path: Path, benchmark: str | None) -> Iterator[Reply]:
    for number, row in enumerate(read_jsonl(path), start=1):
        if not (isinstance(row, dict) and isinstance(row.get("id"), str | int) and isinstance(row.get("raw"), str)):
            raise UserError(f'{path}:{number}: not an answer; a line is like {{"id": "17", "raw": "Yes"}}')
        if benchmark is not None and row.get("benchmark", benchmark) != benchmark:
            raise UserError(f"{path}:{number}: an answer to {row['benchmark']}, but {benchmark} is asked")
        likelihood = row.get("likelihood")
        numbers = isinstance(likelihood, dict) and all(isinstance(value, int | float) for value in likelihood.values())
        if not (likelihood is None or numbers):
            raise UserError(f"{path}:{number}: the likelihood must hold a number for each answer")
        for raw, stopped in ((row["raw"], row.get("stopped")), *further(row, f"{path}:{number}")):
            stopped = stopped if stopped in ("length", "thought") else "end"
            yield Reply(str(row["id"]), encodable(raw), stopped, likelihood)


def _tsv(path: Path, _: str | None) -> Iterable[Reply]:
    names = (INDEX, PREDICTION)
    try:
        table = csv.read_csv(
            path,
            csv.ReadOptions(block_size=min(path.stat().st_size + 1, 2**31 - 1)),  # a block holds whole rows
            csv.ParseOptions(delimiter="\t", newlines_in_values=True),
            csv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, pa.string())),
        )
    except KeyError as error:
        raise _no_columns(path) from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as a TSV of predictions: {error}") from error
    return map(Reply, *(table[name].to_pylist() for name in names))


def _xlsx(path: Path, _: str | None) -> Iterator[Reply]:
    try:
        import openpyxl  # pyright: ignore[reportMissingModuleSource]
    except ImportError:
        raise UserError(f"reading {path} needs openpyxl: pip install openpyxl; or save it as .tsv") from None
    try:
        sheet: Any = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
        header, *rows = sheet.iter_rows(values_only=True)
    except Exception as error:  # zipfile's, xml's and openpyxl's own have no common base
        raise UserError(f"{path} cannot be read as a workbook: {error or type(error).__name__}") from error
    if not {INDEX, PREDICTION} <= set(header):
        raise _no_columns(path)
    for row in rows:
        cells = [row[header.index(name)] for name in (INDEX, PREDICTION)]
        if cells[0] is not None:  # spreadsheets keep whole numbers as floats
            whole = [int(cell) if isinstance(cell, float) and cell.is_integer() else cell for cell in cells]
            index, prediction = ("" if cell is None else str(cell) for cell in whole)
            yield Reply(index, prediction)


def _no_columns(path: Path) -> UserError:
    return UserError(f"{path} has no columns {INDEX} and {PREDICTION}, as VLMEvalKit's predictions have")
