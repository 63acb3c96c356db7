"""What figures of diagnostics share: rows by their labels, how numbers are said, example pictures."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from blindspot.diagnostics.base import Row
from blindspot.evaluation.statistics import wilson
from blindspot.plots import HUES, WIDTH, Note, Pictures
from blindspot.text import MINUS, clean, whole

NOTICEABLE = 0.05
"""The least difference of shares or R2 that a title speaks of."""
EMPTY: Row = {"value": None, "low": None, "high": None}
"""A row of what was not measured."""


def having(rows: Iterable[Row], **labels: Any) -> list[Row]:
    return [row for row in rows if all(row[key] == label for key, label in labels.items())]


def known(rows: Iterable[Row], key: str = "value") -> list[Row]:
    """The rows that have a number."""
    return [row for row in rows if row[key] is not None]


def highest(rows: Iterable[Row]) -> Row | None:
    """The row with the largest number; None if none has one."""
    return max(known(rows), key=lambda row: row["value"], default=None)


def distinct(rows: Iterable[Row], key: str) -> list[str]:
    """What stands under a key, each once, as text."""
    return list(dict.fromkeys(str(row[key]) for row in rows))


def ratio(value: float | None) -> str:
    """A number with two decimals and a true minus sign; ``?`` where there is none."""
    return "?" if value is None else f"{value:.2f}".replace("-", MINUS).replace(f"{MINUS}0.00", "0.00")


def percent(value: float | None) -> str:
    """A share as ``98 %``."""
    return "?" if value is None else f"{whole(100 * value)} %"


def percent_span(row: Row) -> str:
    """A row's share with its interval: ``98 % (95 to 99)``."""
    if row["value"] is None or row["low"] is None or row["high"] is None:
        return percent(row["value"])
    return f"{percent(row['value'])} ({whole(100 * row['low'])} to {whole(100 * row['high'])})"


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the numbers that there are; None if there are none."""
    found = [value for value in values if value is not None]
    return fmean(found) if found else None


def listed(words: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def guesses(right: float, asked: float, chance: float | None) -> bool:
    """Whether so many right answers of so many are not clearly more than guessing gives."""
    low = wilson(right, asked).low
    return low is not None and chance is not None and low <= chance


def sure(row: Row, value: str = "value", low: str = "low") -> bool:
    """Whether a row's interval lies above zero."""
    return row[value] is not None and row[low] is not None and row[low] > 0


def clear(row: Row) -> bool:
    """Whether a difference is sure, and large enough for a title."""
    return sure(row) and row["value"] >= NOTICEABLE


def verdict(said: str, right: str) -> tuple[str, str]:
    """An answer with whether it is right, and the colour to write it in."""
    if said == right:
        return clean(f"{said} \N{CHECK MARK}", 40), "#006B4E"
    return clean(f"{said} \N{BALLOT X} ({right})", 40), HUES[1]


def paled(image_hw3: np.ndarray) -> np.ndarray:
    """A picture in light grey, to draw weights over."""
    grey = image_hw3.astype(float).mean(axis=2, keepdims=True).repeat(3, axis=2)
    return (255 - 0.25 * (255 - grey)).astype(np.uint8)


def examples(
    heads: Sequence[str], lines: Sequence[tuple[str, Sequence[Row | None]]], images: np.ndarray
) -> tuple[list[list[Pictures | None]], float]:
    """Panels of example pictures with the model's answers, and their height.

    Each line has what it is about, and rows with the columns of `base.SHOWN`; None stays empty. Images have shape
    (pictures, versions, height, width, 3).
    """
    panels: list[list[Pictures | None]] = [[None] * len(rows) for _, rows in lines]
    for down, (words, rows) in enumerate(lines):
        for across, row in enumerate(rows):
            if row is not None:
                caption, colour = verdict(str(row["answer"]), str(row["right"]))
                head = Note(heads[across], 0.5, 1, True, True, (0, 24), ("center", "bottom"), size=8.8, bold=True)
                panels[down][across] = Pictures(
                    image_hwc=images[int(row["picture"]), int(row["drawn"])], caption=caption, colour=colour,
                    title=clean(words, 100) if across == 0 else "", title_size=8.8, light=True,
                    notes=[head] * (down == 0),
                )  # fmt: skip
    side = (WIDTH - 0.3 - 0.12 * (len(heads) - 1)) / len(heads)
    return panels, len(lines) * (side + 0.56) + 0.45
