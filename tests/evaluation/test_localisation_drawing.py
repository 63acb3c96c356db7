"""The figure of several models: whatever they said, it is drawn, and without a warning."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blindspot.benchmarks.boxes import CONVENTIONS, View, locate
from blindspot.errors import UserError
from blindspot.evaluation.boxes import Finding
from blindspot.evaluation.boxes_figure import draw

PICTURE = Image.new("RGB", (120, 80), "black")


def finding(raw: str, name: str = "llava-normalised", stopped: str = "end") -> Finding:
    convention = CONVENTIONS[name]
    return Finding("a model", name, "where?", raw, stopped, locate(raw, convention, View.whole(PICTURE.size)))


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".jpg"])
def test_any_answer_is_drawn_without_a_warning(tmp_path: Path, suffix: str) -> None:
    raws = ["[0.1, 0.1, 0.9, 0.9]", "", "$x^$ \\frac", "\x1b[31m\u202e 厨房 [1, 2", "a" * 100_000, "[0.5, 0.5] [0, 0]"]
    path = tmp_path / f"figure{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        findings = [finding(raw) for raw in raws]
        draw(PICTURE, "the $cup_ 杯", findings, path, (10.0, 10.0, 50.0, 50.0))
    assert path.stat().st_size > 1000


def test_the_box_is_where_the_answer_says(tmp_path: Path) -> None:
    draw(PICTURE, "the cup", [finding("[0.25, 0.25, 0.75, 0.75]")], tmp_path / "figure.png")
    pixels_hwc = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int)
    black_hw = pixels_hwc.sum(axis=2) < 30
    orange_hw = (abs(pixels_hwc - np.array([255, 127, 14])).max(axis=2)) < 40
    rows, columns = (np.flatnonzero(orange_hw.sum(axis=axis) > 40) for axis in (1, 0))
    below, beside = (np.flatnonzero(black_hw.sum(axis=axis) > 60) for axis in (1, 0))
    inside = [
        (edge - seen[0]) / (seen[-1] + 1 - seen[0])
        for edges, seen in ((rows, below), (columns, beside))
        for edge in (edges[0], edges[-1])
    ]
    assert inside == pytest.approx([0.25, 0.75, 0.25, 0.75], abs=0.015)


def test_panels_stand_side_by_side_and_then_below(tmp_path: Path) -> None:
    sizes = {}
    for number in (1, 2, 4, 5):
        draw(PICTURE, "the cup", [finding("no")] * number, tmp_path / f"{number}.png")
        sizes[number] = Image.open(tmp_path / f"{number}.png").size
    assert sizes[2][0] == 2 * sizes[1][0] and sizes[2][1] == sizes[1][1]
    assert sizes[5][0] == sizes[4][0] and sizes[5][1] > 1.6 * sizes[4][1]


def test_remarks_say_what_is_unusual() -> None:
    several = finding("[0, 0, 1, 1] [0, 0, 0.5, 1]", stopped="length")
    assert several.remarks == ("1 more, not counted", "cut off at its longest")
    told = several.to_dict((0.0, 0.0, 120.0, 80.0))
    assert (told["iou"], told["right"], len(told["boxes"])) == (1.0, True, 2)
    nothing = finding("nowhere").to_dict((0.0, 0.0, 1.0, 1.0))
    assert (nothing["iou"], nothing["right"], nothing["boxes"]) == (None, False, [])
    assert "iou" not in finding("nowhere").to_dict(None)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one of \.png, \.pdf, \.svg, \.jpg, not as figure\.doc"):
        draw(PICTURE, "the cup", [finding("no")], tmp_path / "figure.doc")
