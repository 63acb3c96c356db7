"""What the figures of a diagnosis share: a sheet with its point on top, lines, bars and heat maps with intervals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from blindspot.reporting.diagnosis.data import Row, ratio, whole
from blindspot.reporting.figure_style import GREY, HUES, INK, LIGHT

WIDTH = 8.6
DEPTH = LinearSegmentedColormap.from_list("depth", ["#FFFFFF", "#9CC9E5", HUES[0], "#00304D"])
"""White to dark blue, for 0 to 1."""
DIVIDED = LinearSegmentedColormap.from_list("divided", [HUES[1], "#FFFFFF", HUES[0]])
"""Vermilion to blue, for -1 to 1."""
_TITLE, _SUBTITLE = 0.24, 0.17  # inches a line
_MOST_WRITTEN = 160


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
    rows: list[Row]
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
        heights: Sequence[float] | None = None,
        widths: Sequence[float] | None = None,
    ) -> list[Axes]:
        """Panels row by row; margins and gaps (between rows, between columns) in inches."""
        high, wide = self.height - self.head - top - bottom, self.width - left - right
        grid = self.figure.add_gridspec(
            down, across, left=left / self.width, right=1 - right / self.width, bottom=bottom / self.height,
            top=1 - (self.head + top) / self.height, height_ratios=heights, width_ratios=widths,
            hspace=gaps[0] * down / max(high - gaps[0] * (down - 1), 0.1),
            wspace=gaps[1] * across / max(wide - gaps[1] * (across - 1), 0.1),
        )  # fmt: skip
        found: list[Axes] = []
        for number in range(down * across):
            other = found[0] if found and share else None
            found.append(self.figure.add_subplot(grid[divmod(number, across)], sharex=other, sharey=other))
        return found

    def legend(self, marks: Iterable[Any], columns: int = 6, below: float = 0.02) -> None:
        """A legend at the foot of the figure, ``below`` inches from its edge."""
        corner = (0.05 / self.width, below / self.height)
        self.figure.legend(handles=list(marks), loc="lower left", bbox_to_anchor=corner,
                           ncols=columns, frameon=False, fontsize=8.8, columnspacing=1.4, handlelength=1.8)  # fmt: skip


def numbers(rows: Iterable[Row], key: str = "value") -> np.ndarray:
    """A column of numbers, NaN where there is none.

    Raises:
        KeyError: if a row has no such column.
    """
    return np.array([np.nan if row[key] is None else float(row[key]) for row in rows])


def line(axes: Axes, x: Sequence[float], rows: Sequence[Row], colour: str, scale: float = 1.0, **style: Any) -> None:
    """Values with a band for their intervals; a gap where there is none."""
    axes.fill_between(x, scale * numbers(rows, "low"), scale * numbers(rows, "high"), color=colour, alpha=0.16,
                      linewidth=0)  # fmt: skip
    axes.plot(x, scale * numbers(rows), **{"color": colour, "marker": "o", "markersize": 4, "linewidth": 1.7} | style)


def bars(axes: Axes, labels: Sequence[str], rows: Sequence[Row], colours: Sequence[str], scale: float = 100.0) -> None:
    """Horizontal bars from the top, intervals in ink, each with its number; an en dash where there is none."""
    values, low, high = (scale * numbers(rows, key) for key in ("value", "low", "high"))
    for place, colour in enumerate(colours):
        if np.isnan(values[place]):
            axes.text(0, place, " \N{EN DASH}", va="center", color=GREY)
            continue
        axes.barh(place, values[place], height=0.66, color=colour, alpha=0.85)
        axes.plot([low[place], high[place]], [place, place], color=INK, linewidth=1.3)
        end = np.nanmax([values[place], high[place], 0])
        text = whole(values[place]) if scale > 1 else ratio(float(values[place]))
        axes.annotate(text, (end, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=GREY, linewidth=0.8)


def heat(
    axes: Axes,
    values_hw: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float] = (0.0, 1.0),
    colours: LinearSegmentedColormap = DEPTH,
) -> None:
    """A matrix of shares as colours, in percent where that fits; cells without a number are grey, with a dash."""
    axes.set_facecolor("#F4F4F4")
    axes.pcolormesh(np.ma.masked_invalid(values_hw), cmap=colours, vmin=limits[0], vmax=limits[1], edgecolors="white",
                    linewidth=0.6)  # fmt: skip
    if values_hw.size <= _MOST_WRITTEN:
        for (row, column), value in np.ndenumerate(values_hw):
            text = "\N{EN DASH}" if np.isnan(value) else whole(100 * value)
            shade = colours((value - limits[0]) / (limits[1] - limits[0])) if not np.isnan(value) else (1, 1, 1)
            dark = 0.3 * shade[0] + 0.59 * shade[1] + 0.11 * shade[2] < 0.55
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8,
                      color="white" if dark else INK)  # fmt: skip
    axes.set_ylim(len(rows), 0)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    thin = max(1, -(-len(columns) // 24))
    axes.set_xticks(np.arange(0, len(columns), thin) + 0.5, columns[::thin])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def picture(axes: Axes, image: np.ndarray, caption: str, colour: str = INK) -> None:
    """An image without axes, its caption below."""
    axes.imshow(image, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_edgecolor(LIGHT)
    axes.set_xlabel(caption, fontsize=8.5, color=colour, labelpad=3)


def rule(axes: Axes, at: float, words: str = "", axis: str = "y") -> None:
    """A dashed grey rule, such as chance."""
    draw = axes.axhline if axis == "y" else axes.axvline
    draw(at, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5, label=words or None)
