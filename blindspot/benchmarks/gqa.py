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

from blindspot.benchmarks.base import Benchmark, Metric, Source, Term, Wording, found
from blindspot.benchmarks.rules import vlmevalkit
from blindspot.benchmarks.rules.common import LMMS_EVAL, OFFICIAL, Item, Scored
from blindspot.benchmarks.sources import hub, original, tsv
from blindspot.benchmarks.sources.table import Row, Table, slug
from blindspot.errors import UserError
from blindspot.question import Question

STRUCTURAL = ("choose", "compare", "logical", "query", "verify")
COUNTS = {
    "questions": 12578,
    "images": 398,
    "type=choose": 1129,
    "type=compare": 589,
    "type=logical": 1803,
    "type=query": 6805,
    "type=verify": 2252,
}
LABELLED = COUNTS | {
    "semantic=attr": 5186,
    "semantic=cat": 1149,
    "semantic=global": 157,
    "semantic=obj": 778,
    "semantic=rel": 5308,
    "spatial=yes": 5952,
}

_CONFIGURATION = "testdev_balanced_instructions"
_IMAGES = "testdev_balanced_images"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_COLUMNS = ("id", "imageId", "question", "answer", "types")


def _hub(paths: Sequence[Path]) -> Table:
    questions = hub.load(paths, _COLUMNS).to_pylist()
    within = paths[0].parent.parts
    root = Path(*within[: within.index(_CONFIGURATION)]) if _CONFIGURATION in within else paths[0].parent
    of_pictures = found(hub.marks("testdev", _IMAGES), root)
    if not of_pictures:
        raise UserError(f"{root}: the data set's pictures, configuration {_IMAGES}, are not there; get it again")
    pictures = hub.read(of_pictures, ("id",))
    keys = {row.text("id"): row.images for row in pictures.rows}
    if absent := sorted({str(row["imageId"]) for row in questions} - set(keys)):
        raise UserError(
            f"{paths[0]}: {len(absent):,} pictures are not in {_IMAGES}, for example {absent[0]}; get it again"
        )
    return pictures.with_rows(
        [Row(paths[0], number, cells, keys[str(cells["imageId"])]) for number, cells in enumerate(questions, start=1)]
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    value = original.read_json(path)
    if not isinstance(value, dict) or not original.is_rows(list(value.values())):
        raise UserError(f"{path}: not an object of questions by id; expected is GQA's testdev_balanced_questions.json")
    return [{"id": identifier, **row} for identifier, row in value.items()]


def _from_tsv(row: Row) -> Question:
    return _question(row, row.text("index"), {"type": slug(row.text("category")), "cluster": row.cluster})


def _labelled(row: Row) -> Question:
    types: Any = row.cells.get("types")
    if not isinstance(types, Mapping) or not types.get("structural"):
        raise row.error("no `types` with `structural`; get the published file again")
    semantic, detailed = str(types.get("semantic")), str(types.get("detailed"))
    spatial = semantic == "rel" or detailed.startswith("position")
    groups = {
        "type": slug(str(types["structural"])),
        "semantic": semantic,
        "detailed": detailed,
        "spatial": "yes" if spatial else "no",
        "cluster": row.text("imageId"),
    }
    return _question(row, row.text("id"), groups)


def _question(row: Row, identifier: str, groups: dict[str, Any]) -> Question:
    return Question(identifier, "gqa", "text", row.text("question"), row.text("answer"), (), row.images, groups)


def _lmms_eval(item: Item) -> Scored:
    answer = _bare(item.raw)
    return Scored(answer, float(answer == _bare(item.gold)), bool(answer.strip()))


def _bare(text: str) -> str:
    return text.lower().translate(_NO_PUNCTUATION).rstrip("\0")


def _official(item: Item) -> Scored:
    answer = item.raw.strip().rstrip(".").lower()
    return Scored(answer, float(answer == item.gold), bool(answer))


GQA = Benchmark(
    name="gqa",
    title="GQA test-dev balanced",
    licence="CC-BY-4.0",
    citation="Hudson and Manning, GQA, CVPR 2019, arxiv.org/abs/1902.09506",
    sources=(
        tsv.source("GQA_TestDev_Balanced.tsv", "99b62f22e224d9b2f32dcbe41359d1c9", COUNTS, _from_tsv, "category"),
        Source(
            "hub",
            _hub,
            _labelled,
            "lmms-lab/GQA",
            files=(f"{_CONFIGURATION}/*", f"{_IMAGES}/*"),
            counts=LABELLED,
            marks=hub.marks("testdev", _CONFIGURATION),
        ),
        Source(
            "original",
            original.reader(
                lambda row: f"{row.get('imageId')}.jpg",
                "unpack images.zip of cs.stanford.edu/people/dorarad/gqa beside it",
                _rows,
            ),
            _labelled,
            counts=LABELLED,
            marks=("testdev_balanced_questions.json",),
            page="questions1.2.zip and images.zip of cs.stanford.edu/people/dorarad/gqa, unpacked side by side",
        ),
    ),
    metrics=(
        Metric("overall", (Term(),), None, 100),
        *(Metric(name, (Term({"type": name}),), None, 100) for name in STRUCTURAL),
        Metric("spatial", (Term({"spatial": "yes"}),), None, 100),
        *(
            Metric(f"semantic/{name}", (Term({"semantic": name}),), None, 100)
            for name in ("attr", "cat", "global", "obj", "rel")
        ),
    ),
    kinds={"text": "text", "exact": "text"},
    rules={**vlmevalkit.TEXT, LMMS_EVAL: _lmms_eval, OFFICIAL: _official},
    vlmevalkit="GQA_TestDev_Balanced",
    wording=Wording(suffix="\nAnswer the question using a single word or phrase."),
)
