"""``blindspot score``: raw answers scored again, by any harness's rules, without a model."""

from pathlib import Path
from typing import Annotated

import typer

from blindspot.cli.options import Thinking
from blindspot.cli.status import one_line_errors

_ALL = "all"


def score(
    answers: Annotated[Path, typer.Argument(metavar="ANSWERS", help="An answers.jsonl, or a run folder.")],
    profile: Annotated[
        str, typer.Option(help="Whose rules: a profile's name, or [bold]all[/bold] for all of them side by side.")
    ] = "vlmevalkit-2025-09",
    thinking: Thinking = "harness",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: a summary and every score.")] = False,
) -> None:
    """Score raw answers again, without a model.

    Profiles: vlmevalkit-2025-09 (the paper's), vlmevalkit-2026-08,
    lmms-eval-0.7.3, official (each benchmark's own script) and likelihood
    (the likeliest option, nothing parsed). None of them asks a judge or draws
    at random: the same answers always score the same.

    A benchmark gets its own metric, over pairs and groups where it has them;
    rows that do not make it up, or of no benchmark that is known here, get
    their mean, and are called so. --json prints the numbers of scores.json as
    "summary", and as "items" what was extracted from each row and its score.

    [bold]Examples[/bold]

      [cyan]blindspot score runs/eval/llava/gqa/answers.jsonl[/cyan]
      [cyan]blindspot score runs/eval/llava --profile official --json > official.json[/cyan]

    What the comparison of strings alone does to a result:

      [cyan]blindspot score runs/eval/llava --profile all[/cyan]
    """
    with one_line_errors():
        import json

        from rich.console import Console

        from blindspot.benchmarks.scoring import DEFAULT, PROFILES
        from blindspot.evaluation.scores.report import score as score_answers
        from blindspot.evaluation.scores.runs import scored_rows
        from blindspot.evaluation.scores.show import as_table

        every = profile == _ALL
        scores = score_answers(answers, DEFAULT if every else profile, thinking)
        if as_json:
            rows = scored_rows(answers, PROFILES if every else (profile,), thinking)
            items = [row if every else row[profile] for row in rows]
            # ASCII, as answers may hold what a terminal cannot show.
            print(json.dumps({"summary": scores, "items": items}, allow_nan=False))
        else:
            as_table(scores, Console(), profiles_only=every)
