"""Studies on a Ray cluster: the bytes of one machine, whatever is lost on the way; one line for what is amiss; and the
batch script that makes a cluster on Slurm."""

import io
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from rich.console import Console

from blindspot.errors import UserError
from blindspot.files import holder, locked
from blindspot.studies import cluster
from blindspot.studies.engine import ENVIRONMENT, Scheduler, run_steps
from blindspot.studies.loading import load_study
from blindspot.studies.plan import plan_steps
from blindspot.studies.progress import Progress
from blindspot.studies.slurm import slurm_script
from blindspot.studies.step import Step
from tests.studies.conftest import wait_for

HERE = Path(__file__).parent
NODE: dict[str, Any] = {"num_cpus": 1, "num_gpus": 2, "object_store_memory": 80 * 2**20}
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""Milliseconds after which a node that does not answer is given up."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of three nodes on this machine."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install -c constraints.txt -e '.[cluster]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False, "_system_config": QUICK})
    for _ in range(2):
        found.add_node(**NODE)
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """The steps that workers have begun, each with the iteration that it began at."""
    path = tmp_path / "trace"
    monkeypatch.setitem(ENVIRONMENT, "TOY_TRACE", str(path))
    monkeypatch.setenv("TOY_TRACE", str(path))
    return lambda: [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def whole(tmp_path: Path, run_toy: Callable[..., str], contents: Callable[[Path], Any]) -> Any:
    """What the toy study leaves on one machine."""
    run_toy(tmp_path / "whole")
    return contents(tmp_path / "whole")


def test_a_lost_node_changes_nothing_and_its_steps_go_on_elsewhere(
    tmp_path: Path, nodes: Any, command: Any, whole: Any, contents: Any, trace: Any
) -> None:
    run = tmp_path / "run"
    command_line = ("study", "toy.yaml", "--out", "run", "--on", "ray", "--address", nodes.address)
    before = len(trace())
    process = command(*command_line, TOY_SLEEP="0.5", TOY_TRACE=str(tmp_path / "trace"))
    working = run / cluster.WORKING
    wait_for(lambda: sum(holder(step) is not None for step in working.glob("*")) == 3, process, 90)
    nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
    printed, errors = process.communicate(timeout=120)
    nodes.add_node(**NODE)
    assert process.returncode == 0 and not errors, errors
    assert "[17/17]" in printed and not working.exists()
    assert contents(run) == whole
    begun = trace()[before:]
    (again,) = [name for name, _ in begun if [step for step, _ in begun].count(name) == 2][:1]
    assert max(int(at) for name, at in begun if name == again) > 0, "it went on from its checkpoint"


def test_killed_the_same_command_goes_on(
    tmp_path: Path, nodes: Any, run_toy: Any, command: Any, whole: Any, contents: Any, trace: Any
) -> None:
    run, where = tmp_path / "run", ("--on", "ray", "--address", nodes.address)
    process = command("study", "toy.yaml", "--out", "run", *where, TOY_BREAK="encoder/clip-axial=hang")
    wait_for(lambda: list(run.glob("steps/encoder_clip-axial*/checkpoint.json")), process, 90)
    process.kill()
    process.communicate(timeout=10)
    before = trace()
    run_toy(run, workers=None, on="ray", address=nodes.address)
    assert contents(run) == whole
    after = [name for name, _ in trace()[len(before) :]]
    assert "data" not in after and after.count("encoder/clip-axial/seed0") == 1


def test_without_an_address_a_cluster_of_this_machine_is_started_and_ends_with_the_command(
    tmp_path: Path, command: Any, whole: Any, contents: Any, trace: Any
) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install -c constraints.txt -e '.[cluster]'")
    with TemporaryDirectory(prefix="ray") as own:  # of a short name, as its sockets need
        process = command("study", "toy.yaml", "--out", "run", "--on", "ray", RAY_ADDRESS="", RAY_TMPDIR=own)
        printed, errors = process.communicate(timeout=300)
        assert process.returncode == 0 and not errors, errors
        assert "[17/17]" in printed and contents(tmp_path / "run") == whole
        assert not subprocess.run(["pgrep", "-f", own], capture_output=True, text=True).stdout


def test_a_step_that_kills_its_workers_is_named(
    tmp_path: Path, nodes: Any, run_toy: Any, trace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "TOY_BREAK", "text=kill")
    with pytest.raises(UserError, match=r"text/seed0: its worker was killed 3 times, .*memory ran out"):
        run_toy(tmp_path / "run", on="ray", address=nodes.address)
    assert [name for name, _ in trace()].count("text/seed0") == 3


@pytest.mark.parametrize("workers", [None, 1])
def test_workers_have_their_gpus_for_life_and_give_way_to_those_of_another_size(
    tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch, workers: int | None
) -> None:
    monkeypatch.syspath_prepend(HERE)
    step = Step("", "notice", None, None, None, {}, {}, 1.0, "")
    asked = {f"step/{number}-{gpus}": gpus for gpus, many in ((0, 2), (1, 12), (2, 1)) for number in range(many)}
    steps = [replace(step, id=name, key=name.replace("/", "") * 4, gpus=gpus) for name, gpus in asked.items()]
    pool = cluster.RayPool(tmp_path, workers, nodes.address, registry="toy_steps:STEPS")
    assert (len(pool.gpus.names), pool.begin(steps)) == (6, workers or 3)
    run_steps(Scheduler(steps, tmp_path), pool, Progress(Console(file=io.StringIO()), steps, {}, 3, 6))
    notices = {path: json.loads(path.read_text()) for path in tmp_path.glob("steps/*/notice*.json")}
    by_size = {gpus: [one for path, one in notices.items() if f"-{gpus}-" in str(path)] for gpus in range(3)}
    assert [len(by_size[gpus]) for gpus in range(3)] == [2, 12, 2], "two ranks of the step on two GPUs"
    bound = {(one["pid"], one["CUDA_VISIBLE_DEVICES"]) for one in by_size[1]}
    assert len(bound) == len({pid for pid, _ in bound}) <= 3 and {device for _, device in bound} <= {"0", "1"}
    assert {one["CUDA_VISIBLE_DEVICES"] for one in by_size[2]} == {"0,1"}


@pytest.fixture
def together(tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Carry out steps of some sizes whose ranks count together; what the ranks of each counted."""
    monkeypatch.syspath_prepend(HERE)

    def run(
        sizes: dict[str, int], advanced: Callable[[int], object] = lambda count: None, **config: Any
    ) -> dict[str, Any]:
        class Watched(Progress):
            def advanced(self, step: Step, latest: Any) -> None:
                super().advanced(step, latest)
                advanced(latest.step)

        step = Step("", "together", None, None, None, config, {}, 1.0, "")
        steps = [replace(step, id=name, key=name.replace("/", "") * 4, gpus=gpus) for name, gpus in sizes.items()]
        pool = cluster.RayPool(tmp_path, address=nodes.address, registry="toy_steps:STEPS")
        pool.begin(steps)
        run_steps(Scheduler(steps, tmp_path), pool, Watched(Console(file=io.StringIO()), steps, {}, 3, 6))
        return {one.id: json.loads((tmp_path / one.folder / "counts.json").read_text()) for one in steps}

    return run


def counted(ranks: int) -> list[list[int]]:
    return [[rank + count for rank in range(ranks)] for count in range(4)]


def test_a_step_of_more_gpus_than_a_node_has_runs_on_several_and_shares_none(together: Any, trace: Any) -> None:
    sizes = {"wide/0": 4, "wide/1": 4, "whole/0": 6, "one/0": 1, "one/1": 1, "one/2": 1, "two/0": 2}
    assert together(sizes) == {name: counted(gpus) for name, gpus in sizes.items()}
    uses = [(name, gpu, float(began), float(ended)) for name, _, gpu, began, ended in trace()]
    used = {name: {gpu for own, gpu, *_ in uses if own == name} for name in sizes}
    assert {name: len(gpus) for name, gpus in used.items()} == sizes, "a rank has a GPU of its own"
    raylets = {name: len({gpu.split("/")[0] for gpu in gpus}) for name, gpus in used.items()}
    assert raylets == {"wide/0": 2, "wide/1": 2, "whole/0": 3, "one/0": 1, "one/1": 1, "one/2": 1, "two/0": 1}
    shared = [
        (name, other)
        for name, gpu, began, ended in uses
        for other, another, start, end in uses
        if name != other and gpu == another and began < end and start < ended
    ]
    assert not shared


@pytest.fixture
def lose(nodes: Any, trace: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Takes a node away, once, when the ranks that use it have counted twice."""
    monkeypatch.setitem(ENVIRONMENT, "TOY_SLEEP", "2")
    lost: list[Any] = []

    def take_away(count: int) -> None:
        if count == 2 and not lost:
            used = {int(gpu.split("/")[0]) for _, _, gpu, *_ in trace()}
            lost.append(next(one for one in nodes.worker_nodes if one.all_processes["raylet"][0].process.pid in used))
            nodes.remove_node(lost[0], allow_graceful=False)

    yield take_away
    assert lost
    nodes.add_node(**NODE)


def test_a_step_on_several_nodes_goes_on_where_it_was_when_one_is_lost(together: Any, lose: Any, trace: Any) -> None:
    assert together({"wide/0": 4}, lose) == {"wide/0": counted(4)}
    begun = [int(count) for _, count, *_ in trace()]
    assert 4 <= begun.count(0) <= 5 and begun[-1] == 3
    assert len({gpu for _, _, gpu, *_ in trace()}) > 4, "on other GPUs from its checkpoint"


def test_nodes_too_few_for_a_step_are_waited_for_and_then_told(
    together: Any, lose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SECONDS_WITHOUT_ROOM", 2.0)
    with pytest.raises(UserError, match="the cluster has 2 nodes left and none with room for what is to do"):
        together({"whole/0": 6}, lose)


def test_a_rank_that_is_killed_on_another_node_is_told(
    together: Any, trace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "TOY_BREAK", "wide=kill")
    with pytest.raises(
        UserError, match="wide/0: one of its 4 processes was killed, most likely because memory ran out"
    ):
        together({"wide/0": 4}, breaks=3)


def test_what_a_node_lacks_is_one_line_that_names_it(
    tmp_path: Path, nodes: Any, run_toy: Any, study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"on": "ray", "address": nodes.address}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"node [\d.]+ of the cluster does not see the run folder .*disk that all nodes"
    ):
        run_toy(Path("/proc/self/cwd/run"), **where)  # which is another folder in every process
    steps = plan_steps(load_study(study_file), "toy")
    pool = cluster.RayPool(tmp_path / "run", address=nodes.address)
    with (
        closing(pool),
        pytest.raises(UserError, match=r"data asks for 5 GPUs; of the nodes .* which have 2, 2, 2, none"),
    ):
        pool.begin([replace(steps[0], gpus=5)])
    with pytest.raises(UserError, match=r"node [\d.]+ of the cluster: CLIP and 1 more things .*missing there"):
        cluster.RayPool(tmp_path / "run", address=nodes.address, missing=lambda: ["CLIP", "AIMv2"])
    monkeypatch.setattr(cluster, "code_version", lambda everything: "other")
    with pytest.raises(UserError, match=r"node [\d.]+ of the cluster has other code of Blindspot"):
        run_toy(tmp_path / "run", **where)
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "__version__", "1.0")
    with pytest.raises(
        UserError, match=r"cannot use the Ray cluster at .*: Version mismatch.* the same version of Ray"
    ):
        run_toy(tmp_path / "run", **where)
    assert not list((tmp_path / "run").glob(".seen*"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"no Ray cluster answers at 127.0.0.1:1 .*ray start --head --port 1"),
        ("head", "--address head: should be HOST:PORT"),
        ("ray://head:10001", "--address ray://head:10001: should be HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(
    tmp_path: Path, run_toy: Any, address: str, message: str
) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install -c constraints.txt -e '.[cluster]'")
    start = time.monotonic()
    with pytest.raises(UserError, match=message):
        run_toy(tmp_path / "run", on="ray", address=address)
    assert time.monotonic() - start < 10


def test_without_ray_it_is_said_how_to_get_it(tmp_path: Path, run_toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--on ray needs Ray, .*pip install -c constraints.txt -e '\.\[cluster\]'"):
        run_toy(tmp_path / "run", on="ray")
    with pytest.raises(UserError, match="--on: dask: should be one of local, ray"):
        run_toy(tmp_path / "run", on="dask")


def test_nothing_is_begun_beside_a_worker_of_an_earlier_command(
    tmp_path: Path, run_toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(cluster, "SECONDS_TO_END", 0.1)
    with locked(run / cluster.WORKING / "data-0123"), pytest.raises(UserError) as caught:
        run_toy(run)
    assert f"still at work in {run / 'steps' / 'data-0123'} (process {os.getpid()} of some node)" in str(caught.value)
    run_toy(run)
    assert not (run / cluster.WORKING).exists()


def test_a_slurm_script_runs_the_study_on_all_its_nodes(
    tmp_path: Path, study_file: Path, monkeypatch: pytest.MonkeyPatch, whole: Any, contents: Any
) -> None:
    """With the commands of Slurm as they are on a cluster whose nodes are all this machine."""
    pytest.importorskip("ray", reason="ray is not installed: pip install -c constraints.txt -e '.[cluster]'")
    folder = tmp_path / 'it\'s $HOME; a "place"'
    folder.mkdir()
    programs = {
        "srun": 'while [[ $1 == --* ]]; do shift; done; shift; exec "$@"',
        "scontrol": "printf '%s\\n' one two",
        "python": f'exec {shlex.quote(sys.executable)} "$@"',
        "ray": f'exec {shlex.quote(str(Path(sys.executable).with_name("ray")))} "$@" --object-store-memory=80000000',
        "blindspot": f'exec {shlex.quote(sys.executable)} {shlex.quote(str(HERE / "toy_cli.py"))} "$@"',
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    script = slurm_script(str(study_file), ["--out=a run"], 2, 0, "1-00:00:00")
    monkeypatch.undo()
    assert "#SBATCH --time=1-00:00:00" in script and "gpus-per-node" not in script
    job = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": str(os.getpid()), "SLURM_CPUS_ON_NODE": "1"}
    environment = {**os.environ, **job, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(["bash", "-s"], input=script, text=True, capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "[17/17]" in done.stdout and contents(folder / "a run") == whole
    left = subprocess.run(["pgrep", "-f", f"/tmp/ray-{os.getpid()}"], capture_output=True, text=True).stdout
    assert not left


@pytest.mark.parametrize("name", ["miniature", "./a b'c\n$(touch here).yaml", "#SBATCH"])
def test_a_slurm_script_quotes_what_it_is_given(name: str) -> None:
    script = slurm_script(name, ["--out=$(touch here)", "--data=a\nb"], 2, 8, None)
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    directives = [line for line in script.split("set -euo pipefail")[0].splitlines() if line.startswith("#SBATCH")]
    assert all(" " not in line.removeprefix("#SBATCH ") for line in directives)
    last = script[script.index("blindspot study") :]
    show = last.replace("blindspot study", "printf '%s\\0'").replace('"$ip:$port"', "A")
    words = subprocess.run(["bash", "-c", show], capture_output=True, text=True, check=True).stdout.split("\0")
    assert words[:3] == [name, "--out=$(touch here)", "--data=a\nb"]


def test_a_time_that_sbatch_does_not_take_is_refused() -> None:
    with pytest.raises(UserError, match="--time tomorrow: should be as sbatch takes it"):
        slurm_script("miniature", [], 1, 0, "tomorrow")
