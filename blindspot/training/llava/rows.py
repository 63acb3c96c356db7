"""Rows of a LLaVA JSON file by number, from an Arrow file that is written once.

The Arrow file (IPC, uncompressed, to be mapped into memory) has one record batch every `BATCH` rows. Its columns:

- ``id``: as text, or null.
- ``images``: the paths that the row names, none for a row of text.
- ``listed``: whether they stood in a list, which tells LLaVA's rows from those of several pictures.
- ``conversations``: turns with ``from`` and ``value``, as they stand in the file.
- ``words``: of all turns, as LLaVA counts them to group rows by length.
- ``problem``: why the row cannot be trained on, or null. Its turns are then left out.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from blindspot.errors import UserError, explained
from blindspot.files import parse_json, sha256_file, write_via
from blindspot.model.conversation import Message, RowError, from_llava

ROWS = "rows.arrow"
BATCH = 1000
FORMAT = "1"
"""Changes with the columns and with what `from_llava` refuses, so that older files are written anew."""
MOST_CHARACTERS = 1 << 26
"""The longest row that is read; a file whose brackets never close would fill the memory otherwise."""

NO_OBJECT = "it is not an object with conversations"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(pa.string())),
        ("listed", pa.bool_()),
        ("conversations", pa.list_(pa.struct([("from", pa.large_string()), ("value", pa.large_string())]))),
        ("words", pa.int32()),
        ("problem", pa.string()),
    ]
)
_CHUNK = 1 << 20


class Indexed(NamedTuple):
    """The file that an index was made from; ``sha256`` of its bytes."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Conversation:
    """A row to train on."""

    id: str  # as in the file; "row 17" if it has none
    messages: list[Message]  # as `from_llava` makes them, with as many places of pictures as there are images
    images: tuple[str, ...]  # paths below the image folder, none for a row of text


class LlavaRows:
    """What `index_rows` wrote to ``folder``, mapped into memory: a row costs the same in a set of any size.

    Can be pickled: the copy maps the file again. ``images_root`` is the folder that the rows' image paths are relative
    to, ``source`` the JSON file that was indexed, ``table`` the whole index.
    """

    def __init__(self, folder: Path, images_root: Path = Path()) -> None:
        self.folder, self.images_root = folder, images_root
        path = folder / ROWS
        if not path.is_file():
            raise UserError(f"no indexed rows in {folder}; index the JSON file first")
        try:
            self.table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            source = _source(self.table.schema)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} is damaged ({error}); delete it and index the JSON file again") from error
        if source is None:
            raise UserError(f"{path} is of another version; index the JSON file again")
        self.source = source

    def __reduce__(self) -> tuple[Any, ...]:
        return LlavaRows, (self.folder, self.images_root)

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, number: int) -> Conversation:
        """Row ``number``, counted from 0; a `RowError` says why it cannot be trained on."""
        number = index(number)
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        [row] = self.table.slice(number, 1).to_pylist()
        if row["problem"]:
            raise RowError(row["problem"])
        images = row["images"]
        named = images if row["listed"] else images[0] if images else None
        name = f"row {number}" if row["id"] is None else row["id"]
        return Conversation(name, from_llava({"image": named, "conversations": row["conversations"]}), tuple(images))

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """For each row the words of its turns as LLaVA counts them, and its pictures; texts are not read."""
        pictures = [chunk.value_lengths().to_numpy() for chunk in self.table["images"].chunks]
        return self.table["words"].to_numpy(), np.concatenate(pictures)

    def column(self, name: str) -> Iterator[Any]:
        """A column of the index from the first row to the last, of which a part at a time is in memory."""
        for chunk in self.table[name].chunks:
            yield from chunk.to_pylist()


def index_rows(json_path: Path, folder: Path, report: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Write the rows of a LLaVA JSON file (an array, or one row a line) to ``folder`` for `LlavaRows`.

    An index that is there already is kept if it is of the same file: path, size and time of change are the same, or
    the bytes are. It is replaced only when the new one is whole. Memory does not grow with the number of rows. Of each
    row ``id``, ``image`` and ``conversations`` are read; one that is JSON but cannot be trained on is no error: it is
    indexed with its ``problem``. ``report`` is told how many bytes of how many are read.
    """
    held = None
    if (folder / ROWS).is_file():
        try:
            with pa.memory_map(str(folder / ROWS)) as file:
                held = _source(pa.ipc.open_file(file).schema)
        except (pa.ArrowInvalid, OSError):
            pass  # damaged: it is written anew
    with explained(f"cannot read {json_path}"):
        stat = json_path.stat()
        now = (str(json_path.resolve()), stat.st_size, stat.st_mtime_ns)
        if held and held[:3] == now:
            return
        source = Indexed(*now, sha256_file(json_path))
    if held and held.sha256 == source.sha256:
        return

    def chunks() -> Iterator[bytes]:
        with explained(f"cannot read {json_path}"), json_path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
                report(min(file.tell(), source.size), source.size)

    def write(path: Path) -> None:
        schema = SCHEMA.with_metadata({"format": FORMAT, "source": json.dumps(source._asdict())})
        rows = map(_columns, json_values(chunks(), str(json_path)))
        count = 0
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            while part := list(islice(rows, BATCH)):
                columns = zip(zip(*part, strict=True), SCHEMA.types, strict=True)
                arrays = [pa.array(values, kind) for values, kind in columns]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
                count += len(part)
        if not count:
            raise UserError(f"{json_path} has no rows")
        with explained(f"cannot read {json_path}"):
            stat = json_path.stat()
        if (stat.st_size, stat.st_mtime_ns) != (source.size, source.mtime_ns):
            raise UserError(f"{json_path} was changed while it was read; try again when it is complete")

    write_via(folder / ROWS, write)


def _source(schema: pa.Schema) -> Indexed | None:
    """What an index with this schema was made from; None if it is none, or of another version."""
    metadata = schema.metadata or {}
    return Indexed(**parse_json(metadata[b"source"])) if metadata.get(b"format") == FORMAT.encode() else None


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
    problem = None
    if not isinstance(value, dict):
        problem = NO_OBJECT
    elif "conversations" not in row:
        problem = "it has no conversations"
    elif named and not images:
        problem = "its image is neither a path nor a list of paths"
    else:
        try:
            from_llava(row)
        except RowError as error:
            problem = str(error)
    turns = [] if problem else row["conversations"]
    text = " ".join(turn["value"] for turn in turns)
    try:
        "".join((text, identity or "", *images)).encode()
    except UnicodeEncodeError:  # JSON may escape half of a surrogate pair, which UTF-8 cannot hold
        problem, turns, text = "its text has half a character (a lone surrogate, such as \\ud83d)", [], ""
        identity, *images = (name and name.encode("utf-8", "replace").decode() for name in (identity, *images))
    return identity, images, isinstance(named, list) and bool(images), turns, len(text.split()), problem


def json_values(chunks: Iterable[bytes], name: str) -> Iterator[Any]:
    """The elements of an array at the top of a JSON text, or all its values if there is no array (JSON Lines).

    A window slides over the text, and the standard library's decoder reads values out of it: memory is that of the
    longest element and of a few chunks, which are the text as UTF-8, cut anywhere. pyarrow reads JSON Lines only, and
    datasets loads an array whole. What is wrong is a `UserError` that names the row, counted from 0, of the file
    ``name``; all rows before it have been yielded.
    """
    window = _Window(chunks)
    row, array = 0, False
    try:
        array = window.peek() == "["
        window.at += array
        while (following := window.peek()) != ("]" if array else ""):
            if array and row:
                if following != ",":
                    raise json.JSONDecodeError("a comma or ] should follow the row before", window.text, window.at)
                window.at += 1
                window.peek()
            yield window.value()
            row += 1
        window.at += array
        if window.peek():
            raise json.JSONDecodeError("something follows the array", window.text, window.at)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        decoded = isinstance(error, json.JSONDecodeError)
        if window.ended and (not decoded or _is_unterminated(error) or _CUT.fullmatch(window.text, error.pos)):
            raise UserError(f"{name} breaks off in row {row} (counted from 0); copy or download it again") from error
        if not decoded:
            raise UserError(f"{name} is not UTF-8 text in or behind row {row} (counted from 0)") from error
        raise UserError(f"{name} is not JSON in row {row} (counted from 0): {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise UserError(f"{name} cannot be read in row {row} (counted from 0): {error}") from error
    if not array and not row:
        raise UserError(f"{name} is empty; it should hold an array of rows, or one row a line")


_raw_decode = json.JSONDecoder().raw_decode
_VISIBLE = re.compile(r"[^ \t\r\n]")
_CUT = re.compile(r"[\w\\.+-]*\s*")
_LONGEST_TOKEN = 16
"""More than the characters of an escaped surrogate pair or of ``-Infinity``."""


class _Window:
    """The part of a text that is being read: grows at its end, forgets what lies before ``at``."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.text, self.at, self.ended = "", 0, False
        self._chunks = iter(chunks)
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode

    def peek(self) -> str:
        """The next character that is no blank, and stand there; empty at the end of the text."""
        while True:
            visible = _VISIBLE.search(self.text, self.at)
            self.at = visible.start() if visible else len(self.text)
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._grow()

    def value(self) -> Any:
        """The value that begins here; stands behind it then."""
        while True:
            try:
                value, end = _raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                certain = not _is_unterminated(error) and error.pos < len(self.text) - _LONGEST_TOKEN
                if self.ended or certain:
                    raise
            else:
                if end + len("e+") < len(self.text) or self.ended:  # else a number may go on
                    self.at = end
                    return value
            if len(self.text) - self.at > MOST_CHARACTERS:
                raise ValueError(f"it does not end within {MOST_CHARACTERS:,} characters")
            self._grow()

    def _grow(self) -> None:
        """At least double what is left, so that a value of many chunks is not tried once a chunk."""
        pieces, wanted = [self.text[self.at :]], max(1, len(self.text) - self.at)
        while wanted > 0 and not self.ended:
            chunk = next(self._chunks, None)
            self.ended = chunk is None
            pieces.append(self._decode(chunk or b"", self.ended))
            wanted -= len(pieces[-1])
        self.text, self.at = "".join(pieces), 0


def _is_unterminated(error: Any) -> bool:
    """Whether a string has no end; its place is then that of the string's beginning."""
    return error.msg.startswith("Unterminated string")
