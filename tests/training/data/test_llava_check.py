"""A damaged data set: every damage found, none twice."""

import copy
import json
import os
import random
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from blindspot.cli import app
from blindspot.errors import UserError
from blindspot.model.conversation import from_llava, v1
from blindspot.model.encoding import encode
from blindspot.model.tokenizer import word_tokenizer
from blindspot.training.llava.check import as_table, check, usable


class Damaged(NamedTuple):
    json_path: Path
    images: Path


def said(question: str, *answers: str) -> list[dict[str, str]]:
    turns = [question, answers[0]]
    for answer in answers[1:]:
        turns += ["and", answer]
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(turns)]


def pictured(identity: Any, image: Any, **more: Any) -> dict[str, Any]:
    marks = "<image>\n" * (len(image) if isinstance(image, list) else 1)
    return {"id": identity, "image": image, "conversations": said(f"{marks}what", "a cat"), **more}


ROWS: list[Any] = [
    pictured("good", "coco/good.jpg"),
    {"id": "text", "model": "", "conversations": said("write", "a poem", "b")},
    pictured("gone1", "coco/gone.jpg"),
    pictured("gone2", "./coco//gone.jpg"),
    pictured("cut", "coco/cut.jpg"),
    pictured("page", "vg/page.jpg"),
    pictured("gif", "ocr_vqa/book.jpg"),
    pictured("up", "../outside.jpg"),
    pictured("link", "coco/link.jpg"),
    pictured(7, "coco/good.jpg"),
    pictured("7", "vg/good.png"),
    {"id": "unanswered", "image": "coco/good.jpg", "conversations": said("<image>\nwhat", "x")[:1]},
    {"id": "unmarked", "image": "coco/other_gone.jpg", "conversations": said("what", "x")},
    {"id": "empty", "conversations": said("what", "  ")},
    {"id": "long", "image": "vg/good.png", "conversations": said("<image>\nwhat", "word " * 2000)},
    {"image": "coco/good.jpg", "conversations": said("<image>\nwhat", "no id")},
    pictured("pair", ["coco/good.jpg", "vg/good.png"]),
    pictured("twice", ["coco/good.jpg", "./coco/good.jpg", "coco/gone.jpg", "coco/gone.jpg"]),
    {"id": "fields", "image": "coco/good.jpg"},
    "no row",
    pictured("good2", "coco/good.jpg", unknown={"a": 1}),
]


@pytest.fixture
def damaged(tmp_path: Path) -> Damaged:
    images = tmp_path / "images"
    for folder in ("coco", "vg", "ocr_vqa"):
        (images / folder).mkdir(parents=True)
    noise = Image.frombytes("RGB", (64, 48), random.Random(0).randbytes(64 * 48 * 3))
    noise.save(images / "coco/good.jpg")
    noise.save(images / "vg/good.png")
    noise.save(tmp_path / "outside.jpg")
    noise.convert("P").save(images / "ocr_vqa/book.jpg", format="GIF")
    (images / "coco/cut.jpg").write_bytes((images / "coco/good.jpg").read_bytes()[:-500])
    (images / "vg/page.jpg").write_text("<html>")
    (images / "coco/link.jpg").symlink_to(tmp_path / "outside.jpg")
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    return Damaged(tmp_path / "rows.json", images)


def touched(entries: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Rows by image, id or reason."""
    return {
        entry.get("image") or entry.get("why") or str(entry.get("id")): entry.get("rows") or [entry["row"]]
        for entry in entries
    }


def test_every_damage_is_found_and_none_twice(damaged: Damaged, tmp_path: Path) -> None:
    arguments = map(str, (*damaged, "--out", tmp_path / "report.json"))
    result = CliRunner().invoke(app, ["data", "check", *arguments])
    assert result.exit_code == 2 and "9 of 21 rows fit" in result.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == check(*damaged)
    faults, notes = report["faults"], report["notes"]
    assert touched(faults["missing"]) == {"coco/gone.jpg": [2, 3, 17], "coco/other_gone.jpg": [12]}
    assert touched(faults["broken"]) == {"coco/cut.jpg": [4], "vg/page.jpg": [5]}
    assert touched(faults["escaping"]) == {"../outside.jpg": [7], "coco/link.jpg": [8]}
    assert {entry["row"]: entry["why"] for entry in faults["unlabelled"]} == {
        11: "its last question has no answer",
        12: "it names 1 pictures and marks the places of 0",
        13: "an answer is empty",
        18: "it has no conversations",
        19: "it is not an object with conversations",
    }
    assert [entry["id"] for entry in faults["unlabelled"]] == ["unanswered", "unmarked", "empty", "fields", None]
    assert touched(notes["misnamed"]) == {"ocr_vqa/book.jpg": [6]}
    assert [(entry["id"], entry["rows"]) for entry in notes["duplicate_ids"]] == [("7", [9, 10])]
    assert [entry["row"] for entry in notes["without_id"]] == [15]
    assert [(entry["row"], entry["id"]) for entry in notes["over_long"]] == [(14, "long")]
    assert [(entry["row"], entry["image"]) for entry in notes["repeated_images"]] == [
        (17, "coco/good.jpg"), (17, "coco/gone.jpg")
    ]  # fmt: skip
    assert (report["rows"], report["rows_with_images"], report["images"]) == (21, 18, 9)
    bad = {2, 3, 4, 5, 7, 8, 11, 12, 13, 17, 18, 19}
    assert usable(report).tolist() == [row for row in range(len(ROWS)) if row not in bad]
    assert report["usable_rows"] == len(ROWS) - len(bad)
    assert report["lengths"]["estimated"] and "1.3" in report["lengths"]["unit"]
    assert sum(part["rows"] for part in report["lengths"]["histogram"]) == report["usable_rows"]


def test_mending_a_damage_removes_it_alone(damaged: Damaged) -> None:
    before = check(*damaged)
    Image.new("RGB", (8, 8)).save(damaged.images / "coco/gone.jpg")
    after = check(*damaged)
    wanted = copy.deepcopy(before["faults"])
    wanted["missing"] = [entry for entry in wanted["missing"] if entry["image"] != "coco/gone.jpg"]
    assert after["faults"] == wanted
    assert after["notes"] == before["notes"]
    assert set(usable(after)) - set(usable(before)) == {2, 3, 17}


def test_worker_processes_find_the_same(damaged: Damaged) -> None:
    assert check(*damaged, workers=2) == check(*damaged, workers=1)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    words = {word for row in ROWS if isinstance(row, dict) for turn in row.get("conversations", ())
             for word in turn["value"].split()}  # fmt: skip
    word_tokenizer(words).save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_with_a_tokenizer_lengths_and_refusals_are_those_of_training(damaged: Damaged, tokenizer: Path) -> None:
    rows = [
        pictured("a", "coco/good.jpg"),
        {"id": "long", "conversations": said("what", "word " * 90)},
        {"id": "late", "conversations": said("word " * 90, "a")},
        {"id": "says", "conversations": said("what", "an <image> tag")},
        {"id": "far", "image": ["coco/good.jpg"] * 5, "conversations": said("<image>" * 5, "a")},
    ]
    damaged.json_path.write_text(json.dumps(rows))
    report = check(*damaged, tokenizer=tokenizer, max_length=100, image_tokens=20)
    words = word_tokenizer(["any"])
    encoded = encode(v1(from_llava(rows[0])), words, [20])
    assert report["lengths"]["total"] == len(encoded.ids) + report["notes"]["over_long"][0]["tokens"]
    assert [entry["row"] for entry in report["notes"]["over_long"]] == [1, 2, 4]
    assert not report["lengths"]["estimated"]
    reasons = {entry["row"]: entry["why"] for entry in report["faults"]["unlabelled"]}
    assert sorted(reasons) == [2, 3, 4]
    for row, why in ((2, "nothing of its answers is within the first 100"), (3, "says <image>"), (4, "first 100")):
        assert why in reasons[row]


def test_plain_wants_one_picture_and_one_answer(damaged: Damaged) -> None:
    report = check(*damaged, template="plain")
    refused = [entry["row"] for entry in report["faults"]["unlabelled"]]
    assert refused == [1, 11, 12, 13, 16, 17, 18, 19]
    assert report["padding"]["rows_a_device"] == 32
    assert report["lengths"]["histogram"][2]["rows"] == 6  # 257 to 384: a picture and a few words


def test_interruption_leaves_no_report_and_no_files(
    damaged: Damaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "out").mkdir()
    seen: set[str] = set()

    def interrupt_at(stage: str) -> Callable[[str, int, int], None]:
        def report(what: str, done: int, total: int) -> None:
            seen.add(what)
            assert 0 < done <= total
            if what == stage:
                raise KeyboardInterrupt

        return report

    for stage in ("indexing", "measuring rows", "looking at images"):
        with pytest.raises(KeyboardInterrupt):
            check(*damaged, out=tmp_path / "out" / "report.json", report=interrupt_at(stage))
        assert stage in seen
        assert os.listdir(tmp_path / "out") == os.listdir(tmp_path / "tmp") == []


def test_a_set_of_nothing_usable_has_no_statistics(damaged: Damaged) -> None:
    damaged.json_path.write_text(json.dumps(ROWS[2:4]))
    report = check(*damaged)
    assert (report["usable_rows"], report["lengths"], report["padding"]) == (0, None, None)
    assert len(usable(report)) == 0
    assert "0 of 2 rows" in render(report)


def test_mistakes_are_one_line(damaged: Damaged, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"images": tmp_path / "none"}, "no image folder at"),
        ({"template": "v2"}, "no template 'v2'; choose one of v1, plain"),
        ({"tokenizer": tmp_path}, "cannot use the tokenizer in .*it has no tokenizer"),
        ({"json_path": tmp_path / "none.json"}, "cannot read .*none.json"),
    ]
    for change, error in cases:
        with pytest.raises(UserError, match=error):
            check(**{**damaged._asdict(), **change})


def render(report: dict[str, Any]) -> str:
    console = Console(file=StringIO(), width=150)
    console.print(as_table(report))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_table_counts_and_gives_an_example(damaged: Damaged) -> None:
    rows = [*ROWS, pictured("ansi", "coco/\x1b[31m[bold]red.jpg")]
    damaged.json_path.write_text(json.dumps(rows))
    text = render(check(*damaged))
    assert "9 of 22 rows" in text
    missing = next(line for line in text.splitlines() if "missing images" in line)
    assert [word for word in missing.split() if word.isdigit()][:2] == ["3", "5"]
    assert "coco/gone.jpg" in missing
    assert "\x1b" not in text
    for words in ("random batches of 16", "LLaVA's grouping, 8 x 16", "packs of 4,096 tokens", "words x 1.3"):
        assert words in text


def test_histogram_edges_hold_each_length_once(damaged: Damaged) -> None:
    damaged.json_path.write_text(json.dumps([{"id": n, "conversations": said("w " * n, "a")} for n in range(1, 120)]))
    lengths = check(*damaged, max_length=160)["lengths"]
    edges = [(part["from"], part["to"]) for part in lengths["histogram"]]
    assert edges == [*((low, low + 9) for low in range(1, 160, 10)), (161, None)]
    assert sum(part["rows"] for part in lengths["histogram"]) == 119
    assert lengths["histogram"][-1]["rows"] == len(check(*damaged, max_length=160)["notes"]["over_long"])
    assert np.isclose(lengths["mean"] * 119, lengths["total"], rtol=1e-3)
