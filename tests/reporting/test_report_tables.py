"""Tables as LaTeX, CSV and on the terminal; hostile text and numbers as they are shown."""

import copy
import csv
import io
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from blindspot.reporting import print_tables
from blindspot.reporting.tables import PaperTable, as_csv, booktabs, difference_table, latex, score_table, write_tables
from blindspot.text import DASH, MINUS, clean, points, signed, significant, span

Row = dict[str, Any]


def scores(results: Row) -> PaperTable:
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


ANYTHING = st.text(st.characters(exclude_categories=()), max_size=300)


@given(ANYTHING, st.integers(1, 200))
def test_clean_text_is_short_visible_and_writable(text: str, limit: int) -> None:
    shown = clean(text, limit)
    assert len(shown) <= limit
    shown.encode()
    assert not any(unicodedata.category(mark) in ("Cc", "Cf", "Cs") for mark in shown)


@given(st.text("abc <>&\"'ßñ語", max_size=50))
def test_clean_leaves_honest_text_alone(text: str) -> None:
    assert clean(text) == text


def test_clean_shows_what_it_replaced() -> None:
    assert clean("a\x1b[31m\u202eb\ud800\nc") == "a�[31m�b� c"
    assert clean("abcdef", 4) == "abc…"


def test_latex_escapes_every_special_mark() -> None:
    assert latex(r"a_b & 5% \x{~^#$}") == (r"a\_b \& 5\% \textbackslash{}x\{\textasciitilde{}\textasciicircum{}\#\$\}")


@pytest.mark.parametrize("cell", ["=1+1", "+1 of 2", "-x", "--", "@SUM(A1)", "\t=1", '=HYPERLINK("a,b")', "-1,5"])
def test_a_spreadsheet_computes_nothing_of_a_csv(cell: str) -> None:
    header, row = csv.reader(as_csv([{cell: cell}]).splitlines())
    assert header == row == [f"'{cell}"]


@pytest.mark.parametrize("cell", [-1, -0.5, "-3.2", "+1e-5", "-inf", "a=b", "", None, f"{MINUS}3.2", DASH, "'x"])
def test_numbers_and_plain_texts_of_a_csv_stay_as_they_are(cell: object) -> None:
    (_, row) = csv.reader(as_csv([{"n": 1, "x": cell}]).splitlines())
    assert row == ["1", "" if cell is None else str(cell)]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0321, "+3.2"), (-0.004, f"{MINUS}0.4"), (0.0, "0.0"), (-0.0001, "0.0"), (None, DASH)]
)
def test_signed(value: float | None, shown: str) -> None:
    assert signed(value) == shown


def test_points_and_spans() -> None:
    assert (points(0.9341), points(None), span(0.1, 0.25), span(None, 0.2)) == ("93.4", DASH, f"10.0{DASH}25.0", "")


def test_ratios_are_never_in_powers_of_ten() -> None:
    shown = [significant(value) for value in (20.48, 1554.08, 0.0651942, 6.7361e-06, 1, 0.5)]
    assert shown == ["20", "1,600", "0.065", "0.0000067", "1", "0.5"]
    assert significant(20516.9, 4) == "20,520" and significant(138.715, 4) == "138.7"
