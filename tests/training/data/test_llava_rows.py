"""A LLaVA JSON file as rows by number."""

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blindspot.errors import UserError
from blindspot.model.conversation import RowError, from_llava
from blindspot.training.llava import rows as index
from blindspot.training.llava.rows import BATCH, ROWS, LlavaRows, index_rows


def turns(*values: str) -> list[dict[str, str | None]]:
    speakers = ("human", "gpt") * len(values)
    return [{"from": one, "value": value, "markdown": None} for one, value in zip(speakers, values, strict=False)]


def row(identity: Any, image: Any, *values: str, **more: Any) -> dict[str, Any]:
    named = {} if image is None else {"image": image}
    return {"id": identity, **named, **more, "conversations": turns(*values)}


PRETRAIN = [
    row("004539375", "00453/004539375.jpg", "Describe it.\n<image>", "a cat"),
    row("002239345", "00223/002239345.jpg", "<image>\nSay", "ü", blip_caption="x"),
]
MIX = [
    row("000000033471", "coco/train2017/1.jpg", "<image>\nA?", "b c", "D?", "e"),
    row(2354786, "vg/VG_100K/2.jpg", "F?\n<image>", "g"),
    row("wgByO4Y_0", None, "Write <image> in HTML", "\U0001f600 <image> no", model=""),
    {"id": "wgByO4Y_1", "model": "", "conversations": [{"from": "gpt", "value": "Hello"}, *turns("h?", "i")]},
    row(None, ["a.png", "b.png"], "<image>\n<image>\nWhich?", "the first"),
]
UNUSABLE: list[tuple[Any, str]] = [
    ([1, 2], "not an object"),
    ({"id": "x", "image": "a.jpg"}, "has no conversations"),
    ({"id": "x", "conversations": "hello"}, "not a list of turns"),
    ({"id": "x", "conversations": [{"from": "human"}]}, "not a list of turns"),
    ({"id": "x", "conversations": turns("a", "b", "c") + turns("d", "e")}, "do not alternate"),
    (row("x", "a.jpg", "a", "b"), "names 1 pictures and marks the places of 0"),
    (row("x", 7, "<image>a", "b"), "neither a path nor a list of paths"),
    (row("x", ["a.jpg", None], "<image><image>a", "b"), "neither a path nor a list"),
    (row("x", None, "a", "half \ud83d of it"), "half a character"),
    (row("\udc00", None, "a", "b"), "half a character"),
]


@pytest.fixture
def indexed(tmp_path: Path) -> Callable[[list[Any]], LlavaRows]:
    def make(rows: list[Any], lines: bool = False) -> LlavaRows:
        text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
        (tmp_path / "rows.json").write_text(text)
        index_rows(tmp_path / "rows.json", tmp_path / "index")
        return LlavaRows(tmp_path / "index", tmp_path / "images")

    return make


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("published", [PRETRAIN, MIX])
def test_published_rows_come_back(indexed: Callable[..., LlavaRows], published: list[Any], lines: bool) -> None:
    rows = indexed(published, lines=lines)
    assert len(rows) == len(published)
    assert [rows[number].messages for number in range(len(rows))] == [from_llava(one) for one in published]
    assert not any(rows.column("problem"))
    assert rows.images_root == rows.folder.parent / "images"


def test_ids_and_images(indexed: Callable[..., LlavaRows]) -> None:
    indexed_rows = indexed([*MIX, row(None, "", "a", "b")])
    rows = [indexed_rows[number] for number in range(6)]
    assert [one.id for one in rows] == ["000000033471", "2354786", "wgByO4Y_0", "wgByO4Y_1", "row 4", "row 5"]
    assert [one.images for one in rows] == [
        ("coco/train2017/1.jpg",), ("vg/VG_100K/2.jpg",), (), (), ("a.png", "b.png"), ()
    ]  # fmt: skip
    assert [values.tolist() for values in indexed_rows.lengths()] == [[6, 3, 7, 3, 5, 2], [1, 1, 0, 0, 2, 0]]


def test_a_row_that_cannot_be_trained_on_says_why_and_moves_no_other(indexed: Callable[..., LlavaRows]) -> None:
    rows = indexed([entry for bad, _ in UNUSABLE for entry in (bad, PRETRAIN[0])])
    problems = list(rows.column("problem"))
    assert len(problems) == 2 * len(UNUSABLE)
    for number, (_, why) in enumerate(UNUSABLE):
        assert why in problems[2 * number] and problems[2 * number + 1] is None
        with pytest.raises(RowError, match=why):
            rows[2 * number]
        assert rows[2 * number + 1].images == (PRETRAIN[0]["image"],)


def test_an_index_is_made_once_and_again_when_the_bytes_change(tmp_path: Path) -> None:
    source, folder = tmp_path / "a.json", tmp_path / "index"
    told: list[tuple[int, int]] = []

    def made() -> bool:
        before = (folder / ROWS).stat().st_ino if (folder / ROWS).exists() else None
        told.clear()
        index_rows(source, folder, lambda done, total: told.append((done, total)))
        assert os.listdir(folder) == [ROWS]
        return (folder / ROWS).stat().st_ino != before

    source.write_text(json.dumps(PRETRAIN))
    assert made()
    assert told[-1] == (source.stat().st_size, source.stat().st_size)
    assert not made()
    os.utime(source, (1, 1))
    assert not made()
    source.write_text(json.dumps(MIX))
    assert made()
    assert len(LlavaRows(folder)) == len(MIX)
    data = (folder / ROWS).read_bytes()
    (folder / ROWS).write_bytes(data[:-100])
    assert made()
    assert (folder / ROWS).read_bytes() != data[:-100]


def test_an_index_of_another_version_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text(json.dumps(MIX))
    monkeypatch.setattr(index, "FORMAT", "0")
    index_rows(tmp_path / "a.json", tmp_path)
    monkeypatch.undo()
    with pytest.raises(UserError, match="another version"):
        LlavaRows(tmp_path)
    index_rows(tmp_path / "a.json", tmp_path)
    assert len(LlavaRows(tmp_path)) == len(MIX)


def test_a_file_that_cannot_be_read_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    source, folder = tmp_path / "a.json", tmp_path / "index"
    source.write_text(json.dumps(PRETRAIN))
    index_rows(source, folder)
    before = (folder / ROWS).read_bytes()
    for text, error in ((json.dumps(MIX)[:-30], "breaks off in row 4"), ("[]", "has no rows"), ("", "is empty")):
        source.write_text(text)
        with pytest.raises(UserError, match=error):
            index_rows(source, folder)
        assert os.listdir(folder) == [ROWS]
        assert (folder / ROWS).read_bytes() == before
    with pytest.raises(UserError, match=r"cannot read .*nothing.json: No such file"):
        index_rows(tmp_path / "nothing.json", folder)
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        index_rows(tmp_path, folder)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "a.json"
    source.write_text(json.dumps(PRETRAIN))
    with pytest.raises(UserError, match="changed while it was read"):
        index_rows(source, tmp_path / "index", lambda done, total: os.utime(source, (5, 5)))
    assert os.listdir(tmp_path / "index") == []


def test_no_index_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no indexed rows"):
        LlavaRows(tmp_path)
    (tmp_path / ROWS).write_bytes(b"ARROW1 and no more")
    with pytest.raises(UserError, match="damaged"):
        LlavaRows(tmp_path)


def test_rows_outside_and_copies_in_other_processes(indexed: Callable[..., LlavaRows]) -> None:
    rows = indexed(MIX)
    copy = pickle.loads(pickle.dumps(rows))
    assert [copy[number] for number in range(len(copy))] == [rows[number] for number in range(len(MIX))]
    assert (copy.images_root, copy.source) == (rows.images_root, rows.source)
    for number in (-1, len(MIX)):
        with pytest.raises(IndexError):
            rows[number]


def test_a_large_set_is_indexed_fast_and_read_from_the_mapped_file(tmp_path: Path) -> None:
    answer = "word " * 150
    with (tmp_path / "a.json").open("w") as file:
        file.write("[")
        for number in range(20_000):
            file.write(json.dumps(row(number, f"{number}.jpg", f"<image>\n{number}?", answer)) + ", ")
        file.write(json.dumps(MIX[0]) + "]")
    start = time.process_time()
    index_rows(tmp_path / "a.json", tmp_path / "index")
    assert time.process_time() - start < 10
    allocated = pa.total_allocated_bytes()
    rows = LlavaRows(tmp_path / "index")
    assert len(rows) == 20_001
    assert [batch.num_rows for batch in rows.table.to_batches()] == [BATCH] * 20 + [1]
    assert pa.total_allocated_bytes() == allocated, "batches were copied, not mapped"
    for number in (0, 999, 1000, 19_999):
        assert rows[number].images == (f"{number}.jpg",)
        assert rows[number].messages[0]["content"][1]["text"] == f"{number}?"
    assert rows[20_000].id == "000000033471"
