"""What the figures of a diagnosis share: lines, dots, bars and heat maps with intervals."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from blindspot.reporting.diagnosis.data import Row, whole
from blindspot.reporting.figure_style import GREY, HUES, INK, LIGHT

DEPTH = LinearSegmentedColormap.from_list("depth", ["#FFFFFF", "#9CC9E5", HUES[0], "#00304D"])
"""White to dark blue, for 0 to 1."""
DIVIDED = LinearSegmentedColormap.from_list("divided", [HUES[1], "#FFFFFF", HUES[0]])
"""Vermilion to blue, for -1 to 1."""
DASHES = (0, (4, 3))
_MOST_WRITTEN = 160


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


def bars(axes: Axes, labels: Sequence[str], rows: Sequence[Row], colours: Sequence[str]) -> None:
    """Horizontal bars from the top, in percent with intervals in ink and a number; an en dash where there is none."""
    values, low, high = (100 * numbers(rows, key) for key in ("value", "low", "high"))
    for place, colour in enumerate(colours):
        if np.isnan(values[place]):
            axes.text(0, place, " \N{EN DASH}", va="center", color=GREY)
            continue
        axes.barh(place, values[place], height=0.66, color=colour, alpha=0.85)
        axes.plot([low[place], high[place]], [place, place], color=INK, linewidth=1.3)
        end = np.nanmax([values[place], high[place], 0])
        axes.annotate(whole(values[place]), (end, place), xytext=(4, 0), textcoords="offset points", va="center",
                      fontsize=8.5)  # fmt: skip
    _lines(axes, labels)
    axes.axvline(0, color=GREY, linewidth=0.8)


def dots(axes: Axes, rows: Sequence[Row], key: str, by: str, hues: dict[str, str], scale: float = 1.0) -> list[float]:
    """Values with their intervals: a line for each value of ``key``, the first on top, a dot for each value of ``by``.

    Returns:
        How far down each row is.
    """
    names = list(dict.fromkeys(str(row[key]) for row in rows))
    offsets = dict(zip(hues, np.linspace(-0.14, 0.14, len(hues)).tolist(), strict=True))
    places = [names.index(str(row[key])) + offsets[str(row[by])] for row in rows]
    for place, row in zip(places, rows, strict=True):
        colour = hues[str(row[by])]
        if row["value"] is None:
            continue
        if row["low"] is not None and row["high"] is not None:
            axes.plot([scale * row["low"], scale * row["high"]], [place, place], color=colour, linewidth=1.6)
        axes.plot(scale * row["value"], place, "o", color=colour, markersize=6)
    _lines(axes, names)
    return places


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


def rule(axes: Axes, at: float, axis: str = "y") -> None:
    """A dashed rule, such as chance."""
    draw = axes.axhline if axis == "y" else axes.axvline
    draw(at, color=GREY, linewidth=1, linestyle=DASHES, zorder=0.5)


def by_layer(axes: Axes, words: str = "layer of the language model") -> None:
    """Layers as whole numbers below, faint rules across."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=LIGHT, linewidth=0.6)
    axes.set_xlabel(words)


def _lines(axes: Axes, labels: Sequence[str]) -> None:
    """One line for each label, the first on top."""
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
