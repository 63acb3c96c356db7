"""A step on several GPUs: torchrun inside its worker, or on each of several nodes, and the function on all ranks."""

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from blindspot.errors import UserError
from blindspot.files import parse_json
from blindspot.studies.engine import (
    LOG,
    SECONDS_BETWEEN_REPORTS,
    StepFailure,
    failure,
    reporting_to,
    seed_everything,
)
from blindspot.studies.progress import Advanced
from blindspot.studies.step import Step, StepContext, StepFunction

TASK, TOLD, FAILED = ".task{}.json", ".told.json", ".failed.json"
"""In the step's folder, for what the worker and the ranks tell each other."""
LAUNCHER = "import sys; from blindspot.studies.ranks import launch; launch(*sys.argv[1:])"
PR_SET_PDEATHSIG = 1
KILLED = 128 + signal.SIGKILL
SECONDS_TO_BEGIN = 180.0  # until the first node has the step's lock
SECONDS_TO_END = 30.0


class Meeting(NamedTuple):
    """Where the ranks of several nodes meet: on the first of these."""

    address: str
    port: int
    nodes: int
    name: str  # of this attempt at a step


def load_functions(registry: str) -> Mapping[str, StepFunction]:
    """The step functions that ``module:attribute`` names, by kind of step; torch computes on one thread from now on."""
    module, _, attribute = registry.partition(":")
    functions = getattr(importlib.import_module(module), attribute)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    return functions


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def on_ranks(registry: str, gpus: Sequence[str], context: StepContext, meeting: Meeting | None = None) -> None:
    """A step function: that of the step's kind, on as many processes as there are ``gpus``, each with one of them; and
    where others `follow` on other nodes, on theirs."""
    inputs = {role: str(folder.absolute()) for role, folder in context.inputs.items()}
    data_path = context.data_path and str(context.data_path.absolute())
    files = [context.folder / name for name in (TASK.format(meeting.name if meeting else ""), TOLD, FAILED)]
    task, told, failed = files
    said = json.dumps({"step": asdict(context.step), "inputs": inputs, "data_path": data_path})
    task.with_suffix(".part").write_text(said)
    task.with_suffix(".part").replace(task)
    process, number = _launch(registry, gpus, task, meeting, 0), context.step.gpus
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(SECONDS_BETWEEN_REPORTS)
                break
            with suppress(FileNotFoundError):
                context.report(*parse_json(told.read_bytes())[:4])
    finally:
        process.kill()
        task.unlink(missing_ok=True)  # which ends those who follow
    if status == KILLED:
        raise _killed(number)
    if failed.exists():
        user, line = parse_json(failed.read_bytes())
        raise (UserError if user else StepFailure)(line)
    if status:
        raise StepFailure(f"failed: its {number} processes died; more is in {LOG} of the run folder")
    for file in files:
        file.unlink(missing_ok=True)


def follow(registry: str, gpus: Sequence[str], step: Step, folder: Path, meeting: Meeting, place: int) -> None:
    """Be another node of a step, number ``place``, as long as the first is at work."""
    task, deadline = folder / TASK.format(meeting.name), time.monotonic() + SECONDS_TO_BEGIN
    while not task.exists():
        if time.monotonic() > deadline:
            return
        time.sleep(SECONDS_BETWEEN_REPORTS)
    process = _launch(registry, gpus, task, meeting, place)
    try:
        while process.poll() is None and task.exists():
            time.sleep(SECONDS_BETWEEN_REPORTS)
        with suppress(subprocess.TimeoutExpired):
            if process.wait(SECONDS_TO_END) == KILLED:  # which may have made the first end earlier
                raise _killed(step.gpus)
    finally:
        process.kill()


def _killed(number: int) -> UserError:
    return UserError(
        f"one of its {number} processes was killed, most likely because memory ran out; use a smaller model and "
        "repeat the command (finished steps are kept)"
    )


def _launch(
    registry: str, gpus: Sequence[str], task: Path, meeting: Meeting | None, place: int
) -> subprocess.Popen[bytes]:
    nodes = ["--standalone"]
    if meeting:
        nodes = [f"--nnodes={meeting.nodes}", f"--node-rank={place}"]
        nodes += [f"--master-addr={meeting.address}", f"--master-port={meeting.port}"]
    ranks = [*nodes, f"--nproc-per-node={len(gpus)}", "--module", "blindspot.studies.ranks"]
    command = [sys.executable, "-P", "-c", LAUNCHER, str(os.getpid()), registry, str(task), *ranks]
    return subprocess.Popen(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus), "PYTHONSAFEPATH": "1"})


def launch(parent: str, registry: str, task: str, *ranks: str) -> None:
    """Be torchrun, for ranks that die with it."""
    die_with(int(parent))
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    try:
        main([*ranks, str(os.getpid()), registry, task])
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        sys.exit(KILLED if any(one.exitcode == -signal.SIGKILL for one in error.failures.values()) else 1)


def work(parent: str, registry: str, task_file: str) -> None:
    """Carry out a step's function as one of its ranks."""
    die_with(int(parent))
    path, task = Path(task_file).parent, parse_json(Path(task_file).read_bytes())
    step = Step(**task["step"])
    inputs = {role: Path(name) for role, name in task["inputs"].items()}

    def tell(advanced: Advanced) -> None:
        if os.environ["RANK"] == "0":
            (path / f"{TOLD}.part").write_text(json.dumps(advanced))
            (path / f"{TOLD}.part").replace(path / TOLD)

    try:
        function = load_functions(registry)[step.kind]
        seed_everything(step.config.get("seed", 0))
        data_path = task["data_path"] and Path(task["data_path"])
        function(StepContext(step, path, inputs, reporting_to(tell), data_path))
    except Exception as error:
        with suppress(FileExistsError), (path / FAILED).open("x") as file:  # of the first: others fail because it did
            said = failure(error, path)
            json.dump([isinstance(said, UserError), str(said)], file)
        sys.exit(1)


if __name__ == "__main__":
    work(*sys.argv[1:])
