"""``blindspot score``: raw answers scored again, by any harness's rules, without a model."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from blindspot.cli.status import one_line_errors

if TYPE_CHECKING:
    from blindspot.benchmarks.scoring import Scored
    from blindspot.benchmarks.scoring.summary import Numbers

_ALL = "all"
_VERSION = re.compile(r"-(?=\d)", re.ASCII)


def score(
    answers: Annotated[Path, typer.Argument(metavar="ANSWERS", help="An answers.jsonl, or a run folder.")],
    profile: Annotated[
        str, typer.Option(help="Whose rules: a profile's name, or [bold]all[/bold] for all of them side by side.")
    ] = "vlmevalkit-2025-09",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: a summary and every score.")] = False,
) -> None:
    """Score raw answers again, without a model.

    Profiles: vlmevalkit-2025-09 (the paper's), vlmevalkit-2026-08,
    lmms-eval-0.7.3, official (each benchmark's own script) and likelihood
    (the likeliest option, nothing parsed). None of them asks a judge or draws
    at random: the same answers always score the same.

    A run folder gets the table of blindspot evaluate: intervals, chance,
    scores over pairs and groups. A file, and all profiles side by side, get
    means over questions.

    [bold]Examples[/bold]

      [cyan]blindspot score runs/eval/llava/gqa/answers.jsonl[/cyan]
      [cyan]blindspot score runs/eval/llava --profile official --json > scores.json[/cyan]

    What the comparison of strings alone does to a result:

      [cyan]blindspot score runs/eval/llava --profile all[/cyan]
    """
    with one_line_errors():
        from blindspot.benchmarks.scoring import PROFILES
        from blindspot.benchmarks.scoring import profile as find
        from blindspot.benchmarks.scoring.answers import load_answers
        from blindspot.benchmarks.scoring.summary import score_items, score_where_defined, summarise

        if answers.is_dir() and profile != _ALL and not as_json:
            from blindspot.evaluation.scores.report import score as score_answers
            from blindspot.evaluation.scores.show import as_table

            as_table(score_answers(answers, profile), Console())
            return
        items: list[Any]
        if profile == _ALL:
            loaded = load_answers(answers)
            columns = {name: score_where_defined(find(name), loaded) for name in PROFILES}
            summary = {name: summarise(loaded, column) for name, column in columns.items()}
            items = [dict(zip(columns, map(_entry, row), strict=True)) for row in zip(*columns.values(), strict=True)]
            heading, table = {"profiles": summary}, _side_by_side(summary)
        else:
            chosen = find(profile)
            loaded = load_answers(answers)
            scored = score_items(chosen, loaded)
            means = summarise(loaded, scored)
            items = list(map(_entry, scored))
            heading, table = {"profile": chosen.name, "benchmarks": means}, _table(chosen.name, chosen.about, means)
        if as_json:
            # ASCII, as answers may hold what a terminal cannot show.
            print(json.dumps({"summary": heading, "items": items}, allow_nan=False))
        else:
            Console().print(table)


def _entry(scored: "Scored | None") -> dict[str, Any]:
    if scored is None:
        return {"extracted": None, "score": None}
    return {"extracted": scored.extracted, "score": scored.score}


def _table(name: str, about: str, means: Mapping[str, "Numbers"]) -> Table:
    extra = [key for key in ("partial", "guess") if any(key in numbers for numbers in means.values())]
    table = Table(title=f"{name}: {about}", caption=_caption("guess" in extra))
    for heading in ("benchmark", "n", "score", "not parsed", *extra):
        table.add_column(heading, justify="left" if heading == "benchmark" else "right", no_wrap=True)
    for benchmark, numbers in means.items():
        failures, n = numbers["parse_failures"], numbers["n"]
        parsed = "-" if failures is None or n is None else f"{failures} ({failures / n:.1%})"
        table.add_row(benchmark, str(n), _cell(numbers["score"]), parsed, *(_cell(numbers.get(key)) for key in extra))
    return table


def _side_by_side(summary: Mapping[str, Mapping[str, "Numbers"]]) -> Table:
    title = "Mean score of the same answers by profile"
    table = Table(title=title, caption=_caption(False), box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("benchmark", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for name in summary:
        table.add_column(_VERSION.sub("\n", name, count=1), justify="right", no_wrap=True)
    first, *_ = summary.values()
    for benchmark, numbers in first.items():
        cells = (_cell(means[benchmark]["score"]) for means in summary.values())
        table.add_row(benchmark, str(numbers["n"]), *cells)
    return table


def _cell(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}"


def _caption(guess: bool) -> str:
    drawn = "; guess: what this harness's random draws for unparsed answers would add on average" if guess else ""
    return f"-: not defined{drawn}"
