"""VLMEvalKit's TSV: one row a question, pictures as base64 text, in files of up to several gigabytes.

The file is mapped and read once. Of a picture only its place in the file is kept; the bytes are decoded again when they
are asked for. (`pyarrow.csv` reads the same texts, but says of no cell where it lies, so it would hold the pictures.)
"""

import base64
import hashlib
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

from blindspot.benchmarks.base import Source
from blindspot.benchmarks.sources.table import Pictures, Row, Table, table
from blindspot.errors import UserError
from blindspot.question import Question

LONGEST_REFERENCE = 64
"""VLMEvalKit's limit: a shorter image cell is the index of the row that holds the picture."""

_ALPHABET = (string.ascii_letters + string.digits + "+/").encode()
_CELL = re.compile(rb'(?:"((?:[^"]++|"")*+)"([^\t\n]*+)|(?!")([^\t\n]*+))(\t|\n|\Z)')
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]{2,}")


class Cell(NamedTuple):
    """A cell as it lies in the file: its first byte's offset, its bytes, and whether quotes stood around it."""

    offset: int
    raw: bytes
    quoted: bool

    def text(self) -> str:
        raw = self.raw.replace(b'""', b'"') if self.quoted else self.raw
        return raw.decode("utf-8")


def _picture(path: Path, place: tuple[int, int]) -> bytes:
    """The bytes of the image file that base64 text stands for, which lies at an offset and has a length.

    Raises:
        UserError: if the TSV cannot be read, or has changed since its rows were.
    """
    offset, length = place
    try:
        with path.open("rb") as handle:
            handle.seek(offset)
            return base64.b64decode(b"".join(handle.read(length).split()), validate=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # binascii.Error is one
        raise UserError(f"{path} changed while it was in use; start again") from error


def source(
    name: str,
    md5: str,
    counts: Mapping[str, int],
    question: Callable[[Row], Question],
    *needed: str,
    keep: Callable[[Row], bool] = lambda row: True,
    notes: tuple[str, ...] = (),
) -> Source:
    """A file where VLMEvalKit's developers keep theirs.

    Args:
        name, md5, counts, notes: of the file.
        question: from a row to a question.
        needed: columns of the benchmark's own; see `read`.
        keep: whether a row belongs to the benchmark.
    """

    def kept(paths: Sequence[Path]) -> Table:
        whole = read(paths[0], *needed)
        return replace(whole, rows=list(filter(keep, whole.rows)))

    url = f"https://opencompass.openxlab.space/utils/VLMEval/{name}"
    return Source("tsv", kept, question, None, (url,), {name: md5}, counts, (name,), notes=notes)


def read(path: Path, *needed: str) -> Table:
    """Read a TSV.

    Args:
        path: the file.
        needed: columns that must be there, besides ``index``, ``question``, ``answer`` and ``image``.

    Raises:
        UserError: if the file cannot be read, a column is missing, or a row or its base64 text is malformed; names
            the row, counted from 1 without the header.
    """
    try:
        with path.open("rb") as handle:
            content = mmap(handle.fileno(), 0, access=ACCESS_READ) if path.stat().st_size else b""
            return _read(path, cells(content), ["index", "question", "answer", *needed, "image"])
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}; get the file again") from error


def cells(content: bytes | mmap) -> Iterator[list[Cell]]:
    """The cells of each row of a tab-separated file, as `csv` and pandas read it.

    A cell that begins with a quote ends at the next single one; tabs, line breaks and doubled quotes before it belong
    to the cell. An empty line is no row.

    Raises:
        ValueError: if the file ends inside quotes.
    """
    row: list[Cell] = []
    end = 0
    for match in _CELL.finditer(content):
        if match.start() != end:
            raise ValueError("the file ends inside a quoted cell")
        end = match.end()
        quoted, behind, plain, separator = match.groups()
        rest = behind if plain is None else plain  # text after a closing quote: csv takes it as part of the cell
        if separator != b"\t":
            rest = rest.rstrip(b"\r")
        row.append(Cell(match.start(3), rest, False) if quoted is None else Cell(match.start(1), quoted + rest, True))
        if separator != b"\t":
            if len(row) > 1 or row[0].raw or row[0].quoted:
                yield row
            row = []


def _read(path: Path, rows: Iterator[list[Cell]], needed: list[str]) -> Table:
    try:
        header = [cell.text().removeprefix("\ufeff") for cell in next(rows, [])]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: its header is not UTF-8 text; get the file again") from error
    if absent := [name for name in needed if name not in header]:
        raise UserError(
            f"{path}: no column {', '.join(absent)} (columns: {', '.join(header) or 'none'}); "
            "expected is VLMEvalKit's TSV of this benchmark"
        )
    pictures = Pictures(partial(_picture, path))
    texts: list[dict[str, str]] = []
    images: list[tuple[int, ...] | str] = []
    for number, row in enumerate(rows, start=1):
        place = f"{path}: row {number}"
        if len(row) != len(header):
            raise UserError(f"{place}: {len(row)} cells, but the header has {len(header)}; get the file again")
        by_name = dict(zip(header, row, strict=True))
        cell = by_name.pop("image")
        try:
            texts.append({name: held.text() for name, held in by_name.items()})
            images.append(_images(cell, pictures))
        except UnicodeDecodeError as error:
            raise UserError(f"{place}: not UTF-8 text; get the file again") from error
        except ValueError as error:
            raise UserError(f"{place}: its image is not base64 text ({error}); get the file again") from error
    keys = _followed(path, [text["index"] for text in texts], images)
    found = [Row(path, number, text, key) for number, (text, key) in enumerate(zip(texts, keys, strict=True), start=1)]
    return table(path, found, pictures)


def _images(cell: Cell, pictures: Pictures) -> tuple[int, ...] | str:
    """Keys of the pictures of a cell, or the index of the row that has them."""
    if len(cell.raw) <= LONGEST_REFERENCE:
        return cell.text().strip()
    listed = cell.raw.lstrip().startswith(b"[")
    places = [match.span() for match in _BASE64.finditer(cell.raw)] if listed else [(0, len(cell.raw))]
    keys: list[int] = []
    for begin, end in places:
        text = cell.raw[begin:end]
        _refuse_other_than_base64(text)
        keys.append(pictures.key(hashlib.sha256(text).hexdigest(), (cell.offset + begin, end - begin)))
    return tuple(keys)


def _refuse_other_than_base64(text: bytes) -> None:
    """Raise ValueError; several times faster than decoding, which gigabytes are spared until they are asked for."""
    rest = text.translate(None, _ALPHABET)
    padding = b"".join(rest.split())
    if padding.strip(b"="):
        raise ValueError(f"it has the byte {padding.strip(b'=')[:1]!r}")
    if (len(text) - len(rest) + len(padding)) % 4 or not text.rstrip().endswith(padding) or len(padding) > 2:
        raise ValueError("it is cut off")


def _followed(path: Path, indices: list[str], images: list[tuple[int, ...] | str]) -> list[tuple[int, ...]]:
    """The keys of every row, references followed."""
    own = {index: keys for index, keys in zip(indices, images, strict=True) if isinstance(keys, tuple)}
    followed: list[tuple[int, ...]] = []
    lost: list[str] = []
    for number, keys in enumerate(images, start=1):
        if isinstance(keys, str) and keys not in own:
            lost.append(f"row {number} refers to index {keys!r}" if keys else f"row {number} is empty there")
            continue
        followed.append(own[keys] if isinstance(keys, str) else keys)
    if lost:
        raise UserError(
            f"{path}: {len(lost)} of {len(images)} rows have no picture: {lost[0]}, "
            "and no row of that index holds one; get the file again"
        )
    return followed
