"""Tables as data, laid out like the paper's, and what prints them: the page, LaTeX, CSV files and the terminal."""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import Any

from rich import box
from rich.console import Console
from rich.text import Text

from blindspot.evaluation.statistics import ALPHA
from blindspot.files import write_text
from blindspot.reporting.run import Column, RunArm, stage_name
from blindspot.terminal import listing, pieces
from blindspot.text import DASH, MINUS, points, signed, span

PARTS = "parts"
"""Instead of a split: the columns that have parts, part by part."""
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    MINUS: r"$-$",
    DASH: "--",
    "±": r"$\pm$",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
}
_MARKS = {"*": "$^{*}$", "†": r"$^{\dagger}$"}
_NARROW = 8  # letters of a heading on the terminal that need not be broken
Row = dict[str, Any]


@dataclass(frozen=True)
class TableCell:
    """One number: ``text``, its interval in small print, whether it is the best of its column, and a mark."""

    text: str
    small: str = ""
    best: bool = False
    mark: str = ""
    sign: int = 0


@dataclass(frozen=True)
class TableRow:
    """A labelled row with one cell per column."""

    label: str
    cells: list[TableCell]


@dataclass(frozen=True)
class PaperTable:
    """Columns and titled blocks of rows."""

    columns: list[Column]
    blocks: list[tuple[str, list[TableRow]]]

    @property
    def header(self) -> list[tuple[str, int]]:
        """Benchmarks of the paper with the number of neighbouring columns that each spans."""
        return [(paper, len(list(group))) for paper, group in groupby(self.columns, key=lambda column: column.paper)]


def arms_of(results: Row) -> list[RunArm]:
    """The arms of ``results.json``."""
    return [RunArm.model_validate(arm) for arm in results["arms"]]


def columns_of(results: Row, split: str = "iid") -> list[Column]:
    """The columns of ``results.json``; of `PARTS` one a part, under the name of the column that it belongs to."""
    columns = [Column.model_validate(column) for column in results["columns"]]
    if split != PARTS:
        return columns
    return [
        column.model_copy(update={"id": f"{column.id}/{part}", "label": part, "paper": column.name, "baselines": {}})
        for column in columns
        for part in column.parts
    ]


def asked_on(columns: Sequence[Column]) -> str:
    """What headings say of scores on columns that only resemble the benchmarks they are named after."""
    return " on drawn relatives of the benchmarks" if any(column.relative for column in columns) else ""


def rows_at(rows: Sequence[Row], stage: str, split: str = "iid") -> dict[tuple[str, ...], Row]:
    """Scores over all seeds by arm and column, or differences by both arms and column."""
    return {
        (*(row[key] for key in ("arm", "a", "b") if key in row),
         f"{row['column']}/{row['split']}" if split == PARTS else row["column"]): row
        for row in rows
        if row["stage"] == stage and split in (PARTS, row["split"]) and row.get("seed") is None
    }  # fmt: skip


def score_table(results: Row, stage: str, split: str = "iid") -> PaperTable | None:
    """Arms by columns, over all seeds, those with a score; best arm marked, for which replicates and models that are
    only evaluated do not compete; None without any score."""
    rows, columns = rows_at(results["scores"], stage, split), columns_of(results, split)
    arms = [arm for arm in arms_of(results) if any(arm.id == own for own, _ in rows)]
    if not {column.id for column in columns} & {column for _, column in rows}:
        return None
    competing = {arm.id for arm in arms if arm.axes and arm.replicate_of is None}
    best: dict[str, float] = defaultdict(float)
    for (arm, column), row in rows.items():
        if arm in competing:
            best[column] = max(row["score"], best[column])
    blocks: dict[str, list[TableRow]] = defaultdict(list)
    for arm in sorted(arms, key=lambda arm: arm.replicate_of is not None):
        cells = []
        for column in columns:
            cell = TableCell(DASH)
            if row := rows.get((arm.id, column.id)):
                marked = arm.id in competing and row["score"] == best[column.id]
                cell = TableCell(points(row["score"]), span(row["low"], row["high"]), marked)
            cells.append(cell)
        title = "Replicate: same configuration, other seeds" if arm.replicate_of else arm.block or "Arms"
        blocks[title].append(TableRow(arm.label, cells))
    rules = dict.fromkeys(name for column in columns for name in column.baselines)
    scale = [(name, [column.baselines.get(name) for column in columns]) for name in rules]
    scale.append(("chance", [column.chance for column in columns]))
    if split == "iid":
        noise = {row["column"]: row["deviation"] for row in results["noise"] if row["stage"] == stage}
        worst: dict[str, float] = {}
        for (_, column), row in rows.items():
            worst[column] = max(worst.get(column, 0.0), row["parse_failures"])
        for name, found in (("seed noise", noise), ("unreadable", worst)):
            if any(value is not None for value in found.values()):
                scale.append((name, [found.get(column.id) for column in columns]))
    references = [TableRow(name, [TableCell(points(value)) for value in values]) for name, values in scale]
    return PaperTable(columns, [*blocks.items(), ("For scale", references)])


def difference_table(results: Row, stage: str, split: str = "iid") -> PaperTable | None:
    """Pairs by columns: difference, interval and mark; None without any difference."""
    found, columns = rows_at(results["differences"], stage, split), columns_of(results, split)
    if not {column.id for column in columns} & {column for *_, column in found}:
        return None
    blocks = []
    for kind in dict.fromkeys(pair["kind"] for pair in results["pairs"]):
        pairs = [pair for pair in results["pairs"] if pair["kind"] == kind]
        lines = []
        for pair in pairs:
            rows = [found.get((pair["a"], pair["b"], column.id)) for column in columns]
            lines.append(TableRow(pair["label"], [_difference_cell(row) if row else TableCell(DASH) for row in rows]))
        title = f"{pairs[0]['first']} minus {pairs[0]['second']}"
        if kind == "replicate":
            title = "Replicate minus original: what differs by seed alone"
        blocks.append((title[:1].upper() + title[1:], lines))
    bands = {row["column"]: row["band"] for row in results["noise"] if row["stage"] == stage and split == row["split"]}
    if any(band is not None for band in bands.values()):
        known = [bands.get(column.id) for column in columns]
        cells = [TableCell(DASH if band is None else f"±{points(band)}") for band in known]
        blocks.append(("For scale", [TableRow("noise band", cells)]))
    return PaperTable(columns, blocks)


def _difference_cell(row: Row) -> TableCell:
    """``*`` survives Holm's correction; ``†`` only a test on the questions alone, uncorrected, sees it."""
    questions = row["p_questions"] is not None and row["p_questions"] < ALPHA
    mark = "*" if row["significant"] else "†" if questions else ""
    small = "" if row["low"] is None else f"{signed(row['low'])}, {signed(row['high'])}"
    sign = 0 if not row["significant"] else 1 if row["difference"] > 0 else -1
    return TableCell(signed(row["difference"]), small, mark=mark, sign=sign)


def tables_of(results: Row, stage: str) -> dict[str, PaperTable]:
    """All tables of a stage that there are numbers for, by kind and what they are about."""
    tables = {
        "scores": score_table(results, stage),
        "scores_compositional": score_table(results, stage, "compositional"),
        "scores_parts": score_table(results, stage, PARTS),
        "differences": difference_table(results, stage),
        "differences_parts": difference_table(results, stage, PARTS),
    }
    return {name: table for name, table in tables.items() if table}


def write_tables(run: Path, results: Row) -> None:
    """Write ``tables/*.csv`` (one tidy row per number) and ``tables/*.tex`` of a run folder."""
    texts = {f"{name}.csv": as_csv(results[name]) for name in ("noise", "hypotheses")}
    for stage in results["stages"]:
        for name in ("scores", "differences"):
            rows = [row for row in results[name] if row["stage"] == stage]
            tidy = [{key: value for key, value in row.items() if key != "seeds"} for row in rows]
            texts[f"{name}_{stage}.csv"] = as_csv(tidy)
        for name, table in tables_of(results, stage).items():
            kind, *about = name.split("_")
            texts[f"{'_'.join([kind, stage, *about])}.tex"] = booktabs(table)
    for name, text in texts.items():
        if text:
            write_text(run / "tables" / name, text)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under the keys of all of them; empty where there are none.

    An apostrophe is put before a text that a spreadsheet would take for a formula.
    """

    def safe(value: Any) -> Any:
        if not (isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))):
            return value
        try:
            float(value)
        except ValueError:
            return f"'{value}"
        return value

    if not rows:
        return ""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(safe, keys))
    writer.writerows([safe(row.get(key)) for key in keys] for row in rows)
    return text.getvalue()


def latex(text: str) -> str:
    """``text`` with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(mark, mark) for mark in text)


def booktabs(table: PaperTable) -> str:
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
            cells = [latex(row.label)]
            for cell in row.cells:
                number = rf"\textbf{{{latex(cell.text)}}}" if cell.best else latex(cell.text)
                cells.append(number + _MARKS.get(cell.mark, ""))
            lines.append(" & ".join(cells) + r" \\")
            if any(cell.small for cell in row.cells):
                small = [rf"{{\tiny {latex(cell.small)}}}" if cell.small else "" for cell in row.cells]
                lines.append(" & ".join(["", *small]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def print_tables(results: Row, console: Console) -> None:
    """Print scores and differences, last stage first, then what was found.

    The tables stand on their side (the paper's columns are rows) and are cut into as many pieces as the console's width
    asks for; a console that takes them whole also gets the intervals.
    """
    if not results["meaningful"]:
        console.print(Text(f"Scale {results['scale']}: these numbers mean nothing.", style="bold red"))
    for stage in reversed(results["stages"]):
        name = stage_name(stage)
        if table := score_table(results, stage):
            _print(table, f"Scores{asked_on(table.columns)} after {name}, in points; best in bold", console)
        if table := difference_table(results, stage):
            title = f"Differences after {name}, in points; * survives Holm, † only a test on questions alone"
            _print(table, title, console)
    if results["hypotheses"]:
        title = "The explanations, tested; effects in points"
        heads = ("explanation", "effect", "95 %", "Holm's p", "verdict")
        claims = listing(*heads, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=True)
        for row in results["hypotheses"]:
            interval = "" if row["low"] is None else f"{signed(row['low'])} to {signed(row['high'])}"
            p_holm = "" if row["p_holm"] is None else f"{row['p_holm']:.3f}"
            claims.add_row(*map(Text, (row["claim"], signed(row["effect"]), interval, p_holm, row["verdict"])))
        console.print(claims)
    console.print(Text(results["findings"]["text"]))
    for note in results["notes"]:
        console.print(Text(f"Note: {note}", style="dim"))


def _print(table: PaperTable, title: str, console: Console) -> None:
    console.print(Text(title, style="bold"))
    lines = [line for _, lines in table.blocks for line in lines]
    names = (line.label.removeprefix("LLaVA-").replace("-", " ") for line in lines)
    headers = ["", *(fill(name, _NARROW, break_long_words=False) for name in names)]
    made = []
    for intervals in (True, False):
        rows: list[list[str | Text]] = []
        before = None
        for number, column in enumerate(table.columns):
            rows.append([f"  {column.label}" if column.paper == before else column.name])
            before = column.paper
            for cell in (line.cells[number] for line in lines):
                text = Text(cell.text + cell.mark, style="bold" if cell.best or cell.sign else "")
                rows[-1].append(text.append(f" {cell.small}" * (intervals and bool(cell.small)), style="dim"))
        made = list(pieces(headers, rows, console.width))
        if len(made) == 1:
            break
    for piece in made:
        console.print(piece)
