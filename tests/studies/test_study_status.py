"""Where a run is, told from its folder alone: at work, stopped, failed, done, and large."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspot.errors import UserError
from blindspot.files import holder, locked
from blindspot.studies.engine import StepFailure
from blindspot.studies.status import read_status
from blindspot.studies.step import Step
from tests.studies.conftest import wait_for

RunToy = Callable[..., str]
Command = Callable[..., subprocess.Popen[str]]
ROOT = Path(__file__).parents[2]


def told(run: Path) -> dict[str, Any]:
    """What ``--json`` prints."""
    return json.loads(json.dumps(read_status(run).to_dict()))


def steps_of(arms: int, seeds: int) -> list[Step]:
    """Those of a study of real size, with made-up keys."""
    steps: list[Step] = []
    for arm in (f"arm{number}" for number in range(arms)):
        for seed in range(seeds):
            made: dict[str, str] = {}
            for kind, stage in [("connector", None), ("evaluate", "connector"), ("instruct", None),
                                ("evaluate", "instruct")]:  # fmt: skip
                name = "/".join(part for part in (kind, stage, arm, f"seed{seed}") if part)
                steps.append(Step(name, kind, arm, seed, stage, {}, made, 100.0, f"{len(steps):064d}"))
                made = {kind: name} if kind != "evaluate" else made
    return steps


def write_run(run: Path, steps: list[Step], done: int, began: int) -> None:
    """A folder in which the first steps are done, which took half as long as planned, and the next ones began."""
    arms = [{"id": arm, "label": arm.upper()} for arm in dict.fromkeys(step.arm for step in steps) if arm]
    keys = ("id", "kind", "arm", "seed", "stage", "folder", "key", "inputs", "estimate")
    rows = [{key: getattr(step, key) for key in keys} for step in steps]
    run.mkdir(parents=True, exist_ok=True)
    (run / "plan.json").write_text(json.dumps({"title": "Made up", "arms": arms, "steps": rows}))
    for number, step in enumerate(steps[: done + began]):
        folder = run / step.folder
        folder.mkdir(parents=True)
        (folder / "log.jsonl").write_text(
            '{"step": 5, "steps": 20, "loss": 1.5, "seconds_left": 30.0}\n{"step": 6, "st'
        )
        if number < done:
            (folder / "done.json").write_text(json.dumps({"key": step.key, "seconds": 50.0, "files": {}}))
        else:
            (folder / ".started").touch()


def test_a_run_at_work_is_told_without_disturbing_it(tmp_path: Path, command: Command, run_toy: RunToy) -> None:
    process = command("study", "toy.yaml", "--out", "run", "--workers", "2", TOY_BREAK="data=hang")
    run = tmp_path / "run"
    wait_for(lambda: list(run.glob("steps/data-*/checkpoint.json")), process)
    status = told(run)
    assert status["process"] == str(process.pid)
    (data,) = status["running"]
    assert (data["id"], data["at"]) == ("data", None) and 0 <= data["seconds"] < 15
    by_phase = {row["phase"]: (row["steps"], row["done"], row["running"], row["to_do"]) for row in status["phases"]}
    assert by_phase["data"] == (1, 0, 1, 0) and by_phase["encoder"] == (3, 0, 0, 3)
    assert by_phase["all"] == (17, 0, 1, 16)
    process.kill()
    process.communicate(timeout=5)
    while holder(run):
        time.sleep(0.01)
    status = told(run)
    assert (status["process"], status["running"], status["failures"]) == (None, [], [])
    run_toy(run)
    status = told(run)
    assert (status["phases"][-1]["done"], status["phases"][-1]["seconds_left"]) == (17, 0)
    assert not list(run.rglob(".started"))


@pytest.mark.parametrize(
    ("breakage", "says"),
    [
        ("text=user", "text/seed0: the data is crooked; straighten it"),
        ("text=kill", "text/seed0: its worker process was killed, most likely because memory ran out"),
        ("text=bug", "bug"),  # the last line of its traceback
    ],
)
def test_what_failed_is_told_until_it_is_repeated(
    tmp_path: Path, run_toy: RunToy, monkeypatch: pytest.MonkeyPatch, breakage: str, says: str
) -> None:
    monkeypatch.setenv("TOY_BREAK", breakage)
    with pytest.raises((UserError, StepFailure)):
        run_toy(tmp_path / "run", workers=1)
    (failure,) = told(tmp_path / "run")["failures"]
    assert failure["says"].startswith(says)
    assert (tmp_path / "run" / failure["file"]).is_file()
    monkeypatch.delenv("TOY_BREAK")
    run_toy(tmp_path / "run")
    assert told(tmp_path / "run")["failures"] == []


def test_workers_that_cannot_start_are_told(tmp_path: Path) -> None:
    write_run(tmp_path, steps_of(1, 1), done=1, began=0)
    (tmp_path / "workers.log").write_text("Traceback (most recent call last):\n  File\nModuleNotFoundError: no torch\n")
    assert told(tmp_path)["failures"] == [{"file": "workers.log", "says": "ModuleNotFoundError: no torch"}]


def test_time_left_follows_what_steps_took_and_what_logs_say(tmp_path: Path) -> None:
    write_run(tmp_path, steps_of(2, 1), done=3, began=0)
    with locked(tmp_path):
        folder = tmp_path / steps_of(2, 1)[3].folder
        folder.mkdir()
        (folder / ".started").touch()
        (folder / "log.jsonl").write_text('{"step": 5, "steps": 20, "loss": 1.5, "seconds_left": 30.0}\n{"step": 6, ')
        status = told(tmp_path)
    assert status["running"][0]["at"] == {"step": 5, "steps": 20, "loss": 1.5}
    assert status["running"][0]["seconds_left"] == 30
    assert status["phases"][-1]["seconds_left"] == 30 + 4 * 50, "estimates halved, as steps took half of them"


def test_a_step_that_an_earlier_command_began_is_to_do(tmp_path: Path) -> None:
    write_run(tmp_path, steps_of(1, 1), done=1, began=1)
    os.utime(tmp_path / steps_of(1, 1)[1].folder / ".started", (0, 0))
    with locked(tmp_path):
        assert told(tmp_path)["running"] == []
        assert told(tmp_path)["phases"][-1]["to_do"] == 3


@given(arms=st.integers(1, 4), seeds=st.integers(1, 3), done=st.integers(0, 60), began=st.integers(0, 3))
def test_every_step_is_in_one_state(
    tmp_path_factory: pytest.TempPathFactory, arms: int, seeds: int, done: int, began: int
) -> None:
    run, steps = tmp_path_factory.mktemp("run") / "run", steps_of(arms, seeds)
    with locked(run):
        write_run(run, steps, done, began)
        *phases, whole = told(run)["phases"]
    assert (whole["steps"], whole["done"]) == (len(steps), min(done, len(steps)))
    assert whole["running"] == min(began, len(steps) - whole["done"])
    for row in (*phases, whole):
        assert row["steps"] == row["done"] + row["running"] + row["to_do"]
    for key in ("steps", "done", "running", "to_do"):
        assert whole[key] == sum(row[key] for row in phases)


def test_500_arms_from_5_seeds_are_told_in_2_seconds_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from blindspot.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "print('torch loaded:', 'torch' in sys.modules)"
    )
    run = tmp_path / "run"
    with locked(run):
        write_run(run, steps_of(500, 5), done=4000, began=8)
        before = seconds_of_children()
        command = [sys.executable, "-c", code, "status", str(run)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "torch loaded: False" in printed
    assert f"Process {os.getpid()} works in it." in printed and printed.count(" 5/20") == 8
    assert seconds_of_children() - before < 2


def seconds_of_children() -> float:
    """On a core, which other processes of a busy machine do not change."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (None, r"is not a study's run folder \(it has no plan.json\); make one with: blindspot study NAME"),
        ("{", "plan.json is damaged or another version's; the `blindspot study` command that made it mends it"),
        ('{"title": "Old", "arms": [], "steps": [{"id": "data", "kind": "data"}]}', "damaged or another version's"),
        ("[]", "damaged or another version's"),
    ],
)
def test_another_folder_is_one_line(tmp_path: Path, plan: str | None, message: str) -> None:
    if plan is not None:
        (tmp_path / "plan.json").write_text(plan)
    with pytest.raises(UserError, match=message) as caught:
        read_status(tmp_path)
    assert "\n" not in str(caught.value)
