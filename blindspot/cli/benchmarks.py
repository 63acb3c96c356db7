"""``blindspot benchmarks``: what there is to evaluate on, and whether it is on this disk."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blindspot.cli.options import DataRoot
from blindspot.cli.status import one_line_errors

if TYPE_CHECKING:
    from blindspot.benchmarks.base import Benchmark


def benchmarks(
    data: DataRoot = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array instead of a table.")] = False,
) -> None:
    """List the benchmarks: questions, images, chance, licence, forms, and whether they are on this disk.

    Looked through are DATA/NAME, DATA itself for VLMEvalKit's TSV files, and
    the caches of Hugging Face. Nothing is downloaded.

    [bold]Examples[/bold]

      [cyan]blindspot benchmarks[/cyan]
      [cyan]blindspot benchmarks --data ~/LMUData --json[/cyan]
    """
    with one_line_errors():
        from blindspot.benchmarks.registry import BENCHMARKS
        from blindspot.benchmarks.sources.download import data_root, locate

        root = data_root(data)
        found = [_facts(benchmark, locate(benchmark, root)) for benchmark in BENCHMARKS.values()]
        if as_json:
            typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
            return
        console = Console()
        console.print(_as_table(found))
        for facts in found:
            console.print(_sources(facts), soft_wrap=True, highlight=False, markup=False)
        console.print(f"\nLooked in {root} and the caches of Hugging Face; to download: blindspot data get NAME",
                      soft_wrap=True, highlight=False, markup=False)  # fmt: skip


def _facts(benchmark: "Benchmark", place: Path | None) -> dict[str, Any]:
    return {
        "name": benchmark.name,
        "title": benchmark.title,
        "licence": benchmark.licence,
        "citation": benchmark.citation,
        "chance": benchmark.metrics[0].chance,
        "metrics": [metric.name for metric in benchmark.metrics],
        "forms": [
            {
                "form": source.form,
                "repository": source.repository,
                "files": list(source.files),
                "page": source.page,
                "counts": dict(source.counts),
            }
            for source in benchmark.sources
        ],
        "on_disk": None if place is None else str(place),
    }


def _as_table(found: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("name", "title", "questions", "images", "chance", "on this disk"):
        justify = "right" if name in ("questions", "images", "chance") else "left"
        table.add_column(name, justify=justify, no_wrap=name == "name")
    for facts in found:
        table.add_row(
            facts["name"],
            facts["title"],
            _counted(facts, "questions"),
            _counted(facts, "images"),
            "" if facts["chance"] is None else f"{facts['chance']:.3f}",
            escape(facts["on_disk"] or "no"),
        )
    return table


def _sources(facts: dict[str, Any]) -> str:
    """Where its forms can be had, and under which licence, in one line."""
    forms = "; ".join(f"{form['form']} {_where(form)}" for form in facts["forms"])
    return f"{facts['name']}: {forms}; licence {facts['licence']}"


def _counted(facts: dict[str, Any], name: str) -> str:
    """The published number, with the forms' names where they differ or are silent."""
    numbers = {form["form"]: form["counts"][name] for form in facts["forms"] if name in form["counts"]}
    if len(set(numbers.values())) <= 1:
        return f"{next(iter(numbers.values())):,}" if numbers else "?"
    return "\n".join(f"{form} {number:,}" for form, number in numbers.items())


def _where(form: dict[str, Any]) -> str:
    urls = [name for name in form["files"] if "://" in name]
    return form["repository"] or (urls[0] if urls else form["page"])
