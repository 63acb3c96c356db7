"""Hostile text and numbers as they are shown."""

import csv
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspot.reporting.tables import as_csv, latex
from blindspot.text import DASH, MINUS, clean, points, signed, span

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=300)


@given(ANYTHING, st.integers(1, 200))
def test_clean_text_is_short_visible_and_writable(text: str, limit: int) -> None:
    shown = clean(text, limit)
    assert len(shown) <= limit
    shown.encode()
    assert not any(unicodedata.category(mark) in ("Cc", "Cf", "Cs") for mark in shown)


@given(st.text("abc <>&\"'ßñ語", max_size=50))
def test_clean_leaves_honest_text_alone(text: str) -> None:
    assert clean(text) == text


def test_clean_shows_what_it_replaced() -> None:
    assert clean("a\x1b[31m\u202eb\ud800\nc") == "a�[31m�b� c"
    assert clean("abcdef", 4) == "abc…"


def test_latex_escapes_every_special_mark() -> None:
    assert latex(r"a_b & 5% \x{~^#$}") == (r"a\_b \& 5\% \textbackslash{}x\{\textasciitilde{}\textasciicircum{}\#\$\}")


@pytest.mark.parametrize("cell", ["=1+1", "+1 of 2", "-x", "--", "@SUM(A1)", "\t=1", '=HYPERLINK("a,b")', "-1,5"])
def test_a_spreadsheet_computes_nothing_of_a_csv(cell: str) -> None:
    header, row = csv.reader(as_csv([{cell: cell}]).splitlines())
    assert header == row == [f"'{cell}"]


@pytest.mark.parametrize("cell", [-1, -0.5, "-3.2", "+1e-5", "-inf", "a=b", "", None, f"{MINUS}3.2", DASH, "'x"])
def test_numbers_and_plain_texts_of_a_csv_stay_as_they_are(cell: object) -> None:
    (_, row) = csv.reader(as_csv([{"n": 1, "x": cell}]).splitlines())
    assert row == ["1", "" if cell is None else str(cell)]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0321, "+3.2"), (-0.004, f"{MINUS}0.4"), (0.0, "0.0"), (-0.0001, "0.0"), (None, DASH)]
)
def test_signed(value: float | None, shown: str) -> None:
    assert signed(value) == shown


def test_points_and_spans() -> None:
    assert (points(0.9341), points(None), span(0.1, 0.25), span(None, 0.2)) == ("93.4", DASH, f"10.0{DASH}25.0", "")
