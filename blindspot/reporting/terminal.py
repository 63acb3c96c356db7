"""The tables of a run on the terminal."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from blindspot.reporting.findings import asked_on, stage_name
from blindspot.reporting.plan import Column
from blindspot.reporting.tables import Cell, Table, TableRow, difference_table, score_table
from blindspot.reporting.text import signed

_LABEL, _NUMBER, _INTERVAL = 26, 8, 14


def print_tables(results: dict[str, Any], console: Console) -> None:
    """Print scores and differences, last stage first, then what was found.

    The tables stand on their side (the paper's columns are rows) and are cut into as many pieces as the console's width
    asks for; a wide console also gets the intervals.
    """
    if not results["meaningful"]:
        console.print(Text(f"Scale {results['scale']}: these numbers mean nothing.", style="bold red"))
    for stage in reversed(results["stages"]):
        name = stage_name(stage)
        if table := score_table(results, stage, "iid"):
            _print(table, f"Scores{asked_on(table.columns)} after {name}, in points; best in bold", console)
        if table := difference_table(results, stage):
            title = f"Differences after {name}, in points; * survives Holm, † only a test on questions alone"
            _print(table, title, console)
    if results["hypotheses"]:
        console.print(_claims(results["hypotheses"]))
    console.print(Text(results["findings"]["text"]))
    for note in results["notes"]:
        console.print(Text(f"Note: {note}", style="dim"))


def _claims(rows: list[dict[str, Any]]) -> RichTable:
    table = RichTable(title="The explanations, tested; effects in points", box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("explanation", "effect", "95 %", "Holm's p", "verdict"):
        table.add_column(heading)
    for row in rows:
        interval = "" if row["low"] is None else f"{signed(row['low'])} to {signed(row['high'])}"
        p_holm = "" if row["p_holm"] is None else f"{row['p_holm']:.3f}"
        table.add_row(*map(Text, (row["claim"], signed(row["effect"]), interval, p_holm, row["verdict"])))
    return table


def _print(table: Table, title: str, console: Console) -> None:
    lines = [line for _, lines in table.blocks for line in lines]
    room = console.width - _LABEL
    intervals = room >= (_NUMBER + _INTERVAL) * len(lines)
    most = len(lines) if intervals else max(room // _NUMBER, 1)
    pieces = -(-len(lines) // most)
    size = -(-len(lines) // pieces)
    console.print(Text(title, style="bold"))
    for start in range(0, len(lines), size):
        console.print(_piece(table.columns, lines[start : start + size], intervals))


def _piece(columns: list[Column], lines: list[TableRow], intervals: bool) -> RichTable:
    rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    rich.add_column("", no_wrap=True, min_width=_LABEL - 3)
    for line in lines:
        label = Text(line.label.removeprefix("LLaVA-").replace("-", " "))
        rich.add_column(label, justify="right", min_width=_NUMBER - 1, overflow="fold")
    previous = ""
    for number, column in enumerate(columns):
        name = f"  {column.label}" if column.paper == previous else column.name
        previous = column.paper
        rich.add_row(Text(name), *(_rich_cell(line.cells[number], intervals) for line in lines))
    return rich


def _rich_cell(cell: Cell, intervals: bool) -> Text:
    text = Text(cell.text + cell.mark, style="bold" if cell.best or cell.sign else "")
    if intervals and cell.small:
        text.append(f" {cell.small}", style="dim")
    return text
