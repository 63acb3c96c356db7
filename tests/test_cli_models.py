"""Commands about encoders, positions, arms and checkpoints, as a user meets them."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from blindspot.cli import app

SHIPPED = ("miniature", "nlvr", "objectives", "positions", "released")


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_encoders_are_listed_with_the_matched_set() -> None:
    rows: list[dict[str, Any]] = json.loads(printed("encoders", "--json"))
    matched = [row for row in rows if "matched" in row["roles"]]
    assert {(row["layers"], row["width"], row["tokens"]) for row in matched} == {(24, 1024, 256)}
    assert len(matched) == 4
    text = printed("encoders")
    assert "aimv2-large-patch14-native" in text and "registers" in text


def test_positions_are_listed_as_they_measure_now() -> None:
    rows: list[dict[str, Any]] = json.loads(printed("positions", "--json"))
    first = {row["scheme"]: row for row in reversed(rows)}
    assert not first["released_concat"]["norm_preserved"]
    assert not first["released_sum"]["injective"]
    turns = [row["turn_columns"] for row in rows if row["scheme"].startswith("mrope")]
    assert any(turn == pytest.approx(0.0041, abs=1e-4) for turn in turns)
    assert "released_sqfreq" in printed("positions")


@pytest.mark.parametrize("study", SHIPPED)
def test_arms_that_are_tested_against_each_other_differ_in_one_thing(study: str) -> None:
    pairs = json.loads(printed("compare-arms", study, "--json"))
    tested = [pair for pair in pairs if pair["tested"]]
    assert any(pair["controlled"] for pair in tested)
    assert all(pair["controlled"] or pair["seed_only"] for pair in tested)
    assert all(pair["controlled"] == (len(pair["moves"]) == 1) for pair in pairs if not pair["seed_only"])


def test_families_side_by_side_are_not_called_controlled() -> None:
    text = printed("compare-arms", "miniature")
    assert "not controlled: 3 axes move together" in " ".join(text.split())


def test_export_refuses_what_is_no_model_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(app, ["export", str(tmp_path / "empty"), str(tmp_path / "out")])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
