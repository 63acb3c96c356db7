"""Objects of COCO to be found: one question for each picture and category of which the picture shows exactly one.

A category of which a picture has several objects, or a crowd, is not asked for there, nor a box without area.

Groups: ``category``, ``size`` (of the object: small, medium or large), ``picture`` (its width and height),
``cluster`` (the picture).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blindspot.benchmarks.base import Benchmark, Metric, Row, Source, Table, Term, by
from blindspot.benchmarks.boxes import judge
from blindspot.benchmarks.rules import OFFICIAL, VLMEVALKIT, Item, Scored
from blindspot.benchmarks.sources.forms import read_rows, with_pictures
from blindspot.files import PICTURE_FORMATS
from blindspot.question import Question

SIZES = {"small": 32**2, "medium": 96**2, "large": float("inf")}
"""COCO's sizes of objects by the area of their outline in pixels; each ends where the next begins."""


def _table(paths: Sequence[Path]) -> Table:
    """The rows; a picture of another size than its boxes were drawn in is refused."""
    from PIL import Image

    path = paths[0]
    folder = path.parent.parent if path.parent.name == "annotations" else path.parent
    where = "the pictures belong into the file's folder or one below it"
    table = with_pictures(folder / path.name, read_rows(path, _instances), lambda row: row["file_name"], where)
    pictures: Any = table.images
    for row in table.rows:
        picture = pictures.places[row.images[0]]
        try:
            with Image.open(picture, formats=PICTURE_FORMATS) as image:
                size = f"{image.width}x{image.height}"
        except OSError as error:
            raise row.error(f"cannot read the picture {picture}: {error}") from error
        if size != row.cells["picture"]:
            raise row.error(f"{picture} is {size} pixels, and the boxes belong to one of {row.cells['picture']}")
    return table


def _instances(held: Any) -> list[dict[str, Any]]:
    """The objects that are asked for, from the value of COCO's file."""
    names = {category["id"]: category["name"] for category in held["categories"]}
    images = {image["id"]: image for image in held["images"]}
    counts = Counter((one["image_id"], one["category_id"]) for one in held["annotations"])
    rows: list[dict[str, Any]] = []
    for one in held["annotations"]:
        if counts[one["image_id"], one["category_id"]] > 1 or one.get("iscrowd"):
            continue
        image = images[one["image_id"]]
        x, y, width, height = map(float, one["bbox"])
        area = float(one.get("area", width * height))
        box = [round(edge, 2) for edge in (x, y, x + width, y + height)]  # as kept, in hundredths of a pixel
        row = {
            "id": one["id"],
            "file_name": image["file_name"],
            "picture": f"{int(image['width'])}x{int(image['height'])}",
            "category": names[one["category_id"]],
            "box": box,
            "size": next((name for name, end in SIZES.items() if area < end), "large"),
        }
        if box[0] < box[2] < float("inf") and box[1] < box[3] < float("inf"):
            rows.append(row)
    return sorted(rows, key=lambda row: (str(row["file_name"]), str(row["category"])))


def _question(row: Row) -> Question:
    groups = {name: row.text(name) for name in ("category", "size", "picture")} | {"cluster": row.cluster}
    phrase, gold = f"the {groups['category']}", " ".join(map(str, row.cells["box"]))
    return Question(row.text("id"), "coco_boxes", "boxes", phrase, gold, (), row.images, groups)


def right_box(item: Item) -> Scored:
    """Right at an IoU of .5, or for a point inside the gold box."""
    return judge(item.raw, item.gold, *item.seen, item.where)


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
        *by("size", SIZES),
    ),
    kinds={"boxes": "boxes"},
    rules=dict.fromkeys((*VLMEVALKIT, OFFICIAL), right_box),
    vlmevalkit="COCO_boxes",
)
