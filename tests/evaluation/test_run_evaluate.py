"""A run from its start to its files, with interruptions, failures and several processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Asked, Reply
from blindspot.evaluation.run.questions import Condition
from blindspot.rendezvous import Ranks

from .run_toy import Slow, collection, evaluation, prompts, run

TOY = Path(__file__).with_name("run_toy.py")
FILES = ("run.json", "one/answers.jsonl", "two/answers.jsonl")


def start(out: Path, log: Path, seconds: float, *failing: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(TOY), str(out), str(log), str(seconds), *failing],
        env={**os.environ, "PYTHONPATH": str(TOY.parents[2]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def held(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.json*")}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The files of a run that nothing disturbed."""
    assert not run(tmp_path / "whole", Slow(tmp_path / "whole.log"))
    return held(tmp_path / "whole")


def test_a_run_leaves_its_identity_and_every_answer_in_order(tmp_path: Path, whole: dict[str, bytes]) -> None:
    assert set(whole) == set(FILES)
    rows = [json.loads(line) for line in whole["two/answers.jsonl"].splitlines()]
    assert [row["id"] for row in rows] == [f"q{n}" for n in range(40)]
    assert rows[10]["raw"] == "Question 10? (12, 20) é\n"
    assert (rows[10]["benchmark"], rows[10]["images"], rows[10]["stopped"]) == ("two", [2], "length")
    told = json.loads(whole["run.json"])
    assert told["answerer"] == {"model": "slow"}
    assert (told["prompts"], told["limit"], told["condition"]["blind"]) == ("toy", None, None)
    assert {"blindspot", "torch", "transformers", "python"} <= told["versions"].keys()
    assert told["benchmarks"]["one"] | {"asked": ""} == {
        "form": "tsv",
        "digest": "d1",
        "questions": 40,
        "asked": "",
        "notes": ["a note"],
    }


@pytest.mark.parametrize(
    "left", ["", "answers.part.jsonl", "answers.part-1.jsonl", "errors.jsonl", ".answers.jsonl.k3x"]
)
def test_a_complete_run_asks_nothing_again_even_if_killed_at_its_very_end(
    tmp_path: Path, whole: dict[str, bytes], left: str
) -> None:
    if left:
        (tmp_path / "whole/one" / left).write_text("{}\n")  # the answers are in place, what they were made from is too
    assert not run(tmp_path / "whole", Slow(tmp_path / "again.log"))
    assert not (tmp_path / "again.log").exists()
    assert held(tmp_path / "whole") == whole


def test_killed_again_and_again_it_ends_with_the_same_files_and_asks_nothing_twice(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out, log = tmp_path / "killed", tmp_path / "killed.log"
    kills = 0
    for more in (1, 7, 16, 30):
        process = start(out, log, 0.02)
        before = len(log.read_text().splitlines()) if log.exists() else 0
        while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < before + more):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        parts = [line for part in out.rglob("answers.part.jsonl") for line in part.read_bytes().splitlines()]
        assert len(parts) == len(set(parts))
    assert kills == 4
    process = start(out, log, 0)
    assert process.wait() == 0
    assert held(out) == whole
    answered = [line for line in log.read_text().splitlines() if not line.startswith("asked")]
    assert 80 <= len(answered) <= 80 + kills  # what was under way at a kill never came back, and only that


def test_what_failed_is_listed_and_asked_again_alone(tmp_path: Path, whole: dict[str, bytes]) -> None:
    out, log = tmp_path / "failed", tmp_path / "failed.log"
    unanswered = run(out, Slow(log, failing=frozenset({"q7", "q9"})))
    assert unanswered == {name: dict.fromkeys(("q7", "q9"), "it is out of order") for name in ("one", "two")}
    assert not (out / "one/answers.jsonl").exists()
    assert json.loads((out / "one/errors.jsonl").read_text().splitlines()[0])["error"] == "it is out of order"
    log.unlink()
    assert not run(out, Slow(log))
    assert sorted(log.read_text().splitlines()) == ["asked 2", "asked 2", "q7", "q7", "q9", "q9"]
    assert held(out) == whole


def test_a_missing_picture_costs_its_questions_only(tmp_path: Path) -> None:
    def go(*missing: int) -> dict[str, dict[str, str]]:
        return evaluation(Slow(tmp_path / "log"), collection("one", frozenset(missing))).run(tmp_path / "run")

    assert go(3) == {"one": {f"q{n}": "picture 3 is missing" for n in range(3, 40, 8)}}
    assert go() == {}


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), "high"])
def test_a_likelihood_that_is_no_number_is_an_error_of_its_question(tmp_path: Path, value: Any) -> None:
    class Overflowing(Slow):
        def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
            for reply in super().answer(asked):
                yield replace(reply, likelihood={"A": -1.0, "B": value}) if reply.id == "q3" else reply

    found = [
        evaluation(kind(tmp_path / "log"), collection("one")).run(tmp_path / "run") for kind in (Overflowing, Slow)
    ]
    assert found == [{"one": {"q3": f"the likelihood of 'B' is {value}"}}, {}]


@pytest.mark.parametrize("spoilt", ["twice", "unasked", "silent"])
def test_an_answerer_that_breaks_its_word_spoils_nothing(tmp_path: Path, spoilt: str) -> None:
    class Liar(Slow):
        def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
            first, *rest = super().answer(asked)
            yield from rest
            if spoilt == "twice":
                yield rest[0]
            if spoilt == "unasked":
                yield replace(first, id="q999")

    out = tmp_path / "run"
    if spoilt == "silent":
        assert list(run(out, Liar(tmp_path / "log"))["one"].values()) == ["the answerer gave no reply"]
    else:
        with pytest.raises(RuntimeError, match="twice, or without being asked"):
            run(out, Liar(tmp_path / "log"))
    assert not run(out, Slow(tmp_path / "log"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"answerer": "another"}, r'answerer\.model is "slow" there, "another" now'),
        ({"prompts": "paper"}, r'prompts is "toy" there, "paper" now'),
        ({"condition": Condition(blind="grey")}, r'condition\.blind is null there, "grey" now'),
        ({"limit": 3}, r"limit is null there, 3 now"),
        ({"digest": "d2"}, r'one\.digest is "d1" there, "d2" now'),
        ({"ask": lambda question: replace(prompts(question), system="Be brief.")}, r"one\.asked is "),
        ({"ask": lambda question: prompts(question)}, None),
    ],
)
def test_another_run_is_refused_in_the_same_folder(
    tmp_path: Path, whole: dict[str, bytes], changed: dict, said: str | None
) -> None:
    toy = collection("one", digest=changed.pop("digest", "d1"))
    other = evaluation(Slow(tmp_path / "log", name=changed.pop("answerer", "slow")), toy, **changed)
    if said is None:
        assert not other.run(tmp_path / "whole")
    else:
        with pytest.raises(UserError, match=f"holds another run .*{said}"):
            other.run(tmp_path / "whole")
    assert not (tmp_path / "log").exists()
    assert held(tmp_path / "whole") == whole


def test_conditions_reach_the_answerer_and_the_file(tmp_path: Path) -> None:
    def raw(name: str, condition: Condition) -> list[dict]:
        evaluation(Slow(tmp_path / "log"), collection("one"), condition=condition).run(tmp_path / name)
        return [json.loads(line) for line in (tmp_path / name / "one/answers.jsonl").read_text().splitlines()]

    plain, swapped = raw("plain", Condition()), raw("swapped", Condition(swap=True))
    assert (swapped[3]["choices"], swapped[3]["answer"]) == ({"A": "above", "B": "right", "C": "left"}, "B")
    assert swapped[3]["raw"] == plain[3]["raw"].replace("left right above", "above right left")
    assert [row["raw"][-7:-3] for row in raw("none", Condition(blind="none"))] == ["None"] * 40
    assert [row["raw"] for row in raw("grey", Condition(blind="grey"))] == [row["raw"] for row in plain]
    shuffled = raw("shuffled", Condition(blind="shuffled"))
    assert all(row["images"] != before["images"] for row, before in zip(shuffled, plain, strict=True))
    assert raw("likely", Condition(likelihood=True))[3]["likelihood"].keys() == {"A", "B", "C"}


def test_two_processes_share_the_questions_and_leave_the_same_files(tmp_path: Path, whole: dict[str, bytes]) -> None:
    pytest.importorskip("torch.distributed")
    out = tmp_path / "shared"
    port = 20_000 + os.getpid() % 20_000
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    failing = ("q7", "q8")
    processes = [start(out, tmp_path / f"{rank}.log", 0, *failing, RANK=str(rank), **together) for rank in range(2)]
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said[0][0] == said[1][0] != "{}\n"  # both know what failed in either
    assert {path.name for path in (out / "one").iterdir()} == {
        "answers.part.jsonl",
        "answers.part-1.jsonl",
        "errors.jsonl",
    }
    logs = [(tmp_path / f"{rank}.log").read_text() for rank in range(2)]
    assert [log.count("asked 20") for log in logs] == [2, 2]
    assert not run(out, Slow(tmp_path / "last.log"))  # one process takes over from two
    assert held(out) == whole


DYING = """
import os, signal, sys
from pathlib import Path
from run_toy import Slow, run

class Dying(Slow):
    def answer(self, asked):
        for number, reply in enumerate(super().answer(asked)):
            if number == 3 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)
            yield reply

assert not run(Path(sys.argv[1]), Dying(Path(sys.argv[1]).with_suffix(".log")))
"""


def test_processes_that_torchrun_starts_again_go_on(tmp_path: Path, whole: dict[str, bytes]) -> None:
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    paths = os.pathsep.join(map(str, (TOY.parent, TOY.parents[2])))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*torchrun, str(script), str(tmp_path / "run")], env=environment)
    try:
        assert process.wait(90) == 0
    finally:
        process.terminate()  # the processes that it started end with it
    assert held(tmp_path / "run") == whole


def test_a_refusal_of_the_first_process_is_that_of_all() -> None:
    def refuse() -> None:
        raise UserError("the folder is taken")

    class Second(Ranks):
        def gather(self, value: Any) -> list[Any]:
            return [*sent, value]

    class First(Ranks):
        def gather(self, value: Any) -> list[Any]:
            sent.append(value)
            return [value, None]

    sent: list[Any] = []
    for ranks in (First(0, 2), Second(1, 2)):
        with pytest.raises(UserError, match="the folder is taken"):
            ranks.first_does(refuse)
    sent.clear()
    assert [ranks.first_does(lambda: "made") for ranks in (First(0, 2), Second(1, 2))] == ["made", "made"]


def test_a_preview_is_what_would_be_asked(tmp_path: Path) -> None:
    slow, toy = Slow(tmp_path / "log"), collection("one")
    (shown,) = evaluation(slow, toy, condition=Condition(swap=True)).preview(most=2)
    assert [one.prompt.content for one in shown] == [
        (PICTURE, "Question 0? above right left"),
        (PICTURE, "Question 1?"),
    ]
    with pytest.raises(UserError, match="one, question q1: picture 1 is missing"):
        list(evaluation(slow, collection("one", frozenset({1}))).preview(most=2))
