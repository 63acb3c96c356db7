"""CV-Bench, its 2D half: counting and spatial relations in photographs of COCO and ADE20K.

Groups: ``source`` (coco, ade20k), ``task`` (count, relation), ``cluster`` (the picture), ``prompt`` (question and
options as the authors put them, where the form has that).

The rule ``official`` is Cambrian-1's: the first character, behind "answer is" if that occurs.
"""

import re

from blindspot.benchmarks.base import Benchmark, Metric, Term, Wording
from blindspot.benchmarks.rules import vlmevalkit
from blindspot.benchmarks.rules.common import LMMS_EVAL, OFFICIAL, Item, Scored, behind_cue
from blindspot.benchmarks.sources import hub, tsv
from blindspot.benchmarks.sources.table import Row, slug
from blindspot.question import Question

_FIRST_LETTER = re.compile(r"[(\s]*([A-Z])", re.IGNORECASE)
COUNTS = {"questions": 1438, "task=relation": 650, "task=count": 788}


def _from_tsv(row: Row) -> Question:
    return _question(row, row.text("index"), row.lettered())


def _from_hub(row: Row) -> Question:
    return _question(row, row.text("idx"), tuple(row.strings("choices")))


def _question(row: Row, identifier: str, options: tuple[str, ...]) -> Question:
    groups = {
        "source": slug(row.text("source")),
        "task": slug(row.text("task")),
        "cluster": row.cluster,
    }
    if prompt := row.find("prompt"):
        groups["prompt"] = prompt
    gold = row.letter("answer")
    return Question(identifier, "cvbench_2d", "mcq", row.asked, gold, options, row.images, groups)


_COCO, _ADE20K = {"source": "coco"}, {"source": "ade20k"}


def _lmms_eval(item: Item) -> Scored:
    match = _FIRST_LETTER.match(item.raw.strip())
    letter = match[1].upper() if match else ""
    return Scored(letter, float(letter == item.gold), letter in item.choices)


def _official(item: Item) -> Scored:
    letter = behind_cue(item.raw).rstrip(".").lstrip("(").rstrip(")")[:1].upper()
    return Scored(letter or None, float(letter == item.gold), letter in item.choices)


CVBENCH_2D = Benchmark(
    name="cvbench_2d",
    title="CV-Bench 2D",
    licence="Apache-2.0 (the data set's card)",
    citation="Tong et al., Cambrian-1, NeurIPS 2024, arxiv.org/abs/2406.16860",
    sources=(
        tsv.source("CV-Bench-2D.tsv", "a7cff4cc2857cc237ee2b89e62bccb2d", COUNTS, _from_tsv, "source", "task"),
        hub.source(
            "nyu-visionx/CV-Bench",
            "test",
            COUNTS,
            _from_hub,
            ("idx", "type", "task", "question", "choices", "answer", "source"),
            ("prompt",),
            keep=lambda row: row["type"] == "2D",
        ),
    ),
    metrics=(
        Metric("overall", (Term(_COCO, weight=0.5), Term(_ADE20K, weight=0.5)), None),
        Metric("coco", (Term(_COCO),), None),
        Metric("ade20k", (Term(_ADE20K),), None),
        Metric("micro", (Term(),), None),
        Metric("task/count", (Term({"task": "count"}),), None),
        Metric("task/relation", (Term({"task": "relation"}),), 0.5),
    ),
    kinds={"mcq": "mcq"},
    rules={**vlmevalkit.MCQ, LMMS_EVAL: _lmms_eval, OFFICIAL: _official},
    headlines={LMMS_EVAL: "micro"},
    vlmevalkit="CV-Bench-2D",
    wording=Wording(lettered=True, listed=" Select from the following choices."),
)
