"""The engine's side of its worker processes: start, send, listen, stop."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from blindspot.errors import UserError
from blindspot.studies.messages import Message, Task

ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",  # the order of sets of words must not differ between processes
    "HF_HUB_OFFLINE": "1",
}
MOST_WORKERS = 8
LOG = "workers.log"


class StepFailure(Exception):
    """A defect of the program; the message is one line that says where its traceback is."""


def usable_cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Worker:
    """One process and the task it works on."""

    def __init__(self, registry: str, lock: int, log: IO[bytes]) -> None:
        """Start it.

        Args:
            registry: ``module:attribute`` of the step functions.
            lock: descriptor of the run folder's lock, held by workers too: the folder is free when all are gone.
            log: takes what libraries print.
        """
        self.task: Task | None = None
        self.connection, theirs = Pipe()
        search = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": search}
        arguments = [
            sys.executable,
            "-P",
            "-m",
            "blindspot.studies.worker",
            str(theirs.fileno()),
            str(os.getpid()),
            registry,
        ]
        # Workers inherit the blocked signal: Ctrl-C is for the engine, which then stops them.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process = subprocess.Popen(
                arguments,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(), lock),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            theirs.close()

    def start(self, task: Task) -> None:
        """Send it a task."""
        self.task = task
        try:
            self.connection.send(task)
        except OSError as error:
            raise self._obituary() from error

    def receive(self) -> Message:
        """Its next message.

        Raises:
            UserError: if it was killed, which is what Linux does when memory runs out.
            StepFailure: if it died in another way.
        """
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._obituary() from error

    def kill(self) -> None:
        """Stop it at once; steps are made to be killed."""
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def _obituary(self) -> Exception:
        status = self.process.wait()
        what = self.task.step.id if self.task else "before its first step"
        if status == -signal.SIGKILL:
            return UserError(
                f"{what}: its worker process was killed, most likely because memory ran out; use --workers 1 or a "
                "smaller model and repeat the command (finished steps are kept)"
            )
        reason = signal.Signals(-status).name if status < 0 else f"status {status}"
        return StepFailure(f"{what}: its worker process died ({reason}); finished steps are kept")


class Crew:
    """Worker processes that live as long as the ``with`` block."""

    def __init__(self, count: int, registry: str, lock: int, run: Path) -> None:
        self.workers: list[Worker] = []
        self._count, self._registry, self._lock, self._log = count, registry, lock, run / LOG

    def __enter__(self) -> Self:
        try:
            with self._log.open("wb") as log:
                for _ in range(self._count):
                    self.workers.append(Worker(self._registry, self._lock, log))
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def idle(self) -> list[Worker]:
        """Workers without a task."""
        return [worker for worker in self.workers if worker.task is None]

    def messages(self, timeout: float) -> Iterator[tuple[Worker, Message]]:
        """What workers have to say within ``timeout`` seconds."""
        of: dict[Connection, Worker] = {worker.connection: worker for worker in self.workers}
        for connection in wait(list(of), timeout):
            worker = of[cast(Connection, connection)]
            yield worker, worker.receive()

    def _kill(self) -> None:
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.kill()
