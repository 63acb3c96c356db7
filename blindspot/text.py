"""Text from outside, made safe to show, and numbers as they are stored and shown."""

import base64
import unicodedata
from decimal import Decimal
from typing import Any

MINUS, DASH, TIMES = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
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


def letters(text: str) -> str:
    """Its letters and digits, small: equal of a name however it is spelled."""
    return "".join(filter(str.isalnum, text.lower()))


def data_uri(content: bytes, mime: str) -> str:
    """A file of some type as a URI that needs no other file."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def rounded(value: Any) -> Any:
    """A JSON value with floats to `DIGITS` significant digits, so that the last bits of a sum do not show."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") + 0.0
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def clean_json(value: Any) -> Any:
    """A JSON value with all of its texts, keys included, cleaned."""
    if isinstance(value, str):
        return clean(value, limit=1000)
    if isinstance(value, dict):
        return {clean(str(key)): clean_json(item) for key, item in value.items()}
    return [clean_json(item) for item in value] if isinstance(value, list | tuple) else value


def number(value: float | None, scale: float = 1.0, most: float = 1.0) -> str:
    """A value on the scale that it is printed on.

    Args:
        value: or None, an en dash.
        scale: the factor that it is printed with.
        most: the largest that it can be; up to 1 on that scale it gets three decimals, beyond one.
    """
    if value is None:
        return DASH
    shown = f"{value * scale:.{3 if scale * most <= 1 + 1e-9 else 1}f}"
    return (shown[1:] if float(shown) == 0 and shown.startswith("-") else shown).replace("-", MINUS)


def signed(value: float | None, scale: float = 100.0, most: float = 1.0) -> str:
    """A difference with its sign, by default in points: ``+3.2``."""
    shown = number(value, scale, most)
    return shown if value is None or shown.startswith(MINUS) or not float(shown) else f"+{shown}"


def span(low: float | None, high: float | None, scale: float = 100.0, most: float = 1.0) -> str:
    """An interval, by default in points, joined by an en dash; empty where there is none."""
    return "" if low is None or high is None else f"{number(low, scale, most)}{DASH}{number(high, scale, most)}"


def points(value: float | None) -> str:
    """A fraction in points, or a share in per cent: ``93.4``."""
    return number(value, 100)


def p_value(p: float | None) -> str:
    """A p value with two digits that matter."""
    return DASH if p is None else "<.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


def significant(value: float, digits: int = 2) -> str:
    """A number with so many digits that matter, never in powers of ten: ``0.065``, ``1,600``."""
    return f"{Decimal(f'{value:.{digits}g}'):,f}"


def whole(value: float) -> str:
    """A number without decimals, never minus zero."""
    return f"{round(value) + 0:d}".replace("-", MINUS)


def encodable(text: str) -> str:
    """``text`` without halves of surrogate pairs, which JSON can carry and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
