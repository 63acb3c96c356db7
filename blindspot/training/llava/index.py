"""Rows of a LLaVA JSON file by number, from an Arrow file that is written once.

The Arrow file (IPC, uncompressed, to be mapped into memory) has one record batch every `BATCH` rows. Its columns:

- ``id``: as text, or null.
- ``images``: the paths that the row names, none for a row of text.
- ``listed``: whether they stood in a list, which tells LLaVA's rows from those of several pictures.
- ``conversations``: turns with ``from`` and ``value``, as they stand in the file.
- ``words``: of all turns, as LLaVA counts them to group rows by length.
- ``problem``: why the row cannot be trained on, or null. Its turns are then left out.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from blindspot.errors import UserError
from blindspot.files import parse_json, sha256_file, write_via
from blindspot.model.conversation import Message, RowError, from_llava
from blindspot.training.llava.stream import json_values

ROWS = "rows.arrow"
BATCH = 1000
FORMAT = "1"
"""Changes with the columns and with what `from_llava` refuses, so that older files are written anew."""

NO_OBJECT = "it is not an object with conversations"
TURN = pa.struct([("from", pa.large_string()), ("value", pa.large_string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(pa.string())),
        ("listed", pa.bool_()),
        ("conversations", pa.list_(TURN)),
        ("words", pa.int32()),
        ("problem", pa.string()),
    ]
)
_CHUNK = 1 << 20

Report = Callable[[int, int], None]


class Source(NamedTuple):
    """The file that an index was made from; ``sha256`` of its bytes."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


def index_rows(json_path: Path, out_folder: Path, report: Report = lambda done, total: None) -> None:
    """Write the rows of a LLaVA JSON file (an array, or one row a line) to ``out_folder`` for `LlavaRows`.

    An index that is there already is kept if it is of the same file: path, size and time of change are the same, or
    the bytes are. It is replaced only when the new one is whole. Memory does not grow with the number of rows.

    Args:
        json_path: the file. Of each row ``id``, ``image`` and ``conversations`` are read, other fields are ignored.
        out_folder: where the index goes.
        report: told how many bytes of how many are read.

    Raises:
        UserError: if the file cannot be read, is no JSON (the row is named) or has no rows, or ``out_folder`` cannot
            be written. A row that is JSON but cannot be trained on is no error: it is indexed with its ``problem``.
    """
    before = _stat(json_path)
    held = _source_of(out_folder / ROWS)
    if held and (held.path, held.size, held.mtime_ns) == (str(json_path.resolve()), *before):
        return
    try:
        digest = sha256_file(json_path)
    except OSError as error:
        raise _unreadable(json_path, error) from error
    if held and held.sha256 == digest:
        return
    source = Source(str(json_path.resolve()), *before, digest)
    write_via(out_folder / ROWS, lambda temporary: _write(json_path, source, temporary, report))


def source_of(schema: pa.Schema) -> Source | None:
    """What an index with this schema was made from; None if it is none, or of another version."""
    metadata = schema.metadata or {}
    if metadata.get(b"format") != FORMAT.encode():
        return None
    return Source(**parse_json(metadata[b"source"]))


def _source_of(path: Path) -> Source | None:
    if not path.is_file():
        return None
    try:
        with pa.memory_map(str(path)) as file:
            return source_of(pa.ipc.open_file(file).schema)
    except (pa.ArrowInvalid, OSError):
        return None  # damaged: it is written anew


def _write(json_path: Path, source: Source, out: Path, report: Report) -> None:
    schema = SCHEMA.with_metadata({"format": FORMAT, "source": json.dumps(source._asdict())})
    rows = map(_columns, json_values(_chunks(json_path, source.size, report), str(json_path)))
    count = 0
    with pa.OSFile(str(out), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        while part := list(islice(rows, BATCH)):
            columns = zip(zip(*part, strict=True), SCHEMA.types, strict=True)
            arrays = [pa.array(values, kind) for values, kind in columns]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            count += len(part)
    if not count:
        raise UserError(f"{json_path} has no rows")
    if _stat(json_path) != (source.size, source.mtime_ns):
        raise UserError(f"{json_path} was changed while it was read; try again when it is complete")


def _columns(value: Any) -> tuple[Any, ...]:
    """A row of the file as a row of the index."""
    row = value if isinstance(value, dict) else {}
    named = row.get("image") or []
    images = [named] if isinstance(named, str) else named
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        images = []
    identity = row.get("id")
    if not isinstance(identity, str | None):
        identity = json.dumps(identity)
    problem = _problem(value, bool(named) and not images)
    turns = [] if problem else row["conversations"]
    text = " ".join(turn["value"] for turn in turns)
    if not _is_unicode(text, identity or "", *images):
        problem, turns, text = "its text has half a character (a lone surrogate, such as \\ud83d)", [], ""
        identity, *images = (name and name.encode("utf-8", "replace").decode() for name in (identity, *images))
    return identity, images, isinstance(named, list) and bool(images), turns, len(text.split()), problem


def _problem(row: Any, bad_image: bool) -> str | None:
    """Why a row cannot be trained on."""
    if not isinstance(row, dict):
        return NO_OBJECT
    if "conversations" not in row:
        return "it has no conversations"
    if bad_image:
        return "its image is neither a path nor a list of paths"
    try:
        from_llava(row)
    except RowError as error:
        return str(error)
    return None


def _is_unicode(*texts: str) -> bool:
    """Whether UTF-8 can hold them: JSON may escape half of a surrogate pair."""
    try:
        return all(text.isascii() or text.encode() for text in texts)
    except UnicodeEncodeError:
        return False


def _chunks(path: Path, size: int, report: Report) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
                report(min(file.tell(), size), size)
    except OSError as error:
        raise _unreadable(path, error) from error


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_size, found.st_mtime_ns


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot read {path}: {error.strerror or error}")


@dataclass(frozen=True)
class Row:
    """A row to train on.

    Attributes:
        id: as in the file; ``row 17`` if it has none.
        messages: as `from_llava` makes them, with as many places of pictures as there are ``images``.
        images: paths below the image folder, none for a row of text.
    """

    id: str
    messages: list[Message]
    images: tuple[str, ...]


class Lengths(NamedTuple):
    """For each row the words of its turns as LLaVA counts them, and its pictures."""

    words_r: np.ndarray
    pictures_r: np.ndarray


class LlavaRows:
    """What `index_rows` wrote, mapped into memory: a row costs the same in a set of any size.

    Can be pickled: the copy maps the file again.

    Args:
        folder: that of the index.
        images_root: the folder that the rows' image paths are relative to, for those who open them.

    Attributes:
        source: the JSON file that was indexed.
    """

    def __init__(self, folder: Path, images_root: Path | None = None) -> None:
        self.folder, self.images_root = folder, images_root
        path = folder / ROWS
        if not path.is_file():
            raise UserError(f"no indexed rows in {folder}; index the JSON file first")
        try:
            self._file = pa.ipc.open_file(pa.memory_map(str(path)))
            source = source_of(self._file.schema)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} is damaged ({error}); delete it and index the JSON file again") from error
        if source is None:
            raise UserError(f"{path} is of another version; index the JSON file again")
        self.source = source
        batches = self._file.num_record_batches
        self._count = (batches - 1) * BATCH + self._file.get_batch(batches - 1).num_rows

    def __reduce__(self) -> tuple[Any, ...]:
        return LlavaRows, (self.folder, self.images_root)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Row:
        """Row ``number``, counted from 0.

        Raises:
            RowError: if it cannot be trained on. The message is the reason.
            IndexError: if there is no such row.
        """
        number = index(number)
        if not 0 <= number < self._count:
            raise IndexError(f"row {number} of {self._count}")
        batch = self._file.get_batch(number // BATCH)
        values = {name: batch.column(name)[number % BATCH].as_py() for name in ("id", "images", "listed", "problem")}
        if values["problem"]:
            raise RowError(values["problem"])
        images = values["images"]
        turns = batch.column("conversations")[number % BATCH].as_py()
        named = images if values["listed"] else images[0] if images else None
        name = f"row {number}" if values["id"] is None else values["id"]
        return Row(name, from_llava({"image": named, "conversations": turns}), tuple(images))

    def lengths(self) -> Lengths:
        """Words and pictures of every row, without reading the texts."""
        words = [batch.column("words").to_numpy() for batch in self._batches()]
        pictures = [batch.column("images").value_lengths().to_numpy() for batch in self._batches()]
        return Lengths(np.concatenate(words), np.concatenate(pictures))

    def column(self, name: str) -> Iterator[Any]:
        """A column of the index (see `index`) from the first row to the last."""
        for batch in self._batches():
            yield from batch.column(name).to_pylist()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        return (self._file.get_batch(number) for number in range(self._file.num_record_batches))
