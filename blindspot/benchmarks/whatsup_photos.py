"""What'sUp's photographs of COCO and GQA: where one object is in the picture, or to another one; two captions each.

Groups: ``part`` (coco_one, coco_two, gqa_one, gqa_two: how many objects), ``relation``, ``cluster`` (the picture).

Its score is the mean over the parts. Captions and words are asked as in `blindspot.benchmarks.whatsup`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blindspot.benchmarks.base import Metric, Row, Source, Table, Term, by
from blindspot.benchmarks.sources.forms import read_rows, with_pictures
from blindspot.benchmarks.whatsup import WHATSUP, read_caption
from blindspot.question import Question

FILES = {f"{file}_qa_{count}_obj.json": f"{part}_{count}"
         for file, part in (("coco", "coco"), ("vg", "gqa")) for count in ("one", "two")}  # fmt: skip
COUNTS = {"questions": 4138, "part=coco_one": 2247, "part=coco_two": 440, "part=gqa_one": 1160, "part=gqa_two": 291}
_ASKED = {
    "coco_one": "left, right, top or bottom",
    "coco_two": "left, right, above or below",
    "gqa_one": "left, right, top or bottom",
    "gqa_two": "left, right, front, behind, above or below",
}


def _cells(row: Sequence[Any]) -> dict[str, Any]:
    image, *captions = row
    return {"image": image, "captions": captions}


def _picture(row: Mapping[str, Any]) -> str:
    name = str(row["image"])
    return f"val2017/{name.zfill(12)}.jpg" if row["part"].startswith("coco") else f"vg_images/{name}.jpg"


def _table(paths: Sequence[Path]) -> Table:
    read = {FILES[path.name]: read_rows(path, lambda rows: map(_cells, rows)) for path in paths if path.name in FILES}
    rows = [{**row, "part": part} for part, own in read.items() for row in own]
    return with_pictures(paths[0], rows, _picture, "they are COCO's val2017 and GQA's pictures (vg_images)")


def _question(row: Row) -> Question:
    part, captions = row.text("part"), tuple(row.strings("captions"))
    read = [read_caption(caption) for caption in captions]
    if len(captions) != 2 or read[0] is None or read[1] is None or read[0][1] == read[1][1]:
        raise row.error(f"the captions {str(captions)[:90]} do not tell two relations")
    first, relation, second = read[0]
    where = f"in relation to the {second}" if second else "in the photo"
    prompt = f"Where is the {first} {where}? Answer with {_ASKED[part]}."
    groups = {"part": part, "relation": relation, "cluster": row.cluster}
    own = str(row.number)
    return Question(own, "whatsup_photos", "text", prompt, relation.capitalize(), captions, row.images, groups)


WHATSUP_PHOTOS = replace(
    WHATSUP,
    name="whatsup_photos",
    title="What'sUp of COCO and GQA",
    sources=(
        Source(
            "original",
            _table,
            _question,
            counts=COUNTS,
            marks=("*_qa_*_obj.json", "*/*_qa_*_obj.json"),
            page="coco_qa_*.json and vg_qa_*.json of github.com/amitakamath/whatsup_vlms, beside val2017 and vg_images",
        ),
    ),
    metrics=(
        Metric("overall", tuple(Term({"part": part}, weight=1 / 4) for part in _ASKED), 0.5),
        *by("part", _ASKED, 0.5),
    ),
)
