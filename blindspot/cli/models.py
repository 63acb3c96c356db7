"""``blindspot ask``, ``export``, ``encoders`` and ``positions``: models, and what they can be made of."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from blindspot.cli.status import one_line_errors


def ask(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, e.g. runs/miniature/models/...")],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask, in quotes.")],
) -> None:
    """Ask a trained model about a picture.

    A model of the miniature knows a closed set of words; a word outside it is
    refused with the list.

    [bold]Examples[/bold]

      [cyan]blindspot ask runs/miniature/models/clip-learned-seed0 scene.png "red left-of blue"[/cyan]
      [cyan]blindspot ask runs/miniature/models/aimv2-axial-seed0 scene.png "box of red"[/cyan]
    """
    with one_line_errors():
        from blindspot.model import images, load

        picture = images.open_image(image)
        images.refuse_elongated(picture)
        load.quiet()
        opened, processor = load.load(model)
        print(load.ask(opened, processor, picture, question))


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder of any format, or a Hugging Face id.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; must not exist.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="[bold]llava-hf[/bold]: transformers opens it without Blindspot; [bold]llava[/bold]: the original "
            "LLaVA's layout; [bold]blindspot[/bold]: this program's own.",
        ),
    ] = "llava-hf",
) -> None:
    """Write a model in a format that another program reads.

    A model with a special positional scheme or connector has no other format
    than Blindspot's own; asked for another, the command says why.

    [bold]Examples[/bold]

      [cyan]blindspot export runs/miniature/models/clip-learned-seed0 out/clip[/cyan]
      [cyan]blindspot export liuhaotian/llava-v1.5-7b out/llava-hf --format llava-hf[/cyan]
    """
    with one_line_errors():
        from blindspot.model import load
        from blindspot.model.export import export as write

        load.quiet()
        write(model, out, form)
        Console().print(f"Written: {out}", soft_wrap=True, highlight=False)


def encoders(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Print the image encoders: sizes, tokens, cost, conventions, released checkpoints."""
    with one_line_errors():
        import json

        from blindspot.encoders import catalogue

        if as_json:
            print(json.dumps(catalogue.rows(), indent=1))
            return
        console = Console()
        console.print(catalogue.as_table(catalogue.rows()))
        console.print(catalogue.as_conventions())


def positions(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Print the positional schemes of both sites with their properties, measured now."""
    with one_line_errors():
        import json

        from blindspot.positions import properties

        rows = properties.rows()
        if as_json:
            print(json.dumps(rows, indent=1))
        else:
            Console().print(properties.as_table(rows))
