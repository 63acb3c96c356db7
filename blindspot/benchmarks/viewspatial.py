"""ViewSpatial-Bench: directions and orientations as the camera sees them, and as a person in the picture does.

Groups: ``type`` (five kinds of question), ``cluster`` (the picture or pictures).

The rule ``official`` reads the last line alone, a small "a" in it included.
"""

import re

from blindspot.benchmarks.base import Benchmark, Metric, Row, Term, Wording, by, slug
from blindspot.benchmarks.rules import EASI, LATER, LMMS_EVAL, OFFICIAL, Item, Scored, chose
from blindspot.benchmarks.sources.forms import original, tsv
from blindspot.benchmarks.words import listed
from blindspot.question import Question

TYPES = {
    "camera_perspective_relative_direction": 1773,
    "camera_perspective_object_view_orientation": 996,
    "person_perspective_object_view_orientation": 996,
    "person_perspective_relative_direction": 842,
    "person_perspective_scene_simulation_relative_direction": 1105,
}
COUNTS = {"questions": 5712, **{f"type={name}": count for name, count in TYPES.items()}}
_CHANCE = 0.2576
_REPLY = "\nReply only to the corresponding option.\nAnswer:"


def _question(row: Row) -> Question:
    kind = slug(re.sub(r"\W+", " ", row.text("question_type", "category")))
    groups = {"type": kind, "cluster": row.cluster}
    if "index" in row.cells:  # VLMEvalKit's TSV
        identifier, options, gold = row.text("index"), row.lettered(), row.letter("answer")
    else:
        identifier, gold = str(row.number), row.text("answer").strip()[:1].upper()
        options = tuple(re.findall(r"(?m)^[A-Z]\.\s*(.*?)\s*$", row.text("choices")))
    return Question(identifier, "viewspatial", "mcq", row.asked, gold, options, row.images, groups)


def _last_line(item: Item) -> Scored:
    lines = item.raw.strip().split("\n")
    match = re.search(r"\b([A-D])\b", lines[-1], re.IGNORECASE)
    return chose(item, match[1].upper() if match else None)


VIEWSPATIAL = Benchmark(
    name="viewspatial",
    title="ViewSpatial-Bench",
    licence="Apache-2.0 (the data set's card)",
    citation="Li et al., ViewSpatial-Bench, 2025, arxiv.org/abs/2505.21500",
    sources=(
        tsv("ViewSpatialBench.tsv", "c1c0c1522c5b8f5d72b3abad6af105cd", COUNTS, _question, easi=True),
        original(
            _question,
            lambda row: row.get("image_path"),
            "unpack scannetv2_val.zip and val2017.zip of huggingface.co/datasets/lidingm/ViewSpatial-Bench beside it",
            repository="lidingm/ViewSpatial-Bench",
            counts=COUNTS,
            marks=("ViewSpatial-Bench.json",),
            page="scannetv2_val.zip and val2017.zip of huggingface.co/datasets/lidingm/ViewSpatial-Bench, unpacked",
        ),
    ),
    metrics=(Metric("overall", (Term(),), _CHANCE), *by("type", TYPES)),
    kinds={"mcq": "mcq"},
    rules={**EASI, **dict.fromkeys((LMMS_EVAL, OFFICIAL), _last_line)},
    vlmevalkit="ViewSpatialBench",
    wording=Wording(lettered=True),
    prompts={
        OFFICIAL: lambda question: question.prompt + listed(question) + _REPLY,
        **dict.fromkeys(
            (LATER, LMMS_EVAL), lambda question: f"Question: {question.prompt}\nChoices: {listed(question)}{_REPLY}"
        ),
    },
)
