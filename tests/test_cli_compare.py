"""``blindspot compare``, ``audit`` and ``paper``, as a user calls them."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from blindspot.cli import app
from blindspot.files import write_jsonl

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


def test_paper_prints_json_and_tables_with_every_number_on_one_line() -> None:
    found = json.loads(CliRunner().invoke(app, ["paper", "--json"]).stdout)
    assert len(found["scores"]) == 270
    for width in (80, 120):
        shown = CliRunner().invoke(app, ["paper"], env={"COLUMNS": str(width)})
        assert shown.exit_code == 0, shown.output
        assert max(map(len, shown.stdout.splitlines())) <= width
        words = set(re.split(r"[\s*]+", shown.stdout))
        assert {row["printed"] for row in found["scores"]} | {row["benchmark"] for row in found["scores"]} <= words
        for expected in ("arXiv:2601.09954", "33.225", "0.739", "Holm over 77 tests", "one training"):
            assert expected in " ".join(shown.stdout.split())


def test_a_comparison_is_cut_into_tables_that_fit(tmp_path: Path) -> None:
    runs = [_run(tmp_path / name, right, name) for name, right in (("one", 4), ("two", 18))]
    shown = CliRunner().invoke(app, ["compare", *runs, "--all"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert len(re.findall(r"^ mmvp ", shown, re.MULTILINE)) == 2
    assert {"difference", "+0.700*", "0.900", "resolves", "permutation", "mcnemar"} <= set(shown.split())


def test_a_benchmark_is_audited_from_its_words_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blindspot.evaluation.audit.find_spec", lambda name: None)  # its own test has the forest
    relations = ("left of", "under")
    rows = [
        {"image": f"{n // 2}.jpg", "caption": f"The cup is {place} the <b>.", "label": n % 2, "relation": place}
        for n, place in enumerate(30 * relations)
    ]
    write_jsonl(tmp_path / "test.jsonl", rows)  # as VSR is published, without a picture anywhere
    call = ["audit", "vsr", "--data", str(tmp_path / "test.jsonl"), "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(app, call, env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    for expected in ("60 questions in 30 groups", "templates", "+50.0*", "pip install"):
        assert expected in shown.output
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Without pictures, 4 of 4 parts are answered beyond chance" in page and "<b>templates</b>" in page
    assert json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["groups"] == 30
    shown = CliRunner().invoke(app, [*call, "--together", "templates", "--json"])
    assert shown.exit_code == 2 and "no part has 20 questions in 10 groups" in shown.output
    shown = CliRunner().invoke(app, [*call, "--model", str(tmp_path / "absent")])
    assert shown.exit_code == 2 and "absent is not a model folder" in shown.output
