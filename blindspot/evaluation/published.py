"""Published tables: which of their differences exceed the sample of questions, with what is not published bounded.

What a table does not say is how far answers to questions about one picture agree, and on which questions two models are
right. So a difference has three p values: ``p``, as if questions were independent and the models had seen different
ones; ``p_most``, as if all questions about a picture were one; ``p_least``, of the pairing that favours it most: every
question that the lesser model answers, the better one answers too.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blindspot.benchmarks.base import Benchmark
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.errors import UserError, did_you_mean, explained
from blindspot.evaluation.statistics import ALPHA, CONFIDENCE, correct, wilson
from blindspot.text import clean, clean_json, letters, rounded

SURE, INDEPENDENT, OPEN, NOT = "exceeds", "exceeds if independent", "open", "does not exceed"
VERDICTS = {
    SURE: "beyond the sample even if all questions about a picture are one",
    INDEPENDENT: "beyond the sample only as if all questions were independent",
    OPEN: "beyond the sample only if the two models are right on the same questions; answers would tell",
    NOT: "within the sample, however the models' answers are paired",
}
MARKS = {SURE: "**", INDEPENDENT: "*", OPEN: "?", NOT: ""}
_NAMED_N = ("n", "questions")


def per_picture(benchmark: Benchmark) -> float:
    """Questions (or sets, where the score is of sets) about a picture, as published; 1 where that is not known."""
    unit = "questions" if benchmark.metrics[0].terms[0].unit == "question" else "sets"
    found = [one.counts[unit] / one.counts["images"] for one in benchmark.sources if {unit, "images"} <= {*one.counts}]
    return max(1.0, found[0]) if found and benchmark.name != "mme" else 1.0  # whose score is already one of pictures


def difference(values: Sequence[float], counts: Sequence[float], design: float) -> dict[str, Any]:
    """Test the first of two shares against the second.

    Args:
        counts: of independent questions that they rest on.
        design: how many questions are one at the worst.

    Returns:
        ``difference``, ``low`` and ``high`` (unpooled interval), ``z`` and ``p`` (two proportions, pooled), ``p_most``
        and ``p_least``.
    """
    from scipy import stats

    p_two, n_two = np.array(values), np.array(counts)
    change, pooled = float(p_two[0] - p_two[1]), float(p_two @ n_two / n_two.sum())
    z = change / np.sqrt(pooled * (1 - pooled) * (1 / n_two).sum()) if 0 < pooled < 1 else 0.0
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((p_two * (1 - p_two) / n_two).sum()))
    discordant = round(abs(change) * float(n_two.min()))
    return {
        "difference": change,
        "low": change - half,
        "high": change + half,
        "z": float(z),
        "p": float(2 * stats.norm.sf(abs(z))),
        "p_most": float(2 * stats.norm.sf(abs(z) / np.sqrt(design))),
        "p_least": float(stats.binomtest(discordant, discordant).pvalue) if discordant else 1.0,
    }


def judge(rows: list[dict[str, Any]]) -> None:
    """Add Holm's correction over all rows to each of their p values, and the ``verdict``, one of `VERDICTS`."""
    for name in ("p_most", "p_least"):
        bounds = [{"p": row[name]} for row in rows]
        correct(bounds, lambda row: "all")
        for row, bound in zip(rows, bounds, strict=True):
            row[f"{name}_holm"] = bound["p_holm"]
    correct(rows, lambda row: "all")
    for row in rows:
        bars = ((SURE, "p_most_holm"), (INDEPENDENT, "p_holm"), (OPEN, "p_least_holm"))
        row["verdict"] = next((name for name, key in bars if row[key] < ALPHA), NOT)


@dataclass(frozen=True)
class TableColumn:
    """A column of a table: questions, questions that are one at the worst, 100 where it is in per cent, and a basis."""

    name: str
    n: int
    design: float
    scale: float
    basis: str


def audit_table(
    path: Path, counts: Mapping[str, int], design: float = 1.0, baseline: str | None = None
) -> dict[str, Any]:
    """Say which differences of a table exceed the sample.

    Args:
        path: a CSV file: models by benchmarks, shares or per cent; a row named ``n`` may hold numbers of questions.
        counts: numbers of questions by column, before those of the row and of benchmarks that are known here.
        design: questions that are one, where a benchmark is not known.
        baseline: the model that the others are compared with; None: every pair.

    Returns:
        ``table``, ``columns``, ``scores`` (with Wilson's intervals), ``differences`` (`difference` and `judge`),
        ``verdicts`` (what each means), ``marks`` (of each), ``notes``.
    """
    header, cells = _read(path)
    models = [name for name in cells if name.lower() not in _NAMED_N]
    if baseline is not None and baseline not in models:
        raise UserError(f"--baseline {baseline}: no row of {path}; {did_you_mean(baseline, models)}")
    if unknown := [name for name in counts if name not in header]:
        raise UserError(f"--n {unknown[0]}: no column of {path}; {did_you_mean(unknown[0], header)}")
    told = {column: text for name, row in cells.items() if name.lower() in _NAMED_N for column, text in row.items()}
    columns, values = [], {}
    for name in header:
        shown = {model: _share(path, model, name, cells[model][name]) for model in models}
        shown = {model: value for model, value in shown.items() if value is not None}
        scale = 100.0 if max(shown.values(), default=0.0) > 1 else 1.0
        columns.append(_column(path, name, scale, counts, told.get(name, ""), design))
        values |= {(model, name): value / scale for model, value in shown.items()}
    scores, rows = [], []
    for column in columns:
        there = [model for model in models if (model, column.name) in values]
        for model in there:
            value = values[model, column.name]
            found = wilson(value * column.n, column.n)
            scores.append({"model": model, "column": column.name, "value": value, "low": found.low, "high": found.high})
        pairs = [(a, b) for place, b in enumerate(there) for a in there[place + 1 :]]
        if baseline is not None:
            pairs = [(model, baseline) for model in there if model != baseline] if baseline in there else []
        for a, b in pairs:
            both = [values[model, column.name] for model in (a, b)]
            row = {"a": a, "b": b, "column": column.name, "scale": column.scale}
            rows.append(row | difference(both, (column.n, column.n), column.design))
    if not rows:
        raise UserError(f"{path}: no two models have a number in one column")
    judge(rows)
    notes = ["Every row is one model as it was run once: training and decoding noise are in none of these numbers."]
    if free := [column.name for column in columns if column.design == 1]:
        notes.append(
            f"As if independent: {', '.join(free)}; where questions share pictures, --design-effect says more."
        )
    found = {"version": 1, "table": path.name, "baseline": baseline, "columns": [vars(one) for one in columns]}
    found |= {"scores": scores, "differences": rows, "verdicts": VERDICTS, "marks": MARKS, "notes": notes}
    return clean_json(rounded(found))


def _read(path: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The columns, and the cells of each row by its name."""
    broken = (OSError, UnicodeDecodeError, csv.Error)
    with explained(f"cannot read {path}", broken), path.open(encoding="utf-8-sig", newline="") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file) if any(map(str.strip, line))]
    if len(lines) < 2 or len(lines[0]) < 2:
        raise UserError(f"{path}: expected is a line of benchmarks behind an empty cell, then a row a model")
    header, cells = lines[0][1:], {}
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(lines[0]) or not line[0] or line[0] in cells:
            raise UserError(f"{path}: row {number}: expected are a name of its own and {len(header)} cells behind it")
        cells[line[0]] = dict(zip(header, line[1:], strict=True))
    if len(cells[next(iter(cells))]) != len(header):
        raise UserError(f"{path}: two columns have one name; give each its own")
    return header, cells


def _share(path: Path, model: str, column: str, cell: str) -> float | None:
    """A cell as a number from 0 to 100; None where it is empty or a dash."""
    text = cell.rstrip("%* ").strip()
    if text in ("", "-", "–", "—", "n/a"):  # noqa: RUF001
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 100:
        raise UserError(
            f"{path}: {model}, {column}: {clean(cell, 40)} is no share and no per cent; leave the column out"
        )
    return value


def _column(path: Path, name: str, scale: float, counts: Mapping[str, int], told: str, design: float) -> TableColumn:
    known = _known(name, BENCHMARKS.values())
    clusters = per_picture(known) if known else design
    basis = f"{clusters:.1f} questions a picture" if known and clusters > 1 else "as if independent"
    if known is None and design > 1:
        basis = f"a design effect of {design:g}, as stated"
    if name in counts:
        return TableColumn(name, counts[name], clusters, scale, basis)
    if told:
        if not told.replace(",", "").isdigit() or not int(told.replace(",", "")):
            raise UserError(f"{path}: {name}: {clean(told, 40)} is no number of questions")
        return TableColumn(name, int(told.replace(",", "")), clusters, scale, basis)
    if known is None or not known.size:
        raise UserError(
            f"{path}: how many questions {name} has is not known; add a row named n, or give --n '{name}=NUMBER'"
        )
    sets = known.metrics[0].terms[0].unit != "question" and known.set_size
    return TableColumn(name, known.size // sets if sets else known.size, clusters, scale, basis)


def _known(name: str, benchmarks: Iterable[Benchmark]) -> Benchmark | None:
    """The benchmark that a column is called after: its name here, its title or its name in VLMEvalKit."""
    return next(
        (one for one in benchmarks if letters(name) in map(letters, (one.name, one.title, one.vlmevalkit))), None
    )
