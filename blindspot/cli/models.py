"""``blindspot ask``, ``export``, ``encoders`` and ``positions``: models, and what they can be made of."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blindspot.cli.options import Json, Model, Models, Picture, TrustRemoteCode
from blindspot.cli.status import one_line_errors
from blindspot.text import clean


def ask(
    models: Models,
    image: Picture,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask, in quotes.")],
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Ask one model or several about a picture.

    One model: its answer and nothing else. Several: a table, one answer a row.
    A model of the miniature knows a closed set of words; a word outside it is
    refused with the list.

    [bold]Examples[/bold]

      [cyan]blindspot ask runs/miniature/models/clip-learned-seed0 scene.png "red left-of blue"[/cyan]
      [cyan]blindspot ask runs/siglip2 runs/aimv2 ramen.jpg "Are the chopsticks left of the bowl?"[/cyan]
    """
    with one_line_errors():
        from blindspot.model import images

        images.refuse_elongated(images.open_image(image))
        from blindspot.evaluation.localisation.single import names, open_subject  # torch, which a mistake need not load

        answers: list[tuple[str, str]] = []
        for model, name in zip(models, names(models), strict=True):
            subject = open_subject(model, name, trust_remote_code)
            answers.append((name, _harmless(subject.ask(image, question).raw)))
        if len(answers) == 1:
            print(answers[0][1])
            return
        table = Table("model", "answer", box=SIMPLE_HEAD)
        for name, answer in answers:
            table.add_row(Text(name), Text(answer or "(empty answer)"))
        Console().print(table)


def _harmless(answer: str) -> str:
    """An answer without what moves a terminal's cursor; its lines stay."""
    return "\n".join(clean(line, len(line)) for line in answer.splitlines())


def export(
    model: Model,
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
        from blindspot.model.load import export as write

        load.quiet()
        write(model, out, form)
        Console().print(f"Written: {out}", soft_wrap=True, highlight=False)


def encoders(
    as_json: Json = False,
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
    as_json: Json = False,
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
