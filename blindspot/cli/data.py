"""``blindspot data``: what to know of a data set before training on it, and how a benchmark gets here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from blindspot.cli.options import DataRoot
from blindspot.cli.status import EXIT_USER, STATUS, one_line_errors

data = typer.Typer(no_args_is_help=True, help="Look at training data in LLaVA's form; download benchmarks.")


@data.callback()
def group() -> None:
    """Look at training data in LLaVA's form; download benchmarks."""


@data.command(epilog=STATUS)
def check(
    json_path: Annotated[Path, typer.Argument(metavar="JSON", help="An array of rows, or one row a line.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="The folder that image paths are relative to.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the whole report, as JSON.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer's folder; without one, lengths are estimated from words.")
    ] = None,
    template: Annotated[str, typer.Option(help="[bold]v1[/bold] (stage 2) or [bold]plain[/bold] (stage 1).")] = "v1",
    max_length: Annotated[int, typer.Option(help="Tokens that are kept of a row.", min=1)] = 2048,
    image_tokens: Annotated[int, typer.Option(help="Tokens that an image takes.", min=1)] = 256,
) -> None:
    """Read every row and the header of every image; say what is missing, broken, too long or without a label.

    Exit status 2 if there are rows that cannot be trained on.

    [bold]Examples[/bold]

      [cyan]blindspot data check llava_v1_5_mix665k.json data/ --out report.json[/cyan]
    """
    with one_line_errors():
        from blindspot.training.llava import check as checking
        from blindspot.training.llava.check import as_table

        with _bars() as show:
            found = checking.check(json_path, images, out, tokenizer, template, max_length, image_tokens, report=show)
        Console().print(as_table(found))
        if any(found["faults"].values()):
            raise typer.Exit(EXIT_USER)


@data.command(epilog=STATUS)
def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A benchmark of `blindspot benchmarks`.")],
    root: DataRoot = None,
    form: Annotated[
        str | None,
        typer.Option(help="[bold]tsv[/bold] (VLMEvalKit), [bold]hub[/bold] (Hugging Face) or [bold]original[/bold]."),
    ] = None,
) -> None:
    """Download a benchmark, check it, and say where it is. Broken off, the same command continues.

    What is on this disk already is not downloaded again, so that this also
    works without a network.

    [bold]Examples[/bold]

      [cyan]blindspot data get vsr[/cyan]
      [cyan]blindspot data get gqa --form hub --data /scratch/benchmarks[/cyan]
    """
    with one_line_errors():
        from blindspot.benchmarks.download import data_root
        from blindspot.benchmarks.download import get as download
        from blindspot.benchmarks.registry import find

        with _bars() as show:
            place, before = download(find(name), data_root(root), form, show)
        said = f"{'Already there' if before else 'Written'}: {place}"
        Console().print(said, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar on the terminal for each thing that is counted: told what, how many are done, and of how many."""
    bars: dict[str, TaskID] = {}
    terminal = Console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress:

        def show(what: str, done: int, total: int | None) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)

        yield show
