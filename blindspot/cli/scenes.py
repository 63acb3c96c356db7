"""``blindspot scenes``: drawn pictures as a data set."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from blindspot.cli.status import one_line_errors


def scenes(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; absent or empty.")],
    n: Annotated[int, typer.Option("--n", help="About how many pictures.")] = 1000,
    split: Annotated[
        str,
        typer.Option(
            help="[bold]train[/bold], [bold]test[/bold], or [bold]compositional[/bold]: "
            "a test about colours and shapes that training never combines."
        ),
    ] = "test",
    seed: Annotated[int, typer.Option(help="Another seed is another draw.")] = 0,
    png: Annotated[
        bool, typer.Option("--png", help="Every picture as a PNG file, questions in metadata.jsonl.")
    ] = False,
) -> None:
    """Write drawn scenes as a Hugging Face datasets folder, to be used without Blindspot.

    Pictures, scene graphs and questions with answers; the README.md in the
    folder says what every field is and how to load it.

    [bold]Examples[/bold]

      [cyan]blindspot scenes data/scenes[/cyan]
      [cyan]blindspot scenes data/scenes-train --n 20000 --split train[/cyan]
    """
    with one_line_errors():
        from blindspot.scenes.export import export

        console = Console()
        with console.status(f"drawing {n} scenes"):
            export(out, n, split, seed, png)
        console.print(f"Written: {out}; its README.md says how to load it", soft_wrap=True, highlight=False)
