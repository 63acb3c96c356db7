"""The columns of a miniature's tables by source, each a drawn relative of one benchmark of the paper."""

from typing import Any

from blindspot.scenes.relations import SHORTCUT
from blindspot.scenes.solid.registry import FEET
from blindspot.scenes.world import CANVAS


def _column(id: str, label: str, paper: str, chance: float | None, description: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "label": label, "paper": paper, "chance": chance, "description": description, **more}


SIDES = {"left/right": {"relation": ["left", "right"]}, "above/below": {"relation": ["above", "below"]}}
"""Parts of a column, by the relation that its questions ask about."""

SCENES: tuple[dict[str, Any], ...] = (
    _column(
        "mmvp",
        "Pairs",
        "MMVP",
        0.25,
        "Two pictures that differ in one exchange; both answers must be right.",
        metric="pair_accuracy",
        parts=SIDES,
    ),
    _column(
        "cvbench_relation",
        "Relation",
        "CV-Bench 2D",
        0.25,
        "Where one object lies relative to another: left, right, above or below.",
        english="Is the {0} object left of, right of, above or below the {2} one?",
        parts=SIDES,
    ),
    _column("cvbench_count", "Count", "CV-Bench 2D", 0.25, "How many objects, 2 to 5, all different."),
    _column(
        "tallyqa_simple", "Simple", "TallyQA", 1 / 6, "How many objects of a colour or shape, 0 to 5, among others."
    ),
    _column(
        "tallyqa_complex",
        "Complex",
        "TallyQA",
        0.25,
        "How many objects lie on one side of another, 0 to 3.",
        parts=SIDES,
    ),
    _column("gqa_choose", "Choose", "GQA", 0.5, "Left or right, above or below, this shape or that."),
    _column("gqa_compare", "Compare", "GQA", 0.5, "Which of two objects is higher, lower, more to the left or right."),
    _column("gqa_logical", "Logical", "GQA", 0.5, "Whether there is this and that, this or that."),
    _column(
        "gqa_query",
        "Query",
        "GQA",
        0.19,
        "The shape of a colour, the colour of a shape; five or six answers are possible.",
    ),
    _column(
        "gqa_verify",
        "Verify",
        "GQA",
        0.5,
        "Whether a colour and a shape occur in one object; if not, both occur in different ones.",
    ),
    _column(
        "vsr",
        "VSR",
        "VSR",
        SHORTCUT,
        "Whether a statement about left, right, above, below holds. Chance: what one object's place "
        "alone, or columns alone for above, may tell.",
        parts=SIDES,
    ),
    _column(
        "topviewrs",
        "TopViewRS",
        "TopViewRS",
        0.16,
        "Map questions: what is in a cell, which cell holds it, which way from one to another.",
    ),
    _column(
        "countbenchqa", "CountBenchQA", "CountBenchQA", 1 / 9, "How many of a kind, 2 to 10, with up to two others."
    ),
    _column(
        "boxes",
        "Boxes",
        "Localisation",
        None,
        "The box of an object in pixels; mean intersection over union.",
        metric="mean_iou",
        box_units=CANVAS,
    ),
)

NLVR: tuple[dict[str, Any], ...] = (
    _column("nlvr_dev", "dev", "NLVR", 0.5, "Whether a human-written sentence is true of three boxes of shapes."),
    _column("nlvr_test", "test", "NLVR", 0.5, "The same on the public test set."),
)

NEARER_LEARNED, FOOT_LEARNED, FIRST_LEARNED = 0.95, 0.8, 0.9
"""From which scores a run has learned depth (of `nearer` by the cue that it was trained on, and of feet) or order (of
`first`). One below has not learned; that it cannot see it is not said."""
_TELLS = {
    "shadow": "by the shadow on the ground alone",
    "size": "of objects that are all of one size, without shadows",
    "occlusion": "by what hides what, without shadows",
    "none": "where nothing tells: a control, on which more than chance is a leak",
    "naive": "in scenes that nobody has balanced, which lower in the picture and larger nearly answer",
}
SOLID: tuple[dict[str, Any], ...] = (
    _column(
        "foot",
        "Foot",
        "Ground",
        1 / 16,
        "Over which of 16 places of the ground an object is: its column in the picture, its row in depth.",
        english="Where on the ground, on a map of the picture's columns and four rows of depth, is the {2} object?",
        learned_at=FOOT_LEARNED,
    ),
    _column("cell", "Cell", "Picture", 1 / 8, "In which of the eight cells of the picture that hold any an object is."),
    _column("shape", "Shape", "Attribute", 0.25, "What shape the object of a colour has."),
)
"""Beside `nearer` by every cue."""

_SHAPE = _column("shape", "Shape", "Object", 0.25, "What shape the object of a colour has.")
_MOVED_FIRST = "Which moved first, the {1} or the {3} object?"
MOTION: tuple[dict[str, Any], ...] = (
    _column(
        "first",
        "First",
        "Order",
        0.5,
        "Which of two objects moved first; the first picture and the last are the same under both answers.",
        english=_MOVED_FIRST,
        learned_at=FIRST_LEARNED,
    ),
    _column(
        "first_shuffled",
        "shuffled",
        "Order",
        0.5,
        "The same with the pictures in random order: a control, on which more than chance is a leak.",
        english=_MOVED_FIRST,
    ),
    _column("moved", "Moved", "Order", 0.5, "Whether an object moved left or right; twins exchange first and last."),
    _column("cell", "Cell", "Object", 0.1, "In which cell of the first, second or last picture an object is."),
    _SHAPE,
)

VIEWS: tuple[dict[str, Any], ...] = (
    _column("for_camera", "Camera", "Left or right", 0.5, "Which of two objects is more to the left in the picture."),
    _column(
        "for_whom",
        "Object",
        "Left or right",
        0.5,
        "On which side of an object, as it faces, another is; in the twin it faces the other way.",
    ),
    _column(
        "from_side",
        "Quarter turn",
        "Left or right",
        0.5,
        "Which of two objects would be more to the left for a camera a quarter turn on.",
    ),
    _column("facing", "Facing", "Object", 0.25, "Which way an object faces, as the camera sees it."),
    _column("foot", "Foot", "Object", 1 / 32, "Over which place of the ground an object is."),
    _column("cell", "Cell", "Object", 1 / 8, "In which cell of the picture an object is."),
    _SHAPE,
)


def relatives(source: str, cue: str) -> list[dict[str, Any]]:
    """The columns of a source; of pictures with depth those of models that are trained by a cue."""
    if source != "solid":
        return [*{"scenes": SCENES, "motion": MOTION, "views": VIEWS, "nlvr": NLVR}[source]]
    nearer = [
        _column(
            f"nearer_{name}",
            name,
            "CV-Bench 3D depth",
            0.5,
            f"Which of two objects is nearer, {tells}.",
            english="Which is nearer to the camera, the {1} or the {3} object?",
            learned_at=NEARER_LEARNED if name == cue else None,
        )
        for name, tells in _TELLS.items()
    ]
    return nearer + [column for column in SOLID if column["id"] != "foot" or cue in FEET]


def probed(source: str, cue: str) -> list[str]:
    """Columns that are asked on the way through stage 2 unless a study names others."""
    drawn = {"scenes": "cvbench_relation", "solid": f"nearer_{cue}", "motion": "first", "views": "for_whom"}
    return ["nlvr_dev" if source == "nlvr" else drawn[source]]
