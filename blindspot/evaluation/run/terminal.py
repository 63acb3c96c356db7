"""What the user sees of a run: what it will do, a bar for each benchmark, what has no answer."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from blindspot.benchmarks.base import Collection
from blindspot.evaluation.run.answers import ERRORS

SECONDS_BETWEEN_LINES = 60.0
_MOST_NAMED = 3


def show_plan(
    console: Console, facts: Mapping[str, str], collections: Sequence[Collection], places: Sequence[Path]
) -> None:
    """Print what a run will do.

    Args:
        console: where to.
        facts: what holds for all benchmarks, by what it is called.
        collections: the benchmarks.
        places: where each was found.
    """
    width = max(map(len, facts), default=0)
    for name, fact in facts.items():
        console.print(Text.assemble((f"{name:<{width}}  ", "dim"), fact), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("benchmark", "questions", "pictures", "form", "found at"):
        table.add_column(header, justify="right" if header in ("questions", "pictures") else "left", overflow="fold")
    for collection, place in zip(collections, places, strict=True):
        questions, pictures = f"{len(collection.questions):,}", f"{len(collection.images):,}"
        table.add_row(collection.benchmark.name, questions, pictures, collection.form, Text(str(place)))
    console.print(table)
    for collection in collections:
        for note in collection.notes:
            console.print(Text(f"{collection.benchmark.name}: {note}", "dim"), soft_wrap=True)


class Bars:
    """Shows how far each benchmark is: bars on a terminal, elsewhere a line a minute and one at each end.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, tuple[float, int]] = {}
        self._said = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Pace(),
            TimeRemainingColumn(),
            console=console,
            disable=console.quiet or not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, benchmark: str, answered: int, total: int) -> None:
        """Show that so many questions of a benchmark are answered; the first call says where it starts."""
        new = benchmark not in self._tasks
        if new:
            self._tasks[benchmark] = self._progress.add_task(benchmark, completed=answered, total=total)
            self._began[benchmark] = (time.monotonic(), answered)
        self._progress.update(self._tasks[benchmark], completed=answered)
        late = time.monotonic() - self._said > SECONDS_BETWEEN_LINES
        if not self._console.is_terminal and (new or late or answered == total):
            self._line(benchmark, answered, total)

    def _line(self, benchmark: str, answered: int, total: int) -> None:
        self._said = time.monotonic()
        began, before = self._began[benchmark]
        pace = f", {(answered - before) / (self._said - began):.1f} questions/s" if answered > before else ""
        self._console.print(f"{benchmark}: {answered:,} of {total:,} answered{pace}", highlight=False)


class _Pace(TextColumn):
    """Questions a second since the command began."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} questions/s" if task.speed else "")


def why_unanswered(folder: Path, unanswered: Mapping[str, Mapping[str, str]]) -> str:
    """One line about the questions that have no answer: how many, why, and what to do."""
    parts = []
    for benchmark, errors in unanswered.items():
        reasons: dict[str, list[str]] = {}
        for question, why in errors.items():
            reasons.setdefault(why, []).append(question)
        named = [f"{_named(questions)}: {why}" for why, questions in list(reasons.items())[:_MOST_NAMED]]
        more = len(reasons) - len(named)
        parts.append(f"{benchmark}: {'; '.join(named)}" + (f"; {more} other reasons" if more else ""))
    count = sum(map(len, unanswered.values()))
    have = "question has" if count == 1 else "questions have"
    lists = ", ".join(str(folder / benchmark / ERRORS) for benchmark in unanswered)
    return (
        f"{count:,} {have} no answer ({'. '.join(parts)}). All others are kept; the same command asks these again. "
        f"They are listed in {lists}"
    )


def _named(questions: Sequence[str]) -> str:
    more = len(questions) - _MOST_NAMED
    return ", ".join(questions[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
