"""The rows and the table of ``blindspot positions``: what is measured of the schemes equals what they claim."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from blindspot.positions import properties


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return properties.rows()


def test_rows_are_json_and_of_both_sites(rows: list[dict[str, Any]]) -> None:
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert list(dict.fromkeys(row["site"] for row in rows)) == ["encoder", "language"]
    keys = set(properties.COLUMNS) - {"still_pairs"}
    assert all(keys <= set(row) for row in rows)
    assert len({(row["site"], row["scheme"]) for row in rows}) == len(rows)


def test_measuring_again_gives_the_same_numbers(rows: list[dict[str, Any]]) -> None:
    assert properties.encoder_rows() == [row for row in rows if row["site"] == "encoder"]


def test_the_released_forms_are_what_is_said_of_them(rows: list[dict[str, Any]]) -> None:
    by_scheme = {row["scheme"]: row for row in rows}
    assert by_scheme["released_concat"]["norm_error"] == pytest.approx(0.997, abs=1e-3)  # a query shrinks to 0.003
    assert by_scheme["released_sqfreq"]["still_pairs"] == 9 / 16


def test_table_reads_as_the_rows_say(rows: list[dict[str, Any]]) -> None:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(properties.as_table(rows))
    lines = capture.get().splitlines()
    shown = {row["scheme"]: next(line for line in lines if line.startswith(f"{row['scheme']} ")) for row in rows}
    cells = {scheme: line.removeprefix(scheme).split() for scheme, line in shown.items()}
    assert cells["axial rope_vit"] == ["yes", "yes", "yes", "yes", "-", "no", "23", "23", "0%"]
    assert cells["released_concat"][:2] == ["no", "no"]
    assert cells["mrope chunked (Qwen2-VL)"][-3:] == ["0.73", "0.0041", "-"]
    assert len(lines) < len(rows) + 15


def test_schemes_and_headings_are_whole_at_80_columns(rows: list[dict[str, Any]]) -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(properties.as_table(rows))
    assert "…" not in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture(scope="module")
def language(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["scheme"]: row for row in rows if row["site"] == "language"}


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
    language: dict[str, Any], scheme: str, turn_rows: float, turn_columns: float
) -> None:
    assert language[scheme]["turn_rows"] == pytest.approx(turn_rows, rel=0.1)
    assert language[scheme]["turn_columns"] == pytest.approx(turn_columns, rel=0.1)


def test_what_every_scheme_keeps(language: dict[str, Any]) -> None:
    for row in language.values():
        assert row["norm_preserved"] and row["text_1d"] and row["decode_consistent"], row


def test_what_some_schemes_keep(language: dict[str, Any]) -> None:
    def holding(key: str) -> set[str]:
        return {name for name, row in language.items() if row[key]}

    assert holding("start_unchanged") == {"rope1d (LLaVA)", "row_break", "v2pe delta=1"}
    assert set(language) - holding("relative_invariance") == {"mrope chunked, spatial_reset"}
    assert set(language) - holding("injective") == {"bapa", "concentric", "circle alpha=1"}
    assert holding("axis_swap") == {"mhrope", "bapa", "concentric"}


def test_positions_an_image_takes(language: dict[str, Any]) -> None:
    taken = {name: row["next_position"] for name, row in language.items()}
    assert taken["rope1d (LLaVA)"] == taken["rope_tv"] == taken["v2pe delta=1"] == 576
    assert taken["row_break"] == 600
    assert taken["mrope chunked (Qwen2-VL)"] == taken["mhrope"] == 24
    assert taken["rope_tie"] == 624
    assert taken["v2pe delta=1/4"] == 144
    assert taken["bapa"] == 1
    assert taken["concentric"] == 12
    assert taken["circle alpha=1/2"] == pytest.approx(9.2, abs=0.05)
