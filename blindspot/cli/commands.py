"""The commands: parse, call, print. Heavy imports sit inside them, so that help is instant."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from blindspot.cli.data import data as data_commands
from blindspot.cli.status import EXIT_USER, STATUS, one_line_errors
from blindspot.cli.train import train
from blindspot.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
app.add_typer(data_commands, name="data")
app.command(epilog=STATUS)(train)


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

    Tables and page once more, from what a run left:

      [cyan]blindspot report runs/miniature[/cyan]
    """


@app.command(epilog=STATUS)
def study(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A shipped study, or a YAML file of your own.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder. [dim]\\[default: runs/NAME, or runs/NAME-SCALE][/dim]", show_default=False),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            help="[bold]full[/bold], or a scale of the study, e.g. [bold]smoke[/bold]: quick, numbers mean nothing."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Train everything this many times, instead of what the study says.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of real data, for studies that read some (nlvr).", show_default=False)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes side by side; results do not depend on it. [dim]\\[default: one per core, at most 8][/dim]"
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only say what a study of real size costs and needs; for the paper's studies."),
    ] = False,
    gpus: Annotated[int, typer.Option(help="With --plan: GPUs to plan for.", min=1)] = 8,
    mfu: Annotated[float, typer.Option(help="With --plan: share of the GPUs' peak that training reaches.")] = 0.4,
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: print JSON, for scripts.")] = False,
) -> None:
    """Run a study: train its arms, test them, write tables and a page.

    Prints the plan, then a line per step. It may be interrupted or killed at
    any moment: the same command continues, and the results are the same, bit
    for bit. A finished step is not repeated unless its part of the study, the
    code or its inputs change; a damaged file is noticed and rebuilt.

    [bold]What it writes[/bold] into the run folder:

      [cyan]report/index.html[/cyan]   the page: tables, figures, a gallery of answers
      [cyan]results.json[/cyan]        every number on it
      [cyan]tables/[/cyan]             the tables as CSV and LaTeX
      [cyan]study.yaml[/cyan]          the study as it was run
      [cyan]steps/[/cyan]              one folder per step: weights, logs, raw answers

    [bold]Shipped studies[/bold]

      [cyan]miniature[/cyan]   four encoder families, each with absolute positions
                  and with 2D-RoPE, on drawn scenes
      [cyan]nlvr[/cyan]        the same arms on sentences that people wrote
                  about pictures; needs --data
      [cyan]objectives[/cyan]  one trunk; only what pretrains it moves
      [cyan]positions[/cyan]   schemes of the encoder and of the language model
      [cyan]released[/cyan]    the public code's arms beside corrected ones

    [bold]Of real size, for --plan[/bold]

      [cyan]paper[/cyan], [cyan]paper-released[/cyan], [cyan]paper-controlled[/cyan]

    [bold]Examples[/bold]

      [cyan]blindspot study miniature --scale smoke[/cyan]
      [cyan]blindspot study nlvr --data ~/nlvr/nlvr[/cyan]
      [cyan]blindspot study ./mine.yaml --seeds 3 --out results/mine[/cyan]
      [cyan]blindspot study paper --plan --gpus 8[/cyan]
    """
    with one_line_errors():
        from blindspot.studies.paper.loading import is_paper
        from blindspot.studies.study import run_study

        console = Console()
        if is_paper(name):
            _plan(name, data, gpus, mfu, as_json, console) if plan else _only_planned(name)
            return
        if plan:
            raise UserError(f"study {name} is a miniature, which prints its plan when it runs; leave out --plan")
        run = run_study(name, out=out, scale=scale, seeds=seeds, data=data, workers=workers, console=console)
        _report(run, console)


@app.command(epilog=STATUS)
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/miniature.")],
) -> None:
    """Write the tables and the page of a finished run once more, and print the tables."""
    with one_line_errors():
        if not (run / "plan.json").is_file():
            raise UserError(
                f"{run} is not a run folder (it has no plan.json); make one with: blindspot study miniature"
            )
        _report(run, Console())


@app.command(epilog=STATUS)
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


@app.command(epilog=STATUS)
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
            export(out, n, split, seed)
        console.print(f"Written: {out}; its README.md says how to load it", soft_wrap=True, highlight=False)


@app.command(epilog=STATUS)
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


@app.command(epilog=STATUS)
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


@app.command("compare-arms", epilog=STATUS)
def compare_arms(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="A shipped study, or a YAML file of your own.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Say what moves between the arms that a study compares.

    A comparison is called controlled only where exactly one thing moves.

    [bold]Examples[/bold]

      [cyan]blindspot compare-arms miniature[/cyan]
      [cyan]blindspot compare-arms ./mine.yaml[/cyan]
    """
    with one_line_errors():
        import json

        from blindspot.studies import compare
        from blindspot.studies.paper import compare as paper
        from blindspot.studies.paper.loading import is_paper, load_paper

        comparisons = paper.moves(load_paper(name)) if is_paper(name) else compare.compare_arms(name)
        if as_json:
            print(json.dumps([one.to_dict() for one in comparisons], indent=1))
        else:
            Console().print(compare.as_table(comparisons))


@app.command(epilog=STATUS)
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


@app.command(epilog=STATUS)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Look at what is installed, at the devices and the disk; say what is missing and how to mend it."""
    with one_line_errors():
        import json

        from blindspot import doctor

        checks = doctor.report()
        if as_json:
            print(json.dumps(doctor.as_json(checks), indent=1))
        else:
            Console().print(doctor.as_table(checks))
        if not doctor.works(checks):
            raise typer.Exit(EXIT_USER)


def _plan(name: str, data: Path | None, gpus: int, mfu: float, as_json: bool, console: Console) -> None:
    import json

    from blindspot.studies.paper.loading import load_paper
    from blindspot.studies.paper.plan import as_json as plain
    from blindspot.studies.paper.plan import plan
    from blindspot.studies.paper.show import print_plan

    made = plan(load_paper(name), gpus=tuple(sorted({1, gpus})), data_root=data, mfu=mfu, reference=name)
    if as_json:
        print(json.dumps(plain(made), indent=1))
    else:
        print_plan(made, console)


def _only_planned(name: str) -> None:
    raise UserError(f"study {name} trains models of real size, one by one with blindspot train; see it with --plan")


def _report(run: Path, console: Console) -> None:
    from blindspot.reporting import collect, print_tables, write_report

    results = collect(run)
    page = write_report(run)
    print_tables(results, console)
    console.print(f"The page: {page}", soft_wrap=True, highlight=False)


def _version(asked: bool) -> None:
    if asked:
        try:
            number = version("spatial-blindspot")
        except PackageNotFoundError:
            number = "(not installed)"
        typer.echo(f"blindspot {number}")
        raise typer.Exit
