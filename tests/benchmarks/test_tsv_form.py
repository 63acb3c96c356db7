"""VLMEvalKit's TSV, held against pandas, which writes and reads it there."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blindspot.benchmarks.sources import forms
from blindspot.benchmarks.sources.forms import cells, read_tsv

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=12) | st.sampled_from(
    ['"', '""', 'say "no"', "a\tb", "line\nbreak\n", "左边", "יש", "None", "  x ", "'", "\u2028"]
)
TABLE = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1))


@settings(max_examples=50, deadline=None)
@given(table=TABLE, end=st.sampled_from(["\n", "\r\n"]))
@example(table=[['"'], ["\n\n"]], end="\n")
def test_cells_come_back_as_pandas_wrote_them(table: list[list[str]], end: str) -> None:
    written = pd.DataFrame(table).to_csv(sep="\t", index=False, header=False, lineterminator=end)
    assert [[cell.text() for cell in row] for row in cells(io.BytesIO(written.encode()))] == table


@settings(max_examples=50, deadline=None)
@given(table=TABLE)
def test_offsets_point_at_the_bytes_of_each_cell(table: list[list[str]]) -> None:
    written = pd.DataFrame(table).to_csv(sep="\t", index=False, header=False).encode()
    for row in cells(io.BytesIO(written)):
        for cell in row:
            assert written[cell.offset : cell.offset + len(cell.raw)] == cell.raw


def test_a_quote_inside_a_cell_is_text() -> None:
    rows = [[cell.text() for cell in row] for row in cells(io.BytesIO(b'5" wide\ta "b" c\n\n"x"y\tz'))]
    assert rows == [['5" wide', 'a "b" c'], ["xy", "z"]]


def test_pictures_are_the_published_bytes_whatever_the_cell_looks_like(tmp_path: Path, published: Any) -> None:
    first, second, third = (published.picture(n, kind) for n, kind in ((1, "PNG"), (2, "JPEG"), (3, "PNG")))
    fourth = published.picture(4)
    both = [published.text64(second), published.text64(third)]
    broken = published.text64(fourth)
    rows = [
        {"index": 0, "image": published.text64(first), "question": 'a\t"b"\nc', "answer": "A"},
        {"index": 1, "image": "0", "question": "again", "answer": "A"},
        {"index": 2, "image": repr(both), "question": "two", "answer": "A"},
        {"index": 3, "image": "2", "question": "two again", "answer": "A"},
        {"index": 4, "image": json.dumps(both), "question": "as JSON", "answer": "A"},
        {"index": 5, "image": broken[:40] + "\n" + broken[40:], "question": "lines of base64", "answer": "A"},
        {"index": 6, "image": "r" * 64, "question": "of a later row", "answer": "A"},
        {"index": "r" * 64, "image": published.text64(second), "question": "repeated", "answer": "A"},
    ]
    table = read_tsv(published.tsv(tmp_path / "x.tsv", rows))
    seen = [[table.images.read(key) for key in row.images] for row in table.rows]
    assert seen == [[first], [first], [second, third], [second, third], [second, third], [fourth], [second], [second]]
    assert len(table.images) == 4
    assert [row.text("question") for row in table.rows] == [row["question"] for row in rows]


def test_the_digest_sees_text_and_pictures(tmp_path: Path, published: Any) -> None:
    def digest(question: str, number: int) -> str:
        image = published.text64(published.picture(number))
        row = {"index": 0, "image": image, "question": question, "answer": "A"}
        return read_tsv(published.tsv(tmp_path / "x.tsv", [row])).digest

    assert digest("q", 1) == digest("q", 1)
    assert len({digest("q", 1), digest("r", 1), digest("q", 2)}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "!" * 100}, "row 2: its image is not base64 text"),
        ({"image": "A" * 101}, "row 2: its image is not base64 text"),
        ({"image": "77"}, "1 of 2 rows have no picture: row 2 refers to index '77'"),
        ({"image": ""}, "1 of 2 rows have no picture: row 2 is empty there"),
    ],
)
def test_a_bad_picture_names_its_row(
    tmp_path: Path, published: Any, refused: Callable[..., str], change: dict[str, str], message: str
) -> None:
    good = {"index": 0, "image": published.text64(published.picture(0)), "question": "q", "answer": "A"}
    path = published.tsv(tmp_path / "x.tsv", [good, {**good, "index": 1, **change}])
    assert message in refused(read_tsv, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"index\timage\tanswer\n", "no column question (columns: index, image, answer)"),
        (b"", "no column index, question, answer, image (columns: none)"),
        (b"index\timage\tquestion\tanswer\n1\t2\t3\n", "row 1: 3 cells, but the header has 4"),
        (b'index\timage\tquestion\tanswer\n1\t2\t"3\t4\n5\t6\t7\t8\n', "the file ends inside a quoted cell"),
        (b"index\timage\tquestion\tanswer\n1\t2\t\xff\t4\n", "row 1: not UTF-8 text"),
        (b"index\timage\tquestion\xff\tanswer\n1\t2\t3\t4\n", "its header is not UTF-8 text"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, refused: Callable[..., str], content: bytes, message: str) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(content)
    assert message in refused(read_tsv, path)


def test_a_missing_file_and_one_that_changed_are_refused(
    tmp_path: Path, published: Any, refused: Callable[..., str]
) -> None:
    assert "cannot read" in refused(read_tsv, tmp_path / "none.tsv")
    image = published.text64(published.picture(0))
    path = published.tsv(tmp_path / "x.tsv", [{"index": 0, "image": image, "question": "q", "answer": "A"}])
    images = read_tsv(path).images
    path.write_text("something else entirely, with spaces and !", encoding="utf-8")
    assert "changed while it was in use" in refused(images.read, 0)
    path.unlink()
    assert "cannot read" in refused(images.read, 0)


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(
    tmp_path: Path, published: Any, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"index": 0, "image": "A" * 2_000_000, "question": "q", "answer": "A"}
    path = published.tsv(tmp_path / "x.tsv", [row, {**row, "index": 1}, {**row, "index": 2}])
    looked_at = forms._images

    def cut(*arguments: Any) -> Any:
        os.truncate(path, 5_000_000)
        return looked_at(*arguments)

    monkeypatch.setattr(forms, "_images", cut)
    assert "x.tsv: row 3: 2 cells, but the header has 4" in refused(read_tsv, path)
