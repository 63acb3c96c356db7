"""Carries out a plan: finds what is done, rebuilds what is damaged, gives the rest to workers, wherever these are."""

import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple, Protocol

from blindspot.errors import NO_MEMORY, UserError, shortage
from blindspot.files import LOG as STEP_LOG
from blindspot.files import write_text
from blindspot.studies.progress import Advanced, Progress, priorities
from blindspot.studies.step import (
    ERROR,
    KEEP,
    Damage,
    Done,
    Report,
    Step,
    StepContext,
    StepFunction,
    discard,
    mark_done,
    open_folder,
    read_done,
    refuse_full,
    remove_weights,
)

REGISTRY = "blindspot.studies.steps:STEPS"
LOG = "workers.log"
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",  # the order of sets of words must not differ between processes
    "HF_HUB_OFFLINE": "1",
}
SECONDS_BETWEEN_REFRESHES = 0.25
SECONDS_BETWEEN_REPORTS = 0.2
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

    @property
    def log(self) -> str:
        """Where its training log is, for errors; empty where it has none."""
        path = self.folder / STEP_LOG
        return f" (its log: {path})" if path.is_file() else ""


Outcome = Done | UserError | StepFailure


class Pool(Protocol):
    """Where steps are carried out. A step that is begun gets exactly one `Outcome`."""

    def free(self, step: Step) -> bool:
        """Whether it could begin a step now; steps that ask for as many GPUs get the same answer."""
        ...

    def start(self, task: Assignment) -> None:
        """Begin a step that is `free` to."""
        ...

    def wait(self, seconds: float) -> list[tuple[Assignment | None, Advanced | Outcome]]:
        """What came in, at the latest after some seconds; errors of a worker without a step have None."""
        ...

    def close(self) -> None:
        """Stop everything at once: steps are made to be killed."""
        ...


class Scheduler:
    """Which steps are done, under way and to do.

    A finished step counts only while the content of its inputs is what it was made from, so a rebuilt step whose
    content changed takes its dependants with it.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        run: Path,
        keep: str = "all",
        data_path: Path | None = None,
        redo: Collection[str] = (),
        verify: bool = False,
        tell: Callable[[str], object] = lambda what: None,
    ) -> None:
        """Check every step's folder; damaged ones are emptied and listed in ``damages``.

        Args:
            steps: inputs before what needs them.
            keep: one of `KEEP`.
            data_path: see `StepContext`.
            redo: ids of steps that count as not done.
            verify, tell: see `read_done`.
        """
        self.steps, self.run, self._data_path = steps, run, data_path
        self._places = {step.id: place for place, step in enumerate(steps)}
        self._light = {step.id for step in steps if step.kind in KEEP[keep]}
        self._readers: dict[str, list[str]] = {step.id: [] for step in steps}
        self._missing = {step.id: len(step.inputs) for step in steps}  # inputs that are not settled
        for step in steps:
            for name in step.inputs.values():
                self._readers[name].append(step.id)
        self.done: dict[str, str] = {}
        """The content of each step that is finished and settled."""
        self.bare: set[str] = set()
        """Finished steps whose weights were removed."""
        self.damages: list[str] = []
        self.foreign: list[str] = []
        """Finished steps that other code made."""
        self._unsettled: dict[str, tuple[str, dict[str, str]]] = {}  # of finished steps: content, and that of inputs
        self._ready: dict[int, list[tuple[float, int]]] = {step.gpus: [] for step in steps}  # a heap for each
        self._folders = {step.id: run / step.folder for step in steps}
        self._priority = priorities(steps, keep)
        for step in steps:
            if step.id in redo:
                continue
            try:
                done = read_done(self._folders[step.id], step, verify, tell)
            except Damage as damage:
                self.damages.append(f"rebuilding {step.id}: {damage}")
                discard(self._folders[step.id])
            else:
                if done:
                    self._unsettled[step.id] = (done.content, done.inputs)
                    self.bare |= {step.id} if done.removed else set()
                    if done.code not in ("", step.code):
                        self.foreign.append(step.id)
        for step in steps:
            if not step.inputs:
                self._settle(step)
        for name in self._light:
            self._lighten(name)

    @property
    def finished(self) -> set[str]:
        """Steps with a finished folder, whether or not their inputs are settled yet."""
        return self.done.keys() | self._unsettled.keys()

    @property
    def without_weights(self) -> list[Step]:
        """The finished steps whose weights are gone though steps to do need them."""
        needed, finished = set[str](), self.finished
        for step in reversed(self.steps):
            if step.id not in finished or step.id in needed:
                needed |= self.bare.intersection(step.inputs.values())
        return [step for step in self.steps if step.id in needed]

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.steps)

    def start(self, fits: Callable[[Step], bool]) -> Assignment | None:
        """What to start now: of the steps that fit and whose inputs are all settled, the one with the longest path
        after it."""
        for _, place in sorted(heap[0] for heap in self._ready.values() if heap):
            step = self.steps[place]
            if fits(step):
                heappop(self._ready[step.gpus])
                inputs = {role: self._folders[name] for role, name in step.inputs.items()}
                return Assignment(step, self._folders[step.id], inputs, self._contents(step), self._data_path)
        return None

    def finish(self, step: Step, done: Done) -> None:
        """Record that a step was carried out."""
        self._unsettled[step.id] = (done.content, done.inputs)
        self._settle(step)
        for name in step.inputs.values():
            self._lighten(name)

    def _lighten(self, name: str) -> None:
        """Remove a step's weights if they are not to be kept and every step that reads them is done."""
        if name not in self._light or not all(reader in self.done for reader in (name, *self._readers[name])):
            return
        if remove_weights(self._folders[name]).removed:
            self.bare.add(name)

    def _settle(self, step: Step) -> None:
        """Accept a step with settled inputs if it is finished and these are unchanged, and what this settles in turn;
        else it is ready, and discarded where its inputs changed."""
        settled = [step]
        while settled:
            step = settled.pop()
            content, made_from = self._unsettled.pop(step.id, (None, None))
            if content and made_from == self._contents(step):
                self.done[step.id] = content
                for name in self._readers[step.id]:
                    self._missing[name] -= 1
                    if not self._missing[name]:
                        settled.append(self.steps[self._places[name]])
                continue
            if content:
                discard(self._folders[step.id])
                self.bare.discard(step.id)
            heappush(self._ready[step.gpus], (-self._priority[step.id], self._places[step.id]))

    def _contents(self, step: Step) -> dict[str, str]:
        return {role: self.done[name] for role, name in step.inputs.items()}


def run_steps(scheduler: Scheduler, pool: Pool, progress: Progress) -> None:
    """Carry out all steps that are not done, and close the pool. The result does not depend on it.

    If a step fails, or a worker is killed, the other steps stop where they are and continue on the next call.
    """
    try:
        with progress:
            while not scheduler.complete:
                while task := scheduler.start(pool.free):
                    refuse_full(scheduler.run, task.step, [step for step, _, _ in progress.running()])
                    progress.started(task.step)
                    pool.start(task)
                for task, news in pool.wait(SECONDS_BETWEEN_REFRESHES):
                    match news, task:
                        case (UserError() | StepFailure()) as failure, _:
                            if task and not (task.folder / ERROR).exists():  # which has the traceback of a bug
                                with suppress(UserError):
                                    write_text(task.folder / ERROR, f"{failure}\n")
                            raise type(failure)(f"{failure}{task.log if task else ''}")
                        case Advanced() as advanced, Assignment(step):
                            progress.advanced(step, advanced)
                        case Done() as done, Assignment(step):
                            scheduler.finish(step, done)
                            progress.finished(step, done, scheduler.done)
                progress.refresh()
    finally:
        pool.close()


def carry_out(task: Assignment, function: StepFunction, tell: Callable[[Advanced], object]) -> Outcome:
    """Carry out a step in this process; ``tell`` hears a few times a second how far it is."""
    start = time.monotonic()
    try:
        open_folder(task.folder)
        seed_everything(task.step.config.get("seed", 0))
        function(StepContext(task.step, task.folder, task.inputs, reporting_to(tell), task.data_path))
        return mark_done(task.folder, task.step, time.monotonic() - start, task.contents)
    except Exception as error:
        said = failure(error, task.folder)
        return type(said)(f"{task.step.id}{': ' if isinstance(said, UserError) else ' '}{said}")


def reporting_to(tell: Callable[[Advanced], object]) -> Report:
    """What a step tells how far it is; of that, ``tell`` hears the end of each phase, and else a few times a second."""
    last_report = 0.0

    def report(step: int, steps: int, loss: float | None = None, phase: str = "") -> None:
        nonlocal last_report
        now = time.monotonic()
        if step >= steps or now - last_report > SECONDS_BETWEEN_REPORTS:
            last_report = now
            tell(Advanced(step, steps, None if loss is None else float(loss), phase))

    return report


def failure(error: Exception, folder: Path) -> UserError | StepFailure:
    """One line for what ended a step in ``folder``, without the step's name; there lies the traceback of a bug."""
    if isinstance(error, UserError | StepFailure):
        return error
    with suppress(OSError):
        if shutil.disk_usage(folder).free < FULL_BELOW_BYTES:
            return UserError(f"the disk of {folder} is full; free some space and repeat the command")
    if what := shortage(error):
        advice = "use --workers 1 or a smaller model" if what == NO_MEMORY else f"it was working in {folder}"
        return UserError(f"{what}; {advice}")
    where = f" (a bug of Blindspot; the traceback is in {folder / ERROR})"
    try:
        write_text(folder / ERROR, "".join(traceback.format_exception(error)))
    except UserError:
        where = ""
    return StepFailure(f"failed: {in_a_line(error)}{where}")


def seed_everything(seed: int) -> None:
    """Start from the same random state, whatever this process did before."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def in_a_line(error: Exception) -> str:
    """An exception without its traceback."""
    return " ".join("".join(traceback.format_exception_only(error)).split())
