"""``blindspot serve``: a model behind the protocol of OpenAI's chat completions."""

from typing import Annotated

import typer

from blindspot.cli.status import one_line_errors


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder of any format, or a Hugging Face id.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8000,
    batch: Annotated[int, typer.Option(help="Most questions that are computed at a time.", min=1)] = 32,
    name: Annotated[str | None, typer.Option(help="The model's name for clients; by default the folder's.")] = None,
) -> None:
    """Serve a model to other programs, as OpenAI's chat completions.

    Questions that arrive together are answered in one batch, greedily. Pictures
    are taken as data URLs; nothing is fetched from elsewhere. What would change
    an answer and is not done here (sampling, tools, several turns) is refused.
    There is no key: keep it on this machine, or behind something that has one.

    Ctrl-C stops it when the batch under way is answered; twice, at once.

    [bold]Examples[/bold]

      [cyan]blindspot serve runs/miniature/models/clip-learned-seed0[/cyan]
      [cyan]blindspot serve llava-hf/llava-1.5-7b-hf --port 8001 --batch 32[/cyan]

    and from another terminal, or from any client of that protocol:

      [cyan]curl http://127.0.0.1:8000/v1/models[/cyan]
    """
    with one_line_errors():
        from blindspot.evaluation.serving.running import run

        run(model, host, port, batch, name)
