"""Which questions are shown, and what is read from a box."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspot.reporting.results import BOXES, LIMIT, SCENES, read_box


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("1 2 3 4", [1, 2, 3, 4]),
        ("x 1.5 0 -2 9", None),
        ("[1, 2, 3, 4.5]", [1, 2, 3, 4.5]),
        ("1 2 3", None),
        ("1 2 3 4 5", None),
        ("3 2 1 4", None),
        ("", None),
    ],
)
def test_read_box(text: str, box: list[float] | None) -> None:
    assert read_box(text) == box


@given(st.lists(st.integers(0, 99), min_size=2, max_size=2), st.integers(0, 50), st.integers(0, 50))
def test_read_box_reads_what_was_written(corner: list[int], width: int, height: int) -> None:
    box = [*corner, corner[0] + width, corner[1] + height]
    assert read_box(" ".join(map(str, box))) == box


def test_scenes_cover_the_columns_with_every_arms_answer(results: dict[str, Any]) -> None:
    picks = results["gallery"]
    assert len(picks) == SCENES == len({pick["image"] for pick in picks})
    assert {pick["column"] for pick in picks} == {column["id"] for column in results["columns"]} - {"mmvp", "boxes"}
    for pick in picks:
        assert [answer["arm"] for answer in pick["answers"]] == [arm["id"] for arm in results["arms"]]
        assert len({answer["score"] for answer in pick["answers"]}) > 1, "the arms agree on this one"
        assert all(len(answer["raw"]) <= LIMIT and "\x00" not in answer["raw"] for answer in pick["answers"])


def test_boxes_go_from_the_hardest_question_to_the_easiest(results: dict[str, Any]) -> None:
    picks = results["localisation"]
    means = [sum(answer["score"] for answer in pick["answers"]) for pick in picks]
    assert len(picks) == BOXES and means == sorted(means) and means[0] < means[-1]
    assert all(len(pick["box"]) == 4 and pick["units"] == 16 for pick in picks)
