"""A user's own questions: a file of every kind is asked, scored, continued and shown; what is wrong is one line."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from blindspot.benchmarks.registry import select
from blindspot.cli import app
from blindspot.errors import UserError
from blindspot.evaluation.scores.report import score
from blindspot.files import write_jsonl

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos" / "images"
"""Photographs, where they are at hand; drawn pictures of the same sizes elsewhere."""
SIZES = {"30": (640, 428), "71": (640, 426), "72": (427, 640), "73": (565, 640), "86": (512, 640), "89": (640, 480),
         "92": (640, 427), "127": (640, 481), "165": (640, 536), "194": (640, 480)}  # fmt: skip
QUESTIONS: list[tuple[dict[str, Any], str]] = [
    ({"image": "30", "question": "What is it?", "options": ["a plant", "a spoon"], "answer": "a plant"}, "A"),
    ({"image": "71", "question": "Is there a train?", "answer": "yes", "group": "objects"}, "Yes, a red one."),
    ({"image": "72", "question": "How many giraffes?", "answer": 2, "group": "counts"}, "There are two."),
    ({"image": "73", "question": "the motorcycle", "answer": [13, 23, 549, 633]}, "<box>[[20, 40, 970, 990]]</box>"),
    (
        {"image": "86", "question": "Point at the bag.", "answer": [[265, 295], [400, 405]]},
        '{"point_2d": [650, 550]}',
    ),
    ({"image": "89", "question": "How many knives?", "answer": 5, "group": "counts"}, "4"),
    ({"image": "92", "question": "The fork is?", "options": ["left", "right"], "answer": "B"}, "It is right."),
    ({"image": "127", "question": "What is on the plate?", "answer": "cake", "group": "objects"}, "Cake"),
    ({"images": ["165", "194"], "question": "In which?", "options": ["one", "two"], "answer": "(b)"}, "A"),
    ({"image": "92", "question": "Its width in cm?", "answer": 29.5}, "About 29 cm"),
]
SCORES = [1, 1, 1, 1, 1, 0, 1, 1, 0, 1]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures, beside which a user works."""
    for name, size in SIZES.items():
        photo = PHOTOS / f"{int(name):012d}.jpg"
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        if photo.is_file():
            (folder / f"{name}.jpg").write_bytes(photo.read_bytes())
        else:
            Image.new("RGB", size, (int(name), 90, 90)).save(folder / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return folder


def named(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the paths of its pictures."""
    if "images" in row:
        return {**row, "images": [f"photos/{name}.jpg" for name in row["images"]]}
    return {**row, "image": f"photos/{row['image']}.jpg"}


@pytest.fixture
def asked(pictures: Path) -> Callable[..., Result]:
    """Evaluate recorded answers to the ten questions in ``my.jsonl``."""
    write_jsonl(Path("my.jsonl"), [named(row) for row, _ in QUESTIONS])
    write_jsonl(Path("said.jsonl"), [{"id": str(n), "raw": raw} for n, (_, raw) in enumerate(QUESTIONS, start=1)])

    def call(*more: str, file: str = "my.jsonl") -> Result:
        arguments = ["said.jsonl", "--recorded", "--benchmarks", file, "--boxes", "qwen-1000", "--out", "run", *more]
        return CliRunner().invoke(app, ["evaluate", *arguments])

    return call


def test_ten_questions_of_every_kind_are_asked_scored_and_shown(asked: Callable[..., Result]) -> None:
    told = asked("--json")
    assert told.exit_code == 0, told.output
    metrics = json.loads(told.stdout)["benchmarks"]["my"]["metrics"]
    assert {name: row["value"] for name, row in metrics.items()} == {
        "mean": sum(SCORES) / 10,
        "group/counts": 0.5,
        "group/objects": 1.0,
    }
    again = CliRunner().invoke(app, ["score", "run/my/answers.jsonl", "--json"])
    assert [item["score"] for item in json.loads(again.stdout)["items"]] == SCORES
    assert score(Path("run/my/answers.jsonl"))["benchmarks"]["my"]["metrics"].keys() == metrics.keys()
    shown = CliRunner().invoke(app, ["report", "run"])
    assert shown.exit_code == 0, shown.output
    page = Path("run/glance.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") >= len(SIZES) and "no pictures" not in page


def test_a_run_goes_on_wherever_its_file_lies_and_only_with_its_bytes(asked: Callable[..., Result]) -> None:
    Path("said.jsonl").rename("all.jsonl")
    Path("said.jsonl").write_text("".join(Path("all.jsonl").read_text().splitlines(keepends=True)))
    assert asked("--limit", "4").exit_code == 0
    before = Path("run/my/answers.jsonl").read_bytes()
    Path("elsewhere").mkdir()
    for name in ("my.jsonl", "photos"):
        Path(name).rename(Path("elsewhere", name))
    assert asked("--limit", "4", file="elsewhere/my.jsonl").exit_code == 0
    assert Path("run/my/answers.jsonl").read_bytes() == before
    Image.new("RGB", SIZES["30"]).save("elsewhere/photos/30.jpg")
    other = asked("--limit", "4", file="elsewhere/my.jsonl")
    assert (other.exit_code, "run holds another run (my.digest is" in other.stderr) == (2, True), other.output


def test_csv_and_a_data_set_on_disk_hold_the_same_questions(pictures: Path) -> None:
    from datasets import Dataset
    from datasets import Image as Column

    rows = [named(row) for row, _ in QUESTIONS if "options" not in row and "images" not in row]
    columns = ("image", "question", "answer", "group")
    with Path("my.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns)
        writer.writeheader()
        writer.writerows(rows)
    held = {name: [str(row.get(name, "")) for row in rows] for name in columns}
    Dataset.from_dict(held).cast_column("image", Column()).save_to_disk("saved")
    read = []
    for place in ("my.csv", "saved"):
        (benchmark,) = select(f"./{place}")
        assert benchmark.place is not None
        collection = benchmark.read(benchmark.place)
        read.append([(one.kind, one.prompt, one.answer, one.groups.get("group")) for one in collection.questions])
        assert [collection.images.read(one.images[0]) for one in collection.questions] == [
            Path(row["image"]).read_bytes() for row in rows
        ]
    assert read[0] == read[1] and [kind for kind, *_ in read[0]] == [
        "yes_no", "count", "boxes", "points", "count", "text", "number"
    ]  # fmt: skip


@pytest.mark.parametrize("head", ["image,question,answer", "Image;Question;Answer", "\ufeffImage\tQUESTION\t answer"])
def test_a_table_is_read_as_spreadsheets_write_it(pictures: Path, head: str) -> None:
    between = next(mark for mark in "\t;," if mark in head)
    Path("my.csv").write_text(f"{head}\nphotos/72.jpg{between}How many giraffes?{between}2\n", encoding="utf-8")
    (question,) = select("my.csv")[0].read(Path("my.csv")).questions
    assert (question.kind, question.prompt, question.answer) == ("count", "How many giraffes?", "2")


def test_a_mask_and_a_polygon_say_where_points_may_lie(pictures: Path) -> None:
    mask = Image.new("L", SIZES["86"])
    mask.paste(255, (100, 200, 300, 400))
    mask.save("mask.png")
    corners = [[100, 200], [299, 200], [299, 399], [100, 399]]
    rows = [{"mask": "mask.png"}, {"answer": corners}, {"answer": [100, 200, 300, 400], "kind": "points"}]
    write_jsonl(Path("my.jsonl"), [named({"image": "86", "question": "Where?", **row}) for row in rows])
    (benchmark,) = select("my.jsonl")
    collection = benchmark.read(Path("my.jsonl"))
    from blindspot.benchmarks.points import region

    first, *others = [region(one.answer) for one in collection.questions]
    assert first.sum() == 200 * 200 and all((first == other).all() for other in others)
    mask.paste(255, (0, 0, 9, 9))
    mask.save("mask.png")
    assert benchmark.read(Path("my.jsonl")).digest != collection.digest, "the bytes of a mask count"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": ""}, "my.jsonl:2: no question (columns: image, question, answer); write one in column question"),
        ({"image": None}, "my.jsonl:2: no image (columns: image, question, answer); name a picture in column image"),
        ({"image": "72.png"}, "my.jsonl:2: image 72.png: No such file or directory; paths start at the file's folder"),
        ({"image": "my.jsonl"}, "my.jsonl:2: image my.jsonl: it is no picture that can be read"),
        ({"images": [3], "image": ""}, 'my.jsonl:2: images is [3]; write the path of a picture, of several a list'),
        ({"answer": None}, "my.jsonl:2: no answer (columns: image, question, answer); write the right one in column"),
        ({"options": ["left"]}, 'my.jsonl:2: options is ["left"]; write two or more options as a list'),
        ({"options": ["a", "b"], "answer": "C"}, 'answer is "C"; write the letter (A to B) or the text of one option'),
        ({"options": ["B", "A"], "answer": "A"}, 'answer is "A"; write the letter (A to B) or the text of one option'),
        ({"kind": "yesno"}, 'my.jsonl:2: kind: unknown kind "yesno"; did you mean "yes_no"?'),
        ({"kind": "options"}, 'kind is "options"; give a row options if, and only if, it is of kind options'),
        ({"kind": "count", "answer": "two"}, 'answer is "two"; write a whole number from 0, or another kind'),
        ({"kind": "number", "answer": "wide"}, 'answer is "wide"; write a number, or another kind'),
        ({"kind": "box", "answer": [0, 0, 999, 10]}, "write [x0, y0, x1, y1] in pixels of the picture, which is 427 x"),
        ({"answer": [[1, 2], [3]]}, "write the corners of where points may lie, [[x, y], ...], in pixels of the pict"),
        ({"mask": "photos/30.jpg"}, 'mask is "photos/30.jpg"; it must be as large as the picture, 427 x 640 pixels'),
        ({"mask": "no.png"}, 'my.jsonl:2: mask is "no.png"; No such file'),
        ({"id": "1"}, "my.jsonl:2: id '1' is also that of row 1; remove one of the two"),
        ([], 'my.jsonl:2: a row is an object: {"image": "door.jpg", "question": "...", "answer": "..."}'),
        ("", "my.jsonl:2: not a JSON line"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_row_is_one_line_with_file_line_and_column(pictures: Path, row: Any, said: str) -> None:
    right = named({"image": "72", "question": "How many giraffes?", "answer": 2})
    lines = [right, {**right, **row} if isinstance(row, dict) else row]
    text = [json.dumps(line) if line != "" else "" for line in lines]
    Path("my.jsonl").write_text("\n".join(text) + "\n")
    with pytest.raises(UserError) as refused:
        select("my.jsonl")[0].read(Path("my.jsonl"))
    assert said in str(refused.value)


def test_files_that_cannot_be_asked_are_one_line(pictures: Path) -> None:
    Path("vsr.jsonl").write_text("{}\n")
    Path("my.txt").touch()
    Path("empty.jsonl").touch()
    for name, said in (
        ("mine.jsonl", "mine.jsonl is not there; name a benchmark of `blindspot benchmarks`, or a file of your own"),
        ("vsr.jsonl", "vsr.jsonl: there is a benchmark called 'vsr' already; rename the file"),
        ("my.txt", "my.txt: questions are read from .jsonl, .json, .csv, .tsv, or a folder that datasets saved"),
        ("photos", "photos holds no questions; write them into a file beside it, a line each, and name that file"),
    ):
        with pytest.raises(UserError, match=said.replace(".", r"\.")):
            select(name)
    with pytest.raises(UserError, match=r"empty\.jsonl: no questions in it; write one a line"):
        select("empty.jsonl")[0].read(Path("empty.jsonl"))
