import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspot.benchmarks.boxes import Box, iou
from blindspot.benchmarks.exact import score
from blindspot.benchmarks.rules import Scored
from blindspot.question import Question

WRONG = Scored(None, 0.0, True)
RIGHT = Scored(None, 1.0, True)
UNPARSED = Scored(None, 0.0, False)

CHOICE = Question("q", "relation", "choice", "where?", "top left", ("top left", "top right"))
YES_NO = Question("q", "vsr", "yes_no", "is it?", "yes")
COUNT = Question("q", "count", "count", "how many?", "3")
TEXT = Question("q", "gqa", "text", "what?", "red  Square")
BOXES = Question("q", "boxes", "boxes", "where?", "0 0 10 10")
ALL = (CHOICE, YES_NO, COUNT, TEXT, BOXES)


@pytest.mark.parametrize(
    ("question", "raw", "expected"),
    [
        (CHOICE, "top left", RIGHT),
        (CHOICE, "\n Top  LEFT ", RIGHT),
        (CHOICE, "top right", WRONG),
        (CHOICE, "top", UNPARSED),
        (CHOICE, "top left.", UNPARSED),
        (CHOICE, "", UNPARSED),
        (replace(CHOICE, choices=()), "top left", UNPARSED),
        (YES_NO, "Yes", RIGHT),
        (YES_NO, "no", WRONG),
        (YES_NO, "true", UNPARSED),
        (replace(YES_NO, choices=("no", "yes")), "yes ", RIGHT),
        (COUNT, "3", RIGHT),
        (COUNT, " 003 red squares", RIGHT),
        (COUNT, "\uff13", RIGHT),
        (COUNT, "13", WRONG),
        (COUNT, "0", WRONG),
        (COUNT, "-3", UNPARSED),
        (COUNT, "3.0", UNPARSED),
        (COUNT, "³", UNPARSED),
        (COUNT, "three", UNPARSED),
        (COUNT, "there are 3", UNPARSED),
        (COUNT, "", UNPARSED),
        (COUNT, "9" * 5000, UNPARSED),
        (TEXT, " RED\tsquare\n", RIGHT),
        (TEXT, "square red", WRONG),
        (TEXT, " \n", UNPARSED),
        (BOXES, "0 0 10 10", RIGHT),
        (BOXES, "0.0 0 +10. 10.0", RIGHT),
        (BOXES, "5 0 15 10", Scored(None, 1 / 3, True)),
        (BOXES, "10 0 20 10", WRONG),
        (BOXES, "10 0 5 10", UNPARSED),
        (BOXES, "0 5 10 5", UNPARSED),
        (BOXES, "0 0 10", UNPARSED),
        (BOXES, "0 0 10 10 10", UNPARSED),
        (BOXES, "0, 0, 10, 10", UNPARSED),
        (BOXES, "0 0 nan 10", UNPARSED),
        (BOXES, "0 0 inf 10", UNPARSED),
        (BOXES, "0 0 1_0 10", UNPARSED),
        (BOXES, "0 0 1e9 10", UNPARSED),
    ],
)
def test_scores(question: Question, raw: str, expected: Scored) -> None:
    result = score(question, raw)
    assert result.parsed == expected.parsed
    assert result.score == pytest.approx(expected.score)


@given(raw=st.one_of(st.text(), st.from_regex(r"\s*[-+.\d]+(\s[-+.\de]+){0,5}\s*")), question=st.sampled_from(ALL))
def test_any_string_is_scored_between_zero_and_one(raw: str, question: Question) -> None:
    result = score(question, raw)
    assert 0 <= result.score <= 1
    assert result.parsed or result.score == 0
    assert score(question, raw) == result


@pytest.mark.parametrize("question", ALL, ids=lambda question: question.kind)
@pytest.mark.parametrize("unit", ["9", "a ", "1 ", " ", "٣", "0 0 1 "])
def test_a_megabyte_is_scored_fast(question: Question, unit: str) -> None:
    raw = unit * (1_000_000 // len(unit))
    start = time.perf_counter()
    result = score(question, raw)
    assert time.perf_counter() - start < 1
    assert result.score == 0


def test_a_malformed_gold_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="gold box"):
        score(replace(BOXES, answer="0 0 0 0"), "0 0 1 1")
    with pytest.raises(ValueError, match="many"):
        score(replace(COUNT, answer="many"), "3")


coordinates = st.integers(-20, 20)
sides = st.integers(1, 20)
integer_boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), coordinates, coordinates, sides, sides)


def cells(box: Box) -> set[tuple[int, int]]:
    x0, y0, x1, y1 = map(int, box)
    return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}


@given(integer_boxes, integer_boxes)
def test_iou_counts_unit_cells(a: Box, b: Box) -> None:
    assert iou(a, b) == pytest.approx(len(cells(a) & cells(b)) / len(cells(a) | cells(b)))
    assert iou(a, b) == iou(b, a)
    assert iou(a, a) == 1


def test_iou_keeps_its_value_when_both_boxes_are_scaled() -> None:
    draw = random.Random(0)
    for _ in range(50):
        a = (draw.random(), draw.random(), 1 + draw.random(), 1 + draw.random())
        b = (draw.random(), draw.random(), 1 + draw.random(), 1 + draw.random())
        large_a, large_b = ((32 * x0, 32 * y0, 32 * x1, 32 * y1) for x0, y0, x1, y1 in (a, b))
        assert iou(large_a, large_b) == pytest.approx(iou(a, b))
