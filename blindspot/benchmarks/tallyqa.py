"""TallyQA, its test split: how many? Simple questions need detection alone, complex ones also relations.

Groups: ``complexity`` (simple, complex), ``cluster`` (the picture), and from the original ``data_source``. A TSV
that does not say the complexity gets it from the original ``test.json``, if that lies beside it.

The rule ``official`` is that of CountBenchQA's authors.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blindspot.benchmarks.base import Benchmark, Metric, Row, Source, Table, Term, Wording
from blindspot.benchmarks.rules import COUNT, OFFICIAL, count
from blindspot.benchmarks.sources.forms import original, read_rows, read_tsv
from blindspot.question import Question

TEST = "test.json"
TSV = "tallyqa_data.tsv"
LABELLED = {"questions": 38589, "complexity=simple": 22991, "complexity=complex": 15598}


def _tsv(paths: Sequence[Path]) -> Table:
    """The rows with ``issimple``: of the same place if all questions agree, else of question and answer if unique."""
    table = read_tsv(paths[0])
    beside = paths[0].parent / TEST
    if not beside.is_file() or any("issimple" in row.cells for row in table.rows):
        return table
    labels = read_rows(beside)
    asked = [(row.text("question").strip(), str(row.whole("answer"))) for row in table.rows]
    known = [(str(label.get("question")).strip(), str(label.get("answer"))) for label in labels]
    simple = [str(label.get("issimple")) for label in labels]
    said: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for key, each in zip(known, simple, strict=True):
        said[key].add(each)
    found = [{each} for each in simple] if asked == known else [said[key] for key in asked]
    return table.with_rows(
        [
            replace(row, cells={**row.cells, "issimple": next(iter(each))}) if len(each) == 1 else row
            for row, each in zip(table.rows, found, strict=True)
        ]
    )


def _question(row: Row) -> Question:
    groups: dict[str, Any] = {"cluster": row.cluster}
    if row.find("issimple"):
        groups["complexity"] = "simple" if row.yes_no("issimple") == "Yes" else "complex"
    if source := row.find("data_source"):
        groups["data_source"] = source
    identifier, number = row.text("question_id", "index"), str(row.whole("answer"))
    return Question(identifier, "tallyqa", "count", row.text("question"), number, (), row.images, groups)


TALLYQA = Benchmark(
    name="tallyqa",
    title="TallyQA test",
    licence="Apache-2.0",
    citation="Acharya, Kafle and Kanan, TallyQA, AAAI 2019, arxiv.org/abs/1810.12440",
    sources=(
        Source(
            "tsv",
            _tsv,
            _question,
            "moondream/TallyQA-VLMEvalKit",
            files=(TSV,),
            md5={TSV: "959df01cf1858e73a71efe5cd3b9bf19"},
            counts={"questions": 38589},
            marks=(TSV, "TallyQA.tsv"),
        ),
        Source(
            "original",
            original(
                lambda row: row.get("image"),
                "they are COCO 2014 (train2014, val2014) and Visual Genome (VG_100K, VG_100K_2), unpacked beside it",
            ),
            _question,
            counts=LABELLED,
            marks=(TEST,),
            page="test.json of github.com/manoja328/TallyQA_dataset, with COCO 2014 and Visual Genome beside it",
        ),
    ),
    metrics=(
        Metric("overall", (Term(),), None),
        *(Metric(name, (Term({"complexity": name}),), None) for name in ("simple", "complex")),
    ),
    kinds={"count": "count"},
    rules={**COUNT, OFFICIAL: count},
    vlmevalkit="TallyQA",
    wording=Wording(suffix="\nAnswer the question using a single number."),
)
