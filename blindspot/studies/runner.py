"""Carries out a plan: finds what is done, rebuilds what is damaged, spreads the rest over worker processes."""

from collections.abc import Sequence
from pathlib import Path

from blindspot.errors import UserError
from blindspot.studies.cache import Damage, Done, discard, read_done
from blindspot.studies.crew import Crew, StepFailure
from blindspot.studies.messages import Advanced, Failed, Finished, Task
from blindspot.studies.progress import Progress
from blindspot.studies.schedule import critical_paths
from blindspot.studies.step import Step

REGISTRY = "blindspot.studies.steps:STEPS"
SECONDS_BETWEEN_REFRESHES = 0.25


class Ledger:
    """Which steps are done, under way and to do.

    A finished step counts only while the content of its inputs is what it was made from, so a rebuilt step whose
    content changed takes its dependants with it.
    """

    def __init__(self, steps: Sequence[Step], run: Path) -> None:
        """Check every step's folder; damaged ones are emptied and listed in ``damages``."""
        self.steps, self.run = steps, run
        self.done: dict[str, Done] = {}
        self.running: set[str] = set()
        self.damages: list[str] = []
        self._claims: dict[str, Done] = {}
        self._ancestors: dict[str, set[str]] = {}
        self._priority = critical_paths(steps, {step.id: step.estimate for step in steps})
        for step in steps:
            inputs = set(step.inputs.values())
            self._ancestors[step.id] = inputs.union(*(self._ancestors[name] for name in inputs))
            try:
                claim = read_done(run / step.folder, step)
            except Damage as damage:
                self.damages.append(f"rebuilding {step.id}: {damage}")
                discard(run / step.folder)
            else:
                if claim:
                    self._claims[step.id] = claim
        self._settle()

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.steps)

    def next(self) -> Step | None:
        """The step to start now: of those whose inputs are all settled, the one with the longest path after it."""
        ready = [
            step
            for step in self.steps
            if step.id not in self.done and step.id not in self.running and self._ancestors[step.id] <= self.done.keys()
        ]
        return max(ready, key=lambda step: self._priority[step.id], default=None)

    def task(self, step: Step, data_path: Path | None) -> Task:
        """What a worker needs to carry out a step, now under way."""
        self.running.add(step.id)
        by_id = {other.id: other for other in self.steps}
        inputs = {role: self.run / by_id[name].folder for role, name in step.inputs.items()}
        contents = {role: self.done[name].content for role, name in step.inputs.items()}
        return Task(step, self.run / step.folder, inputs, contents, data_path)

    def finish(self, step: Step, done: Done) -> None:
        """Record that a step was carried out."""
        self.running.remove(step.id)
        self._claims[step.id] = done
        self._settle()

    def _settle(self) -> None:
        """Accept every claim whose inputs are accepted and unchanged."""
        for step in self.steps:
            claim = self._claims.get(step.id)
            if claim is None or step.id in self.done or not self._ancestors[step.id] <= self.done.keys():
                continue
            if claim.inputs == {role: self.done[name].content for role, name in step.inputs.items()}:
                self.done[step.id] = claim
            else:
                discard(self.run / step.folder)
                del self._claims[step.id]

    @property
    def cached(self) -> set[str]:
        """Steps with a finished folder, whether or not their inputs are settled yet."""
        return set(self._claims)


def run_steps(
    ledger: Ledger,
    workers: int,
    lock: int,
    progress: Progress,
    data_path: Path | None = None,
    registry: str = REGISTRY,
) -> None:
    """Carry out all steps that are not done. The result does not depend on ``workers``.

    Args:
        ledger: the steps and what is done of them.
        workers: processes side by side.
        lock: descriptor of the run folder's lock.
        progress: told what happens.
        data_path: the user's data folder.
        registry: ``module:attribute`` of the step functions by kind.

    Raises:
        UserError: if a step fails for a reason that the user can act on, or a worker was killed.
        StepFailure: if a step fails for another reason. Either way the other steps stop where they are and continue
            on the next call.
    """
    to_do = len(ledger.steps) - len(ledger.cached)
    if ledger.complete:
        return
    with progress, Crew(min(workers, to_do), registry, lock, ledger.run) as crew:
        while not ledger.complete:
            for worker in crew.idle():
                step = ledger.next()
                if step is None:
                    break
                worker.start(ledger.task(step, data_path))
                progress.started(step)
            for worker, message in crew.messages(SECONDS_BETWEEN_REFRESHES):
                match message:
                    case Failed(line, bug):
                        raise StepFailure(line) if bug else UserError(line)
                    case Advanced() if worker.task:
                        progress.advanced(worker.task.step, message)
                    case Finished(done) if worker.task:
                        step, worker.task = worker.task.step, None
                        ledger.finish(step, done)
                        progress.finished(step, done, set(ledger.done))
            progress.refresh()
