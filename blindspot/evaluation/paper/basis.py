"""How many questions stand behind a number of the paper, and how far chance gets."""

from dataclasses import dataclass

from blindspot.benchmarks.base import Benchmark, Metric, Term
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.evaluation.paper.numbers import Column, Paper
from blindspot.evaluation.statistics import Interval, wilson

CVBENCH_SOURCES = {"source=coco": 805, "source=ade20k": 633}
"""Not published. Of all ways to split the 1438 questions in two, only this one lets all published scores per source,
and the variants' means of the two, be shares k/n."""
MME_PICTURES = {
    **dict.fromkeys(("existence", "count", "position", "color"), 30),
    **{"posters": 147, "celebrity": 170, "scene": 200, "landmark": 200, "artwork": 200, "OCR": 20},
    **{"commonsense_reasoning": 70, "numerical_calculation": 20, "text_translation": 20, "code_reasoning": 20},
}
"""Pictures of each category; each has two questions."""


@dataclass(frozen=True)
class Basis:
    """What a column rests on.

    Attributes:
        n: questions, or sets where only whole sets count.
        effective: number of independent questions with the same noise; equals ``n`` for a plain share.
        share: whether the number is k/n.
        chance: what guessing gives; None if not known without the data.
    """

    n: int
    effective: float
    share: bool
    chance: float | None


def basis(paper: Paper, model: str, column: Column) -> Basis:
    """The basis of a cell.

    A mean over several terms has the variance of their weighted sum, with each term's own published value where there
    is one, and else the whole's. MME's two terms of a category are about the same pictures and count as one.
    """
    benchmark = BENCHMARKS[column.benchmark]
    metric = _metric(benchmark, column.metric)
    if len(metric.terms) == 1:
        n = _count(benchmark, metric.terms[0])
        return Basis(n, n, True, metric.chance)
    most = sum(term.weight for term in metric.terms)
    parts: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for term in metric.terms:
        label = _label(term)
        parts[label] = parts.get(label, 0.0) + term.weight / most
        sizes[label] = min(sizes.get(label, 10**9), _count(benchmark, term))
    p = paper.value(model, column)
    values = _own_values(paper, model, column, benchmark)
    variance = sum(weight**2 * _spread(values.get(label, p)) / sizes[label] for label, weight in parts.items())
    return Basis(_published(benchmark, "questions"), _spread(p) / variance, False, metric.chance)


def interval(paper: Paper, model: str, column: Column) -> Interval:
    """Wilson's interval of a cell, as a fraction, as if all its questions were independent."""
    n = basis(paper, model, column).effective
    return wilson(paper.value(model, column) * n, n)


def fits(paper: Paper, model: str, column: Column) -> str | None:
    """Whether some k/n rounds to the cell: ``yes``; ``nearly``: to its neighbour in the last digit; ``no``.

    None where the number is no share, or has so few digits that some k/n always does.
    """
    rests, half = basis(paper, model, column), paper.rounding(model, column)
    if not rests.share or 1 / rests.n < 2 * half:
        return None
    value = paper.value(model, column)
    off = abs(round(value * rests.n) / rests.n - value)
    return "yes" if off <= half * (1 + 1e-6) else "nearly" if off <= 3 * half else "no"


def _own_values(paper: Paper, model: str, column: Column, benchmark: Benchmark) -> dict[str, float]:
    """Published values of single terms, by their label."""
    found = {}
    for other in paper.columns:
        if other.benchmark == column.benchmark and other.metric != column.metric:
            terms = _metric(benchmark, other.metric).terms
            if len(terms) == 1:
                found[_label(terms[0])] = paper.value(model, other)
    return found


def _metric(benchmark: Benchmark, name: str) -> Metric:
    return next(metric for metric in benchmark.metrics if metric.name == name)


def _count(benchmark: Benchmark, term: Term) -> int:
    """Units of a term in the published data."""
    label = _label(term)
    if benchmark.name == "mme":
        return MME_PICTURES[term.where["category"]]
    if label in CVBENCH_SOURCES and benchmark.name == "cvbench_2d":
        return CVBENCH_SOURCES[label]
    return _published(benchmark, label or ("sets" if term.unit == "set" else "questions"))


def _published(benchmark: Benchmark, key: str) -> int:
    """A published count, of the form that VLMEvalKit reads where it has one."""
    return next(source.counts[key] for source in benchmark.sources if key in source.counts)


def _label(term: Term) -> str:
    return " ".join(f"{group}={label}" for group, label in term.where.items())


def _spread(p: float) -> float:
    return p * (1 - p)
