"""`blindspot score` as a user meets it."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from blindspot.benchmarks.scoring import DEFAULT, PROFILES
from blindspot.cli import app
from blindspot.cli.evaluation import score
from blindspot.evaluation.scores.report import score_run

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


def run(*arguments: object, width: int = 80) -> Result:
    return CliRunner().invoke(app, ["score", *map(str, arguments)], env={"COLUMNS": str(width)})


def sets(benchmark: str, kind: str, answers: list[str], **groups: str) -> list[dict[str, Any]]:
    """Rows of sets whose members are all right, but for one of the last set."""
    size = {"mme": 2, "ccbench": 4}[benchmark]
    rows = [
        {
            "id": f"{benchmark}-{number}",
            "benchmark": benchmark,
            "kind": kind,
            "choices": ["cat", "dog", "owl", "fox"],
            "answer": answers[number % size],
            "raw": answers[number % size],
            "groups": {"set": str(number // size), **groups},
        }
        for number in range(2 * size)
    ]
    rows[-1]["raw"] = "hm"
    return rows


MME = sets("mme", "yes_no", ["Yes", "No"], category="OCR")  # accuracy 3/4, both right 1/2
CIRCULAR = sets("ccbench", "mcq", ["A", "D", "C", "B"])  # 7 of 8 passes, 1 of 2 questions
GROUPS = [  # the same as one row a question
    {
        "id": f"g{number}",
        "benchmark": "CCBench",
        "kind": "circular_group",
        "choices": [row["choices"] for row in four],
        "answer": [row["answer"] for row in four],
        "raw": [row["raw"] for row in four],
    }
    for number, four in enumerate((CIRCULAR[:4], CIRCULAR[4:]))
]


def shown(table: str) -> dict[str, list[str]]:
    """Lines of a table by their first word; the first of each, which is a benchmark's score."""
    lines: dict[str, list[str]] = {}
    for line in table.splitlines():
        if line.strip():
            lines.setdefault(line.split()[0], re.sub("[*~]", "", line).split()[1:])
    return lines


@pytest.mark.parametrize("circular", [CIRCULAR, GROUPS], ids=["passes", "groups"])
def test_a_benchmarks_metric_is_the_score_whatever_way_it_is_asked_for(tmp_path: Path, circular: list[Any]) -> None:
    folder, file = tmp_path / "run", write(tmp_path / "answers.jsonl", MME + circular)
    for name, rows in {"mme": MME, "ccbench": circular}.items():
        write(folder / name / "answers.jsonl", rows)
    stored = score_run(folder)["benchmarks"]
    assert {name: stored[name]["metrics"]["overall"]["value"] for name in stored} == {"mme": 0.625, "ccbench": 0.5}
    assert stored["ccbench"]["metrics"]["per_pass"]["value"] == 0.875
    for path in (folder, file):
        for all_profiles in ([], ["--profile", "all"]):
            benchmarks = json.loads(run(path, *all_profiles, "--json").stdout)["summary"]["benchmarks"]
            for name, entry in stored.items():
                assert {key: benchmarks[name][key] for key in ("metrics", "profiles")} == {
                    key: entry[key] for key in ("metrics", "profiles")
                }
            lines = shown(run(path, *all_profiles).stdout)
            assert (lines["mme"][0], lines["ccbench"][0]) == ("0.625", "0.500")


@pytest.mark.parametrize(
    ("rows", "words", "value"),
    [
        (MME[:-1], "mme incomplete: mean of 3 rows", 1.0),
        ([row | {"groups": {}} for row in MME], "mme incomplete: mean of 4 rows", 0.75),
        ([*MME[:3], MME[3] | {"groups": {"set": "1"}}], "mme incomplete: mean of 4 rows", 0.75),
        (CIRCULAR[:4] + CIRCULAR[5:], "ccbench incomplete: mean of 7 rows", 6 / 7),
        (
            [GROUPS[0] | {key: GROUPS[0][key][:3] for key in ("choices", "answer", "raw")}],
            "ccbench incomplete: mean of 3 rows",
            1.0,
        ),
        ([row | {"benchmark": "mvp"} for row in ROWS[:2]], "mvp mean of 2 rows", 0.5),
        ([{key: ROWS[1][key] for key in ("kind", "choices", "answer", "raw")}] * 2, "no benchmark mean of 2 rows", 1.0),
    ],
)
def test_rows_that_make_no_metric_get_their_mean_and_are_called_so(
    tmp_path: Path, rows: list[dict[str, Any]], words: str, value: float
) -> None:
    file = write(tmp_path / "answers.jsonl", rows)
    (entry,) = json.loads(run(file, "--json").stdout)["summary"]["benchmarks"].values()
    assert "overall" not in entry["metrics"] and not {"perception", "category/OCR"} & {
        name for name, row in entry["metrics"].items() if row["value"] is not None
    }
    assert entry["metrics"]["mean"]["value"] == pytest.approx(value, abs=1e-6)
    for profiles in ([], ["--profile", "all"]):
        assert words in run(file, *profiles, width=200).stdout
    assert ("mmvp" in "".join(entry["notes"])) == (rows[0].get("benchmark") == "mvp")  # the nearest name


def test_json_is_one_object_with_items_in_order_and_nothing_else(tmp_path: Path, answers: Path) -> None:
    result = run(answers, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.isascii() and result.stdout.count("\n") == 1
    printed = json.loads(result.stdout)
    assert list(printed) == ["summary", "items"]
    assert printed["items"] == [
        {"extracted": "Z", "score": 0.0},
        {"extracted": "B", "score": 1.0},
        {"extracted": "Yes", "score": 1.0},
        {"extracted": "yes.", "score": 0.0},
    ]
    groups = json.loads(run(write(tmp_path / "groups.jsonl", GROUPS), "--json").stdout)
    assert [item["score"] for item in groups["items"]] == [1.0, 0.0], "a circular group is one item"


def test_thoughts_are_treated_as_told(tmp_path: Path) -> None:
    file = write(tmp_path / "answers.jsonl", [ROWS[1] | {"raw": "<think>It is A or</think>B"}, ROWS[2]])
    for thinking, extracted in {"harness": "A", "keep": "A", "strip": "B"}.items():
        printed = json.loads(run(file, "--thinking", thinking, "--json").stdout)
        assert [item["extracted"] for item in printed["items"]] == [extracted, "Yes"]
        assert printed["summary"]["benchmarks"]["mmvp"]["metrics"]["overall"]["value"] == float(extracted == "B")
    for profile in PROFILES[0], "all":
        assert "stripped" in run(file, "--profile", profile).stdout


def test_the_table_has_intervals_and_chance_and_no_raw_text(tmp_path: Path, answers: Path) -> None:
    rows = [row | {"id": str(number)} for number, row in enumerate([ROWS[1]] * 4)]
    file = write(tmp_path / "run" / "mmvp" / "answers.jsonl", rows)
    for path in (tmp_path / "run", file):
        result = run(path, "--profile", "official")
        assert (result.exit_code, result.stderr) == (0, "")
        line = shown(result.stdout)["mmvp"]
        assert line == ["1.000", "0.510\N{EN DASH}1.000", "0.577", "0.500", "1.000", "4"]  # Wilson's of 4 of 4
    assert "\x1b" not in run(answers).stdout


def test_all_profiles_stand_side_by_side(answers: Path) -> None:
    printed = json.loads(run(answers, "--profile", "all", "--json").stdout)
    sides = printed["summary"]["benchmarks"]["gqa"]["profiles"]
    assert tuple(sides) == PROFILES[:-1], "the last repairs rules of other benchmarks"
    assert [side["metrics"]["overall"] for side in sides.values()] == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert "lmms-eval-0.7.3" not in printed["summary"]["benchmarks"]["vsr"]["profiles"]
    assert [tuple(item) for item in printed["items"]] == [PROFILES] * 4
    assert printed["items"][3]["lmms-eval-0.7.3"] == {"extracted": "yes", "score": 1.0}
    assert printed["items"][2]["likelihood"] == {"extracted": None, "score": None}

    table = run(answers, "--profile", "all").stdout
    assert shown(table)["vsr"][:5] == ["100.0", "100.0", "\N{EN DASH}", "100.0", "\N{EN DASH}"]
    assert max(map(len, table.splitlines())) <= 80 and "…" not in table


def test_the_default_is_the_papers_profile() -> None:
    assert inspect.signature(score).parameters["profile"].default == DEFAULT
