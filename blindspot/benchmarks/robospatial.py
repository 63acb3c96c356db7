"""RoboSpatial-Home: where something is, whether it fits, and where there is room, in pictures of homes.

Groups: ``category`` (context, compatibility, configuration), ``cluster`` (the picture), of context ``mask``.

Context asks for points; its gold answer is a polygon in fractions of the picture. Its authors take the first point,
lmms-eval any point in the mask. VLMEvalKit's parser fails at every answer, and its polygon test is the authors' old
one, which no upright rectangle passes: the profile of repaired rules mends the parser alone.
"""

import json
import re
from collections.abc import Mapping

from blindspot.benchmarks import points as p
from blindspot.benchmarks.base import Benchmark, Metric, Row, Term, by
from blindspot.benchmarks.rules import LATER, LMMS_EVAL, OFFICIAL, REPAIRED, Item, Scored
from blindspot.benchmarks.sources.forms import hub
from blindspot.benchmarks.words import POINTS_AS_JSON
from blindspot.files import parse_json
from blindspot.question import Question

CATEGORIES = {"context": 122, "compatibility": 105, "configuration": 123}
COUNTS = {"questions": 350, **{f"category={name}": count for name, count in CATEGORIES.items()}}
_FORMAT = "Your answer should be formatted as"
_PAIRS = (re.compile(r"\(\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*\)"),
          re.compile(r"\[\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*\]"))  # fmt: skip


def _question(row: Row) -> Question:
    category, prompt = row.text("category"), row.text("question")
    groups = {"category": category, "cluster": row.cluster}
    name = str(row.number)
    if category != "context":
        return Question(name, "robospatial", "yes_no", prompt, row.yes_no("answer"), (), row.images, groups)
    gold, mask = row.text("answer"), row.cells.get("mask")
    if p.polygon(gold) is None:
        raise row.error(f"the gold answer {gold[:40]!r} is not a polygon")
    held = mask.get("bytes") if isinstance(mask, Mapping) else mask
    if isinstance(held, bytes):
        groups["mask"] = p.region_text(held, f"{row.source}: row {row.number}")
    return Question(name, "robospatial", "points", prompt, gold, (), row.images, groups)


def _starts(item: Item, said: str) -> Scored:
    right = said.lower().startswith(item.gold.lower())
    return Scored(said, float(right), said.lower().startswith(("yes", "no")))


def _official(item: Item) -> Scored:
    if item.kind == "yes_no":
        return _starts(item, item.raw.strip().lower())
    match = next(filter(None, (pattern.search(item.raw) for pattern in _PAIRS)), None)
    if match is None:
        return Scored(None, 0.0, False)
    point = (float(match[1]), float(match[2]))
    corners = p.polygon(item.golds[0]) if item.golds else None
    return Scored(str(list(point)), float(p.inside(point, corners or [point])), True)


def _repaired(item: Item) -> Scored:
    if item.kind == "yes_no":
        return _starts(item, item.raw.strip())
    width, height = map(int, item.gold.split()[:2]) if item.gold else (1000, 1000)
    found = p.easi_points(item.raw, width, height)
    if not found:
        return Scored(None, 0.0, False)
    corners = p.polygon(item.golds[0]) if item.golds else None
    return Scored(str(list(found[0])), float(p.inside_of_old(found[0], corners or [found[0]])), True)


def _lmms_eval(item: Item) -> Scored:
    text = re.sub(r"\A.*?</thought>", "", re.sub(r"\A.*?</think>", "", item.raw, flags=re.DOTALL), flags=re.DOTALL)
    tag = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL | re.IGNORECASE)
    text = (tag[1] if tag else text).strip()
    if item.kind == "yes_no":
        last = text.lower().split("\n")[-1]
        said = [word for word in ("yes", "no") if word in last]
        letter = said[0].capitalize() if len(said) == 1 else None
        return Scored(letter, float(letter == item.gold), letter is not None)
    fenced = re.search(r"```(?:\w+)?\n(.*?)```", text, re.DOTALL)
    try:
        listed = parse_json(fenced[1]) if fenced else []
    except ValueError:
        listed = []
    if not item.gold or not isinstance(listed, list):  # a single object ends the harness
        return Scored("[]", 0.0, False)
    mask_hw = p.region(item.gold)
    found = [(x / 1000, y / 1000) for _, (x, y) in p.named_points(json.dumps(listed), "point_2d")]
    points = p.pixels(found, mask_hw.shape[1], mask_hw.shape[0])
    right = any(p.share(mask_hw, [point]) for point in points)
    return Scored(p.shown(points), float(right), bool(points))


ROBOSPATIAL = Benchmark(
    name="robospatial",
    title="RoboSpatial-Home",
    licence="Apache-2.0 (the data set's card)",
    citation="Song et al., RoboSpatial, CVPR 2025, arxiv.org/abs/2411.16537",
    sources=(
        hub(
            "chanhee-luke/RoboSpatial-Home",
            "co",  # with which all three parts begin
            COUNTS,
            _question,
            ("category", "question", "answer"),
            ("mask",),
            ("img",),
        ),
    ),
    metrics=(
        Metric("overall", (Term(),), None),
        Metric("by_category", tuple(Term({"category": name}, weight=1 / 3) for name in CATEGORIES), None),
        *by("category", CATEGORIES),
    ),
    kinds={"yes_no": "yes_no", "points": "points"},
    rules={
        LATER: lambda item: _starts(item, item.raw.strip()) if item.kind == "yes_no" else Scored(None, 0.0, False),
        REPAIRED: _repaired,
        LMMS_EVAL: _lmms_eval,
        OFFICIAL: _official,
    },
    vlmevalkit="RoboSpatialHome",
    prompts={
        OFFICIAL: lambda question: question.prompt,
        LATER: lambda question: (
            question.prompt
            if question.kind == "yes_no"
            else f"{question.prompt.partition(_FORMAT)[0].strip()}\n\n{POINTS_AS_JSON}"
        ),
    },
)
