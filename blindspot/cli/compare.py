"""``blindspot compare``: runs against each other on the questions that they share."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from blindspot.cli.status import one_line_errors


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="A B...", help="Run folders of blindspot evaluate, or answers.jsonl files.")
    ],
    profile: Annotated[
        str, typer.Option(help="Scoring profile; blindspot score --help lists them.")
    ] = "vlmevalkit-2025-09",
    details: Annotated[bool, typer.Option("--all", help="Every metric, not only the overall ones.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts: every metric.")] = False,
) -> None:
    """Compare runs on the questions that they share.

    Every later run is compared with the first: two models, a blind run with
    a sighted one, options in another order. Where one question stands for
    one picture the test is McNemar's, exact; elsewhere whole pictures or
    pairs are resampled. Holm's correction runs over all overall scores shown.
    Differences in prompts, settings or data are said, never passed over.

    [bold]Examples[/bold]

      [cyan]blindspot compare runs/eval/clip runs/eval/aimv2[/cyan]
      [cyan]blindspot compare runs/eval/clip runs/eval/clip-blind-grey --all[/cyan]
      [cyan]blindspot compare a/gqa/answers.jsonl b/gqa/answers.jsonl --profile official --json[/cyan]
    """
    with one_line_errors():
        import json

        from blindspot.evaluation.scores.compare import compare as compare_runs
        from blindspot.evaluation.scores.compare_show import print_comparison

        found = compare_runs(runs, profile)
        if as_json:
            print(json.dumps(found, indent=1))
        else:
            print_comparison(found, Console(), details)
