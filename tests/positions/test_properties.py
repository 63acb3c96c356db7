"""The rows and the table of ``blindspot positions``."""

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


def test_published_numbers_are_measured(rows: list[dict[str, Any]]) -> None:
    """The width of a chunked M-RoPE, and what the released forms are."""
    by_scheme = {row["scheme"]: row for row in rows}
    chunked = by_scheme["mrope chunked (Qwen2-VL)"]
    assert (round(chunked["turn_rows"], 2), round(chunked["turn_columns"], 4)) == (0.73, 0.0041)
    concat = by_scheme["released_concat"]
    assert not concat["norm_preserved"] and not concat["relative_invariance"]
    assert concat["norm_error"] == pytest.approx(0.997, abs=1e-3)  # a query shrinks to 0.003 of its length
    assert not by_scheme["released_sum"]["injective"]
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
