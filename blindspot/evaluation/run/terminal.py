"""What the user sees of a run: what it will do, and a bar for each benchmark."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from blindspot.evaluation.run.runner import Evaluation, Report

SECONDS_BETWEEN_LINES = 60.0


def show_plan(console: Console, facts: Mapping[str, str], evaluation: Evaluation) -> None:
    """Print what a run will do: ``facts`` that hold for all benchmarks, by what they are called, and each benchmark."""
    width = max(map(len, facts), default=0)
    for name, fact in facts.items():
        console.print(Text.assemble((f"{name:<{width}}  ", "dim"), fact), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("benchmark", "questions", "pictures", "form", "found at"):
        table.add_column(header, justify="right" if header in ("questions", "pictures") else "left", overflow="fold")
    for collection, place in zip(evaluation.collections, evaluation.places, strict=True):
        questions, pictures = f"{len(collection.questions):,}", f"{len(collection.images):,}"
        table.add_row(collection.benchmark.name, questions, pictures, collection.form, Text(str(place)))
    console.print(table)
    for collection in evaluation.collections:
        for note in collection.notes:
            console.print(Text(f"{collection.benchmark.name}: {note}", "dim"), soft_wrap=True)


@contextmanager
def bars(console: Console) -> Iterator[Report]:
    """Shows how far each benchmark is: bars on a terminal, elsewhere a line a minute and one at each end."""
    tasks: dict[str, TaskID] = {}
    began: dict[str, tuple[float, int]] = {}
    said = 0.0
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TimeRemainingColumn(),
        console=console,
        disable=console.quiet or not console.is_terminal,
    )

    def show(benchmark: str, answered: int, total: int) -> None:
        nonlocal said
        now, new = time.monotonic(), benchmark not in tasks
        if new:
            tasks[benchmark] = progress.add_task(benchmark, completed=answered, total=total, pace="")
            began[benchmark] = now, answered
        start, before = began[benchmark]
        pace = f"{(answered - before) / max(now - start, 1e-9):.1f} questions/s" if answered > before else ""
        progress.update(tasks[benchmark], completed=answered, pace=pace)
        late = now - said > SECONDS_BETWEEN_LINES
        if not console.is_terminal and (new or late or answered == total):
            said = now
            line = f"{benchmark}: {answered:,} of {total:,} answered"
            console.print(f"{line}, {pace}" if pace else line, highlight=False)

    with progress:
        yield show
