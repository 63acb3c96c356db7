"""What every positional scheme does, measured now: the table of ``blindspot positions``."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from blindspot.positions.encoder.properties import encoder_rows
from blindspot.positions.language.properties import language_rows

COLUMNS = {
    "scheme": "scheme",
    "norm_preserved": "norm",
    "relative_invariance": "rela-\ntive",
    "axis_swap": "axis\nswap",
    "injective": "dis-\ntinct",
    "text_1d": "text\n1-D",
    "start_unchanged": "start\nsame",
    "turn_rows": "turn,\nrows",
    "turn_columns": "turn,\ncolumns",
    "still_pairs": "still",
}
"""Keys of a row and their headings."""

CAPTION = (
    "norm: lengths of queries and keys stay. relative: scores depend on offsets only. axis swap: rows and columns are "
    "treated alike. distinct: no two patches of a grid share a position. text 1-D: text alone is exactly as before. "
    "start same: a pretrained model computes exactly what it did. turn: largest rotation from one side of the grid to "
    "the other, in radians. still: share of channel pairs that turn by less than 0.01 radians. Sizes of the "
    "errors and the settings: --json."
)


def rows() -> list[dict[str, Any]]:
    """One row per scheme, of the encoder site and then of the language site; plain values, so that JSON can hold them.

    Keys: see `encoder_rows` and `language_rows`; None or absent where a property means nothing at a site.
    """
    return [*encoder_rows(), *language_rows()]


def as_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for a terminal: what holds and what does not, and angles in radians."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), caption=CAPTION, caption_justify="left")
    for heading in COLUMNS.values():
        table.add_column(heading, no_wrap=heading != COLUMNS["scheme"])
    for before, row in zip([None, *rows], rows, strict=False):
        if before is None or before["site"] != row["site"]:
            table.add_row(f"[bold]{row['site']} site[/bold]")
        table.add_row(*(_cell(row, key) for key in COLUMNS))
    return table


def _cell(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "still_pairs":
        return f"{value:.0%}"
    if isinstance(value, float):
        return f"{value:.2g}" if value < 10 else f"{value:.0f}"
    return value
