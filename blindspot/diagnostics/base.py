"""What a diagnostic is given and what it returns: budgets, tables of typed rows, and shares with their intervals."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import AfterValidator, Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from blindspot.errors import UserError
from blindspot.evaluation.statistics import CONFIDENCE, Sample, paired, resampled_sums, wilson
from blindspot.scenes.world import Scene
from blindspot.text import clean

Report = Callable[[int, int], None]
"""Is told how far a diagnostic has come, and of how much."""
Number = Annotated[float, Field(strict=True)] | None
"""None, also in files for what was not finite, where there is no such number."""
Text = Annotated[str, AfterValidator(clean)]
Row = Mapping[str, Any]

VALUE = {"value": Number, "low": Number, "high": Number, "n": int | None}
"""What every row has: a number, its 95 % interval, and the units that the interval is over."""
AGAINST = {"difference": Number, "difference_low": Number, "difference_high": Number, "p": Number}
"""A paired difference to a condition of the same table, and its p."""
SHOWN = {"picture": int, "drawn": int, "prompt": str, "answer": str, "right": str | None}
"""An example picture of the array ``examples``, and what was said about it."""
MOST_SIDE = 1344
"""Pixels of a photo's longer side: some 2,000 tokens of Qwen2.5-VL, which cuts no picture down by itself."""
_typed: Any = TypedDict


def columns(**kinds: Any) -> Any:
    """The type of a table's rows: the columns of `VALUE`, and these."""
    return _typed("Row", {**VALUE, **kinds})


def plain(value: Any) -> Any:
    """A number, a truth value, a line of text, or None, also for numbers that are not finite."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    return clean(str(value), 300)


def _row(row: Row) -> Row:
    return {clean(str(key), 60): plain(value) for key, value in row.items()}


@dataclass(frozen=True)
class Table:
    """Numbers of a diagnostic, one row each.

    Attributes:
        name: of its CSV file; unique within the diagnostic.
        title: what its numbers are.
        rows: of the type that the diagnostic's `plots.ROWS` names for this table; None where there is no number.
        notes: what a reader must know, a sentence each.
    """

    name: Text
    title: Text
    rows: Sequence[Annotated[Row, AfterValidator(_row)]]
    notes: tuple[Text, ...] = ()


Tables = Mapping[str, Table]
Pictures = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Findings:
    """All that a diagnostic found out about one model: its tables, and small arrays that figures draw, by name."""

    tables: list[Table]
    pictures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Photo:
    """A picture and a question of the user's own.

    Attributes:
        name: of the picture's file.
        pixels_hw3: the picture, uint8, its longer side at most `MOST_SIDE`.
        question: about it.
        box: what to look for in it, x0, y0, x1, y1 as shares of its sides.
        scene: that it is drawn from, if it is; its first two objects lie on one side of each other.
    """

    name: str
    pixels_hw3: np.ndarray
    question: str
    box: tuple[float, ...] | None = None
    scene: Scene | None = None

    @classmethod
    def of(cls, name: str, picture: Any, question: str, box: tuple[float, ...] | None = None) -> Self:
        """A picture as Pillow has it, with a box in its pixels; an empty question and a box beyond it are refused."""
        width, height = picture.size
        if not question.strip():
            raise UserError("the question is empty; say what to ask with --question")
        if box is not None and not (min(box) >= 0 and box[2] <= width and box[3] <= height):
            said = ",".join(f"{edge:g}" for edge in box)
            raise UserError(f"the box {said} is not inside the picture, which is {width} x {height} pixels")
        small = picture.copy()
        small.thumbnail((MOST_SIDE, MOST_SIDE))
        sides = (width, height) * 2
        shares = None if box is None else tuple(edge / side for edge, side in zip(box, sides, strict=True))
        return cls(name, np.asarray(small), question.strip(), shares)

    @property
    def said(self) -> dict[str, Any]:
        """What it is known by; ``asked`` is another for another picture, question or box."""
        rest = repr((self.pixels_hw3.shape, self.question, self.box))
        asked = sha256(self.pixels_hw3.tobytes() + rest.encode()).hexdigest()[:8]
        return {"image": self.name, "question": self.question, "asked": asked}

    @property
    def label(self) -> str:
        """What to call its folder."""
        return f"{Path(self.name).stem}-{self.said['asked']}"


@dataclass(frozen=True)
class Budget:
    """How much a diagnostic may look at.

    Attributes:
        stimuli: pictures with a question, for each thing that is measured.
        batch: at a time.
        seed: of everything random.
        photo: what to look at instead of drawn pictures.
    """

    stimuli: int = 256
    batch: int = 32
    seed: int = 0
    photo: Photo | None = None


def steps(report: Report, of: int) -> Callable[[], None]:
    """What reports one more step, of so many, whenever it is called."""
    done = count(1)
    return lambda: report(next(done), of)


def estimate(value: float | None, ends: Iterable[float | None] | np.ndarray, n: int) -> dict[str, Any]:
    """The columns of `VALUE`; the ends are the interval's."""
    value, low, high = (None if number is None else float(number) for number in (value, *ends))
    return {"value": value, "low": low, "high": high, "n": n}


def share(right_b: np.ndarray) -> dict[str, Any]:
    """How often something is true, with its Wilson interval; None of nothing."""
    interval = wilson(float(right_b.sum()), len(right_b))
    return estimate(right_b.mean() if len(right_b) else None, (interval.low, interval.high), len(right_b))


def sampled(values_i: np.ndarray, cluster_i: np.ndarray | None = None) -> dict[str, Any]:
    """The mean of values with the interval of `Sample`; n is clusters, by default each value is one by itself."""
    sample = Sample.of(values_i, cluster_i)
    interval = sample.estimate().interval
    return estimate(values_i.mean(), (interval.low, interval.high), sample.clusters)


def resampled(values_bs: np.ndarray) -> np.ndarray:
    """Means of several series under a bootstrap of their stimuli, shape (replicates, series)."""
    return resampled_sums(values_bs) / len(values_bs)


def bounds(drawn_rs: np.ndarray) -> np.ndarray:
    """Lower and upper ends of percentile intervals, shape (2, series), of numbers under a bootstrap."""
    return np.quantile(drawn_rs, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2), axis=0)


def against(first_b: np.ndarray, second_b: np.ndarray) -> dict[str, Any]:
    """Paired difference of two shares of the same stimuli, its interval from a bootstrap's error, and McNemar's p."""
    found = paired(Sample.of(first_b), Sample.of(second_b))
    return {"difference": found.value, "difference_low": found.low, "difference_high": found.high, "p": found.p}
