"""What a run folder holds, and what it refuses."""

import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Prompt, Reply
from blindspot.evaluation.run.folder import claim, default_folder, finish, finished, mend, part, read_parts
from blindspot.evaluation.run.questions import AS_PUBLISHED, Asking, Condition

from .run_toy import collection


def identity(*benchmarks: str, **changed: Any) -> dict[str, Any]:
    told = {"answerer": {"model": "m", "weights": "1"}, "prompts": "plain", "versions": {"torch": "2"}, **changed}
    return {**told, "benchmarks": {name: {"digest": f"of {name}"} for name in benchmarks}}


def test_a_folder_takes_more_benchmarks_of_the_same_run(tmp_path: Path) -> None:
    claim(tmp_path / "r", identity("vsr"), False)
    first = (tmp_path / "r/run.json").read_bytes()
    claim(tmp_path / "r", identity("vsr"), False)
    assert (tmp_path / "r/run.json").read_bytes() == first
    claim(tmp_path / "r", identity("gqa"), False)
    assert json.loads((tmp_path / "r/run.json").read_text()) == identity("vsr", "gqa")


@pytest.mark.parametrize("name", ["pictures", "adapter"])
def test_what_is_measured_or_told_makes_no_other_run(tmp_path: Path, name: str) -> None:
    first, again = ({"model": "m", name: value} for value in ("logits differ by 5.1%", "logits differ by 5.2%"))
    claim(tmp_path, identity("vsr", answerer=first), False)
    claim(tmp_path, identity("vsr", answerer=again), False)
    assert json.loads((tmp_path / "run.json").read_text())["answerer"] == first


def test_libraries_may_change_once_all_is_answered(tmp_path: Path) -> None:
    claim(tmp_path, identity("vsr"), False)
    with pytest.raises(
        UserError, match=r'holds another run .versions.torch is "2" there, "3" now.; choose another --out'
    ):
        claim(tmp_path, identity("vsr", versions={"torch": "3"}), False)
    claim(tmp_path, identity("vsr", versions={"torch": "3"}), True)
    assert json.loads((tmp_path / "run.json").read_text())["versions"] == {"torch": "2"}


@pytest.mark.parametrize("held", ["", "[]", '{"benchmarks": 3}', "\x00"])
def test_a_run_file_that_is_none_is_one_line(tmp_path: Path, held: str) -> None:
    (tmp_path / "run.json").write_text(held)
    with pytest.raises(UserError, match=r"cannot read .*run\.json"):
        claim(tmp_path, identity("vsr"), False)


def test_every_condition_has_a_folder_of_its_own() -> None:
    def name(model: str, prompts: str = "auto", limit: int | None = None, **condition: Any) -> str:
        return default_folder(model, prompts, Condition(**condition), limit).as_posix()

    assert name("llava-hf/llava-1.5-7b-hf") == "runs/eval/llava-hf-llava-1.5-7b-hf"
    assert name("runs/miniature/models/clip-seed0/") == "runs/eval/miniature-clip-seed0"
    assert name("runs/paper/clip-seed0/instruct/model") == "runs/eval/paper-clip-seed0"
    assert name("/data/runs/s2/model") == "runs/eval/data-s2"
    assert name("org/model") == "runs/eval/org-model"
    assert name("m", "paper", 10, blind="grey") == "runs/eval/m-prompts-paper-blind-grey-limit-10"
    assert name("m", swap=True, likelihood=True) == "runs/eval/m-swap-likelihood"
    assert name("../..") == "runs/eval/model"


def test_answers_survive_a_line_that_was_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with part(tmp_path, 0) as write:
        write(Reply("q0", "Ja\u2028\x00", "end", {"A": -1.5}))
        write(Reply("q1", "x" * 200_000))
    path = tmp_path / "answers.part.jsonl"
    whole = path.read_bytes()
    for end in (b'{"id": "q2", "ra', b'{"id": "q2", "raw": "' + b"y" * 150_000, b""):
        path.write_bytes(whole + end)
        assert list(read_parts(tmp_path)) == ["q0", "q1"]
        mend(tmp_path)
        assert path.read_bytes() == whole
        assert not capsys.readouterr().err
    path.write_bytes(whole[:7])
    assert read_parts(tmp_path) == {}
    path.write_bytes(whole)
    with part(tmp_path, 2) as write:
        write(Reply("q2", "z"))
    assert read_parts(tmp_path)["q0"] == Reply("q0", "Ja\u2028\x00", "end", {"A": -1.5})
    assert list(read_parts(tmp_path)) == ["q2", "q0", "q1"]


def test_a_full_disk_is_one_line_and_costs_no_answer(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*answers\.part\.jsonl: .*; free the disk"):  # noqa: SIM117
            with part(tmp_path, 0) as write:
                for number in range(2000):
                    write(Reply(f"q{number}", "y" * 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = list(read_parts(tmp_path))
    assert len(kept) > 850 and kept == [f"q{number}" for number in range(len(kept))]


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"id": "q0"}', b"3", b"\xff", b""])
def test_a_damaged_line_is_said_once_and_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: bytes
) -> None:
    path = tmp_path / "answers.part-7.jsonl"  # of more processes than there are now
    with part(tmp_path, 7) as write:
        write(Reply("q0", "left"))
    path.write_bytes(line + b"\n" + path.read_bytes())
    mend(tmp_path)
    assert list(read_parts(tmp_path)) == ["q0"]
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{path}:1: " in said
    mend(tmp_path)
    assert not capsys.readouterr().err


def test_no_flipped_bit_changes_an_answer(tmp_path: Path) -> None:
    replies = {f"q{n}": Reply(f"q{n}", "left 10", "end", {"A": -1.5}) for n in range(3)}
    with part(tmp_path, 0) as write:
        for reply in replies.values():
            write(reply)
    path = tmp_path / "answers.part.jsonl"
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 3):  # each bit of some byte, some bit of each byte
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        read = read_parts(tmp_path)
        assert len(read) >= 1 and read.items() <= replies.items()


def test_finished_answers_are_whole_rows_in_the_order_of_the_questions(tmp_path: Path) -> None:
    toy = collection("toy")
    three, two = (
        Asking.of(
            replace(toy, questions=toy.questions[:count]),
            lambda question: Prompt((PICTURE, question.prompt), system="Be kind."),
            AS_PUBLISHED,
            None,
        )
        for count in (3, 2)
    )
    with part(tmp_path, 0) as write:
        for name in ("q2", "q0", "q1"):
            write(Reply(name, f"to {name}", likelihood={"A": -1.0} if name == "q0" else None))
    assert not finished(tmp_path, three)
    finish(tmp_path, three, {})
    assert finished(tmp_path, three)
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "id": "q0",
        "benchmark": "toy",
        "kind": "mcq",
        "choices": {"A": "left", "B": "right", "C": "above"},
        "answer": "B",
        "raw": "to q0",
        "stopped": "end",
        "likelihood": {"A": -1.0},
        "prompt": "Be kind.\n<image>\nQuestion 0?",
        "groups": {"cluster": "picture 0"},
        "images": [0],
    }
    assert not {"choices", "likelihood"} & rows[1].keys()
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]
    with pytest.raises(UserError, match="does not hold one answer to each of the 2 questions"):
        finished(tmp_path, two)
