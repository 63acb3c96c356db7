"""`blindspot score` as a user meets it."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from blindspot.benchmarks.scoring import DEFAULT, PROFILES
from blindspot.cli.score import score

ROWS: list[dict[str, Any]] = [
    {"id": "1", "benchmark": "mmvp", "kind": "mcq", "choices": ["Open", "Closed"], "answer": "A", "raw": "(a) \x1b[2J"},
    {"id": "2", "benchmark": "mmvp", "kind": "mcq", "choices": ["Open", "Closed"], "answer": "B", "raw": "B"},
    {"id": "1", "benchmark": "vsr", "kind": "yes_no", "answer": "Yes", "raw": "Yes, \ud800 it is [bold]so[/bold]"},
    {
        "id": "1",
        "benchmark": "gqa",
        "kind": "text",
        "answer": "yes",
        "raw": "Yes.",
        "likelihood": {"yes": -1, "no": -2},
    },
]


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return write(tmp_path / "answers.jsonl", ROWS)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(score)
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "80"})


def test_json_is_one_object_with_items_in_order_and_nothing_else(answers: Path) -> None:
    result = run(answers, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.isascii() and result.stdout.count("\n") == 1
    printed = json.loads(result.stdout)
    assert printed == {
        "summary": {
            "profile": "vlmevalkit-2025-09",
            "benchmarks": {
                "mmvp": {"n": 2, "score": 0.5, "parse_failures": 1},
                "vsr": {"n": 1, "score": 1.0, "parse_failures": 0},
                "gqa": {"n": 1, "score": 0.0, "parse_failures": 0},
            },
        },
        "items": [
            {"extracted": "Z", "score": 0.0},
            {"extracted": "B", "score": 1.0},
            {"extracted": "Yes", "score": 1.0},
            {"extracted": "yes.", "score": 0.0},
        ],
    }


def test_a_run_folder_is_scored_whole(tmp_path: Path, answers: Path) -> None:
    for name in ("gqa", "mmvp", "vsr"):
        write(tmp_path / "run" / name / "answers.jsonl", [row for row in ROWS if row["benchmark"] == name])
    folder = json.loads(run(tmp_path / "run", "--json").stdout)["summary"]["benchmarks"]
    assert folder == json.loads(run(answers, "--json").stdout)["summary"]["benchmarks"]


def test_the_table_of_a_run_folder_has_intervals_and_chance(tmp_path: Path) -> None:
    rows = [row | {"id": str(number)} for number, row in enumerate([ROWS[1]] * 4)]
    write(tmp_path / "run" / "mmvp" / "answers.jsonl", rows)
    result = run(tmp_path / "run", "--profile", "official")
    assert (result.exit_code, result.stderr) == (0, "")
    (line, *_) = [line.split() for line in result.stdout.splitlines() if line.startswith(" mmvp")]
    assert line == ["mmvp", "1.000", "0.510\N{EN DASH}1.000", "0.577", "0.500", "1.000", "4"]  # Wilson's of 4 of 4
    alone = run(tmp_path / "run", "--profile", "likelihood")
    assert (alone.exit_code, alone.stderr.count("\n")) == (2, 1)
    assert "mmvp/answers.jsonl:1: no likelihood of options" in alone.stderr


def test_all_profiles_stand_side_by_side(answers: Path) -> None:
    printed = json.loads(run(answers, "--profile", "all", "--json").stdout)
    assert tuple(printed["summary"]["profiles"]) == PROFILES
    means = {name: each["gqa"]["score"] for name, each in printed["summary"]["profiles"].items()}
    assert list(means.values()) == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert printed["summary"]["profiles"]["lmms-eval-0.7.3"]["vsr"]["score"] is None
    assert [tuple(item) for item in printed["items"]] == [PROFILES] * 4
    assert printed["items"][3]["lmms-eval-0.7.3"] == {"extracted": "yes", "score": 1.0}
    assert printed["items"][2]["likelihood"] == {"extracted": None, "score": None}

    table = run(answers, "--profile", "all").stdout
    lines = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.strip()}
    assert lines["gqa"] == ["1", "0.000", "0.000", "1.000", "1.000", "1.000"]
    assert lines["vsr"] == ["1", "1.000", "1.000", "-", "1.000", "-"]
    assert max(map(len, table.splitlines())) <= 80 and "…" not in table


def test_the_table_shows_means_and_parse_failures_and_no_raw_text(answers: Path) -> None:
    result = run(answers)
    assert result.exit_code == 0
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert cells == [
        ["mmvp", "2", "0.500", "1 (50.0%)"],
        ["vsr", "1", "1.000", "0 (0.0%)"],
        ["gqa", "1", "0.000", "0 (0.0%)"],
    ]
    assert "\x1b" not in result.stdout


def test_benchmarks_that_a_harness_lacks_are_left_open_beside_others(answers: Path) -> None:
    printed = json.loads(run(answers, "--profile", "lmms-eval-0.7.3", "--json").stdout)
    assert printed["items"][2] == {"extracted": None, "score": None}
    assert printed["summary"]["benchmarks"]["vsr"] == {"n": 1, "score": None, "parse_failures": None}
    assert printed["summary"]["benchmarks"]["mmvp"]["score"] == 1.0
    table = run(answers, "--profile", "lmms-eval-0.7.3").stdout
    assert ["vsr", "1", "-", "-"] in [line.replace("│", " ").split() for line in table.splitlines()]


def test_mistakes_are_one_line_and_status_2(tmp_path: Path, answers: Path) -> None:
    alone = write(tmp_path / "vsr.jsonl", [ROWS[2]])
    twice = write(tmp_path / "twice.jsonl", [ROWS[0], ROWS[0]])
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{}\n{", encoding="utf-8")
    cases = {
        (alone, "--profile", "lmms-eval-0.7.3"): f"{alone}:1: vsr is not defined in lmms-eval-0.7.3; choose another",
        (answers, "--profile", "likelihood"): f"{answers}:1: no likelihood of options, which likelihood reads;",
        (answers, "--profile", "offical"): "--profile: unknown scoring profile 'offical'; did you mean 'official'?",
        (twice,): f"{twice}:2: the id of line 1 again; ids of a benchmark must differ",
        (broken,): f"{broken}:1: no 'benchmark' column",
        (tmp_path / "none.jsonl",): f"cannot read {tmp_path / 'none.jsonl'}: No such file or directory",
    }
    for arguments, message in cases.items():
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1


def test_the_default_is_the_papers_profile() -> None:
    assert inspect.signature(score).parameters["profile"].default == DEFAULT
