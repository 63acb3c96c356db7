"""What a user sees of work: how far it is; lists, and wide tables in pieces of whole columns."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rich import box
from rich.table import Table
from rich.text import Text

Line = Sequence[str | Text]
"""The cells of a row."""
_LONGEST_LABEL = 34
"""Longer names of rows are folded; nothing else is."""


class Report(Protocol):
    """Told how far a step or a stage is; cheap enough to be called at every iteration."""

    def __call__(self, step: int, steps: int, loss: float | None = None, phase: str = "") -> None: ...


def listing(*heads: str, **options: Any) -> Table:
    """An empty table; heads that end in ``>`` are for numbers, in ``!`` for words that must stay on one line.

    Args:
        *heads: the mark stands behind a blank.
        **options: of the table.
    """
    table = Table(**{"box": None, "pad_edge": False} | options)
    for head in heads:
        right, whole = head.endswith(" >"), head.endswith((" >", " !"))
        justify = "right" if right else "left"
        table.add_column(head[:-2] if whole else head, justify=justify, overflow="fold", no_wrap=whole)
    return table


def pieces(headers: Sequence[str], rows: Sequence[Line], width: int, repeated: int = 1) -> Iterator[Table]:
    """A table in as few pieces as its columns need, about equally many in each.

    Args:
        headers: of the columns, perhaps in several lines; the first column names the rows.
        repeated: so many of the first columns are in every piece.
    """
    cells = [
        [Text(cell) if isinstance(cell, str) else cell for cell in column]
        for column in zip(headers, *rows, strict=True)
    ]
    widths = [max(line.cell_len for cell in column for line in cell.split(allow_blank=True)) for column in cells]
    widths[0] = min(widths[0], _LONGEST_LABEL)
    fixed, free = range(repeated), range(repeated, len(headers))
    parts = [free]
    for count in range(1, len(free) + 1):
        size = -(-len(free) // count)
        parts = [free[start : start + size] for start in range(0, len(free), size)]
        if all(sum(widths[place] + 1 for place in (*fixed, *part)) < width for part in parts):
            break
    for part in parts:
        columns = [cells[place] for place in (*fixed, *part)]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
        for place, (header, *_) in enumerate(columns):
            longest = None if place else _LONGEST_LABEL
            justify = "right" if place else "left"
            table.add_column(header, justify=justify, overflow="fold", no_wrap=place > 0, max_width=longest)
        for row in list(zip(*columns, strict=True))[1:]:
            table.add_row(*row)
        yield table
