"""Runs with many arms, any labels and parts of columns: figures, tables and the page."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindspot.plots import Forest
from blindspot.reporting import collect, figures, write_report
from blindspot.reporting.run import MOST_ARMS
from blindspot.reporting.tables import PARTS, difference_table, score_table
from tests.reporting.checker import Checker, edit_answers, edit_plan
from tests.reporting.conftest import write_run

pytestmark = pytest.mark.usefixtures("quick")

SIDES = {"left/right": {"relation": ["left", "right"]}, "above/below": {"relation": ["above", "below"]}}
COLUMNS = [
    {"id": "vsr", "label": "VSR", "paper": "VSR", "chance": 0.5, "parts": SIDES},
    {"id": "gqa_query", "label": "Query", "paper": "GQA", "chance": 0.2},
]
ARMS = [
    {
        "id": f"a{number}",
        "label": f"arm {number}, LM M-RoPE",
        "axes": {"family": "clip", "positions": "learned"},
        "block": f"Group {number // 5}",
    }
    for number in range(15)
]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen arms in three groups; arm 3 knows above from below only."""
    run = write_run(tmp_path_factory.mktemp("many") / "run", per_column=40, columns=COLUMNS, arms=ARMS, seeds=(0,))
    edit_plan(run, pairs=[
        {"a": f"a{number}", "b": "a0", "label": f"pair {number}", "kind": kind, "first": kind, "second": "the rest"}
        for number, kind in enumerate(["x"] * 5 + ["y"] * 4, start=1)
    ])  # fmt: skip

    def relate(number: int, row: Row) -> None:
        if row["benchmark"] == "vsr":
            row["groups"]["relation"] = ["left", "above", "right", "below"][number // 2 % 4]

    def know_above(number: int, row: Row) -> None:
        if row["benchmark"] == "vsr":
            row["score"] = float(row["groups"]["relation"] in ("above", "below"))

    edit_answers(run, relate)
    edit_answers(run, know_above, "a3-*-evaluate")
    return run


@pytest.fixture(scope="module")
def results(run: Path) -> Row:
    return collect(run)


def test_parts_of_a_column_are_scored_and_compared_apart(results: Row) -> None:
    scores = {
        (row["arm"], row["split"]): row
        for row in results["scores"]
        if (row["column"], row["stage"], row["seed"]) == ("vsr", "instruct", None)
    }
    assert scores["a3", "above/below"]["score"] == 1 and scores["a3", "left/right"]["score"] == 0
    assert scores["a3", "above/below"]["n"] + scores["a3", "left/right"]["n"] == scores["a3", "iid"]["n"]
    assert 0 < scores["a3", "iid"]["score"] < 1
    rows = {row["split"]: row for row in results["differences"] if (row["a"], row["column"]) == ("a3", "vsr")}
    assert rows.keys() == {"iid", *SIDES}
    assert rows["above/below"]["difference"] > 0 > rows["left/right"]["difference"]
    assert not [row for row in results["scores"] if row["column"] == "gqa_query" and row["split"] in SIDES]


def test_parts_stay_out_of_the_main_tables_and_their_corrections(results: Row) -> None:
    count = next(count for count in results["findings"]["counts"] if count["kind"] == "x")
    assert count["tests"] == 5 * 2
    main, parts = difference_table(results, "instruct"), difference_table(results, "instruct", PARTS)
    assert main is not None and [column.id for column in main.columns] == ["vsr", "gqa_query"]
    assert parts is not None and [column.label for column in parts.columns] == list(SIDES)
    assert [title for title, _ in parts.blocks] == ["X minus the rest", "Y minus the rest"]
    rows = [row for row in results["differences"] if row["kind"] == "x" and row["stage"] == "instruct"]
    for split in ("iid", *SIDES):
        smallest = min((row for row in rows if row["split"] == split), key=lambda row: row["p"])
        tests = sum(row["split"] == split for row in rows)
        assert smallest["p_holm"] == pytest.approx(min(1, tests * smallest["p"]), rel=1e-4)


def test_arms_stand_in_their_groups(results: Row) -> None:
    scores, parts = score_table(results, "instruct", "iid"), score_table(results, "instruct", PARTS)
    assert scores is not None and parts is not None
    assert [title for title, _ in scores.blocks] == ["Group 0", "Group 1", "Group 2", "For scale"]
    assert parts.blocks[0][1][3].cells[1].text == "100.0"
    assert [row.label for row in parts.blocks[-1][1]] == ["chance"]


def test_many_arms_and_pairs_are_drawn_as_lines(results: Row) -> None:
    scores, differences = figures.scores(results), figures.differences(results, "instruct")
    assert scores is not None and differences is not None
    for drawn, labels in ((scores, [arm["label"] for arm in ARMS]), (differences, [f"pair {n}" for n in range(1, 10)])):
        ((first, second),) = drawn.panels
        assert isinstance(first, Forest) and first.names == labels
        assert second is not None and [first.title, second.title] == ["VSR", "GQA\nQuery"]
        assert len(first.estimates) == len(labels)
    assert [key.label for key in scores.legend] == ["Group 0", "Group 1", "Group 2", "chance"]


def test_the_page_shows_every_arm_and_the_parts(run: Path, results: Row) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    assert html.count("Left and right apart from above and below") == 4
    assert all(arm["label"] in html for arm in results["arms"])
    assert {path.name for path in (run / "tables").glob("*_parts.tex")} == {
        f"{what}_{stage}_parts.tex" for what in ("scores", "differences") for stage in ("connector", "instruct")
    }
    assert np.isfinite([row["score"] for row in results["scores"]]).all()


def test_very_many_arms_are_folded_and_the_leading_ones_drawn(tmp_path: Path) -> None:
    arms = [ARMS[0] | {"id": f"a{n}", "label": f"arm {n}.", "block": f"Group {n // 30}"} for n in range(90)]
    run = write_run(tmp_path / "run", per_column=10, columns=COLUMNS, arms=arms, seeds=(0,))
    edit_plan(run, pairs=[
        {"a": f"a{n}", "b": f"a{n // 30}", "label": f"pair {n}.", "kind": "x", "first": "one", "second": "its first"}
        for n in range(3, 90)
    ])  # fmt: skip
    edit_answers(run, lambda _, row: row.update(score=0.0, parsed=True), "a[0-2]-*-evaluate")
    edit_answers(run, lambda _, row: row.update(score=1.0, parsed=True), "a77-*-evaluate")
    results = collect(run)
    shown = {answer["arm"] for answer in results["gallery"][0]["answers"]}
    assert len(shown) == MOST_ARMS and {"a0", "a1", "a2", "a77"} <= shown, "what others are compared with, and the best"
    drawn = [figures.scores(results), figures.differences(results, "instruct")]
    for figure, said in zip(drawn, ("40 of 90 arms", "of 87 pairs the 40"), strict=True):
        assert figure is not None and said in figure.subtitle
        assert isinstance(panel := figure.panels[0][0], Forest) and len(panel.names) == MOST_ARMS
    page = Checker(write_report(run))
    assert page.tags.count("summary") >= 2 * (3 + 1) and "Group 1: 30" in page.text and "arm 41." in page.text
    assert page.text.count("40 of 90 arms: those that most are compared with, and the best.") == 1
