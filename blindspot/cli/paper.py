"""``blindspot paper``: the paper's tables with what they leave out."""

from rich.console import Console

from blindspot.cli.options import Json
from blindspot.cli.status import one_line_errors


def paper(
    as_json: Json = False,
) -> None:
    """Print the paper's tables with intervals, chance, and which differences exceed the noise.

    Needs no model and no data: everything follows from the printed numbers
    and the sizes of the benchmarks.

    [bold]Examples[/bold]

      [cyan]blindspot paper[/cyan]
      [cyan]blindspot paper --json[/cyan]
    """
    with one_line_errors():
        import json

        from blindspot.evaluation.paper.report import report
        from blindspot.evaluation.paper.show import print_report

        found = report()
        if as_json:
            print(json.dumps(found, indent=1))
        else:
            print_report(found, Console())
