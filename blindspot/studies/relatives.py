"""The columns of a miniature's tables by source, each a drawn relative of one benchmark of the paper."""

from typing import Any

from blindspot.scenes.relations import SHORTCUT
from blindspot.scenes.world import CANVAS

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
        "english": "Is the {0} object left of, right of, above or below the {2} one?",
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


RELATIVES = {"scenes": SCENES, "nlvr": NLVR}
PAIRED = frozenset(column["id"] for column in SCENES if column.get("metric") == "pair_accuracy")
"""Columns in which a pair of questions is right only if both are."""
