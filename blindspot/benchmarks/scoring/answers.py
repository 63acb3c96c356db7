"""Raw answers from files: one answers file, or all of a run folder."""

from collections.abc import Iterator
from pathlib import Path

from blindspot.benchmarks.scoring.rows import Item, read_row
from blindspot.errors import UserError
from blindspot.files import read_jsonl


def load_answers(path: Path) -> list[Item]:
    """Read every row of an answers file, or of each ``*/answers.jsonl`` of a run folder in order of their names.

    Raises:
        UserError: if there is none, or a row is malformed or its id occurs twice; it names the file and the line.
    """
    items = [item for file in _files(path) for item in _read(file)]
    if not items:
        raise UserError(f"{path}: no answers in it")
    return items


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*/answers.jsonl"))
    if not files:
        unfinished = " yet; the evaluation is not finished" if any(path.glob("*/answers.part.jsonl")) else ""
        raise UserError(f"{path}: no */answers.jsonl in it{unfinished}; give a run folder or an answers file")
    return files


def _read(file: Path) -> Iterator[Item]:
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(read_jsonl(file), start=1):
        where = f"{file}:{number}"
        item = read_row(row, where)
        if row.get("id") is not None:
            first = seen.setdefault((item.benchmark, str(row["id"])), number)
            if first != number:
                raise UserError(f"{where}: the id of line {first} again; ids of a benchmark must differ")
        yield item
