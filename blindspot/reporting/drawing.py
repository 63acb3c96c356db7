"""Declared figures drawn with matplotlib, and their files: one look for all, and bytes that repeat."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogFormatter, MaxNLocator

from blindspot.files import write_text, write_via
from blindspot.plots import (
    GREY,
    HUES,
    INK,
    LIGHT,
    NAVY,
    NONE,
    Bars,
    Figure,
    Forest,
    Heat,
    Lines,
    Number,
    Panel,
    Pictures,
)
from blindspot.reporting.tables import as_csv
from blindspot.text import DASH, data_uri, whole

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # labels are other people's text
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "grid.color": LIGHT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "blindspot",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
_DEPTH = LinearSegmentedColormap.from_list("depth", ["#FFFFFF", "#9CC9E5", HUES[0], NAVY])
"""White to dark blue, for 0 to 1."""
_DIVIDED = LinearSegmentedColormap.from_list("divided", [HUES[1], "#FFFFFF", HUES[0]])
"""Vermilion to blue, for -1 to 1."""
_TITLE, _SUBTITLE = 0.24, 0.17  # inches a line
_PIXELS_AN_INCH = 72
_MOST_WRITTEN, _MOST_COLUMNS = 160, 24


def write_figures(figures: Iterable[Figure], folder: Path) -> dict[str, dict[str, Any]]:
    """Write figures as SVG, PDF and, the numbers behind them, CSV.

    Returns:
        By name what ``figure.html.j2`` shows: a picture without title and subtitle, which the page writes as text.
    """
    shown = {}
    with mpl.rc_context(_RC):
        for figure in figures:
            write_text(folder / f"{figure.name}.csv", as_csv(figure.rows))
            canvas, head = _drawn(figure)
            svg = save(canvas, folder, figure.name).read_text(encoding="utf-8")
            top, wide, high = (f"{_PIXELS_AN_INCH * inches:.2f}" for inches in (head, figure.width, figure.height))
            if tag := re.search(r"<svg\b[^>]*>", svg):
                kept = re.sub(r'\s(?:width|height|viewBox)="[^"]*"', "", tag[0])
                box = f'<svg viewBox="0 {top} {wide} {high}" width="{wide}pt" height="{high}pt"'
                svg = svg.replace(tag[0], kept.replace("<svg", box, 1), 1)
            said = {"name": figure.name, "title": figure.title, "subtitle": figure.subtitle, "width": figure.width}
            shown[figure.name] = said | {"source": data_uri(svg.encode(), "image/svg+xml")}
    return shown


def save(canvas: Canvas, folder: Path, name: str) -> Path:
    """Write ``name.svg``, which is returned, and ``name.pdf``, without dates, so that equal figures are equal files."""
    for kind, date in (("pdf", "CreationDate"), ("svg", "Date")):
        write_via(
            folder / f"{name}.{kind}",
            lambda temporary, kind=kind, date=date: canvas.savefig(temporary, format=kind, metadata={date: None}),
        )
    return folder / f"{name}.svg"


def _drawn(figure: Figure) -> tuple[Canvas, float]:
    """The figure, and the inches that title and subtitle take."""
    width = figure.width
    titles, subtitles = wrap(figure.title, int(8.1 * width)), wrap(figure.subtitle, int(13 * width))
    head = 0.24 + _TITLE * len(titles) + _SUBTITLE * len(subtitles)
    height = head + figure.height
    square = any(isinstance(panel, Pictures) for panels in figure.panels for panel in panels)
    canvas = Canvas(figsize=(width, height), layout="compressed" if square else "constrained")
    FigureCanvasAgg(canvas)
    for lines, below, size, weight, colour in (
        (titles, 0.1, 13, "bold", INK),
        (subtitles, 0.14 + _TITLE * len(titles), 9.5, "normal", GREY),
    ):
        canvas.text(0.1 / width, 1 - below / height, "\n".join(lines), fontsize=size, fontweight=weight, color=colour,
                    va="top", linespacing=1.25)  # fmt: skip
    down, across = len(figure.panels), max(map(len, figure.panels), default=0)
    if down and across:
        grid = canvas.subplots(down, across, squeeze=False, width_ratios=figure.widths,
                               sharex=figure.share in ("x", "both"), sharey=figure.share in ("y", "both"))  # fmt: skip
        for line, panels in enumerate(figure.panels):
            for number, axes in enumerate(grid[line]):
                panel = panels[number] if number < len(panels) else None
                if panel is None:
                    axes.set_axis_off()
                else:
                    _panel(axes, panel, first=panels[0], lowest=line == down - 1)
    handles = [
        Patch(edgecolor=key.colour, facecolor=key.face or key.colour, label=key.label)
        if key.dash == NONE and not key.mark
        else Line2D([], [], color=key.colour, linestyle=_dash(key.dash), marker=key.mark, markersize=key.size,
                    markerfacecolor=key.face or key.colour, label=key.label)
        for key in figure.legend
    ]  # fmt: skip
    if handles:
        canvas.legend(handles=handles, loc="outside lower left", frameon=False, ncols=figure.legend_columns,
                      fontsize=8.8, columnspacing=1.4, handlelength=1.8)  # fmt: skip
    engine = canvas.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0, 0, 1, 1 - head / height), w_pad=0.1, h_pad=0.06)  # pyright: ignore[reportCallIssue]
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")
    return canvas, head


def _dash(dash: str) -> Any:
    return (0, (4, 3)) if dash == "dashed" else dash


def _panel(axes: Axes, panel: Panel, first: Panel | None, lowest: bool) -> None:
    """Draw a panel; where the first one of its row has the same names, these stand there alone."""
    names: Sequence[str] | None = getattr(panel, "names", None)
    if names is not None and panel is not first and names == getattr(first, "names", None):
        names = [""] * len(names)
    if isinstance(panel, Heat):
        _heat(axes, panel, names or ())
    elif isinstance(panel, Pictures):
        _picture(axes, panel)
    elif names is not None:
        axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    if isinstance(panel, Bars):
        _bars(axes, panel)
    if isinstance(panel, Forest):
        _estimates(axes, panel)
    for area in panel.areas:
        if area.y is None:
            axes.axvspan(*area.x, color=area.colour, alpha=area.alpha, linewidth=0, zorder=-1)
        else:
            axes.fill_between(area.x, *area.y, color=area.colour, alpha=area.alpha, linewidth=0, zorder=0)
    for series in panel.series:
        if len(series.low):
            axes.fill_between(series.x, _numbers(series.low), _numbers(series.high), color=series.colour,
                              alpha=series.shade, linewidth=0, zorder=0 if series.shade > 0.5 else None)  # fmt: skip
        axes.plot(series.x, _numbers(series.y), color=series.colour, linestyle=_dash(series.dash),
                  linewidth=series.width, marker=series.mark, markersize=series.size, alpha=series.alpha,
                  markeredgecolor=series.edge or series.colour,
                  markerfacecolor="none" if series.hollow else series.colour)  # fmt: skip
    for rule in panel.rules:
        draw = axes.axhline if rule.axis == "y" else axes.axvline
        above = 2 if isinstance(panel, Heat | Bars) else 0.6  # grids are at 0.5, points at 2
        draw(rule.at, color=rule.colour, linewidth=rule.width, linestyle=_dash(rule.dash), zorder=above)
    for note in [*panel.notes, *(panel.below if lowest else ())]:
        across, up = ("axes fraction" if share else "data" for share in (note.across, note.up))
        axes.annotate(note.words, (note.x, note.y), xycoords=(across, up), xytext=note.shift,
                      textcoords="offset points", ha=note.align[0], va=note.align[1], color=note.colour,
                      fontsize=note.size, fontweight="bold" if note.bold else "normal",
                      annotation_clip=False)  # fmt: skip
    _scales(axes, panel)
    if panel.title:
        axes.set_title(panel.title, loc="center" if panel.centred else "left", fontsize=panel.title_size,
                       color=panel.title_colour, fontweight="normal" if panel.light else "bold")  # fmt: skip


def _scales(axes: Axes, panel: Panel) -> None:
    axes.margins(x=panel.x_margin)
    for ticks, put in ((panel.x_ticks, axes.set_xticks), (panel.y_ticks, axes.set_yticks)):
        if ticks is not None:
            put(list(ticks), *([list(ticks.values())] if isinstance(ticks, Mapping) else []))
    if panel.whole:
        axes.xaxis.set_major_locator(MaxNLocator(panel.whole, integer=True))
    if isinstance(panel, Lines) and panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    if isinstance(panel, Lines) and panel.bare:
        _framed(axes)
        axes.set_ylabel(panel.y_label, rotation=0, ha="right", va="center", labelpad=6)
    elif panel.y_label:
        axes.set_ylabel(panel.y_label)
    if panel.x_label:
        axes.set_xlabel(panel.x_label)
    if panel.x_turn:
        axes.tick_params(axis="x", labelrotation=panel.x_turn)
    axes.tick_params(axis="x", labelsize=panel.tick_size)
    axes.set_xlim(*panel.x_limits)
    if panel.y_limits != (None, None):
        axes.set_ylim(*panel.y_limits)
    if panel.grid:
        axes.grid(axis=panel.grid)


def _numbers(values: Sequence[Number]) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in values])


def _estimates(axes: Axes, panel: Forest) -> None:
    for one in panel.estimates:
        if one.value is None:
            continue
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [one.place] * 2, color=one.colour, linewidth=0.3 * one.size, zorder=2)
        face = one.colour if one.filled else "white"
        axes.plot(one.value, one.place, "o", color=one.colour, markerfacecolor=face, markersize=one.size, zorder=3)


def _bars(axes: Axes, panel: Bars) -> None:
    for bar in panel.bars:
        if bar.value is None:
            axes.text(0, bar.place, f" {DASH}", va="center", color=GREY)
            continue
        opaque = 0.85 if bar.written else 1
        axes.barh(bar.place, bar.value, left=bar.start, height=0.66, color=bar.colour, alpha=opaque)
        if bar.low is not None and bar.high is not None:
            axes.plot([bar.low, bar.high], [bar.place] * 2, color=INK, linewidth=1.3)
        if bar.written:
            end = max(0, bar.value, bar.value if bar.high is None else bar.high)
            axes.annotate(whole(bar.value), (end, bar.place), xytext=(4, 0), textcoords="offset points", va="center",
                          fontsize=8.5)  # fmt: skip
    axes.axvline(0, color=GREY, linewidth=0.8)


def _heat(axes: Axes, panel: Heat, names: Sequence[str]) -> None:
    low, high = panel.limits
    colours = _DIVIDED if low < 0 else _DEPTH
    axes.set_facecolor("#F4F4F4")
    axes.pcolormesh(np.ma.masked_invalid(panel.values_hw), cmap=colours, vmin=low, vmax=high, edgecolors="white",
                    linewidth=0.6)  # fmt: skip
    if panel.values_hw.size <= _MOST_WRITTEN:
        for (row, column), value in np.ndenumerate(panel.values_hw):
            red, green, blue = (1, 1, 1) if np.isnan(value) else colours((value - low) / (high - low))[:3]
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
            axes.text(column + 0.5, row + 0.5, DASH if np.isnan(value) else whole(100 * value), ha="center",
                      va="center", fontsize=8, color="white" if dark else INK)  # fmt: skip
    axes.set_ylim(len(names), 0)
    axes.set_yticks(np.arange(len(names)) + 0.5, names)
    thin = max(1, -(-len(panel.columns) // _MOST_COLUMNS))
    axes.set_xticks(np.arange(0, len(panel.columns), thin) + 0.5, panel.columns[::thin])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _picture(axes: Axes, panel: Pictures) -> None:
    high, wide = panel.image_hwc.shape[:2]
    axes.imshow(panel.image_hwc, interpolation="none")
    _framed(axes)
    axes.set_xlabel(panel.caption, fontsize=8.5, color=panel.colour, labelpad=3)
    for (x0, y0, x1, y1), hue in panel.boxes:
        corner = (x0 * wide - 0.5, y0 * high - 0.5)
        for edge, width in (("white", 2.8), (hue, 1.6)):
            axes.add_patch(
                Rectangle(corner, (x1 - x0) * wide, (y1 - y0) * high, fill=False, edgecolor=edge, linewidth=width)
            )
    if panel.weights_hw is not None:
        shade = np.zeros((*panel.weights_hw.shape, 4))  # the most is opaque to 85 %
        shade[..., :3] = (0.0, 0.19, 0.42)
        shade[..., 3] = 0.85 * panel.weights_hw / max(float(panel.weights_hw.max()), 1e-9)
        axes.imshow(shade, extent=(-0.5, wide - 0.5, high - 0.5, -0.5), interpolation="none")


def _framed(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_edgecolor(LIGHT)
