"""A comparison of runs on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from blindspot.evaluation.scores.compare import MAIN
from blindspot.terminal import pieces
from blindspot.text import DASH, clean, number, p_value, signed, span

_HEADERS = ("", "first", "later", "difference", "95 %", "Holm", "p", "resolves", "n", "test")


def print_comparison(found: Mapping[str, Any], console: Console, details: bool = False) -> None:
    """Print what `compare` returned.

    Args:
        found: as returned.
        console: where to.
        details: every metric, not only ``overall``.
    """
    for name in dict.fromkeys(row["b"] for row in found["comparisons"]):
        rows = [row for row in found["comparisons"] if row["b"] == name and _shown(row, details)]
        title = f"{clean(name)} minus {clean(rows[0]['a'] if rows else found['runs'][0]['name'])}"
        console.print(Text(f"{title}, scored as {clean(found['profile'])}", style="bold"))
        for table in pieces(_HEADERS, _lines(rows), console.width):
            console.print(table)
    for line in _legend(found, details):
        console.print(Text(line, style="dim"))
    for note in found["notes"]:
        console.print(Text(f"Note: {clean(note)}", style="yellow"))


def _shown(row: Mapping[str, Any], details: bool) -> bool:
    return row["metric"] in MAIN or (details and row["n"] > 0)


def _lines(rows: list[Mapping[str, Any]]) -> list[list[Text]]:
    lines = []
    previous = ""
    for row in rows:
        on = row["scale"], row["most"]
        mark = "*" if row["significant"] else ""
        name = row["benchmark"] if row["metric"] in MAIN else f"{row['benchmark']} {row['metric']}"
        label = f"  {row['metric']}" if row["benchmark"] == previous else name
        previous = row["benchmark"]
        cells = (
            clean(label),
            number(row["a_value"], *on),
            number(row["b_value"], *on),
            signed(row["difference"], *on) + mark,
            span(row["low"], row["high"], *on),
            p_value(row["p_holm"]) if row["metric"] in MAIN else "",
            p_value(row["p"]),
            number(row["resolves"], *on),
            str(row["n"]),
            DASH if row["p"] is None else row["test"],
        )
        lines.append([Text(cell, style="bold" if mark and place == 3 else "") for place, cell in enumerate(cells)])
    return lines


def _legend(found: Mapping[str, Any], details: bool) -> list[str]:
    family, method = found["family"], found["method"]
    return [
        f"* survives Holm's correction at {method['alpha']} over {family['tests']} tests: {MAIN[0]} of "
        f"{', '.join(clean(name) for name in family['benchmarks'])}, of every pair of runs shown."
        + (" Other metrics are not corrected." if details else ""),
        f"resolves: smallest true difference found with {method['power']:.0%} power. Intervals and p hold the sample "
        "of questions, not training: two trainings of one model differ too.",
    ]
