"""Cells that several benchmarks write alike: lettered options, yes and no, lists as text."""

import ast
import re
from string import ascii_uppercase
from typing import Any

from blindspot.benchmarks.forms.table import Row


def lettered(row: Row) -> tuple[str, ...]:
    """The options in columns ``A``, ``B``, ... up to the first empty one.

    Raises:
        UserError: if there are fewer than two, or an option follows an empty one.
    """
    options = [row.find(letter) for letter in ascii_uppercase]
    count = options.index(None) if None in options else len(options)
    if count < 2 or any(options[count:]):
        there = ", ".join(letter for letter, option in zip(ascii_uppercase, options, strict=True) if option)
        raise row.error(f"options {there or 'none'}: expected are A, B and so on without a gap")
    return tuple(option for option in options[:count] if option is not None)


def letter(row: Row, column: str) -> str:
    """A gold letter, written ``B``, ``(B)``, ``(b)`` or ``B.``."""
    text = row.text(column).strip()
    match = re.fullmatch(r"\(?([A-Za-z])[).]?", text)
    if match is None:
        raise row.error(f"the gold answer {text[:40]!r} is not the letter of an option")
    return match[1].upper()


def yes_no(row: Row, column: str) -> str:
    """``Yes`` or ``No``, however it is written."""
    text = row.text(column).strip().lower()
    known = {"yes": "Yes", "no": "No", "1": "Yes", "0": "No", "true": "Yes", "false": "No"}
    if text not in known:
        raise row.error(f"the gold answer {text[:40]!r} is neither yes nor no")
    return known[text]


def strings(row: Row, column: str) -> list[str]:
    """A list of texts: a list, or one written as Python or JSON.

    Raises:
        UserError: if it is not one.
    """
    value: Any = row.cells.get(column)
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            raise row.error(f"{column} is not a list ({value[:40]!r})") from error
    if not isinstance(value, list | tuple):
        raise row.error(f"{column} is not a list")
    return [str(item) for item in value]


def asked(row: Row) -> str:
    """The question of a TSV, after its hint where it has one."""
    hint, question = row.find("hint"), row.text("question")
    return question if hint is None else f"{hint}\n{question}"


def cluster(row: Row) -> str:
    """The label that questions about the same pictures share."""
    return "-".join(map(str, row.images))
