"""Tables as LaTeX, CSV and on the terminal."""

import copy
import csv
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from blindspot.reporting import print_tables
from blindspot.reporting.tables import Table, booktabs, difference_table, score_table, write_tables
from blindspot.text import MINUS

Row = dict[str, Any]


def scores(results: Row) -> Table:
    table = score_table(results, "instruct", "iid")
    assert table is not None
    return table


def printed(results: Row, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_tables(results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_names_are_whole_at_80_columns(results: Row) -> None:
    text = printed(results, 80)
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    names = [row.label for _, rows in scores(results).blocks for row in rows] + [
        pair["label"] for pair in results["pairs"]
    ]
    words = {word for name in names for word in name.removeprefix("LLaVA-").replace("-", " ").split()}
    assert words <= set(text.split()) and "unreadable" in words


def test_layout_is_the_papers(results: Row) -> None:
    table = scores(results)
    assert table.header[:4] == [("MMVP", 1), ("CV-Bench 2D", 2), ("TallyQA", 2), ("GQA", 5)]
    titles = [title for title, _ in table.blocks]
    assert titles[0].startswith("1-D") and titles[1].startswith("2-D") and titles[2].startswith("Replicate")
    assert [row.label for row in table.blocks[0][1]] == ["LLaVA-CLIP", "LLaVA-SigLIP", "LLaVA-SigLIP2", "LLaVA-AIMv2"]
    assert [row.label for row in table.blocks[3][1]] == ["one-object rule", "chance", "seed noise", "unreadable"]


def test_the_best_arm_is_marked_and_the_replicate_does_not_compete(results: Row) -> None:
    changed = copy.deepcopy(results)
    for row in changed["scores"]:
        if row["arm"] == "replicate":
            row["score"] = 1.0
    table = scores(changed)
    for place, column in enumerate(table.columns):
        marked = [row.cells[place] for _, rows in table.blocks for row in rows if row.cells[place].best]
        best = max(
            row["score"]
            for row in results["scores"]
            if (row["column"], row["stage"], row["split"], row["seed"]) == (column.id, "instruct", "iid", None)
            and row["arm"] != "replicate"
        )
        assert marked and {cell.text for cell in marked} == {f"{100 * best:.1f}"}


def test_marks_of_differences(results: Row) -> None:
    changed = copy.deepcopy(results)
    rows = [row for row in changed["differences"] if row["stage"] == "instruct" and row["a"] == "clip-axial"]
    rows[0].update(significant=True, difference=-0.1, p_questions=0.001)
    rows[1].update(significant=False, p_questions=0.01)
    rows[2].update(significant=False, p_questions=0.5)
    table = difference_table(changed, "instruct")
    assert table is not None
    cells = table.blocks[0][1][0].cells
    assert (
        [cell.mark for cell in cells[:3]] == ["*", "†", ""] and cells[0].sign == -1 and cells[0].text == f"{MINUS}10.0"
    )


def test_csv_holds_every_row(results: Row, tmp_path: Path) -> None:
    write_tables(tmp_path, results)
    with (tmp_path / "tables/differences_instruct.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    wanted = [row for row in results["differences"] if row["stage"] == "instruct"]
    assert [float(row["difference"]) for row in rows] == [row["difference"] for row in wanted]
    assert {"low", "high", "p", "p_holm", "p_questions"} <= rows[0].keys()
    with (tmp_path / "tables/scores_connector.csv").open(newline="") as lines:
        assert len(list(csv.DictReader(lines))) == sum(row["stage"] == "connector" for row in results["scores"])


def test_latex_has_as_many_cells_in_each_line_as_columns(results: Row) -> None:
    changed = copy.deepcopy(results)
    changed["arms"][0]["label"] = "A_1 & 50%"
    lines = booktabs(scores(changed)).splitlines()
    assert lines[0] == r"\begin{tabular}{lcccccccccccccc}" and lines[-1] == r"\end{tabular}"
    body = [line.replace(r"\&", "") for line in lines if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.count("&") for line in body} == {14}
    assert any(line.startswith(r"A\_1 \& 50\% & ") for line in lines)
    assert any(r"\textbf{" in line for line in lines)


@pytest.mark.parametrize("width", [80, 120, 320])
def test_terminal_shows_every_number_at_any_width(results: Row, width: int) -> None:
    text = printed(results, width)
    table = scores(results)
    assert max(map(len, text.splitlines())) <= width
    assert all(cell.text in text for _, rows in table.blocks for row in rows for cell in row.cells)
    assert (table.blocks[0][1][0].cells[0].small in text) == (width == 320)
    assert "differences between 2D-RoPE and learned positions" in " ".join(text.split())


def test_terminal_takes_labels_literally_and_warns(results: Row) -> None:
    changed = copy.deepcopy(results) | {"meaningful": False, "scale": "smoke"}
    changed["arms"][0]["label"] = "[red]A[/]"
    text = printed(changed, 320)
    assert "[red]A[/]" in text and "these numbers mean nothing" in text
