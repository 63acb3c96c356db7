"""The layout of figures with many arms or pairs: one line each, one narrow panel per column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from blindspot.reporting.figure_style import GREY, INK, LIGHT, POINTS
from blindspot.reporting.plan import Column
from blindspot.reporting.sheet import WIDE, Sheet

_PER_ROW = 7
_LINE, _TOP, _BOTTOM, _TITLE = 0.19, 0.42, 0.6, 0.72  # inches
_INCHES_PER_LETTER = 0.066


@dataclass(frozen=True)
class Line:
    """One arm or pair.

    Attributes:
        label: at the left.
        block: lines of one block stand together.
        colour: of its marks.
        rows: its row of ``results.json`` per column.
        filled: columns in which its mark is filled.
    """

    label: str
    block: str
    colour: str
    rows: Mapping[str, Mapping[str, Any]]
    filled: frozenset[str]


def draw_lines(
    title: str,
    subtitle: str,
    columns: Sequence[Column],
    lines: Sequence[Line],
    key: str,
    limits: tuple[float, float],
    rules: Mapping[str, float],
    bands: Mapping[str, float],
) -> Sheet:
    """Estimates with their intervals, line by line.

    Args:
        title: of the figure.
        subtitle: what is drawn.
        columns: one panel each.
        lines: from top to bottom.
        key: of the estimate in rows: ``score`` or ``difference``.
        limits: of every panel, in points.
        rules: per column where to draw a vertical rule, in points.
        bands: per column half the width of a grey band about zero, in points.
    """
    down = -(-len(columns) // _PER_ROW)
    body = _TOP + down * (_LINE * (len(lines) + 1) + _TITLE) - _TITLE + _BOTTOM
    sheet = Sheet(title, subtitle, body, WIDE)
    left = min(0.4 * WIDE, 0.3 + _INCHES_PER_LETTER * max(len(line.label) for line in lines))
    across = min(_PER_ROW, len(columns))
    panels = sheet.panels(down, across, left=left, right=0.1, bottom=_BOTTOM, top=_TOP, gaps=(_TITLE, 0.12))
    for panel in panels[len(columns) :]:
        panel.set_axis_off()
    for number, (panel, column) in enumerate(zip(panels, columns, strict=False)):
        _scaffold(panel, column, lines, limits, labels=number % _PER_ROW == 0)
        if column.id in bands:
            panel.axvspan(-bands[column.id], bands[column.id], color="#E9E9E9", zorder=0)
        if column.id in rules:
            panel.axvline(rules[column.id], color=INK if key == "difference" else GREY, linewidth=0.9, zorder=1)
        for place, line in enumerate(lines):
            if row := line.rows.get(column.id):
                estimate(panel, row, key, place, line.colour, column.id in line.filled)
    return sheet


def _scaffold(panel: Axes, column: Column, lines: Sequence[Line], limits: tuple[float, float], labels: bool) -> None:
    panel.set_ylim(len(lines) - 0.5, -0.5)
    panel.set_xlim(*limits)
    panel.set_yticks(range(len(lines)), [line.label for line in lines] if labels else [], fontsize=8)
    panel.tick_params(axis="y", length=0)
    panel.tick_params(axis="x", labelsize=7.5)
    panel.spines["left"].set_visible(False)
    panel.grid(axis="x", color=LIGHT, linewidth=0.5)
    panel.set_axisbelow(True)
    panel.set_title(column.name if column.paper == column.label else f"{column.paper}\n{column.label}", fontsize=8.5)
    panel.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
    for place in range(1, len(lines)):
        if lines[place].block != lines[place - 1].block:
            panel.axhline(place - 0.5, color=GREY, linewidth=0.7, zorder=1)


def estimate(
    panel: Axes, row: Mapping[str, Any], key: str, place: float, colour: str, filled: bool, size: float = 3.8
) -> None:
    """A number of a row as a dot of ``size`` points with its interval, ``place`` down a panel."""
    if row["low"] is not None:
        panel.plot(
            [POINTS * row["low"], POINTS * row["high"]], [place] * 2, color=colour, linewidth=0.3 * size, zorder=2
        )
    face = colour if filled else "white"
    panel.plot(POINTS * row[key], place, "o", color=colour, markerfacecolor=face, markersize=size, zorder=3)
