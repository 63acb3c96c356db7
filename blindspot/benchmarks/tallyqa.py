"""TallyQA, its test split: how many? Simple questions need detection alone, complex ones also relations."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blindspot.benchmarks.base import Benchmark, Collection, Metric, Source, Term
from blindspot.benchmarks.forms import cells, original, tsv
from blindspot.benchmarks.forms.collect import Reader, collected
from blindspot.benchmarks.forms.table import Row, Table
from blindspot.question import Question

TEST = "test.json"
TSV = "tallyqa_data.tsv"
LABELLED = {"questions": 38589, "complexity=simple": 22991, "complexity=complex": 15598}


def read(path: Path) -> Collection:
    """Read any of the forms.

    Groups: ``complexity`` (simple, complex), ``cluster`` (the picture), and from the original ``data_source``. A TSV
    that does not say the complexity gets it from the original ``test.json``, if that lies beside it.

    Raises:
        UserError: as `blindspot.benchmarks.forms.collect.collected`.
    """
    return collected(TALLYQA, path, READERS)


def _original(paths: Sequence[Path]) -> Table:
    rows = original.read_rows(paths[0])
    names = [[str(row.get("image"))] for row in rows]
    where = "they are COCO 2014 (train2014, val2014) and Visual Genome (VG_100K, VG_100K_2), unpacked beside it"
    return original.table(paths[0], rows, names, where)


def _tsv(paths: Sequence[Path]) -> Table:
    table = tsv.read(paths[0])
    beside = paths[0].parent / TEST
    if not beside.is_file() or "issimple" in table.rows[0].cells:
        return table
    return replace(table, rows=_with_labels(table.rows, original.read_rows(beside)))


def _with_labels(rows: Sequence[Row], labels: Sequence[dict[str, Any]]) -> list[Row]:
    """The rows with ``issimple``: of the same place if all questions agree, else of question and answer if unique."""
    asked = [(row.text("question").strip(), row.whole("answer")) for row in rows]
    known = [(str(label.get("question")).strip(), label.get("answer")) for label in labels]
    if asked == known:
        return [_labelled(row, label.get("issimple")) for row, label in zip(rows, labels, strict=True)]
    said: defaultdict[tuple[str, Any], set[Any]] = defaultdict(set)
    for key, label in zip(known, labels, strict=True):
        said[key].add(label.get("issimple"))
    return [_labelled(row, *said[key]) if len(said[key]) == 1 else row for row, key in zip(rows, asked, strict=True)]


def _labelled(row: Row, simple: Any) -> Row:
    return replace(row, cells={**row.cells, "issimple": simple})


def _question(row: Row) -> Question:
    groups: dict[str, Any] = {"cluster": cells.cluster(row)}
    if row.find("issimple"):
        groups["complexity"] = "simple" if cells.yes_no(row, "issimple") == "Yes" else "complex"
    if source := row.find("data_source"):
        groups["data_source"] = source
    identifier, count = row.text("question_id", "index"), str(row.whole("answer"))
    return Question(identifier, "tallyqa", "count", row.text("question"), count, (), row.images, groups)


READERS = {"tsv": Reader(_tsv, _question), "original": Reader(_original, _question)}

TALLYQA = Benchmark(
    name="tallyqa",
    title="TallyQA test",
    vlmevalkit="TallyQA",
    licence="Apache-2.0",
    citation="Acharya, Kafle and Kanan, TallyQA, AAAI 2019, arxiv.org/abs/1810.12440",
    sources=(
        Source(
            "tsv",
            "moondream/TallyQA-VLMEvalKit",
            files=(TSV,),
            md5={TSV: "959df01cf1858e73a71efe5cd3b9bf19"},
            counts={"questions": 38589},
            marks=(TSV, "TallyQA.tsv"),
        ),
        Source(
            "original",
            counts=LABELLED,
            marks=(TEST,),
            page="test.json of github.com/manoja328/TallyQA_dataset, with COCO 2014 and Visual Genome beside it",
        ),
    ),
    metrics=(
        Metric("overall", (Term(),), None),
        *(Metric(name, (Term({"complexity": name}),), None) for name in ("simple", "complex")),
    ),
    read=read,
)
