"""Carries out a plan: finds what is done, rebuilds what is damaged, spreads the rest over worker processes.

A worker is a process of one thread that imports torch once and carries out step after step. It holds the run folder's
lock as long as it lives, and the kernel kills it when the engine dies.
"""

import ctypes
import importlib
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, NamedTuple

from blindspot.errors import NO_MEMORY, UserError, shortage
from blindspot.files import write_text
from blindspot.studies.progress import Advanced, Progress, critical_paths
from blindspot.studies.step import (
    ERROR,
    Damage,
    Done,
    Step,
    StepContext,
    StepFunction,
    discard,
    mark_done,
    open_folder,
    read_done,
    remove_weights,
)

REGISTRY = "blindspot.studies.steps:STEPS"
LOG = "workers.log"
KEEP: dict[str, tuple[str, ...]] = {"all": (), "last": ("connector",), "scores": ("connector", "instruct")}
"""Kinds of steps whose weights go when all steps that read them are done, by what is kept."""
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",  # the order of sets of words must not differ between processes
    "HF_HUB_OFFLINE": "1",
}
WORKER = "import sys; from blindspot.studies.engine import serve; serve(*sys.argv[1:])"
SECONDS_BETWEEN_REFRESHES = 0.25
SECONDS_BETWEEN_REPORTS = 0.2
PR_SET_PDEATHSIG = 1
FULL_BELOW_BYTES = 2**20


class StepFailure(Exception):
    """A defect of the program; the message is one line that says where its traceback is."""


class Assignment(NamedTuple):
    """What a worker needs to carry out a step; ``contents`` fingerprints each input folder."""

    step: Step
    folder: Path
    inputs: dict[str, Path]
    contents: dict[str, str]
    data_path: Path | None


Outcome = Done | UserError | StepFailure


class Scheduler:
    """Which steps are done, under way and to do.

    A finished step counts only while the content of its inputs is what it was made from, so a rebuilt step whose
    content changed takes its dependants with it.
    """

    def __init__(self, steps: Sequence[Step], run: Path, keep: str = "all") -> None:
        """Check every step's folder; damaged ones are emptied and listed in ``damages``. ``keep`` is one of `KEEP`."""
        self.steps, self.run = steps, run
        self._light = {step.id for step in steps if step.kind in KEEP[keep]}
        self._readers: dict[str, list[str]] = {step.id: [] for step in steps}
        for step in steps:
            for name in step.inputs.values():
                self._readers[name].append(step.id)
        self.done: dict[str, Done] = {}
        self.finished: dict[str, Done] = {}
        """Steps with a finished folder, whether or not their inputs are settled yet."""
        self.damages: list[str] = []
        self._running: set[str] = set()
        self._folders = {step.id: run / step.folder for step in steps}
        self._priority = critical_paths(steps, {step.id: step.estimate for step in steps})
        for step in steps:
            try:
                done = read_done(self._folders[step.id], step)
            except Damage as damage:
                self.damages.append(f"rebuilding {step.id}: {damage}")
                discard(self._folders[step.id])
            else:
                if done:
                    self.finished[step.id] = done
        self._settle()
        for step in steps:
            self._lighten(step.id)

    @property
    def without_weights(self) -> list[Step]:
        """The finished steps whose weights are gone though steps to do need them."""
        needed: set[str] = set()
        for step in reversed(self.steps):
            if step.id not in self.finished or step.id in needed:
                needed |= {name for name in step.inputs.values() if (d := self.finished.get(name)) and d.removed}
        return [step for step in self.steps if step.id in needed]

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.steps)

    def start(self, data_path: Path | None = None) -> Assignment | None:
        """What to start now: of the steps whose inputs are all settled, the one with the longest path after it."""
        ready = [
            step
            for step in self.steps
            if step.id not in self.done and step.id not in self._running and self._settled(step)
        ]
        if not ready:
            return None
        step = max(ready, key=lambda step: self._priority[step.id])
        self._running.add(step.id)
        inputs = {role: self._folders[name] for role, name in step.inputs.items()}
        return Assignment(step, self._folders[step.id], inputs, self._contents(step), data_path)

    def finish(self, step: Step, done: Done) -> None:
        """Record that a step was carried out."""
        self._running.remove(step.id)
        self.finished[step.id] = done
        self._settle()
        for name in step.inputs.values():
            self._lighten(name)

    def _lighten(self, name: str) -> None:
        """Remove a step's weights if they are not to be kept and every step that reads them is done."""
        if name in self._light and name in self.done and all(reader in self.done for reader in self._readers[name]):
            self.done[name] = self.finished[name] = remove_weights(self._folders[name], self.done[name])

    def _settle(self) -> None:
        """Accept every finished step whose inputs are accepted and unchanged; discard one of which they changed."""
        for step in self.steps:
            if step.id in self.finished and step.id not in self.done and self._settled(step):
                if self.finished[step.id].inputs == self._contents(step):
                    self.done[step.id] = self.finished[step.id]
                else:
                    discard(self._folders[step.id])
                    del self.finished[step.id]

    def _settled(self, step: Step) -> bool:
        return all(name in self.done for name in step.inputs.values())

    def _contents(self, step: Step) -> dict[str, str]:
        return {role: self.done[name].content for role, name in step.inputs.items()}


def run_steps(
    scheduler: Scheduler,
    workers: int,
    lock: int,
    progress: Progress,
    data_path: Path | None = None,
    registry: str = REGISTRY,
) -> None:
    """Carry out all steps that are not done. The result does not depend on ``workers``.

    These hold the run folder's lock, too: the folder is free when all are gone. If a step fails, or a worker is
    killed, the other steps stop where they are and continue on the next call.
    """
    pool: list[_Worker] = []
    try:
        with (scheduler.run / LOG).open("wb") as log:
            for _ in range(min(workers, len(scheduler.steps) - len(scheduler.finished))):
                pool.append(_Worker(registry, lock, log))
        with progress:
            while not scheduler.complete:
                for worker in pool:
                    if worker.task is None and (task := scheduler.start(data_path)):
                        progress.started(task.step)
                        worker.start(task)
                of = {worker.connection: worker for worker in pool}
                for connection in wait(list(of), SECONDS_BETWEEN_REFRESHES):
                    worker = of[connection]  # pyright: ignore[reportArgumentType]
                    match worker.receive(), worker.task:
                        case (UserError() | StepFailure()) as failure, task:
                            if task and not (task.folder / ERROR).exists():  # which has the traceback of a bug
                                with suppress(UserError):
                                    write_text(task.folder / ERROR, f"{failure}\n")
                            raise failure
                        case Advanced() as advanced, Assignment(step):
                            progress.advanced(step, advanced)
                        case Done() as done, Assignment(step):
                            worker.task = None
                            scheduler.finish(step, done)
                            progress.finished(step, done, scheduler.done)
                progress.refresh()
    finally:
        for worker in pool:  # at once: steps are made to be killed
            worker.process.kill()
        for worker in pool:
            worker.process.wait()
            worker.connection.close()


class _Worker:
    """The engine's side of a worker process, and the task that it works on."""

    def __init__(self, registry: str, lock: int, log: IO[bytes]) -> None:
        self.task: Assignment | None = None
        self.connection, theirs = Pipe()
        search = os.pathsep.join(path for path in sys.path if path)
        # Workers inherit the blocked signal: Ctrl-C is for the engine, which then stops them.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", WORKER, str(theirs.fileno()), str(os.getpid()), registry],
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": search},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(), lock),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            theirs.close()

    def start(self, task: Assignment) -> None:
        self.task = task
        with suppress(OSError):  # of a process that is gone, which `receive` says
            self.connection.send(task)

    def receive(self) -> Advanced | Outcome:
        """Its next message; an error if it died, which it does by SIGKILL when Linux runs out of memory."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            status = self.process.wait()
        what = self.task.step.id if self.task else "before its first step"
        if status == -signal.SIGKILL:
            return UserError(
                f"{what}: its worker process was killed, most likely because memory ran out; use --workers 1 or a "
                "smaller model and repeat the command (finished steps are kept)"
            )
        reason = signal.Signals(-status).name if status < 0 else f"status {status}"
        return StepFailure(f"{what}: its worker process died ({reason}); finished steps are kept")


def serve(socket: str, parent: str, registry: str) -> None:
    """Carry out what the engine at the other end of ``socket`` sends, until it is gone. Runs in a worker."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        os._exit(1)
    connection = Connection(int(socket))
    tasks: queue.SimpleQueue[Assignment] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                tasks.put(connection.recv())
        except (EOFError, OSError):
            os._exit(1)  # the engine is gone, which elsewhere than on Linux nothing else tells

    threading.Thread(target=listen, daemon=True).start()
    module, _, attribute = registry.partition(":")
    try:
        functions = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        traceback.print_exc()
        line = f"workers cannot start: {_in_a_line(error)} (more in {LOG} of the run folder)"
        connection.send(UserError(line) if isinstance(error, UserError) or shortage(error) else StepFailure(line))
        return
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    while True:
        task = tasks.get()
        connection.send(carry_out(task, functions[task.step.kind], connection.send))


def carry_out(task: Assignment, function: StepFunction, tell: Callable[[Advanced], object]) -> Outcome:
    """Carry out a step in this process; ``tell`` hears a few times a second how far it is."""
    name, start, last_report = task.step.id, time.monotonic(), 0.0

    def report(step: int, steps: int, loss: float | None = None, phase: str = "") -> None:
        nonlocal last_report
        now = time.monotonic()
        if step >= steps or now - last_report > SECONDS_BETWEEN_REPORTS:
            last_report = now
            tell(Advanced(step, steps, None if loss is None else float(loss), phase))

    try:
        open_folder(task.folder)
        seed_everything(task.step.config.get("seed", 0))
        function(StepContext(task.step, task.folder, task.inputs, report, task.data_path))
        return mark_done(task.folder, task.step, time.monotonic() - start, task.contents)
    except UserError as error:
        return UserError(f"{name}: {error}")
    except Exception as error:
        with suppress(OSError):
            if shutil.disk_usage(task.folder).free < FULL_BELOW_BYTES:
                return UserError(f"{name}: the disk of {task.folder} is full; free some space and repeat the command")
        if what := shortage(error):
            advice = "use --workers 1 or a smaller model" if what == NO_MEMORY else f"it was working in {task.folder}"
            return UserError(f"{name}: {what}; {advice}")
        path = task.folder / ERROR
        where = f" (a bug of Blindspot; the traceback is in {path})"
        try:
            write_text(path, traceback.format_exc())
        except UserError:
            where = ""
        return StepFailure(f"{name} failed: {_in_a_line(error)}{where}")


def seed_everything(seed: int) -> None:
    """Start from the same random state, whatever this process did before."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _in_a_line(error: Exception) -> str:
    return " ".join("".join(traceback.format_exception_only(error)).split())
