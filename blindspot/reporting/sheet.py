"""A figure with its point on top, its files, and how a page shows it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from blindspot.files import write_text
from blindspot.reporting.figure_style import GREY, INK, save
from blindspot.reporting.html import data_uri
from blindspot.reporting.text import as_csv

WIDTH, WIDE = 8.6, 13.0  # inches
_TITLE, _SUBTITLE = 0.24, 0.17  # inches a line
_PIXELS_AN_INCH = 72
_LEGEND_ROW = 0.2  # inches


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Attributes:
        name: of its files.
        sheet: the figure, its title and its subtitle.
        rows: the numbers behind it.
        says: sentences of the page's lead.
    """

    name: str
    sheet: "Sheet"
    rows: list[dict[str, Any]]
    says: tuple[str, ...] = ()


class Sheet:
    """A figure with its point as the title and what is drawn below it.

    Args:
        title: the point, computed from the numbers.
        subtitle: what is drawn.
        body: height below these, in inches.
        width: in inches.
    """

    def __init__(self, title: str, subtitle: str, body: float, width: float = WIDTH) -> None:
        self.title, self.subtitle, self.width = title, subtitle, width
        titles, subtitles = wrap(title, int(8.1 * width)), wrap(subtitle, int(13 * width))
        self.head = 0.24 + _TITLE * len(titles) + _SUBTITLE * len(subtitles)
        self.height = self.head + body
        self.figure = Figure(figsize=(width, self.height))
        FigureCanvasAgg(self.figure)
        for text, below, size, weight, colour in (
            ("\n".join(titles), 0.1, 13, "bold", INK),
            ("\n".join(subtitles), 0.14 + _TITLE * len(titles), 9.5, "normal", GREY),
        ):
            self.figure.text(0.1 / width, 1 - below / self.height, text, fontsize=size, fontweight=weight,
                             color=colour, va="top", linespacing=1.25)  # fmt: skip

    def panels(
        self,
        down: int = 1,
        across: int = 1,
        *,
        left: float = 0.7,
        right: float = 0.15,
        bottom: float = 0.55,
        top: float = 0.1,
        gaps: tuple[float, float] = (0.5, 0.4),
        share: bool = False,
        widths: Sequence[float] | None = None,
    ) -> list[Axes]:
        """Panels row by row; margins and gaps (between rows, between columns) in inches."""
        high, wide = self.height - self.head - top - bottom, self.width - left - right
        grid = self.figure.add_gridspec(
            down, across, left=left / self.width, right=1 - right / self.width, bottom=bottom / self.height,
            top=1 - (self.head + top) / self.height, width_ratios=widths,
            hspace=gaps[0] * down / max(high - gaps[0] * (down - 1), 0.1),
            wspace=gaps[1] * across / max(wide - gaps[1] * (across - 1), 0.1),
        )  # fmt: skip
        found: list[Axes] = []
        for number in range(down * across):
            other = found[0] if found and share else None
            found.append(self.figure.add_subplot(grid[divmod(number, across)], sharex=other, sharey=other))
        return found

    def legend(self, marks: Iterable[Any], columns: int = 6) -> None:
        """A legend at the foot of the figure."""
        corner = (0.05 / self.width, 0.02 / self.height)
        self.figure.legend(handles=list(marks), loc="lower left", bbox_to_anchor=corner,
                           ncols=columns, frameon=False, fontsize=8.8, columnspacing=1.4, handlelength=1.8)  # fmt: skip


def legend_height(marks: int, columns: int) -> float:
    """What the rows of a legend beyond the first need at the foot of a figure, in inches."""
    return _LEGEND_ROW * (-(-marks // columns) - 1)


def write_drawn(drawn: Drawn, folder: Path) -> dict[str, Any]:
    """Write a figure as SVG, PDF and, the numbers behind it, CSV; to be called with `style` on.

    Returns:
        The figure for ``figure.html.j2``, without its title and subtitle, which the page writes as text.
    """
    write_text(folder / f"{drawn.name}.csv", as_csv(drawn.rows))
    svg, sheet = save(drawn.sheet.figure, folder, drawn.name).read_text(encoding="utf-8"), drawn.sheet
    wide, high, head = (_PIXELS_AN_INCH * inches for inches in (sheet.width, sheet.height, sheet.head))
    box = f'viewBox="0 {head:.2f} {wide:.2f} {high - head:.2f}" width="{wide:.2f}pt" height="{high - head:.2f}pt"'
    tag = re.search(r"<svg\b[^>]*>", svg)
    if tag is not None:
        kept = re.sub(r'\s(?:width|height|viewBox)="[^"]*"', "", tag[0])
        svg = svg.replace(tag[0], kept.replace("<svg", f"<svg {box}", 1), 1)
    return {
        "name": drawn.name,
        "title": sheet.title,
        "subtitle": sheet.subtitle,
        "source": data_uri(svg.encode(), "svg+xml"),
        "width": sheet.width,
    }
