"""Text from outside, made safe to show, and numbers as they are stored."""

import unicodedata
from typing import Any

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
DIGITS = 6
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def clean(text: str, limit: int = 10_000) -> str:
    """One line of ``text`` with at most ``limit`` characters and nothing invisible.

    Line breaks and tabs become spaces. Other control characters, direction overrides and lone surrogates (which could
    not be written as UTF-8) become U+FFFD. A longer text is cut and ends in an ellipsis.
    """
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(
        " " if mark in "\t\n\r" else "\N{REPLACEMENT CHARACTER}" if unicodedata.category(mark) in _INVISIBLE else mark
        for mark in short
    )


def rounded(value: Any) -> Any:
    """A JSON value with floats to `DIGITS` significant digits, so that the last bits of a sum do not show."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") + 0.0
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def encodable(text: str) -> str:
    """``text`` without halves of surrogate pairs, which JSON can carry and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
