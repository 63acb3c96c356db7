"""Pictures in rows and columns, each with the model's answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from blindspot.reporting.diagnosis.drawing import picture
from blindspot.reporting.figure_style import HUES
from blindspot.reporting.sheet import WIDTH, Sheet
from blindspot.reporting.text import clean

_RIGHT, _WRONG = "#006B4E", HUES[1]


class Example(NamedTuple):
    """A picture and what was said about it."""

    image: np.ndarray
    answer: str
    right: str


def draw_examples(
    title: str, subtitle: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Example | None]]]
) -> Sheet:
    """A sheet of pictures.

    Args:
        title: of the sheet.
        subtitle: of the sheet.
        heads: of the columns.
        rows: what each is about, and its examples; None stays empty.
    """
    side = (WIDTH - 0.3 - 0.12 * (len(heads) - 1)) / len(heads)
    above, below = 0.28, 0.28
    sheet = Sheet(title, subtitle, len(rows) * (side + above + below) + 0.45)
    panels = sheet.panels(
        len(rows), len(heads), left=0.15, right=0.15, top=above + 0.4, bottom=below, gaps=(above + below, 0.12)
    )
    for number, panel in enumerate(panels):
        down, across = divmod(number, len(heads))
        words, line = rows[down]
        example = line[across]
        if down == 0:
            _above(panel, heads[across], 0.5, 24, ha="center", fontweight="bold")
        if across == 0:
            _above(panel, clean(words, 100), 0, 5)
        if example is None:
            panel.set_axis_off()
            continue
        picture(panel, example.image, *verdict(example.answer, example.right))
    return sheet


def verdict(said: str, right: str) -> tuple[str, str]:
    """An answer with whether it is right, and the colour to write it in."""
    words = f"{said} \N{CHECK MARK}" if said == right else f"{said} \N{BALLOT X} ({right})"
    return clean(words, 40), _RIGHT if said == right else _WRONG


def _above(panel: Axes, words: str, x: float, points: float, **style: Any) -> None:
    panel.annotate(words, (x, 1), xycoords="axes fraction", xytext=(0, points), textcoords="offset points",
                   fontsize=8.8, **style)  # fmt: skip
