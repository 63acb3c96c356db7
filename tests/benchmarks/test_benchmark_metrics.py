"""Metrics of the benchmarks: the paper's columns and their weights."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any

import pytest

from blindspot.benchmarks.base import Metric
from blindspot.benchmarks.mme import COGNITION, PERCEPTION
from blindspot.benchmarks.registry import BENCHMARKS, SETS, find

PAPER = {
    "cvbench_2d": {"overall", "coco", "ade20k"},
    "gqa": {"overall", "choose", "compare", "logical", "query", "verify"},
}


def value(metric: Metric, rows: Sequence[tuple[float, Mapping[str, Any]]]) -> float:
    """A metric of scores with groups, written from the docstrings of `Metric` and `Term`."""
    total = 0.0
    for term in metric.terms:
        counted = [(s, g) for s, g in rows if all(g.get(k) == v for k, v in term.where.items())]
        if term.unit == "set":
            sets: defaultdict[str, list[float]] = defaultdict(list)
            for score, groups in counted:
                sets[groups["set"]].append(score)
            scores = [float(all(own)) for own in sets.values()]
        else:
            scores = [score for score, _ in counted]
        total += term.weight * sum(scores) / len(scores)
    return total


def metric(name: str, column: str) -> Metric:
    return next(m for m in find(name).metrics if m.name == column)


@pytest.mark.parametrize("name", SETS["paper"])
def test_the_papers_columns_come_first(name: str) -> None:
    columns = PAPER.get(name, {"overall"})
    assert {m.name for m in find(name).metrics[: len(columns)]} == columns
    assert find(name).metrics[0].scale == (100 if name in ("gqa", "vsr") else 1)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_names_are_unique_and_chance_is_on_the_metrics_scale(name: str) -> None:
    metrics = find(name).metrics
    assert len({m.name for m in metrics}) == len(metrics)
    for each in metrics:
        best = sum(term.weight for term in each.terms)
        above = any(term.value == "above_chance" for term in each.terms)
        assert each.chance is None or 0 - above < each.chance < best
    assert find(name).sources
    assert find(name).draw or all(source.marks for source in find(name).sources)


def test_mme_is_points_over_2800() -> None:
    rows = [
        (score, {"category": category, "set": f"{category}{picture}"})
        for category in PERCEPTION + COGNITION
        for picture, scores in enumerate([(1, 1), (1, 0)])
        for score in scores
    ]
    assert isclose(value(metric("mme", "perception"), rows), 1250)  # the worked example of the specification
    assert isclose(value(metric("mme", "cognition"), rows), 500)
    assert isclose(value(metric("mme", "overall"), rows), 1750 / 2800)
    assert isclose(value(metric("mme", "overall"), [(1, groups) for _, groups in rows]), 1)


def test_cvbench_weighs_sources_equally_and_mmvp_counts_pairs() -> None:
    scores = [(1, "coco"), (1, "coco"), (1, "coco"), (0, "coco"), (1, "ade20k"), (0, "ade20k")]
    assert isclose(value(metric("cvbench_2d", "overall"), [(s, {"source": name}) for s, name in scores]), 0.625)
    pairs = [(s, {"set": pair}) for s, pair in [(1, "1"), (0, "1"), (1, "2"), (1, "2")]]
    assert value(metric("mmvp", "overall"), pairs) == 0.75
    assert value(metric("mmvp", "pair_accuracy"), pairs) == 0.5


def test_ccbench_needs_all_four_passes() -> None:
    groups = {"set": "7", "category": "food_clothes"}
    assert value(metric("ccbench", "overall"), [(s, groups) for s in (1, 1, 1, 0)]) == 0
    assert value(metric("ccbench", "overall"), [(1, groups)] * 4) == 1


def test_chance_of_mme_is_two_coins_a_picture() -> None:
    parts = {term.unit: term.weight for term in metric("mme", "category/color").terms}
    assert metric("mme", "category/color").chance == 0.5 * parts["question"] + 0.25 * parts["set"]
    assert isclose(metric("mme", "overall").chance or 0, 0.375)
