"""``blindspot compare`` and ``blindspot paper``, as a user calls them."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from blindspot.cli import app

from .evaluation.score_rows import pairs, write_run


def _run(folder: Path, right: int, prompts: str) -> str:
    hits = [place < right for place in range(20)]
    rows = [row | {"prompt": prompts} for row in pairs(list(zip(hits[::2], hits[1::2], strict=True)))]
    return str(write_run(folder, rows, prompts=prompts))


def test_compare_prints_a_table_and_what_differs(tmp_path: Path) -> None:
    runs = [_run(tmp_path / name, right, name) for name, right in (("one", 4), ("two", 18))]
    shown = CliRunner().invoke(app, ["compare", *runs, "--all"], env={"COLUMNS": "160"})
    assert shown.exit_code == 0, shown.output
    for expected in ("two minus one", "  pair_accuracy", "+0.700*", "prompts differs", "20 of 20 questions"):
        assert expected in shown.output
    found = json.loads(CliRunner().invoke(app, ["compare", *runs, "--json"]).stdout)
    assert [row["metric"] for row in found["comparisons"]] == ["overall", "pair_accuracy"]
    assert found["comparisons"][0]["difference"] == 0.7


def test_paper_prints_tables_and_json() -> None:
    shown = CliRunner().invoke(app, ["paper"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    for expected in ("arXiv:2601.09954", "33.225", "0.739", "Holm over 77 tests", "one training"):
        assert expected in shown.output
    found = json.loads(CliRunner().invoke(app, ["paper", "--json"]).stdout)
    assert len(found["scores"]) == 270


@pytest.mark.parametrize("width", [80, 120])
def test_every_number_of_the_paper_stays_on_one_line(width: int) -> None:
    shown = CliRunner().invoke(app, ["paper"], env={"COLUMNS": str(width)}).stdout
    assert max(map(len, shown.splitlines())) <= width
    words = set(re.split(r"[\s*]+", shown))
    found = json.loads(CliRunner().invoke(app, ["paper", "--json"]).stdout)
    assert {row["printed"] for row in found["scores"]} <= words
    assert {row["benchmark"] for row in found["scores"]} <= words


def test_a_comparison_is_cut_into_tables_that_fit(tmp_path: Path) -> None:
    runs = [_run(tmp_path / name, right, name) for name, right in (("one", 4), ("two", 18))]
    shown = CliRunner().invoke(app, ["compare", *runs, "--all"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert len(re.findall(r"^ mmvp ", shown, re.MULTILINE)) == 2
    assert {"difference", "+0.700*", "0.900", "resolves", "permutation", "mcnemar"} <= set(shown.split())
