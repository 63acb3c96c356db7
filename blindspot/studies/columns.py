"""The columns of a source's tables, each the miniature of one benchmark of the paper."""

from dataclasses import asdict
from typing import Any

from blindspot.scenes.relations import SHORTCUT
from blindspot.scenes.world import CANVAS
from blindspot.studies.schema import Study

SIDES = {"left/right": {"relation": ["left", "right"]}, "above/below": {"relation": ["above", "below"]}}
"""Parts of a column, by the relation that its questions ask about."""

SCENES: tuple[dict[str, Any], ...] = (
    {
        "id": "mmvp",
        "label": "Pairs",
        "paper": "MMVP",
        "metric": "pair_accuracy",
        "chance": 0.25,
        "description": "Two pictures that differ in one exchange; both answers must be right.",
        "parts": SIDES,
    },
    {
        "id": "cvbench_relation",
        "label": "Relation",
        "paper": "CV-Bench 2D",
        "chance": 0.25,
        "description": "Where one object lies relative to another: left, right, above or below.",
        "parts": SIDES,
    },
    {
        "id": "cvbench_count",
        "label": "Count",
        "paper": "CV-Bench 2D",
        "chance": 0.25,
        "description": "How many objects, 2 to 5, all different.",
    },
    {
        "id": "tallyqa_simple",
        "label": "Simple",
        "paper": "TallyQA",
        "chance": 1 / 6,
        "description": "How many objects of a colour or shape, 0 to 5, among others.",
    },
    {
        "id": "tallyqa_complex",
        "label": "Complex",
        "paper": "TallyQA",
        "chance": 0.25,
        "description": "How many objects lie on one side of another, 0 to 3.",
        "parts": SIDES,
    },
    {
        "id": "gqa_choose",
        "label": "Choose",
        "paper": "GQA",
        "chance": 0.5,
        "description": "Left or right, above or below, this shape or that.",
    },
    {
        "id": "gqa_compare",
        "label": "Compare",
        "paper": "GQA",
        "chance": 0.5,
        "description": "Which of two objects is higher, lower, more to the left or right.",
    },
    {
        "id": "gqa_logical",
        "label": "Logical",
        "paper": "GQA",
        "chance": 0.5,
        "description": "Whether there is this and that, this or that.",
    },
    {
        "id": "gqa_query",
        "label": "Query",
        "paper": "GQA",
        "chance": 0.19,
        "description": "The shape of a colour, the colour of a shape; five or six answers are possible.",
    },
    {
        "id": "gqa_verify",
        "label": "Verify",
        "paper": "GQA",
        "chance": 0.5,
        "description": "Whether a colour and a shape occur in one object; if not, both occur in different ones.",
    },
    {
        "id": "vsr",
        "label": "VSR",
        "paper": "VSR",
        "chance": SHORTCUT,
        "description": "Whether a statement about left, right, above, below holds. Chance: what one object's place "
        "alone, or columns alone for above, may tell.",
        "parts": SIDES,
    },
    {
        "id": "topviewrs",
        "label": "TopViewRS",
        "paper": "TopViewRS",
        "chance": 0.16,
        "description": "Map questions: what is in a cell, which cell holds it, which way from one to another.",
    },
    {
        "id": "countbenchqa",
        "label": "CountBenchQA",
        "paper": "CountBenchQA",
        "chance": 1 / 9,
        "description": "How many of a kind, 2 to 10, with up to two others.",
    },
    {
        "id": "boxes",
        "label": "Boxes",
        "paper": "Localisation",
        "metric": "mean_iou",
        "chance": None,
        "description": "The box of an object in pixels; mean intersection over union.",
        "box_units": CANVAS,
    },
)

NLVR: tuple[dict[str, Any], ...] = (
    {
        "id": "nlvr_dev",
        "label": "dev",
        "paper": "NLVR",
        "chance": 0.5,
        "description": "Whether a human-written sentence is true of three boxes of shapes.",
    },
    {
        "id": "nlvr_test",
        "label": "test",
        "paper": "NLVR",
        "chance": 0.5,
        "description": "The same on the public test set.",
    },
)


PAIRED = frozenset(column["id"] for column in SCENES if column.get("metric") == "pair_accuracy")
"""Columns in which a pair of questions is right only if both are."""


def columns(study: Study) -> list[dict[str, Any]]:
    """The columns of a study, for ``plan.json``: of its source, or those that the paper has of its benchmarks."""
    if study.recipe == "toy":
        return [{"metric": "accuracy", **column} for column in {"scenes": SCENES, "nlvr": NLVR}[study.source]]
    from blindspot.benchmarks.registry import select
    from blindspot.evaluation.paper import numbers

    paper = {column.key for column in numbers.load().columns}
    found: list[dict[str, Any]] = []
    for benchmark in select(study.asked):
        for metric in benchmark.metrics:
            if (benchmark.name, metric.name) not in paper and metric != benchmark.metrics[0]:
                continue
            most = sum(term.weight for term in metric.terms)
            found.append(
                {
                    "id": f"{benchmark.name}/{metric.name}",
                    "benchmark": benchmark.name,
                    "label": metric.name,
                    "paper": benchmark.title,
                    "metric": "accuracy",
                    "terms": [{**asdict(term), "weight": term.weight / most} for term in metric.terms],
                    "chance": None if metric.chance is None else metric.chance / most,
                    "description": f"{metric.name} of {benchmark.title}.",
                }
            )
    return found
