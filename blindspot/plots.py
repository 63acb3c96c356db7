"""Figures as data: what each shows and says. Whoever has numbers declares them; only the report draws."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

# Okabe and Ito's colours, safe for colour-blind readers.
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY, LIGHT, INK, NAVY = "#767676", "#DDDDDD", "#222222", "#00304D"
WIDTH, WIDE = 8.6, 13.0  # inches
NONE = "none"
"""No line between the points of a series."""
Number = float | None
Dash = Literal["solid", "dashed", "dotted", "none"]


@dataclass(frozen=True)
class Series:
    """A line through points, marks at them, and a band for their intervals; a gap where there is no number."""

    x: Sequence[float]
    y: Sequence[Number]
    colour: str = HUES[0]
    low: Sequence[Number] = ()
    high: Sequence[Number] = ()
    dash: Dash = "solid"
    mark: str = ""
    width: float = 1.7
    size: float = 4
    alpha: float = 1
    hollow: bool = False
    edge: str | None = None
    shade: float = 0.16
    """How opaque the band is."""

    @classmethod
    def of(
        cls, x: Sequence[float], rows: Sequence[Mapping[str, Any]], colour: str, scale: float = 1, **more: Any
    ) -> Self:
        """The values of rows with their intervals."""
        y, low, high = ([scaled(row[key], scale) for row in rows] for key in ("value", "low", "high"))
        return cls(x, y, colour, low, high, mark=more.pop("mark", "o"), **more)


@dataclass(frozen=True)
class Rule:
    """A straight rule across a panel, such as chance: at a value of ``x`` (upright) or ``y`` (level)."""

    at: float
    axis: Literal["x", "y"] = "y"
    colour: str = GREY
    dash: Dash = "dashed"
    width: float = 1


@dataclass(frozen=True)
class Area:
    """A shaded part of a panel, in its coordinates; from edge to edge where ``y`` is None."""

    x: tuple[float, float]
    y: tuple[float, float] | None = None
    colour: str = LIGHT
    alpha: float = 1


@dataclass(frozen=True)
class Note:
    """Words in a panel."""

    words: str  # what is written
    x: float
    """With ``y``: where, in the panel's coordinates, or as shares of its sides where ``across`` or ``up`` says so."""
    y: float
    across: bool = False
    up: bool = False
    shift: tuple[float, float] = (0, 0)  # to the right and up, in points
    align: tuple[str, str] = ("left", "center")  # horizontally and vertically
    colour: str = INK
    size: float = 8.5
    bold: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What every plot may have."""

    title: str = ""  # above the panel, at the left or ``centred``; bold unless ``light``
    title_size: float = 10
    title_colour: str = INK
    light: bool = False
    centred: bool = False
    x_label: str = ""
    y_label: str = ""
    x_limits: tuple[Number, Number] = (None, None)
    y_limits: tuple[Number, Number] = (None, None)
    x_ticks: Mapping[float, str] | Sequence[float] | None = None  # with ``y_ticks``: where, and what is written there
    y_ticks: Mapping[float, str] | Sequence[float] | None = None
    x_margin: float = 0.05  # share of the panel left free beside what is drawn, where there are no limits
    x_turn: float = 0  # degrees that the words below are turned by
    whole: int = 0  # that ticks of ``x`` are whole numbers, at most so many
    tick_size: float = 9.5
    grid: Literal["", "x", "y"] = ""  # whether faint rules stand across an axis
    series: Sequence[Series] = ()
    rules: Sequence[Rule] = ()
    areas: Sequence[Area] = ()
    notes: Sequence[Note] = ()
    below: Sequence[Note] = ()  # notes of the lowest row of panels alone


@dataclass(frozen=True, kw_only=True)
class Lines(Panel):
    """Series against a number, such as the layer. ``bare`` has no axes, and equal scales."""

    log: bool = False
    bare: bool = False


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, ``place`` lines down a forest."""

    place: float
    value: Number
    low: Number
    high: Number
    colour: str = HUES[0]
    filled: bool = True
    size: float = 5.5


@dataclass(frozen=True, kw_only=True)
class Forest(Panel):
    """Estimates side by side, one line a name, the first on top."""

    names: Sequence[str]
    estimates: Sequence[Estimate]


@dataclass(frozen=True)
class Bar:
    """A bar, ``place`` lines down, with its interval and its number; an en dash where there is none."""

    place: float
    value: Number
    low: Number = None
    high: Number = None
    colour: str = HUES[0]
    start: float = 0
    written: bool = True

    @classmethod
    def of(cls, place: float, row: Mapping[str, Any], colour: str = HUES[0]) -> Self:
        """The share of a row, in percent."""
        value, low, high = (scaled(row[key], 100) for key in ("value", "low", "high"))
        return cls(place, value, low, high, colour)


@dataclass(frozen=True, kw_only=True)
class Bars(Panel):
    """Bars to the right, one line a name, the first on top."""

    names: Sequence[str]
    bars: Sequence[Bar]


@dataclass(frozen=True, kw_only=True)
class Heat(Panel):
    """A matrix of shares as colours, in percent where that fits; NaN where there is none."""

    values_hw: np.ndarray
    names: Sequence[str]
    columns: Sequence[str]
    limits: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Pictures(Panel):
    """An image with a caption below it, boxes (as shares of its sides, with their colour) and weights drawn over it."""

    image_hwc: np.ndarray
    caption: str = ""
    colour: str = INK
    boxes: Sequence[tuple[Sequence[float], str]] = ()
    weights_hw: np.ndarray | None = None


@dataclass(frozen=True)
class Key:
    """An entry of a legend; a patch where it has no line and no mark."""

    label: str
    colour: str
    dash: Dash = "solid"
    mark: str = ""
    size: float = 6
    face: str | None = None


@dataclass(frozen=True)
class Figure:
    """A figure with its point as the title."""

    name: str  # of its files
    title: str  # the point, computed from the numbers
    subtitle: str  # what is drawn
    panels: Sequence[Sequence[Panel | None]]  # row by row; None stays empty
    rows: Sequence[Mapping[str, Any]]  # the numbers behind it
    height: float  # below title and subtitle, in inches
    width: float = WIDTH  # in inches
    widths: Sequence[float] | None = None  # of the columns of panels, relative to each other
    share: Literal["", "x", "y", "both"] = ""  # which scale panels share
    legend: Sequence[Key] = ()  # below the panels
    legend_columns: int = 6  # most entries side by side
    says: tuple[str, ...] = ()  # sentences of the page's lead


def scaled(value: Any, scale: float = 1) -> Number:
    """A number times another; None where there is none."""
    return None if value is None else scale * float(value)


def matrix(values: Iterable[Iterable[Number]]) -> np.ndarray:
    """Numbers as an array for a `Heat`, NaN where there is none."""
    return np.array([list(row) for row in values], dtype=float)


def stroke(number: int) -> dict[str, Any]:
    """How the line of one of many is drawn: eighteen can be told apart."""
    return {"colour": HUES[number % len(HUES)], "dash": ("solid", "dashed", "dotted")[number // len(HUES) % 3]}
