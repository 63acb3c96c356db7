"""What is measured of the schemes equals what they claim, and the published sections' largest rotations."""

from typing import Any

import pytest

from blindspot.positions.properties import language_rows


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    return {row["scheme"]: row for row in language_rows()}


@pytest.mark.parametrize(
    ("scheme", "turn_rows", "turn_columns"),
    [
        ("mrope chunked (Qwen2-VL)", 0.73, 0.0041),
        ("mrope chunked, columns_first", 0.0041, 0.73),
        ("mrope chunked, base 5e6", 0.071, 0.0006),
        ("mrope interleaved", 18.5, 14.9),
        ("mrope interleaved (Qwen3-VL)", 18.1, 14.2),
        ("rope1d (LLaVA)", 552.0, 23.0),
        ("bapa", 0.0, 0.0),
        ("concentric", 11.0, 11.0),
    ],
)
def test_largest_rotation_across_the_grid(
    rows: dict[str, Any], scheme: str, turn_rows: float, turn_columns: float
) -> None:
    assert rows[scheme]["turn_rows"] == pytest.approx(turn_rows, rel=0.1)
    assert rows[scheme]["turn_columns"] == pytest.approx(turn_columns, rel=0.1)


def test_what_every_scheme_keeps(rows: dict[str, Any]) -> None:
    for row in rows.values():
        assert row["site"] == "language"
        assert row["norm_preserved"] and row["text_1d"] and row["decode_consistent"], row


def test_what_some_schemes_keep(rows: dict[str, Any]) -> None:
    def holding(key: str) -> set[str]:
        return {name for name, row in rows.items() if row[key]}

    assert holding("start_unchanged") == {"rope1d (LLaVA)", "row_break", "v2pe delta=1"}
    assert set(rows) - holding("relative_invariance") == {"mrope chunked, spatial_reset"}
    assert set(rows) - holding("injective") == {"bapa", "concentric", "circle alpha=1"}
    assert holding("axis_swap") == {"mhrope", "bapa", "concentric"}


def test_positions_an_image_takes(rows: dict[str, Any]) -> None:
    taken = {name: row["next_position"] for name, row in rows.items()}
    assert taken["rope1d (LLaVA)"] == taken["rope_tv"] == taken["v2pe delta=1"] == 576
    assert taken["row_break"] == 600
    assert taken["mrope chunked (Qwen2-VL)"] == taken["mhrope"] == 24
    assert taken["rope_tie"] == 624
    assert taken["v2pe delta=1/4"] == 144
    assert taken["bapa"] == 1
    assert taken["concentric"] == 12
    assert taken["circle alpha=1/2"] == pytest.approx(9.2, abs=0.05)
