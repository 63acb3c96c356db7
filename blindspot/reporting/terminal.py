"""The tables of a run on the terminal."""

from itertools import accumulate
from typing import Any

from rich import box
from rich.cells import cell_len
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
    room = console.width - max(_LABEL, *(cell_len(name) + 2 for name in _names(table.columns)))
    intervals = room >= (_NUMBER + _INTERVAL) * len(lines)
    console.print(Text(title, style="bold"))
    while lines:
        widths = accumulate(_width(line) for line in lines)
        size = len(lines) if intervals else max(1, sum(width <= room for width in widths))
        console.print(_piece(table.columns, lines[:size], intervals))
        lines = lines[size:]


def _names(columns: list[Column]) -> list[str]:
    """The names of columns, without that of a benchmark that has just been named."""
    before = [None, *(column.paper for column in columns)]
    return [
        f"  {column.label}" if column.paper == last else column.name
        for column, last in zip(columns, before, strict=False)
    ]


def _words(line: TableRow) -> str:
    return line.label.removeprefix("LLaVA-").replace("-", " ")


def _width(line: TableRow) -> int:
    """What a line needs as a column, with the blanks around it: a number, and its longest word uncut."""
    return max(_NUMBER + 1, *(cell_len(word) + 2 for word in _words(line).split()))


def _piece(columns: list[Column], lines: list[TableRow], intervals: bool) -> RichTable:
    rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    rich.add_column("", no_wrap=True, min_width=_LABEL - 3)
    for line in lines:
        width = None if intervals else _width(line) - 2
        rich.add_column(Text(_words(line)), justify="right", width=width, overflow="fold")
    for number, name in enumerate(_names(columns)):
        rich.add_row(Text(name), *(_rich_cell(line.cells[number], intervals) for line in lines))
    return rich


def _rich_cell(cell: Cell, intervals: bool) -> Text:
    text = Text(cell.text + cell.mark, style="bold" if cell.best or cell.sign else "")
    if intervals and cell.small:
        text.append(f" {cell.small}", style="dim")
    return text
