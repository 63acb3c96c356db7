"""What every form is read into: rows of cells, each with its pictures."""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Protocol

from blindspot import files
from blindspot.errors import UserError


class Images(Protocol):
    """The pictures of a collection, as they were published: nothing is re-encoded."""

    def read(self, key: int) -> bytes:
        """The bytes of the image file.

        Raises:
            UserError: if it is missing or cannot be read.
        """
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a published file.

    Attributes:
        source: its file or folder.
        number: of the row in its file, from 1.
        cells: by column; text in files of text, else what the file's type gives.
        images: keys of its pictures, in order.
    """

    source: Path
    number: int
    cells: Mapping[str, Any]
    images: tuple[int, ...] = ()

    @property
    def place(self) -> str:
        """File and number, for messages."""
        return f"{self.source}: row {self.number}"

    def find(self, *columns: str) -> str | None:
        """The first of the columns that is there and not empty, as it is written; None if there is none."""
        for column in columns:
            value = self.cells.get(column)
            if value is not None and str(value).strip():
                return str(value)
        return None

    def text(self, *columns: str) -> str:
        """Like `find`, but it must be there.

        Raises:
            UserError: naming the row, the column, and the columns that are there.
        """
        found = self.find(*columns)
        if found is None:
            names = " or ".join(columns)
            there = ", ".join(map(str, self.cells))
            raise self.error(f"nothing in column {names} (columns: {there}); get the published file again")
        return found

    def whole(self, *columns: str) -> int:
        """A whole number from 0; ``3.0`` is one.

        Raises:
            UserError: if it is not.
        """
        text = self.text(*columns).strip()
        match = re.fullmatch(r"([0-9]{1,18})(\.0+)?", text)
        if match is None:
            raise self.error(f"{columns[0]} is {text[:40]!r}, not a whole number")
        return int(match[1])

    def lettered(self) -> tuple[str, ...]:
        """The options in columns ``A``, ``B``, ... up to the first empty one.

        Raises:
            UserError: if there are fewer than two, or an option follows an empty one.
        """
        options = [self.find(letter) for letter in ascii_uppercase]
        count = options.index(None) if None in options else len(options)
        if count < 2 or any(options[count:]):
            there = ", ".join(letter for letter, option in zip(ascii_uppercase, options, strict=True) if option)
            raise self.error(f"options {there or 'none'}: expected are A, B and so on without a gap")
        return tuple(option for option in options[:count] if option is not None)

    def letter(self, column: str) -> str:
        """A gold letter, written ``B``, ``(B)``, ``(b)`` or ``B.``."""
        text = self.text(column).strip()
        match = re.fullmatch(r"\(?([A-Za-z])[).]?", text)
        if match is None:
            raise self.error(f"the gold answer {text[:40]!r} is not the letter of an option")
        return match[1].upper()

    def yes_no(self, column: str) -> str:
        """``Yes`` or ``No``, however it is written."""
        text = self.text(column).strip().lower()
        known = {"yes": "Yes", "no": "No", "1": "Yes", "0": "No", "true": "Yes", "false": "No"}
        if text not in known:
            raise self.error(f"the gold answer {text[:40]!r} is neither yes nor no")
        return known[text]

    def strings(self, column: str) -> list[str]:
        """A list of texts: a list, or one written as Python or JSON.

        Raises:
            UserError: if it is not one.
        """
        value: Any = self.cells.get(column)
        if isinstance(value, str):
            try:
                value = ast.literal_eval(value)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
                raise self.error(f"{column} is not a list ({value[:40]!r})") from error
        if not isinstance(value, list | tuple):
            raise self.error(f"{column} is not a list")
        return [str(item) for item in value]

    @property
    def asked(self) -> str:
        """The question of a TSV, after its hint where it has one."""
        hint, question = self.find("hint"), self.text("question")
        return question if hint is None else f"{hint}\n{question}"

    @property
    def cluster(self) -> str:
        """The label that questions about the same pictures share."""
        return "-".join(map(str, self.images))

    def error(self, what: str) -> UserError:
        """The message that names this row."""
        return UserError(f"{self.place}: {what}")


@dataclass(frozen=True, slots=True)
class Table:
    """A published form of a benchmark, read.

    Attributes:
        source: the file or folder.
        rows: in the order of the file.
        images: what ``Row.images`` index; pictures that are written alike have one key.
        digest: SHA-256 of all cells and pictures.
    """

    source: Path
    rows: Sequence[Row]
    images: Images
    digest: str

    def with_rows(self, rows: Sequence[Row]) -> "Table":
        """Rows that took something from another file, with these pictures; the digest is of both."""
        return replace(self, rows=rows, digest=digest(rows, [self.digest]))


class Pictures:
    """The pictures of a published form: those written alike share a key, so that a model sees one for all questions.

    Args:
        fetch: the bytes of the image file at a place; raises UserError if it cannot be read.

    Attributes:
        places: where the picture of each key is, as ``fetch`` understands it.
        digests: hex SHA-256 of its bytes, in a TSV of its base64 text.
    """

    def __init__(self, fetch: Callable[[Any], bytes]) -> None:
        self._fetch = fetch
        self.places: list[Any] = []
        self.digests: list[str] = []
        self._keys: dict[str, int] = {}

    def key(self, digest: str, place: Any) -> int:
        """The key of the picture with this SHA-256, new if that is."""
        found = self._keys.setdefault(digest, len(self.places))
        if found == len(self.places):
            self.places.append(place)
            self.digests.append(digest)
        return found

    def read(self, key: int) -> bytes:
        """As `Images.read`."""
        return self._fetch(self.places[key])

    def __len__(self) -> int:
        return len(self.places)


def table(source: Path, rows: Sequence[Row], pictures: Pictures) -> Table:
    """A form that has been read."""
    return Table(source, rows, pictures, digest(rows, pictures.digests))


def digest(rows: Sequence[Row], pictures: Sequence[str]) -> str:
    """SHA-256 of all cells, of which row has which picture, and of the pictures' bytes."""
    return files.fingerprint({"rows": [[_plain(row.cells), row.images] for row in rows], "pictures": list(pictures)})


def slug(label: str) -> str:
    """A label as metrics name it: lower case, words joined by one underscore."""
    return "_".join(re.findall(r"\w+", label.lower().replace("_", " ")))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, int | str | None) else str(value)
