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

from . import published
from .published import picture, row

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=12) | st.sampled_from(
    ['"', '""', 'say "no"', "a\tb", "line\nbreak\n", "左边", "יש", "None", "  x ", "'", "\u2028"]
)
TABLE = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1))


@settings(max_examples=50)
@given(table=TABLE, end=st.sampled_from(["\n", "\r\n"]))
@example(table=[['"'], ["\n\n"]], end="\n")
def test_cells_come_back_as_pandas_wrote_them(table: list[list[str]], end: str) -> None:
    written = pd.DataFrame(table).to_csv(sep="\t", index=False, header=False, lineterminator=end)
    assert [[cell.text() for cell in row] for row in cells(io.BytesIO(written.encode()))] == table


@settings(max_examples=50)
@given(table=TABLE)
def test_offsets_point_at_the_bytes_of_each_cell(table: list[list[str]]) -> None:
    written = pd.DataFrame(table).to_csv(sep="\t", index=False, header=False).encode()
    for found in cells(io.BytesIO(written)):
        for cell in found:
            assert written[cell.offset : cell.offset + len(cell.raw)] == cell.raw


def test_a_quote_inside_a_cell_is_text() -> None:
    rows = [[cell.text() for cell in row] for row in cells(io.BytesIO(b'5" wide\ta "b" c\n\n"x"y\tz'))]
    assert rows == [['5" wide', 'a "b" c'], ["xy", "z"]]


def test_pictures_are_the_published_bytes_whatever_the_cell_looks_like(tmp_path: Path) -> None:
    both = [published.text64(2, "JPEG"), published.text64(3)]
    broken = published.text64(4)
    rows = [
        row(0, image=published.text64(1), question='a\t"b"\nc'),
        row(1, image="0", question="again"),
        row(2, image=repr(both), question="two"),
        row(3, image="2", question="two again"),
        row(4, image=json.dumps(both), question="as JSON"),
        row(5, image=broken[:40] + "\n" + broken[40:], question="lines of base64"),
        row(6, image="r" * 64, question="of a later row"),
        row(2, index="r" * 64, image=both[0], question="repeated"),
    ]
    table = read_tsv(published.tsv(tmp_path / "x.tsv", rows))
    first, second, third, fourth = (picture(n, "JPEG" if n == 2 else "PNG") for n in (1, 2, 3, 4))
    seen = [[table.images.read(key) for key in row.images] for row in table.rows]
    assert seen == [[first], [first], [second, third], [second, third], [second, third], [fourth], [second], [second]]
    assert len(table.images) == 4
    assert [row.text("question") for row in table.rows] == [row["question"] for row in rows]


def test_the_digest_sees_text_and_pictures(tmp_path: Path) -> None:
    changed = [{}, {"question": "r"}, {"image": published.text64(2)}, {}]
    found = [read_tsv(published.tsv(tmp_path / "x.tsv", [row(1, **change)])).digest for change in changed]
    assert found[0] == found[3]
    assert len(set(found)) == 3


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
    tmp_path: Path, refused: Callable[..., str], change: dict[str, str], message: str
) -> None:
    path = published.tsv(tmp_path / "x.tsv", [row(0), row(1, **change)])
    assert message in refused(read_tsv, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"index\timage\tanswer\n", "no column question (columns: index, image, answer)"),
        (b"", "no column index, question, answer, image (columns: none)"),
        (b"index\timage\tquestion\tanswer\n1\t2\t3\n", "row 1: 3 cells, but the header has 4"),
        (b'index\timage\tquestion\tanswer\n1\t2\t"3\t4\n5\t6\t7\t8\n', "row 1: the file ends inside a quoted cell"),
        (b"index\timage\tquestion\tanswer\n1\t2\t\xff\t4\n", "row 1: not UTF-8 text"),
        (b"index\timage\tquestion\xff\tanswer\n1\t2\t3\t4\n", "x.tsv: header: not UTF-8 text"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, refused: Callable[..., str], content: bytes, message: str) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(content)
    assert message in refused(read_tsv, path)


def test_a_missing_file_and_one_that_changed_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "cannot read" in refused(read_tsv, tmp_path / "none.tsv")
    path = published.tsv(tmp_path / "x.tsv", [row()])
    images = read_tsv(path).images
    path.write_text("something else entirely, with spaces and !", encoding="utf-8")
    assert "changed while it was in use" in refused(images.read, 0)
    path.unlink()
    assert "cannot read" in refused(images.read, 0)


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = published.tsv(tmp_path / "x.tsv", [row(n, image="A" * 2_000_000) for n in range(3)])
    looked_at = forms._images

    def cut(*arguments: Any) -> Any:
        os.truncate(path, 5_000_000)
        return looked_at(*arguments)

    monkeypatch.setattr(forms, "_images", cut)
    assert "x.tsv: row 3: 2 cells, but the header has 4" in refused(read_tsv, path)
