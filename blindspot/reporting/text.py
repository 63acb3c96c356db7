"""Text for LaTeX and for spreadsheets; what is shown anywhere comes from `blindspot.text`."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from blindspot.text import DASH, MINUS, clean, points, signed, span

__all__ = ["DASH", "LIMIT", "MINUS", "as_csv", "clean", "latex", "points", "signed", "span"]

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    MINUS: r"$-$",
    DASH: "--",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
}
LIMIT = 100
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def latex(text: str) -> str:
    """``text`` with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(mark, mark) for mark in text)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under the keys of all of them; empty where there are none.

    An apostrophe is put before a text that a spreadsheet would take for a formula.
    """
    if not rows:
        return ""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, keys))
    writer.writerows([_cell(row.get(key)) for key in keys] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not (isinstance(value, str) and value.startswith(_FORMULA)):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
