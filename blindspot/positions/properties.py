"""What every positional scheme does, measured now: the table of ``blindspot positions``."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from blindspot.positions.encoder.properties import encoder_rows
from blindspot.positions.language.properties import language_rows

COLUMNS = {
    "site": "site",
    "scheme": "scheme",
    "norm_preserved": "norm",
    "relative_invariance": "relative",
    "axis_swap": "axis\nswap",
    "injective": "injective",
    "text_1d": "text\n1-D",
    "start_unchanged": "start\nunchanged",
    "turn_rows": "turn\nrows\nrad",
    "turn_columns": "turn\ncolumns\nrad",
    "still_pairs": "still\npairs",
}
"""Keys of a row and their headings."""

_ERRORS = {"norm_preserved": "norm_error", "relative_invariance": "shift_error"}


def rows() -> list[dict[str, Any]]:
    """One row per scheme, of the encoder site and then of the language site; plain values, so that JSON can hold them.

    Keys: see `encoder_rows` and `language_rows`; None or absent where a property means nothing at a site.
    """
    return [*encoder_rows(), *language_rows()]


def as_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for a terminal: what holds, how far off it is where it does not, and angles in radians."""
    table = Table(box=box.SIMPLE_HEAD)
    for key, heading in COLUMNS.items():
        table.add_column(heading, no_wrap=key == "scheme")
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before["site"] != row["site"]:
            table.add_section()
        table.add_row(*(_cell(row, key) for key in COLUMNS))
    return table


def _cell(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return "-"
    if isinstance(value, bool):
        error = None if value else row.get(_ERRORS.get(key, ""))
        return "yes" if value else "no" if error is None else f"no ({error:.2f})"
    if key == "still_pairs":
        return f"{value:.0%}"
    if isinstance(value, float):
        return f"{value:.2g}" if value < 10 else f"{value:.0f}"
    return value
