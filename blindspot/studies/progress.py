"""What the user sees of a running study: the plan, one line a step, the time left."""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from blindspot.studies.step import KEEP, Done, Step

TRUSTED_FRACTION = 0.1  # a step's own pace says more than its estimate once this much of it is done
SECONDS_BETWEEN_ESTIMATES = 0.25
SECONDS_TO_START = 6.0  # workers import torch and transformers


class Advanced(NamedTuple):
    """How far a step is."""

    step: int
    steps: int
    loss: float | None
    phase: str
    seconds_left: float | None = None  # as the step itself expects


class Phase(NamedTuple):
    """How many of the steps of a phase are in which state."""

    phase: str
    steps: int
    done: int
    running: int
    to_do: int
    seconds_left: float  # one after the other

    def to_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "seconds_left": round(self.seconds_left, 1)}


def critical_paths(steps: Sequence[Step], seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds from the start of each step to the end of the longest chain that waits for it."""
    longest_after: dict[str, float] = {}
    paths: dict[str, float] = {}
    for step in reversed(steps):
        paths[step.id] = seconds.get(step.id, 0.0) + longest_after.get(step.id, 0.0)
        for source in step.inputs.values():
            longest_after[source] = max(longest_after.get(source, 0.0), paths[step.id])
    return paths


def priorities(steps: Sequence[Step], keep: str) -> dict[str, float]:
    """The higher, the earlier a step is begun: the longest chain first, but before all what reads weights that go when
    they were read (``keep``, of `KEEP`), so that few of these are there at a time."""
    paths = critical_paths(steps, {step.id: step.estimate for step in steps})
    going, most = {step.id for step in steps if step.kind in KEEP[keep]}, max(paths.values(), default=0.0)
    return {step.id: paths[step.id] + most * (not going.isdisjoint(step.inputs.values())) for step in steps}


def time_left(steps: Sequence[Step], seconds: Mapping[str, float], workers: int, gpus: int = 0) -> float:
    """Seconds until all of ``seconds`` is done: as much as the longest chain takes, or all workers or GPUs together."""
    of_gpus = sum(step.gpus * seconds.get(step.id, 0.0) for step in steps) / max(gpus, 1)
    return max(sum(seconds.values()) / workers, of_gpus, *critical_paths(steps, seconds).values())


def duration(seconds: float) -> str:
    """``8 s``, ``4 min``, ``2 h 05 min``."""
    if seconds < 99.5:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def phase_of(step: Step) -> str:
    """How tables and lines name what a step does."""
    return f"{step.kind} {step.stage}" if step.stage else step.kind


@dataclass
class _Active:
    step: Step
    since: float = field(default_factory=time.monotonic)
    latest: Advanced | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    def seconds_left(self, expected: float) -> float:
        if self.latest and self.latest.seconds_left is not None:
            return self.latest.seconds_left
        spent = self.seconds
        fraction = self.latest.step / self.latest.steps if self.latest and self.latest.steps else 0.0
        return max((spent / fraction if fraction >= TRUSTED_FRACTION else expected) - spent, 0.0)


def print_notes(console: Console, notes: Iterable[str]) -> None:
    """Print lines that a user is to see first."""
    for note in notes:
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)


class Progress:
    """Prints to a console: live lines on a terminal, plain lines at the end of each step elsewhere."""

    def __init__(
        self, console: Console, steps: Sequence[Step], labels: Mapping[str, str], workers: int, gpus: int = 0
    ) -> None:
        """``labels`` say what to call each arm."""
        self._console, self._steps, self._workers, self._gpus = console, steps, workers, gpus
        self._left_at = (-SECONDS_BETWEEN_ESTIMATES, 0.0)  # when it was estimated, and what
        self._unfinished = {step.id: step for step in steps}
        self._active: dict[str, _Active] = {}
        self._paces: dict[str, list[float]] = defaultdict(list)
        self._live: Live | None = None
        self._labels: dict[str, str] = {}
        """What each step belongs to: an arm (and the benchmark that it alone is asked there), or what arms share."""
        for step in steps:
            shared = "all arms" if step.kind in ("data", "text") else f"shared: {step.id.split('/')[1]}"
            own = f", {step.id.split('/')[2]}" if step.kind == "evaluate" and step.id.count("/") == 4 else ""
            self._labels[step.id] = f"{labels[step.arm]}{own}" if step.arm else shared

    def show_plan(self, cached: Collection[str], title: str, notes: Sequence[str], again: Collection[str] = ()) -> None:
        """Print how many steps of each phase there are, are done, are running and how long the rest takes; of those to
        do also how many are made ``again``, if any are."""
        self._unfinished = {step.id: step for step in self._steps if step.id not in cached}
        print_notes(self._console, notes)
        table = Table(title=title, title_justify="left", title_style="bold")
        table.add_column("phase")
        optional = (["running"] if self._active else []), (["again"] if again else [])
        for heading in ("steps", "done", *optional[0], "to do", *optional[1], "estimated"):
            table.add_column(heading, justify="right")
        for row in self.phases():
            if row.phase == "all":
                table.add_section()
            of_these = [step.id in again for step in self._steps if row.phase in ("all", phase_of(step))]
            cells = (row.steps, row.done, *([row.running] if self._active else []), row.to_do)
            cells += (sum(of_these),) if again else ()
            table.add_row(row.phase, *map(str, cells), duration(row.seconds_left) if row.done < row.steps else "")
        self._console.print(table)
        if self._unfinished:
            processes = "one process" if self._workers == 1 else f"{self._workers} processes side by side"
            self._console.print(f"The last row is wall time with {processes}.", soft_wrap=True, highlight=False)

    def phases(self) -> list[Phase]:
        """A row for each phase, and last one for all steps, whose time is that on the wall."""
        left, steps = self._left(), defaultdict[str, list[Step]](list)
        for step in self._steps:
            steps[phase_of(step)].append(step)
        rows: list[Phase] = []
        for phase, of_phase in {**steps, "all": self._steps}.items():
            to_do = [step.id for step in of_phase if step.id in self._unfinished]
            running = sum(name in self._active for name in to_do)
            seconds = sum(left[name] for name in to_do)
            if phase == "all" and to_do:
                seconds = time_left(self._steps, left, self._workers, self._gpus)
                seconds += 0 if self._active else SECONDS_TO_START
            rows.append(Phase(phase, len(of_phase), len(of_phase) - len(to_do), running, len(to_do) - running, seconds))
        return rows

    def recall(self, done: Mapping[str, float], active: Mapping[str, tuple[float, Advanced]]) -> None:
        """Take up from a run folder where another process is.

        Args:
            done: seconds that each finished step took.
            active: for how many seconds others have been at work, and how far they are.
        """
        steps, now = {step.id: step for step in self._steps}, time.monotonic()
        for name, seconds in done.items():
            self._paces[phase_of(steps[name])].append(seconds / steps[name].estimate)
        self._unfinished = {name: step for name, step in steps.items() if name not in done}
        self._active = {name: _Active(steps[name], now - spent, latest) for name, (spent, latest) in active.items()}

    def running(self) -> list[tuple[Step, float, float]]:
        """Each step under way, for how many seconds it has been, and about how many it still takes."""
        left = self._left()
        return [(active.step, active.seconds, left[name]) for name, active in self._active.items()]

    def started(self, step: Step) -> None:
        """A worker begins a step."""
        self._active[step.id] = _Active(step)

    def advanced(self, step: Step, latest: Advanced) -> None:
        """A worker tells how far it is."""
        self._active[step.id].latest = latest

    def finished(self, step: Step, done: Done, all_done: Collection[str]) -> None:
        """A step is complete; ``all_done`` are the ids of all complete steps."""
        cells = self._describe(self._active.pop(step.id))
        self._unfinished = {other.id: other for other in self._steps if other.id not in all_done}
        self._paces[phase_of(step)].append(done.seconds / step.estimate)
        number, total = len(self._steps) - len(self._unfinished), len(self._steps)
        rest = f"{duration(self._seconds_left())} left" if self._unfinished else "all done"
        line = "  ".join([f"[{number:>{len(str(total))}}/{total}]", *cells, f"{duration(done.seconds):>6}", rest])
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def refresh(self) -> None:
        """Redraw the live lines."""
        if self._live is None:
            return
        lines = self.lines()
        number, left = len(self._steps) - len(self._unfinished), duration(self._seconds_left())
        total = Text(f"{number} of {len(self._steps)} steps done, about {left} left", style="bold")
        self._live.update(Group(lines, total), refresh=True)

    def lines(self) -> Table:
        """A line for each step under way."""
        lines, left = Table.grid(padding=(0, 2)), self._left()
        for _ in range(8):
            lines.add_column(no_wrap=True, overflow="ellipsis")
        for name, active in self._active.items():
            phase = active.latest.phase if active.latest else "starting"
            cells = [Text(cell.strip()) for cell in self._describe(active)]
            spent = f"for {duration(active.seconds)}"
            lines.add_row(*cells, phase, spent, f"{duration(left[name])} left", style="cyan")
        return lines

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def _describe(self, active: _Active) -> list[str]:
        step, latest = active.step, active.latest
        widest = max(map(len, self._labels.values()))
        seed = "all seeds" if step.seed is None else f"seed {step.seed}"
        unit = "asked" if step.kind == "evaluate" else "step"
        done = f"{unit} {latest.step}/{latest.steps}" if latest and latest.steps else ""
        loss = f"loss {latest.loss:.4f}" if latest and latest.loss is not None else ""
        return [
            f"{phase_of(step):<18}",
            f"{self._labels[step.id]:<{widest}}",
            f"{seed:<9}",
            f"{done:<17}",
            f"{loss:<11}",
        ]

    def _left(self) -> dict[str, float]:
        """Seconds that each unfinished step still takes: its estimate, corrected by how long steps of the same phase,
        or else all steps, really took, and by how far it is."""
        paces = {phase: sum(few) / len(few) for phase, few in self._paces.items()}
        every = [pace for few in self._paces.values() for pace in few]
        usual = sum(every) / len(every) if every else 1.0
        left = {name: step.estimate * paces.get(phase_of(step), usual) for name, step in self._unfinished.items()}
        for name, active in self._active.items():
            left[name] = active.seconds_left(left.get(name, active.step.estimate))
        return left

    def _seconds_left(self) -> float:
        """Of the whole study; looking at all of its steps for each of thousands would take longer than these."""
        now = time.monotonic()
        if now - self._left_at[0] > SECONDS_BETWEEN_ESTIMATES:
            self._left_at = (now, time_left(self._steps, self._left(), self._workers, self._gpus))
        return self._left_at[1]
