"""GQA, its balanced test-dev: 12,578 questions about 398 pictures, answered by a word or a phrase.

Groups: ``type`` (structural), ``cluster`` (the picture); where the form has them also ``semantic``, ``detailed``
and ``spatial`` (``yes`` if semantic is ``rel`` or detailed begins with ``position``).

The rule ``official`` is exact equality after LLaVA's converter, which takes off final full stops and capitals; in
lmms-eval the comparison goes through numpy, which drops trailing NUL characters.
"""

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blindspot.benchmarks.base import Benchmark, Metric, Row, Source, Table, Term, Wording, by, found, slug
from blindspot.benchmarks.rules import LMMS_EVAL, OFFICIAL, TEXT, Item, Scored
from blindspot.benchmarks.sources.forms import load_hub, marks, original, read_hub, tsv
from blindspot.errors import UserError
from blindspot.question import Question

TYPES = {"choose": 1129, "compare": 589, "logical": 1803, "query": 6805, "verify": 2252}
SEMANTIC = {"attr": 5186, "cat": 1149, "global": 157, "obj": 778, "rel": 5308}
COUNTS = {"questions": 12578, "images": 398} | {f"type={name}": count for name, count in TYPES.items()}
LABELLED = COUNTS | {f"semantic={name}": count for name, count in SEMANTIC.items()} | {"spatial=yes": 5952}

_CONFIGURATION = "testdev_balanced_instructions"
_IMAGES = "testdev_balanced_images"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _hub(paths: Sequence[Path]) -> Table:
    """Questions of one configuration with the pictures of another."""
    questions = load_hub(paths, ("id", "imageId", "question", "answer", "types")).to_pylist()
    within = paths[0].parent.parts
    root = Path(*within[: within.index(_CONFIGURATION)]) if _CONFIGURATION in within else paths[0].parent
    of_pictures = found(marks("testdev", _IMAGES), root)
    if not of_pictures:
        raise UserError(f"{root}: the data set's pictures, configuration {_IMAGES}, are not there; get it again")
    pictures = read_hub(of_pictures, ("id",))
    keys = {row.text("id"): row.images for row in pictures.rows}
    if absent := sorted({str(row["imageId"]) for row in questions} - set(keys)):
        raise UserError(
            f"{paths[0]}: {len(absent):,} pictures are not in {_IMAGES}, for example {absent[0]}; get it again"
        )
    return pictures.with_rows(
        [Row(paths[0], number, cells, keys[str(cells["imageId"])]) for number, cells in enumerate(questions, start=1)]
    )


def _question(row: Row) -> Question:
    if "index" in row.cells:  # VLMEvalKit's TSV
        identifier, groups = row.text("index"), {"type": slug(row.text("category")), "cluster": row.cluster}
    else:
        types: Any = row.cells.get("types")
        if not isinstance(types, Mapping) or not types.get("structural"):
            raise row.error("no `types` with `structural`; get the published file again")
        identifier, semantic, detailed = row.text("id"), str(types.get("semantic")), str(types.get("detailed"))
        groups = {
            "type": slug(str(types["structural"])),
            "semantic": semantic,
            "detailed": detailed,
            "spatial": "yes" if semantic == "rel" or detailed.startswith("position") else "no",
            "cluster": row.text("imageId"),
        }
    return Question(identifier, "gqa", "text", row.text("question"), row.text("answer"), (), row.images, groups)


def _lmms_eval(item: Item) -> Scored:
    answer, gold = (text.lower().translate(_NO_PUNCTUATION).rstrip("\0") for text in (item.raw, item.gold))
    return Scored(answer, float(answer == gold), bool(answer.strip()))


def _official(item: Item) -> Scored:
    answer = item.raw.strip().rstrip(".").lower()
    return Scored(answer, float(answer == item.gold), bool(answer))


GQA = Benchmark(
    name="gqa",
    title="GQA test-dev balanced",
    licence="CC-BY-4.0",
    citation="Hudson and Manning, GQA, CVPR 2019, arxiv.org/abs/1902.09506",
    sources=(
        tsv("GQA_TestDev_Balanced.tsv", "99b62f22e224d9b2f32dcbe41359d1c9", COUNTS, _question, "category"),
        Source(
            "hub",
            _hub,
            _question,
            "lmms-lab/GQA",
            files=(f"{_CONFIGURATION}/*", f"{_IMAGES}/*"),
            counts=LABELLED,
            marks=marks("testdev", _CONFIGURATION),
        ),
        original(
            _question,
            lambda row: f"{row.get('imageId')}.jpg",
            "unpack images.zip of cs.stanford.edu/people/dorarad/gqa beside it",
            lambda value: [{"id": identifier, **row} for identifier, row in value.items()],
            counts=LABELLED,
            marks=("testdev_balanced_questions.json",),
            page="questions1.2.zip and images.zip of cs.stanford.edu/people/dorarad/gqa, unpacked side by side",
        ),
    ),
    metrics=(
        Metric("overall", (Term(),), None, 100),
        *(Metric(name, (Term({"type": name}),), None, 100) for name in TYPES),
        Metric("spatial", (Term({"spatial": "yes"}),), None, 100),
        *by("semantic", SEMANTIC, None, 100),
    ),
    kinds={"text": "text", "exact": "text"},
    rules={**TEXT, LMMS_EVAL: _lmms_eval, OFFICIAL: _official},
    vlmevalkit="GQA_TestDev_Balanced",
    wording=Wording(suffix="\nAnswer the question using a single word or phrase."),
)
