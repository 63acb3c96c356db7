"""VSR: a sentence says how two things in a COCO photograph lie to each other; is it so? The zero-shot test split.

Groups: ``answer`` (the gold answer), ``relation`` and ``category`` (its kind), ``caption``, ``cluster`` (the
picture). A TSV has relations only if the original ``test.jsonl`` lies beside it.

Its script reads a classifier: for the rule ``official`` the first word must be true or yes, false or no.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blindspot import files
from blindspot.benchmarks.base import Benchmark, Metric, Row, Source, Table, Term, by
from blindspot.benchmarks.rules import OFFICIAL, YES_NO, true_or_false
from blindspot.benchmarks.sources.forms import original, read_rows, read_tsv
from blindspot.errors import UserError
from blindspot.question import Question

TEST = "test.jsonl"
TSV = "vsr_zeroshot_dataset_yn_strict.tsv"
ASKED = 'Is the following statement true of the image? "{caption}" Please answer yes or no.'
"""Our wording around a caption of the original. The wording inside VLMEvalKit's TSV is its own."""

COUNTS = {"questions": 1222, "images": 715, "answer=Yes": 629, "answer=No": 593}

_RELATIONS = {
    "adjacency": (
        "adjacent to, ahead of, against, alongside, at the back of, at the edge of, at the left side of, at "
        "the right side of, at the side of, attached to"
    ),
    "directional": (
        "across, across from, along, around, away from, deep down, down, down from, from, into, off, past, "
        "through, to, toward, up"
    ),
    "orientation": "facing, facing away from, parallel to, perpendicular to",
    "projective": (
        "above, behind, below, beneath, beside, in front of, in the middle of, left of, on top of, over, "
        "right of, under"
    ),
    "proximity": "by, close to, far away from, far from, near",
    "topological": (
        "among, at, between, connected to, consists of, contains, detached from, has as a part, in, inside, "
        "on, out of, outside, part of, surrounding, touching, with, within"
    ),
    "unallocated": "after, beyond, enclosed by, next to, opposite to",
}
CATEGORIES = {category: tuple(relations.split(", ")) for category, relations in _RELATIONS.items()}
"""The relations by the kind of space they speak of, as the authors sort them. ``among`` stands in two of their lists,
topological and unallocated; here in the first."""

CATEGORY_OF = {relation: category for category, relations in CATEGORIES.items() for relation in relations}


def links(folder: Path) -> dict[str, str]:
    """The URL of every picture, by the path that it is to have below the folder."""
    rows = read_rows(folder / TEST)
    if outside := [row["image"] for row in rows if not files.inside(str(row.get("image")))]:
        raise UserError(f"{folder / TEST}: the picture {outside[0]!r} lies outside of the folder; get the file again")
    return {f"images/{row['image']}": str(row["image_link"]) for row in rows if "image" in row and "image_link" in row}


def _tsv(paths: Sequence[Path]) -> Table:
    """The rows, each with the relation of the longest caption that its question quotes."""
    table = read_tsv(paths[0])
    beside = paths[0].parent / TEST
    if not beside.is_file():
        return table
    relations = {str(row.get("caption")): row.get("relation") for row in read_rows(beside)}
    rows = []
    for row in table.rows:
        question = row.text("question")
        quoted = max((caption for caption in relations if caption.rstrip(". ") in question), key=len, default=None)
        labels = {} if quoted is None else {"caption": quoted, "relation": relations[quoted]}
        rows.append(replace(row, cells={**row.cells, **labels}))
    return table.with_rows(rows)


def _question(row: Row) -> Question:
    if "index" in row.cells:  # VLMEvalKit's TSV
        identifier, prompt, answer = row.text("index"), row.text("question"), row.yes_no("answer")
    else:
        identifier, prompt, answer = str(row.number), ASKED.format(caption=row.text("caption")), row.yes_no("label")
    groups: dict[str, Any] = {"answer": answer, "cluster": row.cluster}
    if relation := row.find("relation"):
        groups |= {"relation": relation, "category": CATEGORY_OF.get(relation, "unallocated")}
    if caption := row.find("caption"):
        groups["caption"] = caption
    return Question(identifier, "vsr", "yes_no", prompt, answer, ("Yes", "No"), row.images, groups)


VSR = Benchmark(
    name="vsr",
    title="VSR zero-shot test",
    licence="Apache-2.0 (the repository; the data set's card says CC-BY-4.0)",
    citation="Liu, Emerson and Collier, Visual Spatial Reasoning, TACL 2023, arxiv.org/abs/2205.00363",
    sources=(
        Source(
            "tsv",
            _tsv,
            _question,
            "ignoreandfly/vsr_zeroshot_tsv",
            files=(TSV,),
            md5={TSV: "5ff5e49908ac1cfad35c60b92b001aeb"},
            counts=COUNTS,
            marks=(TSV, "VSR-zeroshot.tsv"),
        ),
        original(
            _question,
            lambda row: row.get("image"),
            "they are COCO 2017 train and val; `blindspot data get vsr --form original` fetches these alone",
            repository="cambridgeltl/vsr_zeroshot",
            files=(TEST,),
            counts=COUNTS,
            marks=(TEST, f"zeroshot/{TEST}", f"splits/zeroshot/{TEST}"),
            links=links,
        ),
    ),
    metrics=(
        Metric("overall", (Term(),), 0.5, 100),
        *by("category", CATEGORIES, 0.5, 100),
        *by("relation", sorted(CATEGORY_OF), 0.5, 100),
    ),
    kinds={"yes_no": "yes_no"},
    rules={**YES_NO, OFFICIAL: true_or_false},
    vlmevalkit="VSR-zeroshot",
)
