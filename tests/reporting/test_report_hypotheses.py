"""Claims of a study become verdicts, on the page, in the files and on the terminal."""

import csv
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from rich.console import Console

from blindspot.reporting import collect, print_tables, write_report
from tests.reporting.checker import edit_plan
from tests.reporting.conftest import COLUMNS as ALL_COLUMNS


def claim(name: str, predicts: str, column: str = "cvbench_relation", **contrast: float) -> dict[str, Any]:
    named = {arm.replace("_", "-"): weight for arm, weight in contrast.items()}
    said = {"id": name, "claim": f"Claim <b>{name}</b>", "test": "one minus the other"}
    return said | {"contrast": named, "predicts": predicts, "column": column}


COLUMNS = ALL_COLUMNS[:3]
CLAIMS = [
    claim("hurts", "negative", clip_axial=1, clip_learned=-1),
    claim("helps", "positive", clip_axial=1, clip_learned=-1),
    claim("nothing", "zero", clip_axial=1, clip_learned=-1),
    claim("noise", "zero", replicate=1, clip_learned=-1),
    claim("counting", "negative", "cvbench_count", aimv2_axial=1, aimv2_learned=-1),
    claim("pairs", "negative", "mmvp", clip_axial=1, clip_learned=-1),
]


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    """Of six seeds: two hardly decide anything."""
    run = make_run(per_column=120, columns=COLUMNS, seeds=tuple(range(6)))
    edit_plan(run, hypotheses=CLAIMS)
    return run


def test_verdicts_follow_effect_and_prediction(run: Path) -> None:
    rows = {row["id"]: row for row in collect(run)["hypotheses"]}
    assert rows["hurts"]["effect"] == pytest.approx(-0.3, abs=0.12)
    assert rows["hurts"]["low"] < rows["hurts"]["effect"] < rows["hurts"]["high"] < 0
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts == {
        "hurts": "supported",
        "helps": "refuted",
        "nothing": "refuted",
        "noise": "undecided",
        "counting": "undecided",
        "pairs": "supported",
    }
    assert all(row["p_holm"] >= row["p"] for row in rows.values())


def test_the_effect_is_the_difference_of_the_scores(run: Path) -> None:
    results = collect(run)
    scores = {
        (row["arm"], row["column"]): row["score"]
        for row in results["scores"]
        if (row["stage"], row["split"], row["seed"]) == ("instruct", "iid", None)
    }
    for row in results["hypotheses"]:
        expected = sum(weight * scores[arm, row["column"]] for arm, weight in row["contrast"].items())
        assert row["effect"] == pytest.approx(expected, abs=1e-5)


def test_only_seeds_that_every_arm_of_a_claim_has_count(run: Path) -> None:
    (run / "steps" / "clip-axial-0-instruct-evaluate" / "done.json").unlink()
    results = collect(run)
    scores = {
        (row["arm"], row["seed"]): row["score"]
        for row in results["scores"]
        if (row["stage"], row["split"], row["column"]) == ("instruct", "iid", "cvbench_relation")
    }
    effect = fmean(scores["clip-axial", seed] - scores["clip-learned", seed] for seed in results["seeds"][1:])
    (hurts,) = (row for row in results["hypotheses"] if row["id"] == "hurts")
    assert hurts["effect"] == pytest.approx(effect, abs=1e-5)


def test_they_are_on_the_page_in_a_table_and_on_the_terminal(run: Path) -> None:
    results = collect(run)
    page = write_report(run).read_text(encoding="utf-8")
    assert "The explanations, tested" in page
    assert "Claim &lt;b&gt;hurts&lt;/b&gt;" in page and "<b>hurts</b>" not in page
    assert "Of 6 claims: 2 supported, 2 refuted, 2 undecided" in page
    with (run / "tables" / "hypotheses.csv").open() as lines:
        assert [row["verdict"] for row in csv.DictReader(lines)] == [row["verdict"] for row in results["hypotheses"]]
    console = Console(width=120, record=True, file=StringIO())
    print_tables(results, console)
    assert "supported" in console.export_text()


def test_a_study_without_claims_has_no_such_section(make_run: Callable[..., Path]) -> None:
    folder = make_run(per_column=10)
    assert collect(folder)["hypotheses"] == []
    assert "The explanations, tested" not in write_report(folder).read_text(encoding="utf-8")


def test_one_seed_is_not_tested(make_run: Callable[..., Path]) -> None:
    folder = make_run(per_column=10, seeds=(0,))
    edit_plan(folder, hypotheses=CLAIMS[:1])
    (row,) = collect(folder)["hypotheses"]
    assert (row["verdict"], row["p_holm"]) == ("not tested", None)
    write_report(folder)
