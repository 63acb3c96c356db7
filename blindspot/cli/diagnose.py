"""``blindspot diagnose``: where spatial information is lost in a model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from blindspot.cli.options import Model
from blindspot.cli.status import one_line_errors


def diagnose(
    model: Model,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write. [dim]\\[default: runs/diagnose/MODEL][/dim]", show_default=False),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Names, comma-separated, instead of all diagnostics. An unknown name prints the list."),
    ] = None,
    stimuli: Annotated[int, typer.Option(help="Pictures for each thing that is measured.", min=16)] = 256,
    batch: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 32,
    seed: Annotated[int, typer.Option(help="Of the pictures and everything random.")] = 0,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, ...; by default a GPU if there is one.", show_default=False)
    ] = "auto",
) -> None:
    """Show at which stage of a model spatial information is there, what its answers follow, and where it is lost.

    Works on drawn pictures, whose truth is known; models of the miniature are
    asked in their own words, others in English. May be interrupted: the same
    command goes on with the diagnostics that are not done.

    [bold]What it writes[/bold]

      [cyan]index.html[/cyan]      the page: the stage figure, maps, answers that flip
      [cyan]*.json, *.npz[/cyan]   numbers and pictures of each diagnostic
      [cyan]figures/[/cyan]        every figure as SVG and PDF, with the CSV behind it

    [bold]Examples[/bold]

      [cyan]blindspot diagnose runs/miniature/models/clip-axial-seed0[/cyan]
      [cyan]blindspot diagnose llava-hf/llava-1.5-7b-hf --only probes,attention --device cuda[/cyan]
    """
    with one_line_errors():
        from blindspot.diagnostics.registry import DIAGNOSTICS
        from blindspot.errors import UserError, one_of

        names = list(DIAGNOSTICS) if only is None else [name.strip() for name in only.split(",") if name.strip()]
        if not names:
            raise UserError(f"--only names no diagnostic; name some of {', '.join(DIAGNOSTICS)}")
        for name in names:
            one_of(name, DIAGNOSTICS, "--only", "diagnostic")
        console = Console()
        folder = out or Path("runs/diagnose") / Path(model).name
        _run(model, names, folder, (stimuli, batch, seed), device, console)
        from blindspot.reporting.diagnosis import write_diagnosis

        page, sentences = write_diagnosis(folder)
        for sentence in sentences:
            console.print(f"- {sentence}", highlight=False)
        console.print(f"The page: {page}", soft_wrap=True, highlight=False)


def _run(
    model: str, names: list[str], folder: Path, sizes: tuple[int, int, int], device: str, console: Console
) -> None:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from blindspot.diagnostics.base import Budget
    from blindspot.diagnostics.run import claim, diagnose, open_subject
    from blindspot.evaluation.answerers.local import weights_sha256
    from blindspot.files import locked
    from blindspot.model.load import quiet

    quiet()
    budget = Budget(*sizes)
    with locked(folder):
        with console.status(f"opening {model}"):
            subject = open_subject(model, device)
        left = claim(folder, model, weights_sha256(subject.model)[:16], names, budget)
        columns = (TextColumn("{task.description:16}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            bars = {name: progress.add_task(name, total=None, start=False) for name in left}

            def told(name: str, done: int, of: int) -> None:
                if done == 0:
                    progress.start_task(bars[name])
                progress.update(bars[name], completed=done, total=of)

            diagnose(subject, left, budget, folder, told)
