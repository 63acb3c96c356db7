"""Text that is safe to show: hostile input made visible, numbers in one style."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from blindspot.text import DASH, MINUS, clean

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


def points(value: float | None) -> str:
    """A fraction as points with one decimal, ``93.4``; an en dash where there is none."""
    return DASH if value is None else f"{100 * value:.1f}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """A difference of fractions as signed points, ``+3.2``, with a true minus sign; an en dash where there is none."""
    if value is None:
        return DASH
    shown = f"{100 * value:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", MINUS)


def span(low: float | None, high: float | None) -> str:
    """An interval of fractions in points, joined by an en dash; empty where there is none."""
    return "" if low is None or high is None else f"{points(low)}{DASH}{points(high)}"


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
