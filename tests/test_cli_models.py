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
    assert len(matched) == 4 and {row["family"] for row in matched} == {"clip", "siglip", "siglip2", "aimv2"}
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
    mismatched = ("CLIP, released formula, evaluated with the table", "CLIP")  # by itself a second thing that moves
    assert all(pair["controlled"] or pair["seed_only"] for pair in tested if (pair["a"], pair["b"]) != mismatched)
    assert all(pair["controlled"] == (len(pair["moves"]) == 1) for pair in pairs if not pair["seed_only"])


def test_plans_tell_a_miniatures_steps_and_follow_scale_and_seeds(tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "run"))
    whole, done = {}, json.loads(printed("study", "motion", "--plan", "--scale", "smoke", "--json", *out))
    for seeds in (1, 3):
        rows = json.loads(printed("study", "motion", "--plan", "--json", "--seeds", str(seeds), *out))
        whole[seeds] = {row["phase"]: row for row in rows}
    assert whole[3]["instruct"]["steps"] == 3 * whole[1]["instruct"]["steps"] and whole[3]["text"]["steps"] == 1
    assert 0 < done[-1]["seconds_left"] < whole[1]["all"]["seconds_left"] < whole[3]["all"]["seconds_left"]
    assert "wall time" in printed("study", "paper", "--plan", "--scale", "rehearsal", *out)
    runs = json.loads(printed("study", "paper", "--plan", "--json", "--seeds", "3"))["runs"]
    assert runs == 24 and not (tmp_path / "run").exists()


def test_families_side_by_side_are_not_called_controlled() -> None:
    text = printed("compare-arms", "miniature")
    assert "not controlled: 3 axes move together" in " ".join(text.split())


@pytest.mark.parametrize("study", ["paper", "paper-released", "paper-controlled"])
def test_a_study_of_real_size_says_what_it_costs_and_what_is_missing(study: str) -> None:
    plan = json.loads(printed("study", study, "--plan", "--gpus", "8", "--json"))
    assert plan["gpus"] == [1, 8]
    text = printed("study", study, "--plan")
    assert "GPU-hours" in text and "lmsys/vicuna-7b-v1.5" in text and "missing" in text
    moved = json.loads(printed("compare-arms", study, "--json"))
    tested = [pair for pair in moved if pair["tested"] and not pair["seed_only"]]
    if study == "paper-controlled":
        assert all(pair["controlled"] for pair in tested)
