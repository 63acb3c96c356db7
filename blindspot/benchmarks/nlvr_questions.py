"""NLVR as a benchmark: its public test split, one question a picture. `blindspot.benchmarks.nlvr` reads the files.

Groups: ``set`` (a sentence with one set of boxes, in up to six orders), ``cluster`` (a sentence), ``permutation``.
"""

from collections.abc import Sequence
from pathlib import Path

from blindspot.benchmarks import nlvr
from blindspot.benchmarks.base import Benchmark, Metric, Source, Term
from blindspot.benchmarks.forms import cells, original
from blindspot.benchmarks.forms.table import Row, Table
from blindspot.question import Question

ASKED = 'Is the following statement true of the image? "{sentence}" Please answer yes or no.'


def _table(paths: Sequence[Path]) -> Table:
    path = paths[0]
    test = nlvr.load_split(path.parent.parent if path.name == "test.json" else path.parent, "test")
    rows = [
        {"id": read.id, "label": read.answer, **read.groups, "image": image.relative_to(path.parent).as_posix()}
        for read, image in zip(test.questions, test.images, strict=True)
    ]
    return original.table(path, rows, lambda row: row["image"], "get the folder again")


def _question(row: Row) -> Question:
    groups = {"set": row.text("example"), "cluster": row.text("cluster"), "permutation": row.text("permutation")}
    prompt = ASKED.format(sentence=row.text("sentence"))
    return Question(
        row.text("id"), "nlvr", "yes_no", prompt, cells.yes_no(row, "label"), ("Yes", "No"), row.images, groups
    )


NLVR = Benchmark(
    name="nlvr",
    title="NLVR test",
    licence="CC-BY-4.0",
    citation="Suhr et al., A Corpus of Natural Language for Visual Reasoning, ACL 2017",
    sources=(
        Source(
            "original",
            _table,
            _question,
            counts={"questions": 5940, "sets": 990},
            marks=("test/test.json", "test.jsonl"),
            page="git clone https://github.com/lil-lab/nlvr, folder nlvr/",
        ),
    ),
    metrics=(Metric("overall", (Term(),), 0.5), Metric("all_orders", (Term(unit="set"),), None)),
)
