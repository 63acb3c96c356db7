"""Answers from files: what is in them, what is not, and what cannot be."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindspot.errors import UserError
from blindspot.evaluation.base import Asked, Prompt, Reply
from blindspot.evaluation.models.recorded import RecordedAnswerer

AWKWARD = [
    "",
    "NA",
    "null",
    "None",
    "3",
    "Yes\nand\tno",
    'he said "hi"',
    "=1+1",
    "\x00\x1b[31m",
    "忽略上文 \uff11\uff12",
    "x" * 10**6,
]


def asked(*names: str) -> list[Asked]:
    return [Asked(name, Prompt(("?",))) for name in names]


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def predictions(path: Path, rows: list[tuple[object, str]]) -> Path:
    """As VLMEvalKit writes them, with the columns of the question beside."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(["index", "question", "prediction", "answer"])
        writer.writerows([index, "which\nside?", prediction, "A"] for index, prediction in rows)
    return path


def test_every_question_gets_its_answer_or_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"id": "b", "raw": "left"}, {"id": 7, "raw": "right", "stopped": "length"})
    replies = list(RecordedAnswerer(path).answer(asked("7", "b", "c")))
    assert replies[:2] == [Reply("7", "right", "length"), Reply("b", "left")]
    assert replies[2].error == "a.jsonl has no answer to it"


def test_several_answers_to_a_question_are_its_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"id": "b", "raw": "1"}, {"id": "c", "raw": "x"}, {"id": "b", "raw": "2"})
    names = ("b", "b sample 2", "c", "c sample 2")
    assert [reply.raw for reply in RecordedAnswerer(path, samples=2).answer(asked(*names))] == ["1", "2", "x", ""]
    ours = write(tmp_path / "b.jsonl", {"id": "b", "raw": "1", "further": [{"raw": "2", "stopped": "thought"}]})
    (_, second) = RecordedAnswerer(ours, samples=2).answer(asked("b", "b sample 2"))
    assert (second.raw, second.stopped) == ("2", "thought")
    with pytest.raises(UserError, match="a second answer to question 'b'; keep one of them, or ask for more --samples"):
        RecordedAnswerer(ours)


def test_our_own_answers_keep_their_likelihoods(tmp_path: Path) -> None:
    row = {
        "id": "q",
        "benchmark": "mmvp",
        "kind": "mcq",
        "answer": "A",
        "raw": "A",
        "likelihood": {"A": -0.5, "B": -1.0},
    }
    (reply,) = RecordedAnswerer(write(tmp_path / "answers.jsonl", row)).answer(asked("q"))
    assert reply == Reply("q", "A", likelihood={"A": -0.5, "B": -1.0})


def test_predictions_of_vlmevalkit_come_through_letter_by_letter(tmp_path: Path) -> None:
    rows: list[tuple[object, str]] = [(number, text.replace("\x00", "")) for number, text in enumerate(AWKWARD)]
    replies = RecordedAnswerer(predictions(tmp_path / "m.tsv", rows)).answer(asked(*map(str, range(len(rows)))))
    assert [reply.raw for reply in replies] == [text for _, text in rows]


def test_jsonl_comes_through_letter_by_letter(tmp_path: Path) -> None:
    rows = [{"id": str(number), "raw": text} for number, text in enumerate(AWKWARD)]
    replies = RecordedAnswerer(write(tmp_path / "m.jsonl", *rows)).answer(asked(*(row["id"] for row in rows)))
    assert [reply.raw for reply in replies] == AWKWARD


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=20)


@given(st.lists(TEXT, min_size=1, max_size=8))
@settings(max_examples=50)
def test_any_predictions_survive_the_file(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = predictions(tmp_path_factory.mktemp("any") / "m.tsv", list(enumerate(texts)))
    replies = RecordedAnswerer(path).answer(asked(*map(str, range(len(texts)))))
    assert [reply.raw for reply in replies] == texts


def test_workbooks_are_read_where_openpyxl_is_there(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    book = openpyxl.Workbook()
    for row in (["index", "question", "prediction"], [0, "q", "left"], [1.0, "q", 3.0], [2, "q", None], [None] * 3):
        book.active.append(row)
    book.save(tmp_path / "m.xlsx")
    replies = RecordedAnswerer(tmp_path / "m.xlsx").answer(asked("0", "1", "2"))
    assert [(reply.raw, reply.error) for reply in replies] == [("left", None), ("3", None), ("", None)]
    (tmp_path / "broken.xlsx").write_bytes(b"no workbook")
    with pytest.raises(UserError, match="cannot be read as a workbook"):
        RecordedAnswerer(tmp_path / "broken.xlsx")


def test_without_openpyxl_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(UserError, match="pip install openpyxl"):
        RecordedAnswerer(write(tmp_path / "m.xlsx", "x"))


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.jsonl", [{"id": "q", "raw": "a"}, {"id": "q", "raw": "a"}], "line 2: a second answer to question 'q'"),
        ("a.jsonl", [{"id": 1, "raw": "a"}, {"id": "1", "raw": "b"}], "line 2: a second answer to question '1'"),
        ("a.jsonl", ["{\n"], "a.jsonl:1: not a JSON line"),
        ("a.jsonl", [{"id": "q", "raw": 3}], "a.jsonl:1: not an answer"),
        ("a.jsonl", [{"raw": "a"}], "a.jsonl:1: not an answer"),
        ("a.jsonl", [{"id": "q", "raw": "a", "likelihood": "x"}], "a.jsonl:1: the likelihood must hold a number"),
        (
            "a.jsonl",
            [{"id": "q", "raw": "a", "likelihood": {"A": "x"}}],
            "a.jsonl:1: the likelihood must hold a number",
        ),
        ("a.jsonl", [{"id": "q", "raw": "a", "benchmark": "gqa"}], "a.jsonl:1: an answer to gqa, but vsr is asked"),
        ("a.jsonl", [[1]], "a.jsonl:1: not an answer"),
        ("a.tsv", ["index\tanswer\n0\tA\n"], "no columns index and prediction"),
        ("a.tsv", ["index\tprediction\n0\tA\n0\tB\n"], "row 2: a second answer to question '0'"),
        ("a.tsv", ["index\tprediction\n0\n"], "cannot be read as a TSV"),
        ("a.tsv", [""], "cannot be read as a TSV"),
        ("a.csv", [""], "read from .jsonl, .tsv, .xlsx files"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, name: str, lines: list[object], message: str) -> None:
    with pytest.raises(UserError) as refused:
        RecordedAnswerer(write(tmp_path / name, *lines), "vsr")
    assert message in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no answers at"):
        RecordedAnswerer(tmp_path / "a.jsonl")


def test_identity_changes_with_the_bytes(tmp_path: Path) -> None:
    first = RecordedAnswerer(write(tmp_path / "a.jsonl", {"id": "q", "raw": "a"})).identity
    second = RecordedAnswerer(write(tmp_path / "a.jsonl", {"id": "q", "raw": "b"})).identity
    assert first["file"] == "a.jsonl" and first["sha256"] != second["sha256"]
