"""CV-Bench, its 2D half: counting and spatial relations in photographs of COCO and ADE20K."""

from pathlib import Path

from blindspot.benchmarks.base import Benchmark, Collection, Metric, Source, Term
from blindspot.benchmarks.forms import cells, hub, tsv
from blindspot.benchmarks.forms.collect import Reader, collected
from blindspot.benchmarks.forms.table import Row, slug
from blindspot.question import Question

COUNTS = {"questions": 1438, "task=relation": 650, "task=count": 788}


def read(path: Path) -> Collection:
    """Read any of the forms.

    Groups: ``source`` (coco, ade20k), ``task`` (count, relation), ``cluster`` (the picture), ``prompt`` (question and
    options as the authors put them, where the form has that).

    Raises:
        UserError: as `blindspot.benchmarks.forms.collect.collected`.
    """
    return collected(CVBENCH_2D, path, READERS)


def _from_tsv(row: Row) -> Question:
    return _question(row, row.text("index"), cells.lettered(row))


def _from_hub(row: Row) -> Question:
    return _question(row, row.text("idx"), tuple(cells.strings(row, "choices")))


def _question(row: Row, identifier: str, options: tuple[str, ...]) -> Question:
    groups = {
        "source": slug(row.text("source")),
        "task": slug(row.text("task")),
        "cluster": cells.cluster(row),
    }
    if prompt := row.find("prompt"):
        groups["prompt"] = prompt
    gold = cells.letter(row, "answer")
    return Question(identifier, "cvbench_2d", "mcq", cells.asked(row), gold, options, row.images, groups)


READERS = {
    "tsv": Reader(
        lambda paths: tsv.read(paths[0], ("index", "question", "answer", "source", "task")),
        _from_tsv,
    ),
    "hub": Reader(
        lambda paths: hub.read(
            paths[0].parent,
            paths,
            ("idx", "type", "task", "question", "choices", "answer", "source"),
            ("prompt",),
            keep=lambda row: row["type"] == "2D",
        ),
        _from_hub,
    ),
}

_COCO, _ADE20K = {"source": "coco"}, {"source": "ade20k"}

CVBENCH_2D = Benchmark(
    name="cvbench_2d",
    title="CV-Bench 2D",
    vlmevalkit="CV-Bench-2D",
    licence="Apache-2.0 (the data set's card)",
    citation="Tong et al., Cambrian-1, NeurIPS 2024, arxiv.org/abs/2406.16860",
    sources=(
        Source(
            "tsv",
            files=("https://opencompass.openxlab.space/utils/VLMEval/CV-Bench-2D.tsv",),
            md5={"CV-Bench-2D.tsv": "a7cff4cc2857cc237ee2b89e62bccb2d"},
            counts=COUNTS,
            marks=("CV-Bench-2D.tsv",),
        ),
        Source(
            "hub",
            "nyu-visionx/CV-Bench",
            files=hub.parquet("test"),
            counts=COUNTS,
            marks=hub.marks("test"),
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
    read=read,
)
