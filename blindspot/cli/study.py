"""``blindspot study``, ``report`` and ``compare-arms``: studies, from their file to their page."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from blindspot.cli.options import Json
from blindspot.cli.status import one_line_errors
from blindspot.errors import UserError


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
      [cyan]why[/cyan]         seven explanations of what 2D-RoPE costs

    [bold]Of real size, for --plan[/bold]

      [cyan]paper[/cyan], [cyan]paper-released[/cyan], [cyan]paper-controlled[/cyan]

    [bold]Examples[/bold]

      [cyan]blindspot study miniature --scale smoke[/cyan]
      [cyan]blindspot study nlvr --data ~/nlvr/nlvr[/cyan]
      [cyan]blindspot study ./mine.yaml --seeds 3 --out results/mine[/cyan]
      [cyan]blindspot study paper --plan --gpus 8[/cyan]
    """
    with one_line_errors():
        from blindspot.studies.study import run_study

        console = Console()
        if plan:
            _plan(name, data, gpus, mfu, as_json, console)
            return
        run = run_study(name, out=out, scale=scale, seeds=seeds, data=data, workers=workers, console=console)
        _report(run, console, checked=True)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/miniature.")],
) -> None:
    """Write the page of a run once more, and print its tables.

    Of a study; of a training run (also while it goes on): loss, throughput;
    of a diagnosis.
    """
    with one_line_errors():
        console = Console()
        if (run / "plan.json").is_file():
            _report(run, console)
        else:
            console.print(f"The page: {_other_page(run)}", soft_wrap=True, highlight=False)


def compare_arms(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="A shipped study, or a YAML file of your own.")],
    as_json: Json = False,
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
        from blindspot.studies.loading import load_study

        comparisons = compare.compare_arms(load_study(name))
        if as_json:
            print(json.dumps([one.to_dict() for one in comparisons], indent=1))
        else:
            Console().print(compare.as_table(comparisons))


def _plan(name: str, data: Path | None, gpus: int, mfu: float, as_json: bool, console: Console) -> None:
    import json

    from blindspot.studies.budget import as_json as plain
    from blindspot.studies.budget import plan
    from blindspot.studies.budget_show import print_plan
    from blindspot.studies.loading import load_study

    study = load_study(name)
    if study.recipe == "toy":
        raise UserError(f"study {name} is a miniature, which prints its plan when it runs; leave out --plan")
    made = plan(study, gpus=tuple(sorted({1, gpus})), data_root=data, mfu=mfu, reference=name)
    if as_json:
        print(json.dumps(plain(made), indent=1))
    else:
        print_plan(made, console)


def _other_page(run: Path) -> Path:
    from blindspot.reporting.diagnosis import is_diagnosis, write_diagnosis
    from blindspot.reporting.training import is_training_run, write_training_page

    if is_diagnosis(run):
        return write_diagnosis(run)[0]
    if is_training_run(run):
        return write_training_page(run)
    record = run / "run.json"
    if record.is_file() and '"answerer"' in record.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{run} holds an evaluation, which has no page; print its scores with: blindspot score {run}")
    raise UserError(
        f"{run} is not a run folder (it has no plan.json, diagnosis.json or run.json); make one with: "
        "blindspot study miniature"
    )


def _report(run: Path, console: Console, checked: bool = False) -> None:
    """Make the report of a run and print it; of one whose steps were just checked, only if it is not what it was."""
    from blindspot.reporting import collect, print_tables, write_report
    from blindspot.reporting.report import keep_report, kept_report

    results, page = kept_report(run) if checked else None, run / "report" / "index.html"
    if results is None:
        results, page = collect(run), write_report(run)
        if checked:
            keep_report(run)
    print_tables(results, console)
    console.print(f"The page: {page}", soft_wrap=True, highlight=False)
