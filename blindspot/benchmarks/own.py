"""A user's own questions about their own pictures: a file of rows, or a data set on this disk, as a benchmark.

A row has ``question``, ``image`` or ``images`` (paths from the file's folder), ``answer``, and ``options`` where there
are some; optional are ``kind``, ``id`` and ``group``. Groups: ``group``, of which each becomes a metric; ``picture``
(width and height), of boxes; ``cluster`` (the pictures).
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from blindspot import files
from blindspot.benchmarks.base import Benchmark, Metric, Pictures, Row, Source, Table, Term, digest, found, slug
from blindspot.benchmarks.points import region_text
from blindspot.benchmarks.sources.forms import read_hub
from blindspot.errors import UserError, one_of
from blindspot.question import Question

OWN = "own"
"""The form of such a benchmark."""
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
KINDS = {"options": "mcq", "yes_no": "yes_no", "count": "count", "number": "number", "text": "text", "box": "boxes",
         "points": "points"}  # fmt: skip
"""What a row may say that it is, and what that is in a `Question`."""
_IMAGES = ("image", "images", "file_name")
_OPTIONAL = ("answer", "options", "kind", "id", "group", "mask", *ascii_uppercase)
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,2})?"


def own(path: Path) -> Benchmark:
    """The benchmark of a file or folder, named after it."""
    name = slug(path.stem if path.suffix in SUFFIXES else path.name)
    if not path.exists():
        raise UserError(f"{path} is not there; name a benchmark of `blindspot benchmarks`, or a file of your own")
    if path.is_file() and path.suffix not in SUFFIXES:
        raise UserError(f"{path}: questions are read from {', '.join(SUFFIXES)}, or a folder that datasets saved")
    marks = ("metadata.jsonl", "metadata.csv", "**/*.arrow", "**/*.parquet")
    if path.is_dir() and not any(found(marks, folder) for folder in (path / OWN, path)):
        raise UserError(f"{path} holds no questions; write them into a file beside it, a line each, and name that file")
    source = Source(OWN, _table, _question, marks=marks)
    return Benchmark(name, path.name, "your own", "", (source,), (Metric("mean", (Term(),), None),), place=path)


@dataclass(frozen=True, slots=True)
class _Line(Row):
    """A row that is named as editors name lines, and the width and height of its first picture."""

    size: tuple[int, int] = (0, 0)

    def error(self, what: str) -> UserError:
        lines = self.source.suffix in SUFFIXES and self.source.suffix != ".json"
        return UserError(f"{self.source}{f':{self.number}' if lines else f', row {self.number}'}: {what}")

    def wrong(self, column: str, what: str) -> UserError:
        """What is wrong in a column, and what to write."""
        return self.error(f"{column} is {json.dumps(self.cells.get(column), default=str)[:60]}; {what}")

    def paths(self) -> list[Path]:
        """Of its pictures, as it names them."""
        column = next((name for name in _IMAGES if self.find(name)), None)
        if column is None:
            raise self.error(f"no image (columns: {', '.join(map(str, self.cells))}); name a picture in column image")
        value = self.cells[column]
        if isinstance(value, str) and value.startswith("["):
            value = self.strings(column)
        names = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) and name.strip() for name in names):
            raise self.wrong(column, "write the path of a picture, of several a list")
        return [self.source.parent / name for name in names]

    def beside(self, column: str, name: str) -> bytes:
        """The bytes of a file that a column names."""
        try:
            return _content(self.source.parent / name)
        except UserError as error:
            raise self.wrong(column, str(error)) from error


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a file with their lines, or their numbers where rows are no lines."""
    if path.suffix == ".jsonl":
        yield from enumerate(files.read_jsonl(path), start=1)
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            if path.suffix == ".json":
                held = files.parse_json(handle.read())
                yield from enumerate(held if isinstance(held, list) else [held], start=1)
                return
            head = next(handle, "")  # whatever stands between its names; a spreadsheet may write semicolons
            names, delimiter = (*_IMAGES, "question", *_OPTIONAL), max("\t,;", key=head.count)
            reader = csv.DictReader(chain([head], handle), delimiter=delimiter)
            reader.fieldnames = [
                low if (low := name.strip().lower()) in names else name for name in reader.fieldnames or ()
            ]
            for cells in reader:
                if None in cells:
                    raise UserError(f"{path}:{reader.line_num}: more cells than the header; put quotes around commas")
                yield reader.line_num, cells
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: not {path.suffix[1:].upper()} in UTF-8 ({error})") from error


def _table(paths: Sequence[Path]) -> Table:
    """The rows with their pictures, each of which is looked at, so that what is wrong is told before any is asked."""
    path = paths[0]
    if path.suffix in (".arrow", ".parquet"):
        try:
            table = read_hub(paths, ("question",), _OPTIONAL)
        except UserError as error:
            if "no column image" not in str(error):
                raise
            table = read_hub(paths, ("question",), _OPTIONAL, images=("images",))
        sizes = [_size(table.images.read(row.images[0])) for row in table.rows]
        return replace(table, rows=[_Line(row.source, row.number, row.cells, row.images, size)
                                    for row, size in zip(table.rows, sizes, strict=True)])  # fmt: skip
    pictures, masks, known, sizes = Pictures(_content), [], {}, {}
    rows: list[Row] = []
    for number, cells in _lines(path):
        line = _Line(path, number, cells if isinstance(cells, dict) else {})
        if not isinstance(cells, dict):
            raise line.error('a row is an object: {"image": "door.jpg", "question": "...", "answer": "..."}')
        for place in (places := line.paths()):
            if place not in known:
                try:
                    sizes[place] = _size(content := _content(place))
                except UserError as error:
                    raise line.error(f"image {place}: {error}") from error
                known[place] = pictures.key(hashlib.sha256(content).hexdigest(), place)
        if mask := line.find("mask"):
            masks.append(hashlib.sha256(line.beside("mask", mask)).hexdigest())
        rows.append(_Line(path, number, cells, tuple(known[place] for place in places), sizes[places[0]]))
    if not rows:
        raise UserError(f"{path}: no questions in it; write one a line")
    return Table(path, rows, pictures, digest(rows, [*pictures.keys, *masks]))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{error.strerror or error}; paths start at the file's folder") from error


def _size(content: bytes) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=files.PICTURE_FORMATS) as image:
            return files.shown_size(image)
    except Exception as error:  # what a damaged file makes the decoders raise has no common base
        raise UserError("it is no picture that can be read; save it as JPEG or PNG") from error


def _question(row: Row) -> Question:
    assert isinstance(row, _Line)
    if row.find("question") is None:
        raise row.error(f"no question (columns: {', '.join(map(str, row.cells))}); write one in column question")
    options = _options(row)
    kind = _kind(row, options)
    groups = {"cluster": row.cluster} | ({"group": group} if (group := row.find("group")) else {})
    if kind in ("boxes", "points"):
        groups["picture"] = f"{row.size[0]}x{row.size[1]}"
        gold = _box(row) if kind == "boxes" else _region(row)
    else:
        gold = _gold(row, kind, options)
    own = row.find("id") or str(row.number)
    return Question(own, OWN, kind, row.text("question"), gold, options, row.images, groups)  # pyright: ignore[reportArgumentType]


def _options(row: _Line) -> tuple[str, ...]:
    """The options of a row, in one column or in columns ``A``, ``B``, ...; none where it has none."""
    column = "options" if row.find("options") else "A"
    if row.find(column) is None:
        return ()
    try:
        options = tuple(row.strings(column)) if column == "options" else row.lettered()
    except UserError:
        options = ()
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise row.wrong(column, 'write two or more options as a list ["left", "right"], or in columns A, B, ...')
    return options


def _kind(row: _Line, options: Sequence[str]) -> str:
    """What the row says, or else what its options and its answer look like."""
    if told := row.find("kind"):
        one_of(told, KINDS, str(row.error("kind")), "kind")
        if (told == "options") != bool(options):
            raise row.wrong("kind", "give a row options if, and only if, it is of kind options")
        return KINDS[told]
    if options or row.find("mask"):
        return "mcq" if options else "points"
    if row.find("answer") is None:
        raise row.error(f"no answer (columns: {', '.join(map(str, row.cells))}); write the right one in column answer")
    text = row.text("answer").strip()
    if text.lower() in ("yes", "no", "true", "false"):
        return "yes_no"
    if text.startswith("["):
        return "boxes" if len(_numbers(row)) == 4 and not re.match(r"\[\s*[\[(]", text) else "points"
    return "count" if re.fullmatch(r"\d{1,9}", text) else "number" if re.fullmatch(_NUMBER, text) else "text"


def _gold(row: _Line, kind: str, options: Sequence[str]) -> str:
    said = (row.find("answer") or "").strip()
    if kind == "mcq":
        letters = ascii_uppercase[: len(options)]
        letter = re.fullmatch(r"\(?([A-Za-z])[).]?", said)
        found = {letter[1].upper()} & {*letters} if letter else set()
        found |= {own for own, text in zip(letters, options, strict=True) if text.strip().lower() == said.lower()}
        if len(found) != 1:
            raise row.wrong("answer", f"write the letter ({letters[0]} to {letters[-1]}) or the text of one option")
        return found.pop()
    asked, pattern = {
        "yes_no": ("yes or no", "(?i)yes|no|true|false"),
        "count": ("a whole number from 0", r"\d{1,9}"),
        "number": ("a number", _NUMBER),
    }.get(kind, ("the right answer", r"(?s).+"))
    if not re.fullmatch(pattern, said):
        raise row.wrong("answer", f"write {asked}, or another kind")
    return row.yes_no("answer") if kind == "yes_no" else said


def _numbers(row: _Line) -> list[float]:
    return [float(number) for number in re.findall(_NUMBER, row.find("answer") or "")]


def _box(row: _Line) -> str:
    edges, (width, height) = _numbers(row), row.size
    if not (len(edges) == 4 and 0 <= edges[0] < edges[2] <= width and 0 <= edges[1] < edges[3] <= height):
        raise row.wrong("answer", f"write [x0, y0, x1, y1] in pixels of the picture, which is {width} x {height}")
    return " ".join(map(str, edges))


def _region(row: _Line) -> str:
    """Of a mask beside the row, or of the corners in the answer, of which two are a rectangle's."""
    from PIL import Image, ImageDraw

    width, height = row.size
    if name := row.find("mask"):
        region = region_text(row.beside("mask", name), str(row.error(name)))
        if region.split()[:2] != [str(width), str(height)]:
            raise row.wrong("mask", f"it must be as large as the picture, {width} x {height} pixels")
        return region
    edges = _numbers(row)
    corners = list(zip(edges[::2], edges[1::2], strict=False))
    if len(edges) % 2 or len(corners) < 2 or not all(0 <= x <= width and 0 <= y <= height for x, y in corners):
        where = f"in pixels of the picture, which is {width} x {height}"
        raise row.wrong("answer", f"write the corners of where points may lie, [[x, y], ...], {where}; or name a mask")
    if len(corners) == 2:
        return f"{width} {height} {' '.join(str(round(edge)) for edge in edges)}"
    mask, file = Image.new("L", row.size), io.BytesIO()
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    mask.save(file, "PNG")
    return region_text(file.getvalue(), str(row.source))
