"""Values of a JSON text that comes in pieces."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blindspot.errors import UserError
from blindspot.training.llava import rows
from blindspot.training.llava.rows import json_values

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ['"', "\\", '\\"]},{[', "\U0001f600", "é\n"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ROWS = [{"id": 1, "text": 'a "quoted" \\ ]}, ünï \U0001f600'}, {"id": "b", "deep": [[{"x": [1.5e3, True]}], None]}, {}]


def pieces(text: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return (text[start:end] for start, end in pairwise(edges))


def read(text: str | bytes, size: int = 3) -> tuple[list[Any], str]:
    """The values of a text in pieces of ``size`` bytes, and the error behind them."""
    data = text.encode() if isinstance(text, str) else text
    values: list[Any] = []
    try:
        for value in json_values((data[at : at + size] for at in range(0, len(data), size)), "file.json"):
            values.append(value)
    except UserError as error:
        return values, str(error)
    return values, ""


@given(st.lists(VALUES, max_size=5), st.lists(st.integers(0, 10_000), max_size=30), st.booleans(), st.integers(0, 2))
@example([-0.5, 12, "\U0001f600"], list(range(40)), True, 0)
@settings(max_examples=25)
def test_any_cuts_give_the_same_rows(values: list[Any], cuts: list[int], escaped: bool, indent: int) -> None:
    array = json.dumps(values, ensure_ascii=escaped, indent=indent or None).encode()
    assert list(json_values(pieces(array, cuts), "")) == values
    lines = "\n".join(json.dumps({"row": value}, ensure_ascii=escaped) for value in values).encode()
    if values:
        assert list(json_values(pieces(lines, cuts), "")) == [{"row": value} for value in values]


@pytest.mark.parametrize("escaped", [True, False])
def test_a_text_that_breaks_off_says_in_which_row(escaped: bool) -> None:
    whole = json.dumps(ROWS, ensure_ascii=escaped).encode()
    for end in range(1, len(whole)):
        values, error = read(whole[:end])
        assert values == ROWS[: len(values)]
        assert f"breaks off in row {len(values)} " in error, whole[:end]
    assert read(whole) == (ROWS, "")
    values, error = read("\n".join(map(json.dumps, ROWS))[:-1])
    assert values == ROWS[:2] and "file.json breaks off in row 2 " in error


@pytest.mark.parametrize(
    ("text", "values", "error"),
    [
        ("", [], "is empty"),
        (" \n", [], "is empty"),
        ("[]", [], ""),
        ("[1,]", [1], "not JSON in row 1"),
        ("[1 2]", [1], "not JSON in row 1 (counted from 0): a comma"),
        ("[1] 2", [1], "something follows the array"),
        ('[{"a": 1}, {"b" 2}]', [{"a": 1}], "not JSON in row 1"),
        ('[{"a": "x\ny"}]', [], "not JSON in row 0"),
        ("[nope, 1]", [], "not JSON in row 0"),
        ("[" + "9" * 5000 + "]", [], "cannot be read in row 0"),
        ("[" * 100_000, [], "cannot be read in row 0"),
        (b'[{}, "\xff"]', [{}], "not UTF-8 text in or behind row 1"),
        (b"\xef\xbb\xbf[1]", [1], ""),
        ("[1]\r\n\t ", [1], ""),
    ],
)
def test_what_is_wrong_is_said(text: str | bytes, values: list[Any], error: str) -> None:
    found = read(text, size=1 << 10 if len(text) > 100 else 3)
    assert found[0] == values
    assert error in found[1]
    assert bool(error) == bool(found[1])


def test_no_more_is_read_than_a_row_needs() -> None:
    drawn = 0

    def endless() -> Iterator[bytes]:
        nonlocal drawn
        yield b"["
        while True:
            drawn += 1
            yield json.dumps({"id": drawn, "text": "x" * 1000}).encode() + b", "

    values = json_values(endless(), "")
    for number in range(1, 200):
        assert next(values)["id"] == number
        assert drawn <= number + 4

    def broken() -> Iterator[bytes]:
        yield b'[{"id": 1}, {"id": oops}, '
        yield from endless()

    drawn = 0
    with pytest.raises(UserError, match="not JSON in row 1"):
        list(json_values(broken(), ""))
    assert drawn <= 4


def test_a_row_without_end_is_refused_before_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_CHARACTERS", 5000)
    drawn = 0

    def open_string() -> Iterator[bytes]:
        nonlocal drawn
        yield b'[{}, {"a": "'
        while True:
            drawn += 1
            yield b"x" * 100

    with pytest.raises(UserError, match=r"in row 1 .*does not end within 5,000 characters"):
        list(json_values(open_string(), ""))
    assert drawn < 200
