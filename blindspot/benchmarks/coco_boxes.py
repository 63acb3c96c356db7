"""Objects of COCO to be found: one question for each picture and category of which the picture shows exactly one.

A category of which a picture has several objects, or a crowd, is not asked for there, nor a box without area.

Groups: ``category``, ``size`` (of the object: small, medium or large), ``picture`` (its width and height),
``cluster`` (the picture).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blindspot.benchmarks.base import Benchmark, Metric, Source, Term
from blindspot.benchmarks.boxes import judge
from blindspot.benchmarks.rules import vlmevalkit
from blindspot.benchmarks.rules.common import OFFICIAL
from blindspot.benchmarks.sources import original
from blindspot.benchmarks.sources.table import Row, Table
from blindspot.errors import UserError
from blindspot.files import PICTURE_FORMATS
from blindspot.question import Question

SIZES = {"small": 32**2, "medium": 96**2, "large": float("inf")}
"""COCO's sizes of objects by the area of their outline in pixels; each ends where the next begins."""

PICTURES = "the pictures belong into the file's folder or one below it"


def _table(paths: Sequence[Path]) -> Table:
    path = paths[0]
    rows = _rows(path, original.read_json(path))
    folder = path.parent.parent if path.parent.name == "annotations" else path.parent
    table = original.with_pictures(folder / path.name, rows, lambda row: row["file_name"], PICTURES)
    _refuse_resized(table)
    return table


def _rows(path: Path, held: Any) -> list[dict[str, Any]]:
    try:
        names = {category["id"]: category["name"] for category in held["categories"]}
        images = {image["id"]: image for image in held["images"]}
        annotations = held["annotations"]
        counts = Counter((one["image_id"], one["category_id"]) for one in annotations)
        rows = [
            _row(one, names[one["category_id"]], images[one["image_id"]])
            for one in annotations
            if counts[one["image_id"], one["category_id"]] == 1 and not one.get("iscrowd")
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: not the instances of COCO ({reason}); get the published file again") from error
    asked = [  # as kept, in hundredths of a pixel
        row for row in rows for x0, y0, x1, y1 in [row["box"]] if x0 < x1 < float("inf") and y0 < y1 < float("inf")
    ]
    return sorted(asked, key=lambda row: (str(row["file_name"]), str(row["category"])))


def _row(annotation: Mapping[str, Any], category: str, image: Mapping[str, Any]) -> dict[str, Any]:
    x, y, width, height = map(float, annotation["bbox"])
    area = float(annotation.get("area", width * height))
    return {
        "id": annotation["id"],
        "file_name": image["file_name"],
        "picture": f"{int(image['width'])}x{int(image['height'])}",
        "category": category,
        "box": [round(edge, 2) for edge in (x, y, x + width, y + height)],
        "size": next((name for name, end in SIZES.items() if area < end), "large"),
    }


def _refuse_resized(table: Table) -> None:
    from PIL import Image

    pictures: Any = table.images
    for row in table.rows:
        path = pictures.places[row.images[0]]
        try:
            with Image.open(path, formats=PICTURE_FORMATS) as image:
                size = f"{image.width}x{image.height}"
        except OSError as error:
            raise row.error(f"cannot read the picture {path}: {error}") from error
        if size != row.cells["picture"]:
            raise row.error(f"{path} is {size} pixels, and the boxes belong to one of {row.cells['picture']}")


def _question(row: Row) -> Question:
    box: Any = row.cells["box"]
    groups = {name: row.text(name) for name in ("category", "size", "picture")}
    phrase = f"the {groups['category']}"
    return Question(
        row.text("id"),
        "coco_boxes",
        "boxes",
        phrase,
        " ".join(map(str, box)),
        (),
        row.images,
        groups | {"cluster": row.cluster},
    )


COCO_BOXES = Benchmark(
    name="coco_boxes",
    title="COCO boxes",
    licence="annotations CC-BY-4.0; photographs from Flickr, a licence each",
    citation="Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014",
    sources=(
        Source(
            "original",
            _table,
            _question,
            marks=("instances*.json", "annotations/instances_val*.json"),
            page="instances_val2017.json and val2017/ of cocodataset.org, or any data set in that form, laid out as "
            "instances.json beside a folder of pictures",
        ),
    ),
    metrics=(
        Metric("overall", (Term(),), None),
        Metric("iou", (Term(value="partial"),), None),
        *(Metric(f"size/{size}", (Term({"size": size}),), None) for size in SIZES),
    ),
    kinds={"boxes": "boxes"},
    rules=dict.fromkeys(
        (*vlmevalkit.VERSIONS, OFFICIAL), lambda item: judge(item.raw, item.gold, *item.seen, item.where)
    ),
    vlmevalkit="COCO_boxes",
)
