"""What a diagnosis left in its folder: tables and pictures of each diagnostic."""

from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any
from zipfile import BadZipFile

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from blindspot.diagnostics.names import NAMES as DIAGNOSTICS
from blindspot.diagnostics.rows import ROWS
from blindspot.errors import UserError
from blindspot.evaluation.statistics import wilson
from blindspot.files import parse_json
from blindspot.reporting.plan import Text
from blindspot.reporting.text import MINUS, clean

AGAIN = "delete the file and run blindspot diagnose again"
NOTICEABLE = 0.05
"""The least difference of shares or R2 that a title speaks of."""
Row = dict[str, Any]


def _row(row: Row) -> Row:
    return {clean(str(key), 60): _plain(value) for key, value in row.items()}


def _plain(value: Any) -> Any:
    """A number, a truth value, a line of text, or None, also for numbers that are not finite."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    return clean(str(value), 300)


class Table(BaseModel):
    """Numbers of a diagnostic.

    Attributes:
        name: unique within the diagnostic.
        title: what the numbers are.
        notes: what a reader must know.
        rows: of the type that `ROWS` names for the table; None where there is no number.
    """

    name: Text
    title: Text
    notes: list[Text] = Field(default_factory=list)
    rows: list[Annotated[Row, AfterValidator(_row)]]


class _File(BaseModel):
    tables: list[Table]


Tables = Mapping[str, Table]
Pictures = Mapping[str, np.ndarray]


def load_diagnosis(folder: Path) -> dict[str, Tables]:
    """The tables of every diagnostic that is done, by name, in the order of `DIAGNOSTICS`.

    Args:
        folder: what ``blindspot diagnose`` wrote, or the folder of a study's step.

    Raises:
        UserError: if a file is damaged; it is named.
    """
    return {name: _tables(path) for name in DIAGNOSTICS if (path := folder / f"{name}.json").exists()}


def load_pictures(folder: Path, name: str) -> Pictures:
    """The pictures of a diagnostic by name; none if it has left none.

    Raises:
        UserError: if the file is damaged.
    """
    path = folder / f"{name}.npz"
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, BadZipFile, EOFError, AttributeError) as error:
        raise UserError(f"cannot read {path}: {clean(str(error), 120)}; delete it and {name}.json, and run "
                        "blindspot diagnose again") from error  # fmt: skip


def diagnosed(folder: Path) -> dict[str, Any]:
    """What ``diagnosis.json`` says was diagnosed: ``model``, ``stimuli``, ``seed``; the folder's name without it.

    Raises:
        UserError: if it is damaged.
    """
    path = folder / "diagnosis.json"
    if not path.exists():
        return {"model": clean(folder.resolve().name), "stimuli": None, "seed": None}
    try:
        said = parse_json(path.read_text(encoding="utf-8"))
        return {key: _plain(said[key]) for key in ("model", "stimuli", "seed")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; {AGAIN}") from error


def ratio(value: float | None) -> str:
    """A number with two decimals and a true minus sign; ``?`` where there is none."""
    return "?" if value is None else f"{value:.2f}".replace("-", MINUS).replace(f"{MINUS}0.00", "0.00")


def percent(value: float | None) -> str:
    """A share as ``98 %``."""
    return "?" if value is None else f"{whole(100 * value)} %"


def percent_span(row: Mapping[str, Any]) -> str:
    """A row's share with its interval: ``98 % (95 to 99)``."""
    if row["value"] is None or row["low"] is None or row["high"] is None:
        return percent(row["value"])
    return f"{percent(row['value'])} ({whole(100 * row['low'])} to {whole(100 * row['high'])})"


def whole(value: float) -> str:
    """A number without decimals and with a true minus sign, never minus zero."""
    return f"{round(value) + 0:d}".replace("-", MINUS)


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the numbers that there are; None if there are none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def listed(words: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def guesses(right: float, asked: float, chance: float | None) -> bool:
    """Whether so many right answers of so many are not clearly more than guessing gives."""
    low = wilson(right, asked).low
    return low is not None and chance is not None and low <= chance


def sure(row: Mapping[str, Any]) -> bool:
    """Whether a row's interval lies above zero."""
    return row["value"] is not None and row["low"] is not None and row["low"] > 0


def _tables(path: Path) -> Tables:
    try:
        tables = _File.model_validate(parse_json(path.read_text(encoding="utf-8"))).tables
        for table in tables:
            if kind := ROWS[path.stem].get(table.name):
                checker = TypeAdapter(kind)
                for row in table.rows:
                    checker.validate_python(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {clean(where, 80)}: {clean(first['msg'], 120)}; {AGAIN}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {clean(str(error), 120)}; {AGAIN}") from error
    return {table.name: table for table in tables}
