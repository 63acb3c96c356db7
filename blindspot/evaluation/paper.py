"""The numbers of the paper's Tables 1, 2, 4 and 5, and what follows from them alone: intervals, chance, differences."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from blindspot.benchmarks.base import Metric, Term
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.evaluation.published import SURE, difference, judge, per_picture
from blindspot.evaluation.statistics import Interval, chance_corrected, wilson
from blindspot.text import rounded

BASELINE = "LLaVA-1.5"
PAIRS = (
    ("LLaVA-2D-RoPE", BASELINE, "2D-RoPE"),
    ("LLaVA-SigLIP-2D-RoPE", "LLaVA-SigLIP", "2D-RoPE"),
    ("LLaVA-SigLIP2-2D-RoPE", "LLaVA-SigLIP2", "2D-RoPE"),
    ("LLaVA-AIMv2-2D-RoPE", "LLaVA-AIMv2", "2D-RoPE"),
    ("LLaVA-SigLIP", BASELINE, "encoder"),
    ("LLaVA-SigLIP2", BASELINE, "encoder"),
    ("LLaVA-AIMv2", BASELINE, "encoder"),
)
"""A variant, its baseline, and what moves by the paper's account."""
CVBENCH_SOURCES = {"source=coco": 805, "source=ade20k": 633}
"""Not published. Of all ways to split the 1438 questions in two, only this one lets all published scores per source,
and the variants' means of the two, be shares k/n."""
MME_PICTURES = {
    **dict.fromkeys(("existence", "count", "position", "color"), 30),
    **{"posters": 147, "celebrity": 170, "scene": 200, "landmark": 200, "artwork": 200, "OCR": 20},
    **{"commonsense_reasoning": 70, "numerical_calculation": 20, "text_translation": 20, "code_reasoning": 20},
}
"""Pictures of each category; each has two questions."""
FINDINGS = (
    "MMVP is the share of single questions (LLaVA-1.5: 173 of 300), not of pairs, so chance is .5. Of the "
    "eight variants two are above it beyond the noise, two are below it, four are not told from it.",
    "What reached LLaVA was not its own prompt: other words, the picture inside the line, a blank after ASSISTANT:. "
    "With a strict comparison of strings GQA then gives 33 %; elsewhere the same model has 62 %. "
    "Compare blindspot evaluate --prompts paper with --prompts llava.",
    "The CLIP baseline is the released LLaVA-1.5-7B, not a training of the study's own, and encoders also differ in "
    "size and in the number of visual tokens (576 or 256). A difference between rows is not of the encoder alone.",
)
NOTES = (
    "Intervals are Wilson's, as if every question were independent. Questions that share a picture are not (GQA has "
    "31.6 a picture), so true intervals are wider.",
    "Differences are tested as if the two models had seen different questions, since answers are not public; a paired "
    "test would find more.",
    "Every row is one training. How much a second training would differ is not known and is in none of these numbers.",
    "CV-Bench has no published counts per source; 805 COCO and 633 ADE20K is the only split that the scores per source "
    "and the variants' means of them allow. MME is as noisy as about 520 independent questions, because its small "
    "categories weigh as much as its large.",
)


@dataclass(frozen=True)
class PaperColumn:
    """A column of a table: its table's number, what it is of, and 100 where the paper prints per cent, else 1."""

    table: str
    benchmark: str
    metric: str
    scale: float

    @property
    def key(self) -> tuple[str, str]:
        """What names it: benchmark and metric."""
        return self.benchmark, self.metric

    @property
    def id(self) -> str:
        """What studies call it."""
        return "/".join(self.key)

    @property
    def title(self) -> str:
        """Of its benchmark."""
        return BENCHMARKS[self.benchmark].title

    @property
    def measured(self) -> Metric:
        """What the numbers are of."""
        return next(one for one in BENCHMARKS[self.benchmark].metrics if one.name == self.metric)


@dataclass(frozen=True)
class Paper:
    """The tables: ``variant`` or ``frontier`` by model, variants first, and cells by model, benchmark and metric."""

    source: str
    columns: tuple[PaperColumn, ...]
    roles: Mapping[str, str]
    printed: Mapping[tuple[str, str, str], str]

    def value(self, model: str, column: PaperColumn) -> float:
        """A cell as a fraction."""
        return float(self.printed[(model, *column.key)]) / column.scale

    def table(self, number: str) -> tuple[PaperColumn, ...]:
        """The columns of a table. One about the parts of a benchmark also has the overall that Table 2 has."""
        own = [column for column in self.columns if column.table == number]
        known = {(column.benchmark, "overall") for column in own} - {column.key for column in own}
        whole = [column for column in self.columns if column.key in known]
        return (*own, *whole) if number == "4" else (*whole, *own)  # where the paper has it

    def row(self, model: str) -> dict[tuple[str, str], str]:
        """The cells of a model as printed, by benchmark and metric."""
        return {column.key: self.printed[(model, *column.key)] for column in self.columns}


@lru_cache(maxsize=1)
def load() -> Paper:
    """Read ``paper.csv``: a line of source, then per column its table, its unit and its name, then a row a model."""
    source, *lines = Path(__file__).with_suffix(".csv").read_text(encoding="utf-8").splitlines()
    (_, _, *tables), (_, _, *units), (_, _, *names), *rows = csv.reader(lines)
    columns = []
    for table, unit, name in zip(tables, units, names, strict=True):
        benchmark, _, metric = name.partition("/")
        columns.append(PaperColumn(table, benchmark, metric or "overall", {"fraction": 1.0, "percent": 100.0}[unit]))
    printed = {
        (model, *column.key): cell for model, _, *cells in rows for column, cell in zip(columns, cells, strict=True)
    }
    return Paper(source.removeprefix("# "), tuple(columns), {row[0]: row[1] for row in rows}, printed)


def basis(model: str, column: PaperColumn) -> tuple[int, float]:
    """What a cell rests on: questions, or sets where only whole sets count; and independent questions as noisy as they.

    The two are the same for a plain share. A mean over several terms has the variance of their weighted sum, with each
    term's own published value where there is one, and else the whole's. MME's two terms of a category are about the
    same pictures and count as one.
    """
    paper, benchmark, terms = load(), BENCHMARKS[column.benchmark], column.measured.terms

    def label_of(term: Term) -> str:
        return " ".join(f"{group}={label}" for group, label in term.where.items())

    def count(label: str, unit: str = "question") -> int:  # as published, of the form that VLMEvalKit reads if it may
        if benchmark.name == "mme" and label:
            return MME_PICTURES[label.removeprefix("category=")]
        if benchmark.name == "cvbench_2d" and label in CVBENCH_SOURCES:
            return CVBENCH_SOURCES[label]
        key = label or f"{unit}s"
        return next(source.counts[key] for source in benchmark.sources if key in source.counts)

    if len(terms) == 1:
        n = count(label_of(terms[0]), terms[0].unit)
        return n, n
    weights: dict[str, float] = {}
    for term in terms:
        weights[label_of(term)] = weights.get(label_of(term), 0.0) + term.weight / column.measured.most
    values = {
        label_of(other.measured.terms[0]): paper.value(model, other)
        for other in paper.columns
        if other.benchmark == column.benchmark and other != column and len(other.measured.terms) == 1
    }
    whole, variance = paper.value(model, column), 0.0
    for label, weight in weights.items():
        p = values.get(label, whole)
        variance += weight**2 * (p * (1 - p)) / count(label)
    return count(""), whole * (1 - whole) / variance


def interval(model: str, column: PaperColumn) -> Interval:
    """Wilson's interval of a cell, as a fraction, as if all its questions were independent."""
    _, n = basis(model, column)
    return wilson(load().value(model, column) * n, n)


def fits(model: str, column: PaperColumn) -> str | None:
    """Whether some k/n rounds to the cell: ``yes``; ``nearly``: to its neighbour in the last digit; ``no``.

    None where the number is no share, or has so few digits that some k/n always does.
    """
    value, (n, _) = load().value(model, column), basis(model, column)
    decimals = len(load().printed[(model, *column.key)].partition(".")[2])
    half = 0.5 * 10.0**-decimals / column.scale  # the most by which rounding can have moved it
    if len(column.measured.terms) > 1 or 1 / n < 2 * half:
        return None
    off = abs(round(value * n) / n - value)
    return "yes" if off <= half * (1 + 1e-6) else "nearly" if off <= 3 * half else "no"


def report() -> dict[str, Any]:
    """The paper's numbers with intervals, chance, and tests of its differences.

    Returns:
        ``source``; ``columns``; ``scores`` (a row per model and column, fractions of 1); ``differences`` (per pair of
        `PAIRS` and benchmark, with Holm over all of them); ``unfitting`` (cells that are no k/n); ``findings``;
        ``notes``.
    """
    paper = load()
    columns = []
    for column in paper.columns:
        n, effective = basis(BASELINE, column)
        counts = {"n": n, "effective": round(effective, 1), "chance": column.measured.chance}
        columns.append({**vars(column), **counts})
    scores = []
    for model, role in paper.roles.items():
        for column in paper.columns:
            value, found = paper.value(model, column), interval(model, column)
            row = {"model": model, "role": role, "table": column.table}
            row |= {"benchmark": column.benchmark, "metric": column.metric, "printed": paper.row(model)[column.key]}
            row |= {"value": value, "low": found.low, "high": found.high}
            row |= {"chance_corrected": chance_corrected(value, column.measured.chance), "fits": fits(model, column)}
            scores.append(rounded(row))
    differences = rounded(
        [
            {"variant": variant, "baseline": baseline, "moves": moves, "benchmark": column.benchmark}
            | {"scale": column.scale, **_difference(paper, (variant, baseline), column)}
            for variant, baseline, moves in PAIRS
            for column in paper.columns
            if column.metric == "overall"
        ]
    )
    judge(differences)
    counted = []
    for moves, against in (("2D-RoPE", "the same encoder without it"), ("encoder", "CLIP")):
        rows = [row for row in differences if row["moves"] == moves]
        up = sum(row["significant"] and row["difference"] > 0 for row in rows)
        down = sum(row["significant"] and row["difference"] < 0 for row in rows)
        counted.append(
            f"{moves} against {against}: of {len(rows)} differences {up} are gains and {down} losses beyond the noise "
            f"of the questions (Holm over {len(differences)} tests); {len(rows) - up - down} are not told from it. "
            f"{sum(row['verdict'] == SURE for row in rows)} stay so where all questions about a picture count as one."
        )
    return {
        "source": paper.source,
        "columns": columns,
        "scores": scores,
        "differences": differences,
        "checked": sum(row["fits"] is not None for row in scores),
        "unfitting": [row for row in scores if row["fits"] in ("no", "nearly")],
        "findings": [*FINDINGS, *counted],
        "notes": list(NOTES),
    }


def _difference(paper: Paper, models: Sequence[str], column: PaperColumn) -> dict[str, Any]:
    values, counts = [paper.value(model, column) for model in models], [basis(model, column)[1] for model in models]
    return difference(values, counts, per_picture(BENCHMARKS[column.benchmark]))
