"""Workers of one machine: started once, bound to a GPU each, lent to steps of several, which torchrun carries out.

The machine has none: a step sees only what ``CUDA_VISIBLE_DEVICES`` says.
"""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from blindspot.errors import UserError
from blindspot.files import locked
from blindspot.studies import local
from blindspot.studies.engine import Scheduler, StepFailure, run_steps
from blindspot.studies.gpus import Gpus, find_gpus, with_gpus
from blindspot.studies.loading import load_study
from blindspot.studies.local import LocalPool
from blindspot.studies.plan import plan_steps
from blindspot.studies.progress import Progress, time_left
from blindspot.studies.step import Done, Step

HERE = Path(__file__).parent


def step(name: str, gpus: int = 0, inputs: tuple[str, ...] = (), seconds: float = 1.0, **config: Any) -> Step:
    key = name.replace("/", "-") * 12
    return Step(name, "notice", None, None, None, config, {one: one for one in inputs}, seconds, key, gpus=gpus)


@pytest.fixture
def notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, dict[str, Any]]]:
    """Carry out toy steps; what each of their processes noticed."""
    monkeypatch.syspath_prepend(HERE)

    def run(steps: list[Step], workers: int, gpus: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
        progress = Progress(Console(file=io.StringIO()), steps, {}, workers, len(gpus))
        with locked(tmp_path) as lock:
            run_steps(Scheduler(steps, tmp_path), LocalPool(workers, tmp_path, lock, gpus, "toy_steps:STEPS"), progress)
        found = sorted((tmp_path / "steps").glob("*/notice*.json"))
        return {f"{path.parent.name.split('-')[0]}/{path.stem}": json.loads(path.read_text()) for path in found}

    return run


def test_workers_are_started_once_and_hundreds_of_steps_take_seconds(notices: Callable[..., Any]) -> None:
    steps = [step("step/first"), *[step(f"step/{number}", inputs=("step/first",)) for number in range(300)]]
    began = time.monotonic()
    seen = notices(steps, workers=2)
    assert len(seen) == 301 and len({one["pid"] for one in seen.values()}) == 2
    assert time.monotonic() - began < 30


def test_each_worker_has_one_gpu_for_life(notices: Callable[..., Any]) -> None:
    seen = notices([step(f"step/{number}", gpus=1) for number in range(30)], workers=2, gpus=("3", "GPU-5"))
    bound = {one["pid"]: one["CUDA_VISIBLE_DEVICES"] for one in seen.values()}
    assert sorted(bound.values()) == ["3", "GPU-5"]
    assert all(one["CUDA_VISIBLE_DEVICES"] == bound[one["pid"]] for one in seen.values())


class Noted:
    """A worker of which only what it is given counts."""

    process = None
    all: "list[Noted]"

    def __init__(self, gpu: str | None, *_: object) -> None:
        self.gpu, self.task, self.given = gpu, None, []
        self.all.append(self)

    def launch(self) -> None: ...

    def start(self, task: Any, gpus: list[str]) -> None:
        self.task, self.given = task, gpus


@settings(max_examples=60)
@given(st.data())
def test_gpus_are_dealt_to_one_step_at_a_time_and_every_step_gets_its_turn(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    machine = tuple(map(str, range(data.draw(st.integers(1, 8), label="GPUs"))))
    most = data.draw(st.integers(1, len(machine) + 2), label="workers")
    steps: list[Step] = []
    for number in range(data.draw(st.integers(1, 12))):
        names = [one.id for one in steps]
        inputs = data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True)) if names else []
        asked = data.draw(st.integers(0, min(4, len(machine))))
        steps.append(step(f"step/{number}", asked, tuple(inputs), data.draw(st.floats(0.1, 9))))
    run = tmp_path_factory.mktemp("run")
    scheduler, Noted.all = Scheduler(steps, run), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_Worker", Noted)
        pool = LocalPool(most, run, 0, machine)
    running: list[Any] = []
    while not scheduler.complete:
        while task := scheduler.start(pool.free):
            pool.start(task)
            running.append(task)
        assert 0 < len(running) <= most, "nothing waits while nothing runs"
        used: list[str] = []
        for task in running:
            busy = [worker for worker in Noted.all if worker.task is task]
            (given,) = [worker.given for worker in busy if worker.given] or [[]]
            if task.step.gpus:
                assert len(given) == task.step.gpus and set(given) == {worker.gpu for worker in busy}
            used += given
        assert len(used) == len(set(used)) and set(used) <= set(machine)
        ended = running.pop(data.draw(st.integers(0, len(running) - 1), label="ends next"))
        for worker in Noted.all:
            if worker.task is ended:
                worker.task, worker.given = None, []
        scheduler.finish(ended.step, Done(ended.step.key, ended.step.id, 1.0, {"f": "0"}, ended.contents))


def test_a_step_of_several_gpus_runs_on_as_many_ranks(notices: Callable[..., Any], tmp_path: Path) -> None:
    seen = notices([step("step/two", gpus=2), step("step/one", gpus=1, inputs=("step/two",))], 3, ("0", "4", "5"))
    ranks = [seen[f"step_two/notice{rank}"] for rank in range(2)]
    assert {(one["CUDA_VISIBLE_DEVICES"], one["WORLD_SIZE"]) for one in ranks} == {("0,4", "2")}
    assert len({one["pid"] for one in (*ranks, seen["step_one/notice"])}) == 3
    (folder,) = (tmp_path / "steps").glob("step_two-*")
    assert sorted(path.name for path in folder.iterdir()) == ["done.json", "notice0.json", "notice1.json"]


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("user", UserError, "step/two: the data is crooked; straighten it"),
        ("bug", StepFailure, r"step/two failed: ZeroDivisionError: toy bug \(a bug .*error\.txt\)"),
        ("kill", UserError, "step/two: one of its 2 processes was killed, most likely because memory ran out"),
    ],
)
def test_what_goes_wrong_on_one_rank_is_one_line(
    what: str, error: type[Exception], message: str,
    notices: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TOY_BREAK", f"step={what}")
    monkeypatch.setenv("TOY_SLEEP", "60")
    with pytest.raises(error, match=message) as caught:
        notices([step("step/two", gpus=2, breaks="1")], 2, ("0", "1"))
    assert "\n" not in str(caught.value)
    (written,) = (tmp_path / "steps").glob("step_two-*/error.txt")
    assert ("ZeroDivisionError" in written.read_text()) == (what == "bug")


@pytest.mark.parametrize(
    ("visible", "listed", "names", "memory"),
    [
        (None, "81559\n24564\n", ("0", "1"), 24564 * 2**20),
        (None, "", (), None),
        ("1", "81559\n81559\n", ("1",), 81559 * 2**20),
        ("", "81559\n", (), 81559 * 2**20),
        ("0,-1,1", "81559\n81559\n", ("0",), 81559 * 2**20),
        ("GPU-8, GPU-9", None, ("GPU-8", "GPU-9"), None),
        (None, "No devices were found", (), None),
    ],
)
def test_gpus_are_found_without_torch(
    visible: str | None, listed: str | None, names: tuple[str, ...], memory: float | None,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Where `nvidia-smi` lists these, or is not there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if listed is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{listed.strip()}'\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert find_gpus() == Gpus(names, memory)


def test_a_step_asks_for_the_fewest_gpus_that_hold_it_and_its_key_does_not_say_so() -> None:
    study = load_study("paper")
    steps = plan_steps(study, "code")
    eight = tuple(map(str, range(8)))
    for memory, asked in ((80e9, (1, 4)), (141e9, (1, 2)), (None, (1, 1))):
        given = with_gpus(study, steps, Gpus(eight, memory))
        assert [one.key for one in given] == [one.key for one in steps]
        for kind, number in (("connector", asked[0]), ("instruct", asked[1]), ("evaluate", 1)):
            served = [one for one in given if one.kind == kind and one.config.get("served")]
            assert {one.gpus for one in given if one.kind == kind and one not in served} == {number}
            assert not any(one.gpus for one in served), "which another machine answers"
    assert {one.gpus for one in with_gpus(study, steps, Gpus(()))} == {0}
    assert {one.gpus for one in with_gpus(study, steps, Gpus(eight, 80e9), 8) if one.kind == "instruct"} == {8}


def test_time_left_counts_gpus() -> None:
    steps = [step("step/1", gpus=4), step("step/2", gpus=4), step("step/3", gpus=0)]
    assert time_left(steps, {"step/1": 3.0, "step/2": 3.0, "step/3": 3.0}, workers=3, gpus=4) == 6.0


@pytest.mark.parametrize(
    ("arguments", "visible", "message"),
    [
        ("paper --gpus 3", "0,1", "--gpus: 3: this machine has 2"),
        (
            "paper --gpus-per-step 4",
            "0,1",
            "connector/clip/seed0 asks for 4 GPUs and there are 2; use fewer with",
        ),
        ("paper --gpus 1 --gpus-per-step 2", "0,1", "connector/clip/seed0 asks for 2 GPUs and there are 1; use fewer"),
        ("paper --gpus-per-step 1", "", "--gpus-per-step: this machine has no GPU; leave it out"),
        ("miniature --gpus 1", "0", "study miniature is a miniature, whose steps take one core each; leave out --gpus"),
    ],
)
def test_gpus_that_are_not_there_are_one_line(
    arguments: str, visible: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from blindspot.cli import app

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["study", *arguments.split()])
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
