"""CV-Bench, its 2D half: counting and spatial relations in photographs of COCO and ADE20K.

Groups: ``source`` (coco, ade20k), ``task`` (count, relation), ``cluster`` (the picture), ``prompt`` (question and
options as the authors put them, where the form has that).

The rule ``official`` is Cambrian-1's: the first character, behind "answer is" if that occurs.
"""

from collections.abc import Mapping

from blindspot.benchmarks.base import Benchmark, Metric, Row, Source, Term, Wording, slug
from blindspot.benchmarks.rules import LMMS_EVAL, MCQ, OFFICIAL, Item, Scored, behind_cue, chose, leading_letter
from blindspot.benchmarks.sources.forms import hub, tsv
from blindspot.question import Question

LISTED = " Select from the following choices."
COUNTS = {"questions": 1438, "task=relation": 650, "task=count": 788}
_COLUMNS = ("idx", "type", "task", "question", "choices", "answer", "source")
_COCO, _ADE20K = {"source": "coco"}, {"source": "ade20k"}


def _question(row: Row) -> Question:
    groups = {"source": slug(row.text("source")), "task": slug(row.text("task")), "cluster": row.cluster}
    if prompt := row.find("prompt"):
        groups["prompt"] = prompt
    options = row.lettered() if "index" in row.cells else tuple(row.strings("choices"))
    identifier, gold = row.text("index", "idx"), row.letter("answer")
    return Question(identifier, "cvbench_2d", "mcq", row.asked, gold, options, row.images, groups)


def forms(half: str, md5: str, counts: Mapping[str, int], *labels: str) -> tuple[Source, ...]:
    """The published forms of a half, ``2D`` or ``3D``."""
    kept = hub(
        "nyu-visionx/CV-Bench", "test", counts, _question, _COLUMNS, ("prompt",), keep=lambda row: row["type"] == half
    )
    return tsv(f"CV-Bench-{half}.tsv", md5, counts, _question, *labels), kept


def _official(item: Item) -> Scored:
    letter = behind_cue(item.raw).rstrip(".").lstrip("(").rstrip(")")[:1].upper()
    return chose(item, letter or None)


CVBENCH_2D = Benchmark(
    name="cvbench_2d",
    title="CV-Bench 2D",
    licence="Apache-2.0 (the data set's card)",
    citation="Tong et al., Cambrian-1, NeurIPS 2024, arxiv.org/abs/2406.16860",
    sources=forms("2D", "a7cff4cc2857cc237ee2b89e62bccb2d", COUNTS, "source", "task"),
    metrics=(
        Metric("overall", (Term(_COCO, weight=0.5), Term(_ADE20K, weight=0.5)), None),
        Metric("coco", (Term(_COCO),), None),
        Metric("ade20k", (Term(_ADE20K),), None),
        Metric("micro", (Term(),), None),
        Metric("task/count", (Term({"task": "count"}),), None),
        Metric("task/relation", (Term({"task": "relation"}),), 0.5),
    ),
    kinds={"mcq": "mcq"},
    rules={**MCQ, LMMS_EVAL: leading_letter, OFFICIAL: _official},
    headlines={LMMS_EVAL: "micro"},
    vlmevalkit="CV-Bench-2D",
    wording=Wording(lettered=True, listed=LISTED),
)
