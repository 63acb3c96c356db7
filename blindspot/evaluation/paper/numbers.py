"""The numbers of the paper's Tables 1, 2, 4 and 5, as printed."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

BASELINE = "LLaVA-1.5"
TABLES = ("1", "2", "4", "5")
_UNITS = {"fraction": 1.0, "percent": 100.0}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        table: its number in the paper.
        benchmark, metric: as in `blindspot.benchmarks`.
        scale: 100 where the paper prints per cent, else 1.
    """

    table: str
    benchmark: str
    metric: str
    scale: float

    @property
    def key(self) -> tuple[str, str]:
        """What names it: benchmark and metric."""
        return self.benchmark, self.metric


@dataclass(frozen=True)
class Paper:
    """The tables.

    Attributes:
        source: where they are from.
        columns: in the order of the tables.
        roles: ``variant`` or ``frontier`` by model; variants first.
        printed: the text of a cell by model, benchmark and metric.
    """

    source: str
    columns: tuple[Column, ...]
    roles: Mapping[str, str]
    printed: Mapping[tuple[str, str, str], str]

    def value(self, model: str, column: Column) -> float:
        """A cell as a fraction."""
        return float(self.printed[(model, *column.key)]) / column.scale

    def rounding(self, model: str, column: Column) -> float:
        """The most by which rounding can have moved a cell, as a fraction."""
        decimals = len(self.printed[(model, *column.key)].partition(".")[2])
        return 0.5 * 10.0**-decimals / column.scale

    def row(self, model: str) -> dict[tuple[str, str], str]:
        """The cells of a model as printed, by benchmark and metric."""
        return {column.key: self.printed[(model, *column.key)] for column in self.columns}

    def main_columns(self) -> Iterator[Column]:
        """One column per benchmark: its overall score."""
        return (column for column in self.columns if column.metric == "overall")


@lru_cache(maxsize=1)
def load() -> Paper:
    """Read ``numbers.csv``: a line of source, then per column its table, its unit and its name, then a row a model."""
    text = (files("blindspot.evaluation.paper") / "numbers.csv").read_text(encoding="utf-8")
    source, *lines = text.splitlines()
    (_, _, *tables), (_, _, *units), (_, _, *names), *rows = csv.reader(lines)
    columns = tuple(
        Column(table, *_key(name), _UNITS[unit]) for table, unit, name in zip(tables, units, names, strict=True)
    )
    printed = {
        (model, *column.key): cell for model, _, *cells in rows for column, cell in zip(columns, cells, strict=True)
    }
    return Paper(source.removeprefix("# "), columns, {row[0]: row[1] for row in rows}, printed)


def _key(name: str) -> tuple[str, str]:
    benchmark, _, metric = name.partition("/")
    return benchmark, metric or "overall"
