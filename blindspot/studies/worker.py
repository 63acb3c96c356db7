"""A worker process: carries out the steps it is sent, one after the other, on one thread.

Started as ``python -m blindspot.studies.worker SOCKET PARENT REGISTRY``.
"""

import ctypes
import importlib
import os
import queue
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from blindspot.errors import NO_MEMORY, UserError, shortage
from blindspot.files import write_text
from blindspot.studies.cache import ERROR, mark_done, open_folder
from blindspot.studies.messages import Advanced, Failed, Finished, Task
from blindspot.studies.step import StepContext, StepFunction

SECONDS_BETWEEN_REPORTS = 0.2
PR_SET_PDEATHSIG = 1
FULL_BELOW_BYTES = 2**20


def main(socket: str, parent: str, registry: str) -> None:
    """Serve the engine at the other end of ``socket`` until it closes."""
    _die_with(int(parent))
    connection = Connection(int(socket))
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    try:
        functions = load_registry(registry)
    except Exception as error:
        traceback.print_exc()
        connection.send(
            Failed(
                f"workers cannot start: {_last_line(error)} (more in workers.log of the run folder)",
                bug=not (isinstance(error, UserError) or shortage(error)),
            )
        )
        return
    while True:
        task = tasks.get()
        connection.send(_carry_out(task, functions, connection))


def load_registry(name: str) -> Mapping[str, StepFunction]:
    """Import the step functions named ``module:attribute``; one thread for torch if they use it."""
    module, _, attribute = name.partition(":")
    functions: Mapping[str, StepFunction] = getattr(importlib.import_module(module), attribute)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    return functions


def _carry_out(task: Task, functions: Mapping[str, StepFunction], connection: Connection) -> Finished | Failed:
    start = time.monotonic()
    last_report = 0.0

    def report(step: int, steps: int, loss: float | None = None, phase: str = "") -> None:
        nonlocal last_report
        now = time.monotonic()
        if step >= steps or now - last_report > SECONDS_BETWEEN_REPORTS:
            last_report = now
            connection.send(Advanced(step, steps, None if loss is None else float(loss), phase))

    try:
        open_folder(task.folder)
        _seed(task.step.config.get("seed", 0))
        functions[task.step.kind](StepContext(task.step, task.folder, task.inputs, report, task.data_path))
        return Finished(mark_done(task.folder, task.step, time.monotonic() - start, task.contents))
    except Exception as error:
        return _failure(task, error)


def _seed(seed: int) -> None:
    """Start every step from the same random state, whatever this process did before."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _failure(task: Task, error: Exception) -> Failed:
    name = task.step.id
    if isinstance(error, UserError):
        return Failed(f"{name}: {error}", bug=False)
    if _disk_is_full(task.folder):
        return Failed(f"{name}: the disk of {task.folder} is full; free some space and repeat the command", bug=False)
    if what := shortage(error):
        advice = "use --workers 1 or a smaller model" if what == NO_MEMORY else f"it was working in {task.folder}"
        return Failed(f"{name}: {what}; {advice}", bug=False)
    path = task.folder / ERROR
    try:
        write_text(path, traceback.format_exc())
    except UserError:
        return Failed(f"{name} failed: {_last_line(error)}", bug=True)
    return Failed(f"{name} failed: {_last_line(error)} (a bug of Blindspot; the traceback is in {path})", bug=True)


def _disk_is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < FULL_BELOW_BYTES
    except OSError:
        return False


def _last_line(error: Exception) -> str:
    return " ".join("".join(traceback.format_exception_only(error)).split())


def _receive(connection: Connection, tasks: "queue.SimpleQueue[Task]") -> None:
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)  # the engine is gone; nobody would look at what this step makes


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the engine dies; elsewhere than on Linux `_receive` notices."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
