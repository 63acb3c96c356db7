"""Answers of every convention as boxes and points; answers that are none are said, and none ever raises."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindspot.benchmarks.boxes import CONVENTIONS, View, judge, locate
from blindspot.errors import UserError

SIZE = (200, 100)
WHOLE = View.whole(SIZE, (400, 300))

READ = {
    "a sentence": ("llava-normalised", "It is at [0.1, 0.2, 0.5, 1.0].", [(20, 20, 100, 100)]),
    "without zeros": ("llava-normalised", "[.1,.2, .5,1]", [(20, 20, 100, 100)]),
    "round brackets": ("llava-normalised", "(0.1, 0.2, 0.5, 1.0)", [(20, 20, 100, 100)]),
    "numbers only": ("llava-normalised", " 0.1, 0.2, 0.5, 1.0 ", [(20, 20, 100, 100)]),
    "full width": ("llava-normalised", "[\uff10.\uff11, 0.2, 0.5, 1.0]", [(20, 20, 100, 100)]),
    "a point": ("llava-normalised", "around [0.5, 0.5]", [(100, 50)]),
    "several": ("llava-normalised", "[0, 0, 0.5, 0.5] and [0.5, 0.5, 1, 1]", [(0, 0, 100, 50), (100, 50, 200, 100)]),
    "the same twice": ("llava-normalised", "[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]", [(0, 0, 100, 50)]),
    "rounded beyond the edge": ("llava-normalised", "[-0.01, 0, 1.01, 1]", [(0, 0, 200, 100)]),
    "a code fence": (
        "qwen-pixels-json",
        '```json\n[\n\t{"bbox_2d": [40, 30, 200, 150], "label": "cup [1, 2]"}\n]\n```',
        [(20, 10, 100, 50)],
    ),
    "JSON that was cut off": (
        "qwen-pixels-json",
        '[{"bbox_2d": [40, 30, 200, 150], "label": "cup"}, {"bbox_2d": [40, 3',
        [(20, 10, 100, 50)],
    ),
    "Qwen2": ("qwen-1000", "<|object_ref_start|>a cup(100,200),(500,1000)", [(20, 20, 100, 100)]),
    "Gemma": ("gemma-1000-yx", '{"box_2d": [200, 100, 1000, 500], "label": "cup"}', [(20, 20, 100, 100)]),
    "PaliGemma": (
        "paligemma-loc",
        "<loc0256><loc0512><loc0512><loc0768> cup ; <loc0000><loc0000><loc0512><loc0512> cup",
        [(100, 25, 150, 50), (0, 0, 100, 50)],
    ),
    "Molmo": ("molmo-points", ' <point x="25.5" y="50.0" alt="cup">cup</point>', [(51, 50)]),
    "Molmo, several": ("molmo-points", '<points x1="10" y1="20" x2="30.0" y2="40" alt="">', [(20, 20), (60, 40)]),
    "Qwen3": ("qwen-1000", '[{"bbox_2d": [100, 200, 500, 1000], "label": "cup"}]', [(20, 20, 100, 100)]),
    "Qwen3, a point": ("qwen-1000", '```json\n[{"point_2d": [100, 200], "label": "cup"}]\n```', [(20, 20)]),
    "InternVL": ("internvl-1000", "<ref>cup</ref><box>[[100, 200, 500, 1000]]</box>", [(20, 20, 100, 100)]),
    "InternVL, without its tokens": ("internvl-1000", "cup[[100, 200, 500, 1000]]", [(20, 20, 100, 100)]),
    "GLM": ("glm-1000", "It is <|begin_of_box|>[[100,200,500,1000]]<|end_of_box|>.", [(20, 20, 100, 100)]),
    "GLM, other brackets": (
        "glm-1000",
        "<100, 200, 500, 1000> and {0,0,500,500}",
        [(20, 20, 100, 100), (0, 0, 100, 50)],
    ),
    "PerceptionLM": ("plm-1000", "[100,200,500,999]", [(20, 20, 100, 99.9)]),
    "Molmo 2": (
        "molmo2-points",
        '<points coords="1 1 412 087 2 530 440">cup</points>',
        [(82.4, 8.7), (106, 44)],
    ),
    "Molmo 2, two pictures": (
        "molmo2-points",
        '<points coords="1 1 500 500;2 2 100 100">cup</points>',
        [(100, 50), (20, 10)],
    ),
    "the miniature": ("canvas", "40 30 200 150", [(20, 10, 100, 50)]),
}
NOT_READ = {
    "no box": ("llava-normalised", "The cup is on the table.", "no box and no point in the answer"),
    "nothing": ("llava-normalised", "", "no box and no point in the answer"),
    "three numbers": ("llava-normalised", "[0.1, 0.2, 0.3]", "no box and no point in the answer"),
    "inverted": ("llava-normalised", "[0.5, 0.1, 0.2, 0.9]", "inverted: x0 is 0.5 and x1 is 0.2"),
    "inverted, y first": ("gemma-1000-yx", "[900, 0, 100, 10]", "inverted: y0 is 900 and y1 is 100"),
    "pixels": ("llava-normalised", "[10, 20, 30, 40]", "out of range: x is 10, and goes from 0 to 1"),
    "beyond the picture": ("qwen-pixels-json", "[0, 0, 40, 999]", "out of range: y is 999, and goes from 0 to 300"),
    "no area": ("llava-normalised", "[0.2, 0.2, 0.2, 0.9]", "no area: x0 and x1 are 0.2"),
    "a line at the edge": ("llava-normalised", "[1, 0, 1.01, 0.9]", "no area: x0 and x1 are 1"),
    "three tokens": ("paligemma-loc", "<loc0256><loc0512><loc0512> cup", "no box and no point in the answer"),
    "two digits": ("molmo2-points", '<points coords="1 1 41 87">cup</points>', "no box and no point in the answer"),
    "words": ("canvas", "3 4 red 6", "no box and no point in the answer"),
    "five words": ("canvas", "3 4 5 6 7", "no box and no point in the answer"),
}


@pytest.mark.parametrize("name", READ)
def test_what_a_family_writes_is_read(name: str) -> None:
    convention, raw, expected = READ[name]
    located = locate(raw, CONVENTIONS[convention], WHOLE)
    assert [place.numbers for place in located.places] == [pytest.approx(numbers) for numbers in expected]
    assert located.problems == ()


@pytest.mark.parametrize("name", NOT_READ)
def test_what_is_no_box_is_said(name: str) -> None:
    convention, raw, problem = NOT_READ[name]
    located = locate(raw, CONVENTIONS[convention], WHOLE)
    assert (located.places, located.problems) == ((), (problem,))


def test_a_good_box_beside_a_bad_one_counts_and_both_are_reported() -> None:
    located = locate("[0.5, 0, 0.1, 1] or [0, 0, 0.5, 1]", CONVENTIONS["llava-normalised"], WHOLE)
    assert located.first is not None and located.first.box == (0, 0, 100, 100)
    assert located.problems == ("inverted: x0 is 0.5 and x1 is 0.1",)


pieces = st.sampled_from(
    ["[", "]", "(", ")", ",", " ", "0.5", "1e9", "-", ".", "<loc0100>", 'x="1" y="2"', '"bbox_2d":', "٣"]
)
answers = st.one_of(st.text(max_size=60), st.lists(pieces, max_size=25).map("".join))


@settings(max_examples=50)
@given(answers, st.sampled_from(sorted(CONVENTIONS)))
def test_no_answer_raises_and_every_box_lies_in_the_window(raw: str, name: str) -> None:
    located = locate(raw, CONVENTIONS[name], WHOLE)
    assert located.places or located.problems
    for place in located.places:
        corners = [place.numbers[:2], place.numbers[2:] or place.numbers[:2]]
        assert all(0 <= x <= SIZE[0] and 0 <= y <= SIZE[1] for x, y in corners)
        assert place.box is None or (place.box[0] < place.box[2] and place.box[1] < place.box[3])


@pytest.mark.parametrize("piece", ["[", "1", "[1 ", "1,", "1 ", " ", "<loc0001>", 'x="1" ', "(0.1,0.2),", "[0,0,1,1]"])
def test_an_answer_of_a_megabyte_is_read_at_once(piece: str) -> None:
    raw = piece * (1_000_000 // len(piece))
    start = time.perf_counter()
    for convention in CONVENTIONS.values():
        assert len(locate(raw, convention, WHOLE).places) <= 200
    assert time.perf_counter() - start < 4


def test_pixels_of_an_input_of_unknown_size_cannot_be_read() -> None:
    with pytest.raises(UserError, match="size is not known"):
        locate("[1, 2, 3, 4]", CONVENTIONS["qwen-pixels-json"], View.whole(SIZE))


# --- scores


def test_a_box_is_right_from_an_overlap_of_half() -> None:
    half = judge("[0, 0, 1, 0.5]", "0 0 200 100", "llava-normalised", str(WHOLE))
    assert (half.extracted, half.score, half.parsed, half.partial) == ("0 0 200 50", 1.0, True, 0.5)
    less = judge("[0, 0, 1, 0.49]", "0 0 200 100", "llava-normalised", str(WHOLE))
    assert (less.score, less.parsed) == (0.0, True) and less.partial == pytest.approx(0.49)


def test_a_point_is_right_inside_the_box_and_has_no_overlap() -> None:
    inside = judge('<point x="50" y="50">', "90 40 110 60", "molmo-points", str(WHOLE))
    outside = judge('<point x="50" y="50">', "100.1 40 110 60", "molmo-points", str(WHOLE))
    assert (inside.score, inside.partial, outside.score) == (1.0, None, 0.0)


def test_what_cannot_be_read_scores_nothing() -> None:
    scored = judge("somewhere", "0 0 200 100", "llava-normalised", str(WHOLE))
    assert (scored.extracted, scored.score, scored.parsed, scored.partial) == (None, 0.0, False, 0.0)
    with pytest.raises(UserError, match=r"row 3: .* did you mean \"llava-normalised\""):
        judge("", "0 0 1 1", "llava-normalized", str(WHOLE), "row 3")
