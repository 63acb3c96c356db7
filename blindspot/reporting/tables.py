"""Tables as data, laid out like the paper's; HTML, LaTeX and the terminal print the same ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from blindspot.evaluation.statistics import ALPHA
from blindspot.reporting.plan import Arm, Column
from blindspot.reporting.text import DASH, points, signed, span

SIGNIFICANT, QUESTIONS_ONLY = "*", "†"


@dataclass(frozen=True)
class Cell:
    """One number: ``text``, its interval in small print, whether it is the best of its column, and a mark."""

    text: str
    small: str = ""
    best: bool = False
    mark: str = ""
    sign: int = 0


@dataclass(frozen=True)
class TableRow:
    """A labelled row with one cell per column."""

    label: str
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """Columns and titled blocks of rows."""

    columns: list[Column]
    blocks: list[tuple[str, list[TableRow]]]

    @property
    def header(self) -> list[tuple[str, int]]:
        """Benchmarks of the paper with the number of neighbouring columns that each spans."""
        return [(paper, len(list(group))) for paper, group in groupby(self.columns, key=lambda column: column.paper)]


def columns_of(results: dict[str, Any]) -> list[Column]:
    """The columns of ``results.json``."""
    return [Column.model_validate(column) for column in results["columns"]]


def arms_of(results: dict[str, Any]) -> list[Arm]:
    """The arms of ``results.json``."""
    return [Arm.model_validate(arm) for arm in results["arms"]]


def scores_at(results: dict[str, Any], stage: str, split: str = "iid") -> dict[tuple[str, str], Any]:
    """Scores over all seeds, by arm and column."""
    return {
        (row["arm"], row["column"]): row
        for row in results["scores"]
        if (row["stage"], row["split"], row["seed"]) == (stage, split, None)
    }


def differences_at(results: dict[str, Any], stage: str) -> dict[tuple[str, str, str], Any]:
    """Differences in the main split, by both arms and column."""
    return {
        (row["a"], row["b"], row["column"]): row
        for row in results["differences"]
        if (row["stage"], row["split"]) == (stage, "iid")
    }


def score_table(results: dict[str, Any], stage: str, split: str) -> Table | None:
    """Arms by columns, over all seeds; best arm marked (replicates do not compete); None without any score."""
    rows = scores_at(results, stage, split)
    if not rows:
        return None
    columns = columns_of(results)
    references = _reference_rows(results, columns, stage if split == "iid" else None)
    return _scores(results, columns, rows, list(references))


def part_score_table(results: dict[str, Any], stage: str) -> Table | None:
    """As `score_table`, for the columns that have parts, part by part."""
    columns = _part_columns(results)
    rows = {
        (row["arm"], f"{row['column']}/{row['split']}"): row
        for row in results["scores"]
        if (row["stage"], row["seed"]) == (stage, None)
    }
    if not any(column.id == name for column in columns for _, name in rows):
        return None
    chance = TableRow("chance", [Cell(points(column.chance)) for column in columns])
    return _scores(results, columns, rows, [chance])


def _scores(
    results: dict[str, Any], columns: list[Column], rows: dict[tuple[str, str], Any], references: list[TableRow]
) -> Table:
    arms = arms_of(results)
    competing = {arm.id for arm in arms if arm.replicate_of is None}
    best: dict[str, float] = {}
    for (arm, column), row in rows.items():
        if arm in competing:
            best[column] = max(row["score"], best.get(column, 0.0))

    def row_of(arm: Arm) -> TableRow:
        cells = []
        for column in columns:
            row = rows.get((arm.id, column.id))
            marked = row is not None and arm.id in competing and row["score"] == best[column.id]
            cells.append(_score_cell(row, marked) if row else Cell(DASH))
        return TableRow(arm.label, cells)

    blocks = []
    for block in dict.fromkeys(arm.block for arm in arms):
        members = [arm for arm in arms if arm.block == block and arm.replicate_of is None]
        if members:
            blocks.append((block or "Arms", [row_of(arm) for arm in members]))
    replicates = [row_of(arm) for arm in arms if arm.replicate_of is not None]
    if replicates:
        blocks.append(("Replicate: same configuration, other seeds", replicates))
    blocks.append(("For scale", references))
    return Table(columns, blocks)


def _part_columns(results: dict[str, Any]) -> list[Column]:
    """One column a part, under the name of the column that it belongs to."""
    return [
        column.model_copy(update={"id": f"{column.id}/{part}", "label": part, "paper": column.name, "baselines": {}})
        for column in columns_of(results)
        for part in column.parts
    ]


def difference_table(results: dict[str, Any], stage: str) -> Table | None:
    """Pairs by columns: difference, interval and mark; None without any difference."""
    found = differences_at(results, stage)
    if not found:
        return None
    columns = columns_of(results)
    blocks = _differences(results, columns, found)
    bands = {row["column"]: row["band"] for row in results["noise"] if row["stage"] == stage}
    if any(band is not None for band in bands.values()):
        cells = [
            Cell(DASH) if bands.get(column.id) is None else Cell("±" + points(bands[column.id])) for column in columns
        ]
        blocks.append(("For scale", [TableRow("noise band", cells)]))
    return Table(columns, blocks)


def part_difference_table(results: dict[str, Any], stage: str) -> Table | None:
    """As `difference_table`, for the columns that have parts, part by part."""
    columns = _part_columns(results)
    found = {
        (row["a"], row["b"], f"{row['column']}/{row['split']}"): row
        for row in results["differences"]
        if row["stage"] == stage
    }
    if not any(column.id == name for column in columns for _, _, name in found):
        return None
    return Table(columns, _differences(results, columns, found))


def _differences(
    results: dict[str, Any], columns: list[Column], found: dict[tuple[str, str, str], Any]
) -> list[tuple[str, list[TableRow]]]:
    blocks = []
    for kind in dict.fromkeys(pair["kind"] for pair in results["pairs"]):
        pairs = [pair for pair in results["pairs"] if pair["kind"] == kind]
        lines = []
        for pair in pairs:
            rows = [found.get((pair["a"], pair["b"], column.id)) for column in columns]
            lines.append(TableRow(pair["label"], [_difference_cell(row) if row else Cell(DASH) for row in rows]))
        title = f"{pairs[0]['first']} minus {pairs[0]['second']}"
        if kind == "replicate":
            title = "Replicate minus original: what differs by seed alone"
        blocks.append((title[:1].upper() + title[1:], lines))
    return blocks


def _score_cell(row: dict[str, Any], best: bool) -> Cell:
    return Cell(points(row["score"]), span(row["low"], row["high"]), best=best)


def _difference_cell(row: dict[str, Any]) -> Cell:
    questions = row["p_questions"] is not None and row["p_questions"] < ALPHA
    mark = SIGNIFICANT if row["significant"] else QUESTIONS_ONLY if questions else ""
    small = "" if row["low"] is None else f"{signed(row['low'])}, {signed(row['high'])}"
    sign = 0 if not row["significant"] else 1 if row["difference"] > 0 else -1
    return Cell(signed(row["difference"]), small, mark=mark, sign=sign)


def _reference_rows(results: dict[str, Any], columns: list[Column], stage: str | None) -> Iterator[TableRow]:
    for name in dict.fromkeys(name for column in columns for name in column.baselines):
        yield TableRow(name, [Cell(points(column.baselines.get(name))) for column in columns])
    yield TableRow("chance", [Cell(points(column.chance)) for column in columns])
    noise = {row["column"]: row["deviation"] for row in results["noise"] if row["stage"] == stage}
    if any(value is not None for value in noise.values()):
        yield TableRow("seed noise", [Cell(points(noise.get(column.id))) for column in columns])
    failures = _failures(results, stage or "", columns)
    if any(value is not None for value in failures):
        yield TableRow("unreadable", [Cell(points(value)) for value in failures])


def _failures(results: dict[str, Any], stage: str, columns: list[Column]) -> list[float | None]:
    worst: dict[str, float] = {}
    for (_, column), row in scores_at(results, stage).items():
        worst[column] = max(worst.get(column, 0.0), row["parse_failures"])
    return [worst.get(column.id) for column in columns]
