"""``blindspot paper`` on the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blindspot.evaluation.paper.numbers import BASELINE
from blindspot.terminal import pieces
from blindspot.text import MINUS, number, signed

Report = Mapping[str, Any]


def print_report(found: Report, console: Console) -> None:
    """Print what `report` returned."""
    console.print(Text(f"{found['source']}.", style="dim"))
    for role, title in (("variant", "LLaVA variants"), ("frontier", "Frontier models")):
        _heading(console, f"{title}: as printed; ± is the widest half of a row's 95 % intervals")
        _print(_scores(found, role, console.width), console)
    _heading(console, "LLaVA variants: share of the way from chance to everything right")
    _print(_corrected(found, console.width), console)
    _heading(console, f"Differences; * beyond the noise of the questions, Holm over {len(found['differences'])} tests")
    _print(_differences(found, console.width), console)
    _heading(console, "What follows")
    for line in found["findings"]:
        console.print(Text(f"- {line}"))
    console.print(Text(f"- {_integers(found)}"))
    for line in found["notes"]:
        console.print(Text(f"Note: {line}", style="dim"))


def _print(tables: Iterator[Table], console: Console) -> None:
    for table in tables:
        console.print(table)


def _scores(found: Report, role: str, width: int) -> Iterator[Table]:
    models = _models(found, role)
    lines = []
    for column in _grouped(found):
        rows = [_row(found, model, column) for model in models]
        scale = column["scale"]
        half = max((row["high"] - row["low"]) / 2 for row in rows)
        cells = (number(column["chance"], scale), number(half, scale), *(row["printed"] for row in rows))
        lines.append([_label(column), str(column["n"]), *cells])
    return pieces(("", "n", "chance", "±", *map(_short, models)), lines, width, repeated=4)


def _corrected(found: Report, width: int) -> Iterator[Table]:
    models = _models(found, "variant")
    lines = []
    for column in found["columns"]:
        if column["chance"] is not None:
            values = (_row(found, model, column)["chance_corrected"] for model in models)
            lines.append([_label(column), *map(number, values)])
    return pieces(("", *map(_short, models)), lines, width)


def _differences(found: Report, width: int) -> Iterator[Table]:
    pairs = list(dict.fromkeys((row["variant"], row["baseline"]) for row in found["differences"]))
    headers = (f"{_short(variant)}\n{MINUS} {_short(baseline)}" for variant, baseline in pairs)
    lines = []
    by_cell = {(row["variant"], row["baseline"], row["benchmark"]): row for row in found["differences"]}
    for benchmark in dict.fromkeys(row["benchmark"] for row in found["differences"]):
        cells = []
        for variant, baseline in pairs:
            row = by_cell[variant, baseline, benchmark]
            text = signed(row["difference"], row["scale"]) + ("*" if row["significant"] else " ")
            cells.append(Text(text, style="bold" if row["significant"] else ""))
        lines.append([benchmark, *cells])
    return pieces(("", *headers), lines, width)


def _integers(found: Report) -> str:
    odd = [
        f"{row['model']} {row['benchmark']} {row['metric']} {row['printed']}"
        f"{' (last digit)' if row['fits'] == 'nearly' else ''}"
        for row in found["unfitting"]
    ]
    return (
        f"Of {found['checked']} cells with digits enough to tell, {found['checked'] - len(odd)} are k of n questions; "
        f"these are not: {', '.join(odd)}."
    )


def _row(found: Report, model: str, column: Mapping[str, Any]) -> Mapping[str, Any]:
    wanted = (model, column["benchmark"], column["metric"])
    return next(row for row in found["scores"] if (row["model"], row["benchmark"], row["metric"]) == wanted)


def _models(found: Report, role: str) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in found["scores"] if row["role"] == role))


def _grouped(found: Report) -> list[Mapping[str, Any]]:
    """The columns, those of a benchmark together."""
    order = list(dict.fromkeys(column["benchmark"] for column in found["columns"]))
    return sorted(found["columns"], key=lambda column: order.index(column["benchmark"]))


def _label(column: Mapping[str, Any]) -> str:
    return column["benchmark"] if column["metric"] == "overall" else f"  {column['metric']}"


def _short(model: str) -> str:
    """A model's name, narrow."""
    if model == BASELINE:
        return "CLIP"
    name = model.removeprefix("LLaVA-")
    return "CLIP\n2D-RoPE" if name == "2D-RoPE" else name.replace("-2D-RoPE", "\n2D-RoPE").replace("-4b", "\n4b")


def _heading(console: Console, text: str) -> None:
    console.print(Text(text, style="bold"))
