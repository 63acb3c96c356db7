"""What the user sees of a run: what it will do, and a bar for each benchmark."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from blindspot.evaluation.run.runner import Evaluation, Report
from blindspot.terminal import listing

SECONDS_BETWEEN_LINES = 60.0
_TOLD = ("model", "file", "address", "weights_sha256", "sha256", "dtype", "device", "attention")
"""What of an answerer's identity is printed; run.json has all of it."""


def show_plan(console: Console, evaluation: Evaluation, profile: str, folder: Path) -> None:
    """Print what a run in a folder will do, scored under a profile."""
    opened, limit = evaluation.opened, evaluation.limit
    with console.status("hashing the weights"):
        told = {name: str(value) for name, value in opened.answerer.identity.items() if name in _TOLD}
    departs = [f"{name} {value}" for name, value in asdict(evaluation.condition).items() if value]
    facts = {
        "model": ", ".join(value[:12] if name.endswith("sha256") else value for name, value in told.items()),
        "asked as": opened.adapter,
        "prompts": evaluation.prompts,
        "scored as": profile,
        "departs": ", ".join(departs) or "nothing",
        "limit": f"{limit:,} questions of each benchmark, drawn by a fixed seed" if limit else None,
        "run folder": str(folder),
    }
    for name, fact in facts.items():
        if fact is not None:
            console.print(Text.assemble((f"{name:<10}  ", "dim"), fact), soft_wrap=True)
    heads = ("benchmark", "questions >", "pictures >", "form", "found at")
    table = listing(*heads, box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0))
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

    def show(benchmark: str, answered: int, total: int, tokens: int) -> None:
        nonlocal said
        now, new = time.monotonic(), benchmark not in tasks
        if new:
            tasks[benchmark] = progress.add_task(benchmark, completed=answered, total=total, pace="")
            began[benchmark] = now, answered
        start, before = began[benchmark]
        seconds = max(now - start, 1e-9)
        pace = f"{(answered - before) / seconds:.1f} questions/s" if answered > before else ""
        pace += f", {tokens / seconds:,.0f} tokens/s" if tokens else ""
        progress.update(tasks[benchmark], completed=answered, pace=pace)
        late = now - said > SECONDS_BETWEEN_LINES
        if not console.is_terminal and (new or late or answered == total):
            said = now
            line = f"{benchmark}: {answered:,} of {total:,} answered"
            console.print(f"{line}, {pace}" if pace else line, highlight=False)

    with progress:
        yield show
