"""The command line: a file a group of commands, and the page that lists them. Heavy imports sit inside, so that help
is instant."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from blindspot.cli.common import STATUS, Outermost, with_plugins
from blindspot.cli.data import benchmarks, data, doctor, scenes
from blindspot.cli.evaluation import audit, compare, evaluate, paper, score, serve
from blindspot.cli.models import app as page
from blindspot.cli.models import ask, diagnose, encoders, export, localise, positions, push
from blindspot.cli.studies import compare_arms, power, report, status, study, train

PANELS = {
    "Studies": (study, status, report, power, compare_arms, train),
    "Evaluation": (evaluate, score, compare, paper, audit, benchmarks, serve),
    "Diagnosis": (diagnose,),
    "Models": (page, ask, localise, export, push, encoders, positions),
    "Data and this machine": (scenes, doctor),
}

app = typer.Typer(
    cls=Outermost, no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False
)
for panel, commands in PANELS.items():
    for command in commands:
        pluggable = panel != "Data and this machine" and command not in (paper, power)
        app.command(epilog=STATUS, rich_help_panel=panel)(with_plugins(command) if pluggable else command)
app.add_typer(data, name="data", rich_help_panel="Data and this machine")


@app.callback(epilog=STATUS)
def blindspot(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=lambda on: _version(on)),
    ] = False,
) -> None:
    """A laboratory for spatial reasoning in vision-language models.

    It builds LLaVA-style models that differ in one thing, trains them, tests
    what they know about space, and says which differences are real. The first
    study needs no download and no GPU.

    [bold]Examples[/bold]

    The paper's eight arms in miniature, about ten minutes on two cores:

      [cyan]blindspot study miniature[/cyan]

    The same steps in less than a minute, to see that everything works:

      [cyan]blindspot study miniature --scale smoke[/cyan]

    A study of your own, three seeds, in a folder of your choice:

      [cyan]blindspot study ./mine.yaml --seeds 3 --out results/mine[/cyan]

    What a model knows about space, with intervals, beside the paper's table:

      [cyan]blindspot evaluate runs/miniature/models/clip-learned-seed0 --benchmarks spatial[/cyan]

    Where in a model spatial information is lost:

      [cyan]blindspot diagnose runs/miniature/models/clip-learned-seed0[/cyan]
    """


def _version(asked: bool) -> None:
    if asked:
        try:
            number = version("spatial-blindspot")
        except PackageNotFoundError:
            number = "(not installed)"
        typer.echo(f"blindspot {number}")
        raise typer.Exit
