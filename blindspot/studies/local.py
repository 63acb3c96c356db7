"""Workers on this machine: processes of one thread that import torch once and carry out step after step.

They hold the run folder's lock as long as they live, and the kernel kills them when the engine dies.
"""

import gc
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from blindspot.errors import UserError, shortage
from blindspot.studies.engine import ENVIRONMENT, LOG, REGISTRY, Assignment, Outcome, StepFailure, carry_out, in_a_line
from blindspot.studies.progress import Advanced
from blindspot.studies.ranks import die_with, load_functions, on_ranks
from blindspot.studies.step import Step

WORKER = "import sys; from blindspot.studies.local import serve; serve(*sys.argv[1:])"


class LocalPool:
    """Worker processes, each bound for life to a GPU where there are some.

    A step of several GPUs runs in one of them; others, which do nothing meanwhile, lend theirs.
    """

    def __init__(self, workers: int, run: Path, lock: int, gpus: Sequence[str] = (), registry: str = REGISTRY) -> None:
        """Start workers.

        Args:
            workers: steps side by side, at most.
            lock: the descriptor that holds it; workers and all that these start hold it, too.
            gpus: as ``CUDA_VISIBLE_DEVICES`` names them; without any, nothing is bound.
            registry: ``module:attribute`` of the step functions.
        """
        self._most = workers
        names = [*gpus, *[""] * (workers - len(gpus))] if gpus else [None] * workers
        self._workers = [_Worker(name, run / LOG, lock, registry) for name in names]
        try:
            (run / LOG).write_bytes(b"")
            for worker in self._workers[:workers]:
                worker.launch()
        except BaseException:
            self.close()
            raise

    def free(self, step: Step) -> bool:
        return bool(self._for(step))

    def start(self, task: Assignment) -> None:
        first, *others = self._for(task.step)
        first.start(task, [worker.gpu for worker in (first, *others) if worker.gpu])
        for worker in others:
            worker.task = task

    def wait(self, seconds: float) -> list[tuple[Assignment | None, Advanced | Outcome]]:
        launched = {worker.connection: worker for worker in self._workers if worker.process}
        news = []
        for connection in wait(list(launched), seconds):
            worker = launched[connection]  # pyright: ignore[reportArgumentType]
            task, came = worker.task, worker.receive()
            news.append((task, came))
            for other in self._workers if not isinstance(came, Advanced) else ():
                other.task = None if other.task is task else other.task
        return news

    def close(self) -> None:
        for worker in self._workers:
            if worker.process:
                worker.process.kill()
        for worker in self._workers:
            if worker.process:
                worker.process.wait()
                worker.connection.close()

    def _for(self, step: Step) -> "list[_Worker]":
        """The worker that could begin a step now, and those that would lend it their GPUs; none if it has to wait."""
        if len({worker.task.step.id for worker in self._workers if worker.task}) >= self._most:
            return []
        idle = [worker for worker in self._workers if worker.task is None]
        if not step.gpus:
            return sorted(idle, key=lambda worker: bool(worker.gpu))[:1]
        bound = [worker for worker in idle if worker.gpu]
        return bound[: step.gpus] if len(bound) >= step.gpus else []


class _Worker:
    """The engine's side of a worker process, and the task that it works on or lends its GPU to."""

    process: subprocess.Popen[bytes] | None = None
    connection: Connection
    task: Assignment | None = None

    def __init__(self, gpu: str | None, log: Path, lock: int, registry: str) -> None:
        self.gpu, self._log, self._lock, self._registry = gpu, log, lock, registry

    def launch(self) -> None:
        """Start the process."""
        self.connection, theirs = Pipe()
        search = os.pathsep.join(path for path in sys.path if path)
        devices = {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu}
        # Workers inherit the blocked signal: Ctrl-C is for the engine, which then stops them.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with self._log.open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-c", WORKER, str(theirs.fileno()), str(os.getpid()), self._registry],
                    env={**os.environ, **ENVIRONMENT, **devices, "PYTHONPATH": search},
                    stdin=self._lock,  # which the processes that a step starts inherit, whoever starts them
                    stdout=log,
                    stderr=log,
                    pass_fds=(theirs.fileno(),),
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            theirs.close()

    def start(self, task: Assignment, gpus: list[str]) -> None:
        """Begin a step on some GPUs."""
        if self.process is None:
            self.launch()
        self.task = task
        with suppress(OSError):  # of a process that is gone, which `receive` says
            self.connection.send((task, gpus))

    def receive(self) -> Advanced | Outcome:
        """Its next message; an error if it died, which it does by SIGKILL when Linux runs out of memory."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            assert self.process
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
    die_with(int(parent))
    connection = Connection(int(socket))
    tasks: queue.SimpleQueue[tuple[Assignment, list[str]]] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                tasks.put(connection.recv())
        except (EOFError, OSError):
            os._exit(1)  # the engine is gone, which elsewhere than on Linux nothing else tells

    threading.Thread(target=listen, daemon=True).start()
    try:
        functions = load_functions(registry)
    except Exception as error:
        traceback.print_exc()
        line = f"workers cannot start: {in_a_line(error)} (more in {LOG} of the run folder)"
        connection.send(UserError(line) if isinstance(error, UserError) or shortage(error) else StepFailure(line))
        return
    torch = sys.modules.get("torch")
    while True:
        task, gpus = tasks.get()
        function = partial(on_ranks, registry, gpus) if len(gpus) > 1 else functions[task.step.kind]
        connection.send(carry_out(task, function, connection.send))
        if torch and torch.cuda.is_initialized():  # another step may borrow the GPU next
            gc.collect()
            torch.cuda.empty_cache()
