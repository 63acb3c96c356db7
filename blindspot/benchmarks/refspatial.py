"""RefSpatial-Bench: point at an object or a free place that a sentence describes; the gold answer is a mask.

Groups: ``part`` (location, placement, unseen), ``object`` and ``suffix`` (of the words that harnesses ask with).

The rule ``official`` reads points as its script does for most models; a row whose groups name another
``official_parser`` is read as for those. VLMEvalKit's data set of this name asks and scores less than it should: only
the location part, any point in the mask. Its parser for the others fails at every answer, which the profile of repaired
rules mends.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from blindspot.benchmarks import points as p
from blindspot.benchmarks.base import Benchmark, Metric, Row, Source, Table, Term, by
from blindspot.benchmarks.rules import LATER, LMMS_EVAL, OFFICIAL, REPAIRED, Item, Scored
from blindspot.benchmarks.sources.forms import read_hub
from blindspot.benchmarks.words import POINTS_AS_JSON
from blindspot.question import Question

PARTS = {"location": 100, "placement": 100, "unseen": 77}
COUNTS = {"questions": 277, **{f"part={part}": count for part, count in PARTS.items()}}
_COLUMNS = ("id", "object", "prompt", "suffix", "mask")
_XML = re.compile(r'x\d*="\s*(\d+(?:\.\d+)?)"\s+y\d*="\s*(\d+(?:\.\d+)?)"')
_PAIR = re.compile(r"[\[(]\s*([-+]?\d+\.?\d*)\s*,\s*([-+]?\d+\.?\d*)\s*[\])]")


def _table(paths: Sequence[Path]) -> Table:
    """The rows of all parts, each with the part that its file is named after."""
    import pyarrow.parquet as pq

    whole = read_hub(paths, _COLUMNS)
    parts = [path.name.split("-")[0] for path in paths for _ in range(pq.read_metadata(path).num_rows)]
    return whole.with_rows(
        [replace(row, cells={**row.cells, "part": part}) for row, part in zip(whole.rows, parts, strict=True)]
    )


def _question(row: Row) -> Question:
    mask, part = row.cells["mask"], row.text("part")
    held = mask.get("bytes") if isinstance(mask, Mapping) else mask
    if not isinstance(held, bytes):
        raise row.error("it has no mask; get the data set again")
    gold = p.region_text(held, f"{row.source}: row {row.number}")
    groups = {"part": part, "cluster": row.cluster, "object": row.text("object"), "suffix": row.find("suffix") or ""}
    name = f"{part}-{row.text('id')}"
    return Question(name, "refspatial", "points", row.text("prompt"), gold, (), row.images, groups)


def _official(item: Item) -> Scored:
    """By the parser of the model: pairs, floats as fractions and whole numbers as pixels; four numbers are a box."""
    mask_hw = p.region(item.gold)
    height, width = mask_hw.shape
    points: list[p.Point] = []
    boxes: list[tuple[int, int, int, int]] = []
    match item.seen[0]:
        case "xml2pts":
            points = p.pixels([(float(x) / 100, float(y) / 100) for x, y in _XML.findall(item.raw)], width, height)
        case "json2pts":
            fenced = re.search(r"```(?:\w+)?\n(.*?)```", item.raw, re.DOTALL)
            found = p.named_points(fenced[1], "point") if fenced else []
            points = p.pixels([(x / 1000, y / 1000) for _, (y, x) in found], width, height)
        case parser:
            for numbers in p.tuples(item.raw):
                by = (
                    (1, 1)
                    if parser == "text2pts_absolute" or all(isinstance(n, int) for n in numbers)
                    else (width, height)
                )
                scaled = [int(number * by[place % 2]) for place, number in enumerate(numbers)]
                if len(scaled) == 2:
                    points.append((scaled[0], scaled[1]))
                elif len(scaled) == 4:
                    boxes.append((scaled[0], scaled[1], scaled[2], scaled[3]))
    score = p.share(mask_hw, points, boxes)
    return Scored(p.shown(points), score, bool(points or boxes))


def _lmms_eval(item: Item) -> Scored:
    """Pairs as fractions whatever they are; asked for JSON, whole numbers as thousandths."""
    mask_hw = p.region(item.gold)
    height, width = mask_hw.shape
    if item.seen[1] == "json":
        pairs = [
            (float(x), float(y)) if "." in x + y else (int(x) / 1000, int(y) / 1000) for x, y in _PAIR.findall(item.raw)
        ]
    else:
        pairs = [(numbers[0], numbers[1]) for numbers in p.tuples(item.raw) if len(numbers) == 2]
    points = p.pixels(pairs, width, height)
    return Scored(p.shown(points), p.share(mask_hw, points), bool(points))


def _any_point(item: Item) -> Scored:
    """VLMEvalKit's data set of this name: right if any point is in the mask."""
    mask_hw = p.region(item.gold)
    height, width = mask_hw.shape
    found: list[p.Point] = []
    for key, pair in p.named_points(item.raw, "point_2d", "point"):
        x, y = pair if key == "point_2d" else pair[::-1]
        found.append((x / 1000, y / 1000) if max(x, y) > 1 else (x, y))
    found = found or [(float(x) / 100, float(y) / 100) for x, y in _XML.findall(item.raw)]
    found = found or [(float(n[0]), float(n[1])) for n in p.tuples(item.raw) if len(n) == 2]
    right = any(p.share(mask_hw, [point]) for point in p.clipped(found, width, height))
    return Scored(p.shown(found) if found else None, float(right), bool(found))


REFSPATIAL = Benchmark(
    name="refspatial",
    title="RefSpatial-Bench",
    licence="Apache-2.0 (the data set's card)",
    citation="Zhou et al., RoboRefer, NeurIPS 2025, arxiv.org/abs/2506.04308",
    sources=(
        Source(
            "hub",
            _table,
            _question,
            "BAAI/RefSpatial-Bench",
            ("*.parquet",),
            counts=COUNTS,
            marks=("**/*-of-*.parquet",),
        ),
    ),
    metrics=(Metric("overall", (Term(),), None), *by("part", PARTS)),
    kinds={"points": "points"},
    rules={LATER: _any_point, REPAIRED: p.in_region, LMMS_EVAL: _lmms_eval, OFFICIAL: _official},
    vlmevalkit="RefSpatial",
    prompts={
        OFFICIAL: lambda question: f"{question.prompt} {question.groups['suffix']}",
        LATER: lambda question: question.prompt + POINTS_AS_JSON,
        LMMS_EVAL: lambda question: (
            f"{question.prompt} {question.groups['suffix']} Return only list of tuples, don't add anything else."
        ),
    },
)
