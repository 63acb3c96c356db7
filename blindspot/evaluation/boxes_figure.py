"""The paper's Figure 4 for any picture: one panel for each model, with its boxes, its points and its answer."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from blindspot.benchmarks.boxes import Box, Place, shown
from blindspot.errors import UserError
from blindspot.evaluation.boxes import Finding
from blindspot.files import write_via
from blindspot.text import clean

SUFFIXES = (".png", ".pdf", ".svg", ".jpg")
OURS, GOLD, TEXT, READ, MUTED = "#ff7f0e", "#2ca02c", "#222222", "#a04000", "#666666"

_COLUMNS = 4
_WIDTH, _HEAD, _TEXTS = 4.2, 0.45, 1.3
"""Inches: a panel, what stands above all, what stands above and below a panel."""
_LINE = 13.0
"""Points."""
_CHARACTERS, _ANSWER_LINES, _VERDICT_LINES = 54, 4, 2
_MOST_DRAWN = 20


def refuse_suffix(path: Path) -> None:
    """Refuse a file name whose suffix is none of `SUFFIXES`."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"a picture is written as one of {', '.join(SUFFIXES)}, not as {path.name}")


def draw(picture: Image.Image, phrase: str, findings: Sequence[Finding], path: Path, gold: Box | None = None) -> None:
    """Write the figure.

    Args:
        path: to write; its suffix says the format.
        gold: the true box, in pixels.
    """
    refuse_suffix(path)
    columns = min(len(findings), _COLUMNS)
    rows = -(-len(findings) // columns)
    tall = min(max(picture.height / picture.width, 0.3), 2.0) * _WIDTH
    figure = Figure((columns * _WIDTH, _HEAD + rows * (tall + _TEXTS)), facecolor="white", layout="constrained")
    told = _printable(f"“{phrase}”", 90) + ("" if gold is None else ", dashed: the true box")
    figure.suptitle(told, size=12, color=TEXT, parse_math=False)
    for number, finding in enumerate(findings, start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(picture, extent=(0, picture.width, picture.height, 0), interpolation="antialiased")
        axes.set_axis_off()
        axes.set_xlim(0, picture.width)
        axes.set_ylim(picture.height, 0)
        axes.set_title(_printable(finding.model, 44), size=11, color=TEXT, parse_math=False)
        for place in finding.located.places[1:_MOST_DRAWN]:
            _mark(axes, place, OURS, ":")
        if finding.located.first is not None:
            _mark(axes, finding.located.first, OURS, "-")
        if gold is not None:
            _mark(axes, Place(gold), GOLD, "--", 1.8)
        down = 6.0
        verdict = READ if finding.located.first else MUTED
        for text, most, color in (
            (finding.raw or "(empty answer)", _ANSWER_LINES, TEXT),
            (_verdict(finding, gold), _VERDICT_LINES, verdict),
        ):
            words = _printable(text, _CHARACTERS * (most + 1))
            lines = textwrap.wrap(words, _CHARACTERS, max_lines=most, placeholder=" …")
            axes.annotate(
                "\n".join(lines),
                (0.5, 0),
                (0, -down),
                xycoords="axes fraction",
                textcoords="offset points",
                ha="center",
                va="top",
                size=9,
                color=color,
                linespacing=1.3,
                annotation_clip=False,
                parse_math=False,
            )
            down += max(1, len(lines)) * _LINE + 2
    options: dict[str, Any] = {"dpi": 150, "format": path.suffix[1:].lower()}
    write_via(path, lambda temporary: figure.savefig(temporary, **options))


def _verdict(finding: Finding, gold: Box | None) -> str:
    first = finding.located.first
    parts: list[str] = []
    if first is not None:
        parts.append(("box " if first.box else "point ") + shown(tuple(round(number) for number in first.numbers)))
        if gold is not None:
            overlap = first.overlap(gold)
            inside = "inside" if first.hits(gold) else "not inside"
            parts.append(f"{inside} the true box" if overlap is None else f"IoU {overlap:.2f}")
    return "; ".join((*parts, *finding.remarks))


def _mark(axes: Axes, place: Place, color: str, style: str, line: float = 2.4) -> None:
    if place.box is None:
        x, y = place.numbers
        axes.plot(x, y, "o", color=color, markersize=9, markeredgecolor="white", markeredgewidth=1.5)
        return
    x0, y0, x1, y1 = place.box
    halo = [withStroke(linewidth=line + 2, foreground="white", alpha=0.8)]
    axes.add_patch(
        Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=color, lw=line, linestyle=style, path_effects=halo)
    )


def _printable(text: str, limit: int) -> str:
    """One line of what the font can show; another alphabet becomes a row of replacement marks, not a warning."""
    font = get_font(findfont("DejaVu Sans"))
    marks = (mark if font.get_char_index(ord(mark)) else "\N{REPLACEMENT CHARACTER}" for mark in clean(text, limit))
    return "".join(marks)
