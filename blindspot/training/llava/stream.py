"""The values of a JSON array, or of JSON Lines, one after the other, from a file of any size.

A window slides over the text, and the standard library's decoder reads values out of it. pyarrow reads JSON Lines only,
and datasets loads an array whole.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from blindspot.errors import UserError

MOST_CHARACTERS = 1 << 26
"""The longest row that is read; a file whose brackets never close would fill the memory otherwise."""

_raw_decode = json.JSONDecoder().raw_decode
_VISIBLE = re.compile(r"[^ \t\r\n]")
_CUT = re.compile(r"[\w\\.+-]*\s*")
_LONGEST_TOKEN = 16
"""More than the characters of an escaped surrogate pair or of ``-Infinity``."""


def json_values(chunks: Iterable[bytes], name: str) -> Iterator[Any]:
    """The elements of an array at the top of a JSON text, or all its values if there is no array (JSON Lines).

    Memory is that of the longest element and of a few chunks, whatever the length of the text.

    Args:
        chunks: the text as UTF-8, cut anywhere.
        name: of the file, for errors.

    Raises:
        UserError: if the text is empty, not UTF-8, not JSON or cut off. The row is named, counted from 0; all rows
            before it have been yielded.
    """
    window = _Window(chunks)
    row = 0
    try:
        array = window.peek() == "["
        window.at += array
        while not _finished(window, array, row):
            yield window.value()
            row += 1
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        if window.is_cut(error):
            raise UserError(f"{name} breaks off in row {row} (counted from 0); copy or download it again") from error
        if isinstance(error, UnicodeDecodeError):
            raise UserError(f"{name} is not UTF-8 text in or behind row {row} (counted from 0)") from error
        raise UserError(f"{name} is not JSON in row {row} (counted from 0): {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise UserError(f"{name} cannot be read in row {row} (counted from 0): {error}") from error
    if not array and not row:
        raise UserError(f"{name} is empty; it should hold an array of rows, or one row a line")


def _finished(window: "_Window", array: bool, row: int) -> bool:
    """Whether all rows are read; stands at the next row otherwise."""
    following = window.peek()
    if not array:
        return not following
    if following == "]":
        window.at += 1
        if window.peek():
            raise window.error("something follows the array")
        return True
    if row:
        if following != ",":
            raise window.error("a comma or ] should follow the row before")
        window.at += 1
        window.peek()
    return False


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

    def is_cut(self, error: json.JSONDecodeError | UnicodeDecodeError) -> bool:
        """Whether the error is that the text does not go on."""
        if not self.ended or isinstance(error, UnicodeDecodeError):
            return self.ended
        return _is_unterminated(error) or _CUT.fullmatch(self.text, error.pos) is not None

    def error(self, message: str) -> json.JSONDecodeError:
        """An error at the present place."""
        return json.JSONDecodeError(message, self.text, self.at)

    def _grow(self) -> None:
        """At least double what is left, so that a value of many chunks is not tried once a chunk."""
        pieces, wanted = [self.text[self.at :]], max(1, len(self.text) - self.at)
        while wanted > 0 and not self.ended:
            chunk = next(self._chunks, None)
            self.ended = chunk is None
            pieces.append(self._decode(chunk or b"", self.ended))
            wanted -= len(pieces[-1])
        self.text, self.at = "".join(pieces), 0


def _is_unterminated(error: json.JSONDecodeError) -> bool:
    """Whether a string has no end; its place is then that of the string's beginning."""
    return error.msg.startswith("Unterminated string")
