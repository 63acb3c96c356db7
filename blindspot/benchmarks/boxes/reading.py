"""Numbers that answers hold in the notations of boxes and points. Linear in the answer's length, whatever it is."""

import re
from itertools import islice

_NUMBER = r"([+-]?(?:\d{1,12}+(?:\.\d{0,24}+)?|\.\d{1,24}+))"
_COMMA, _BLANK = r"\s*+,\s*+", r"\s*+"
_PAIR = rf"{_NUMBER}{_COMMA}{_NUMBER}"

_FOUR = re.compile(rf"[\[(]{_BLANK}{_PAIR}{_COMMA}{_PAIR}{_BLANK}[\])]")
_TWO = re.compile(rf"[\[(]{_BLANK}{_PAIR}{_BLANK}[\])]")
_CORNERS = re.compile(rf"\({_BLANK}{_PAIR}{_BLANK}\){_BLANK},?{_BLANK}\({_BLANK}{_PAIR}{_BLANK}\)")
_BARE = re.compile(rf"{_BLANK}{_NUMBER}(?:[\s,]++){_NUMBER}(?:[\s,]++){_NUMBER}(?:[\s,]++){_NUMBER}{_BLANK}\.?{_BLANK}")
_TOKENS = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>")
_ATTRIBUTES = re.compile(
    rf"""\bx(\d{{0,4}}){_BLANK}={_BLANK}["']{_NUMBER}["']{_BLANK}y\1{_BLANK}={_BLANK}["']{_NUMBER}["']"""
)

Numbers = tuple[float, ...]

_MOST = 200
"""Groups that are read; a model that says more repeats itself."""


def brackets(text: str) -> list[Numbers]:
    """Four numbers in brackets, wherever they stand: in a sentence, in JSON, in a code fence, in JSON that was cut off.

    Without any: an answer that is nothing but four numbers; without that, pairs in brackets, which are points.
    """
    return _found(_FOUR, text) or bare(text) or _found(_TWO, text)


def corners(text: str) -> list[Numbers]:
    """``(x0,y0),(x1,y1)``; without any, as `brackets`."""
    return _found(_CORNERS, text) or brackets(text)


def bare(text: str) -> list[Numbers]:
    """An answer of four numbers and no other word."""
    match = _BARE.fullmatch(text)
    return [tuple(map(float, match.groups()))] if match else []


def tokens(text: str) -> list[Numbers]:
    """Four ``<loc0000>`` in a row."""
    return _found(_TOKENS, text)


def attributes(text: str) -> list[Numbers]:
    """``x="1.5" y="2"``, or ``x1="1.5" y1="2" x2=...``, which are points."""
    return [(float(match[2]), float(match[3])) for match in islice(_ATTRIBUTES.finditer(text), _MOST)]


def _found(pattern: re.Pattern[str], text: str) -> list[Numbers]:
    return [tuple(map(float, match.groups())) for match in islice(pattern.finditer(text), _MOST)]
