"""The engine: the same results however it is run, interrupted or damaged; what it prints; one line when it cannot."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from blindspot import files
from blindspot.errors import UserError
from blindspot.studies.engine import StepFailure
from blindspot.studies.loading import load_study
from blindspot.studies.plan import plan_steps
from blindspot.studies.progress import critical_paths, time_left
from blindspot.studies.step import Step, open_folder
from tests.studies.conftest import wait_for

RunToy = Callable[..., str]
Command = Callable[..., subprocess.Popen[str]]
Contents = Callable[[Path], dict[str, bytes]]
STEPS = 1 + 1 + 3 * 5


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Counter[str]]:
    """Which steps were started since the last call, and how often."""
    path = tmp_path / "trace"
    monkeypatch.setenv("TOY_TRACE", str(path))

    def started() -> Counter[str]:
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return Counter(line.split()[0] for line in lines)

    return started


def step_folder(run: Path, prefix: str) -> Path:
    (found,) = run.glob(f"steps/{prefix}-*")
    return found


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_results_do_not_depend_on_the_number_of_workers(tmp_path: Path, run_toy: RunToy, contents: Contents) -> None:
    run_toy(tmp_path / "one", workers=1)
    run_toy(tmp_path / "three", workers=3)
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "three")
    assert len(one) == 2 * STEPS
    assert len({content for name, content in one.items() if name.endswith("result.json")}) == STEPS


def test_a_second_call_runs_nothing_and_says_so(tmp_path: Path, run_toy: RunToy, trace: Callable) -> None:
    first = run_toy(tmp_path / "run")
    started = trace()
    assert len(started) == STEPS and set(started.values()) == {1}
    assert f"[{STEPS}/{STEPS}]" in first
    assert "everything is done already" in run_toy(tmp_path / "run")
    assert not trace()
    done = json.loads((step_folder(tmp_path / "run", "text_seed0") / "done.json").read_text())
    assert list(done) == ["key", "step", "seconds", "files", "inputs", "config", "code"]
    assert done["step"] == "text/seed0"
    assert sorted(done["files"]) == ["log.jsonl", "nested/result.json"]
    assert list(done["inputs"]) == ["data"]


@pytest.mark.parametrize("moment", ["data", "encoder_clip-axial_seed0", "evaluate_instruct_replicate_seed0"])
def test_killed_at_any_moment_the_same_command_finishes_with_the_same_bits(
    tmp_path: Path, run_toy: RunToy, command: Command, contents: Contents, trace: Callable, moment: str
) -> None:
    """At once, though a step was under way that would have gone on for minutes and holds the folder's lock."""
    run_toy(tmp_path / "whole")
    trace()
    step, run = moment.replace("_", "/"), tmp_path / "run"
    process = command("study", "toy.yaml", "--out", "run", "--workers", "2", TOY_BREAK=f"{step}=hang")
    wait_for(lambda: list(run.glob(f"steps/{moment}-*/checkpoint.json")), process)
    workers = children(process.pid)
    process.kill()
    process.communicate(timeout=5)
    before = trace()
    assert len(workers) >= 1
    run_toy(run)
    assert not any(alive(worker) for worker in workers)
    assert contents(run) == contents(tmp_path / "whole")
    after = trace()
    assert after[step] == 1
    assert 1 <= sum((before & after).values()) <= 2  # only the steps under way ran twice


def test_control_c_stops_at_once_and_the_same_command_continues(
    tmp_path: Path, command: Command, run_toy: RunToy, contents: Contents
) -> None:
    process = command("study", "toy.yaml", "--out", "run", TOY_SLEEP="120")  # a step would outlast the wait below
    wait_for(lambda: list((tmp_path / "run").glob("steps/data-*/checkpoint.json")), process)
    workers = children(process.pid)
    for worker in workers:
        environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
        assert {b"OMP_NUM_THREADS=1", b"PYTHONHASHSEED=0", b"HF_HUB_OFFLINE=1"} <= set(environment)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "interrupted; the same command continues\n"
    assert workers and not any(alive(worker) for worker in workers)
    run_toy(tmp_path / "run")
    run_toy(tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda step: (step / "nested/result.json").write_bytes(b"["), "nested/result.json is damaged"),
        (lambda step: (step / "log.jsonl").unlink(), "log.jsonl is missing"),
        (lambda step: os.truncate(step / "done.json", 40), "done.json is damaged"),
        (lambda step: (step / "done.json").write_text("[1]"), "done.json is damaged"),
        (lambda step: (step / "done.json").write_bytes(b"\xff"), "done.json is damaged"),
        (
            lambda step: (
                (step / "checkpoints/step-3").mkdir(parents=True)
                or (step / "done.json").rename(step / "checkpoints/step-3/.metadata")
            ),
            "checkpoints/step-3/.metadata is damaged",
        ),
    ],
)
def test_a_damaged_step_is_named_and_rebuilt_alone(
    tmp_path: Path, run_toy: RunToy, contents: Contents, trace: Callable, harm: Callable[[Path], object], message: str
) -> None:
    run = tmp_path / "run"
    run_toy(run)
    whole = contents(run)
    trace()
    harm(step_folder(run, "connector_clip-axial_seed0"))
    printed = run_toy(run)
    assert f"rebuilding connector/clip-axial/seed0: {message}" in printed
    assert trace() == {"connector/clip-axial/seed0": 1}
    assert contents(run) == whole


def test_half_written_files_go_and_checkpoints_stay_whole(tmp_path: Path) -> None:
    names = ("log.jsonl", "checkpoints/step-2/.metadata", ".log.jsonl.part", "model/.weights.part")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    open_folder(tmp_path)
    assert [(tmp_path / name).exists() for name in names] == [True, True, False, False]


def test_dependants_follow_when_a_rebuilt_step_comes_out_different(
    tmp_path: Path, run_toy: RunToy, trace: Callable, monkeypatch: pytest.MonkeyPatch, contents: Contents
) -> None:
    run = tmp_path / "run"
    run_toy(run)
    whole = contents(run)
    trace()
    (step_folder(run, "encoder_clip-axial_seed0") / "log.jsonl").unlink()
    monkeypatch.setenv("TOY_SALT", "another machine")
    run_toy(run)
    arm = "clip-axial/seed0"
    stages = ("connector", "instruct")
    assert set(trace()) == {f"encoder/{arm}", *(f"{stage}/{arm}" for stage in stages)} | {
        f"evaluate/{stage}/{arm}" for stage in stages
    }
    changed = {name.split("/")[1] for name, content in contents(run).items() if whole[name] != content}
    assert len(changed) == 5
    assert "everything is done already" in run_toy(run)


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        ("encoder/clip=user", "encoder/clip-.*/seed0: the data is crooked; straighten it"),
        ("text=full", "text/seed0: .*weights: No space left on device"),
        ("text=memory", "text/seed0: out of memory; use --workers 1"),
        ("text=kill", "text/seed0: its worker process was killed, most likely because memory ran out"),
        ("text=bug", "text/seed0 failed: ZeroDivisionError: toy bug .*error.txt"),
    ],
)
def test_a_failing_step_gets_one_line_and_loses_nothing(
    tmp_path: Path, run_toy: RunToy, trace: Callable, monkeypatch: pytest.MonkeyPatch, breakage: str, message: str
) -> None:
    run, error = tmp_path / "run", StepFailure if breakage.endswith("bug") else UserError
    monkeypatch.setenv("TOY_BREAK", breakage)
    with pytest.raises(error, match=message) as caught:
        run_toy(run)
    assert "\n" not in str(caught.value)
    (log,) = re.findall(r"\(its log: (.*)\)$", str(caught.value))
    assert Path(log).is_file() and Path(log).name == "log.jsonl"
    if error is StepFailure:
        assert "ZeroDivisionError" in (step_folder(run, "text_seed0") / "error.txt").read_text()
    monkeypatch.delenv("TOY_BREAK")
    trace()
    run_toy(run)
    assert "data" not in trace()
    assert not list(run.glob("steps/*/error.txt"))


def test_steps_that_cannot_be_imported_are_one_line(
    tmp_path: Path, run_toy: RunToy, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "toy_steps.py"
    module.write_text("import no_such_library")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(entry for entry in sys.path if "tests/studies" not in entry)])
    with pytest.raises(
        StepFailure, match=r"workers cannot start: ModuleNotFoundError: .*no_such_library.*workers\.log"
    ):
        run_toy(tmp_path / "run")
    assert "Traceback" in (tmp_path / "run" / "workers.log").read_text()


@pytest.mark.parametrize("place", ["file/run", "file", "/proc/blindspot", "run"])
def test_an_unwritable_folder_is_one_line(tmp_path: Path, run_toy: RunToy, place: str) -> None:
    (tmp_path / "run").mkdir()
    for file in ("file", "run/steps"):
        (tmp_path / file).write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot write run folder .*choose another --out|cannot write .*run/steps"):
        run_toy(tmp_path / place)


def test_nothing_but_links_of_its_own_is_removed_from_models(tmp_path: Path, run_toy: RunToy, trace: Callable) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "weights").write_text("precious")
    run = tmp_path / "run"
    run.mkdir()
    (run / "models").symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match=r"run/models .* remove it or choose another --out"):
        run_toy(run)
    assert not trace() and (tmp_path / "theirs" / "weights").read_text() == "precious"
    (run / "models").unlink()
    (tmp_path / "theirs").rename(run / "models")
    run_toy(run)
    assert {path.name for path in (run / "models").iterdir()} == {
        "weights", "clip-learned-seed0", "clip-axial-seed0", "replicate-seed0"
    }  # fmt: skip


def test_a_disk_without_room_is_refused_before_anything_starts(
    tmp_path: Path, run_toy: RunToy, trace: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 3 * 2**20})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"has 3.1 MB free and about .* MB are needed"):
        run_toy(tmp_path / "run")
    assert not trace()


def test_a_second_process_is_locked_out(tmp_path: Path, run_toy: RunToy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SECONDS_TO_WAIT", 0.1)
    with files.locked(tmp_path / "run"), pytest.raises(UserError) as caught:
        run_toy(tmp_path / "run")
    assert f"is in use by another blindspot (process {os.getpid()})" in str(caught.value)
    run_toy(tmp_path / "run")


def test_a_folder_of_another_study_is_refused(tmp_path: Path, run_toy: RunToy, study_file: Path) -> None:
    run_toy(tmp_path / "run")
    study_file.write_text(study_file.read_text().replace("name: toy", "name: other"))
    with pytest.raises(UserError, match="holds study toy at scale full; choose another --out"):
        run_toy(tmp_path / "run")
    (tmp_path / "run" / "plan.json").write_text("{")
    run_toy(tmp_path / "run")


def test_an_edited_study_repeats_only_what_depends_on_the_edit(
    tmp_path: Path, run_toy: RunToy, study_file: Path, trace: Callable
) -> None:
    run_toy(tmp_path / "run")
    trace()
    study_file.write_text(study_file.read_text().replace("lr: 4e-3", "lr: 1e-3"))
    run_toy(tmp_path / "run")
    assert {name.rsplit("/", 2)[0] for name in trace()} == {"instruct", "evaluate/instruct"}


def test_time_left_is_that_of_the_longest_chain_or_of_all_workers() -> None:
    def step(name: str, *inputs: str) -> Step:
        return Step(name, "kind", None, None, None, {}, {source: source for source in inputs}, 1.0, name)

    steps = [step("short"), step("first"), step("second", "first")]
    seconds = {"short": 4.0, "first": 4.0, "second": 4.0}
    assert critical_paths(steps, seconds) == {"short": 4.0, "first": 8.0, "second": 4.0}
    assert [time_left(steps, seconds, workers) for workers in (1, 2, 3)] == [12.0, 8.0, 8.0]
    assert time_left(steps, {"short": 1.0}, 2) == 1.0, "the others are done"


def test_shipped_estimates_scale_with_the_work() -> None:
    study = load_study("miniature")

    def total(steps: int) -> float:
        instruct = study.instruct.model_copy(update={"steps": steps})
        return sum(step.estimate for step in plan_steps(study.model_copy(update={"instruct": instruct}), "code"))

    assert total(3000) > 2 * total(study.instruct.steps) > 2 * total(1)


def test_without_a_terminal_each_step_is_one_plain_line(tmp_path: Path, run_toy: RunToy) -> None:
    printed = run_toy(tmp_path / "run", workers=2)
    lines = printed.splitlines()
    steps = [line for line in lines if line.startswith("[")]
    assert len(steps) == 17
    assert not any(ord(character) < 32 for line in lines for character in line)
    (axial,) = [line for line in steps if "instruct" in line and "2D-RoPE" in line and "evaluate" not in line]
    for part in ("LLaVA-CLIP-2D-RoPE", "seed 0", "step 4/4", "loss 0.2500"):
        assert part in axial
    assert "all done" in steps[-1]
    plan = printed[: printed.index(steps[0])]
    assert "A toy study" in plan and "evaluate connector" in plan and "side by side" in plan


def test_a_terminal_shows_the_same_lines_above_the_live_ones(tmp_path: Path, run_toy: RunToy) -> None:
    printed = run_toy(tmp_path / "run", workers=2, terminal=True)
    assert printed.count("/17]") == 17
    assert "17 of 17 steps done" in printed or "16 of 17 steps done" in printed
