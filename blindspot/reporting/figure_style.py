"""One look for all figures, and files whose bytes repeat."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from blindspot.files import write_via
from blindspot.reporting.plan import Arm, Column

# Okabe and Ito's colours, safe for colour-blind readers.
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY, LIGHT, INK = "#767676", "#DDDDDD", "#222222"
POINTS = 100.0
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
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "blindspot",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


@contextmanager
def style() -> Iterator[None]:
    """Settings under which every figure is made and saved; the caller's own are left alone."""
    with mpl.rc_context(_RC):
        yield


def hues(arms: Sequence[Arm]) -> dict[str, str]:
    """A colour per panel, or per block where arms have no panels, in the order of the arms."""
    return {hue: HUES[number % len(HUES)] for number, hue in enumerate(dict.fromkeys(arm.hue for arm in arms))}


def stroke(number: int) -> dict[str, Any]:
    """How the line of one of many is drawn: eighteen can be told apart."""
    return {"color": HUES[number % len(HUES)], "linestyle": ("solid", "dashed", "dotted")[number // len(HUES) % 3]}


def column_rows(axes: Axes, columns: Sequence[Column], labels: bool) -> None:
    """Give a panel one row per column, the first on top, with a thin rule between the paper's benchmarks."""
    axes.set_ylim(len(columns) - 0.5, -0.5)
    axes.set_yticks(range(len(columns)), [column.name for column in columns] if labels else [])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for number in range(1, len(columns)):
        if columns[number].paper != columns[number - 1].paper:
            axes.axhline(number - 0.5, color=LIGHT, linewidth=0.8, zorder=0)


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write ``name.svg``, which is returned, and ``name.pdf``, without dates, so that equal figures are equal files."""
    for kind, date in (("pdf", "CreationDate"), ("svg", "Date")):
        write_via(
            folder / f"{name}.{kind}",
            lambda temporary, kind=kind, date=date: figure.savefig(temporary, format=kind, metadata={date: None}),
        )
    return folder / f"{name}.svg"
