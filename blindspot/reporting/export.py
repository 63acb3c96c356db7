"""Tables as CSV (one tidy row per number) and as LaTeX (booktabs)."""

from pathlib import Path
from typing import Any

from blindspot.files import write_text
from blindspot.reporting.tables import (
    Cell,
    Table,
    difference_table,
    part_difference_table,
    part_score_table,
    score_table,
)
from blindspot.reporting.text import as_csv, latex

_ENDINGS = {"iid": "", "compositional": "_compositional"}


def write_tables(run: Path, results: dict[str, Any]) -> list[Path]:
    """Write ``tables/*.csv`` and ``tables/*.tex`` of a run folder; returns their paths."""
    folder = run / "tables"
    texts: dict[str, str] = {}
    for stage in results["stages"]:
        texts[f"scores_{stage}.csv"] = as_csv([row for row in results["scores"] if row["stage"] == stage])
        texts[f"differences_{stage}.csv"] = as_csv(
            [_flat(row) for row in results["differences"] if row["stage"] == stage]
        )
        for split, ending in _ENDINGS.items():
            if table := score_table(results, stage, split):
                texts[f"scores_{stage}{ending}.tex"] = booktabs(table)
        tables = {
            f"scores_{stage}_parts": part_score_table(results, stage),
            f"differences_{stage}": difference_table(results, stage),
            f"differences_{stage}_parts": part_difference_table(results, stage),
        }
        texts |= {f"{name}.tex": booktabs(table) for name, table in tables.items() if table}
    texts["noise.csv"] = as_csv(results["noise"])
    texts["hypotheses.csv"] = as_csv(results["hypotheses"])
    for name, text in texts.items():
        if text:
            write_text(folder / name, text)
    return [folder / name for name, text in texts.items() if text]


def booktabs(table: Table) -> str:
    r"""A ``tabular`` for ``\usepackage{booktabs}``; each interval stands under its number in tiny print."""
    width = len(table.columns) + 1
    lines = [rf"\begin{{tabular}}{{l{'c' * (width - 1)}}}", r"\toprule"]
    groups, rules, start = [""], [], 2
    for paper, number in table.header:
        groups.append(rf"\multicolumn{{{number}}}{{c}}{{{latex(paper)}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{start + number - 1}}}")
        start += number
    lines += [" & ".join(groups) + r" \\", "".join(rules)]
    lines.append(" & ".join(["", *(latex(column.label) for column in table.columns)]) + r" \\")
    for title, rows in table.blocks:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{latex(title)}}}}} \\"]
        for row in rows:
            lines.append(" & ".join([latex(row.label), *(_latex_cell(cell) for cell in row.cells)]) + r" \\")
            if any(cell.small for cell in row.cells):
                small = [rf"{{\tiny {latex(cell.small)}}}" if cell.small else "" for cell in row.cells]
                lines.append(" & ".join(["", *small]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_cell(cell: Cell) -> str:
    text = latex(cell.text).replace("±", r"$\pm$")
    mark = {"*": "$^{*}$", "†": r"$^{\dagger}$"}.get(cell.mark, "")
    return (rf"\textbf{{{text}}}" if cell.best else text) + mark


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "seeds"}
