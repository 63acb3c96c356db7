"""Whether answers turn with the picture and agree with themselves."""

from collections.abc import Callable, Iterator

import numpy as np
from matplotlib.lines import Line2D

from blindspot.reporting.diagnosis.data import Pictures, Row, Tables, percent, percent_span
from blindspot.reporting.diagnosis.drawing import dots
from blindspot.reporting.diagnosis.examples import Example, draw_examples
from blindspot.reporting.figure_style import GREY, HUES, LIGHT
from blindspot.reporting.sheet import Drawn, Sheet

CHANCE = 0.25
"""Of one in four directions."""


def draw(tables: Tables, pictures: Pictures) -> Iterator[Drawn]:
    """Symmetries, sets of questions, and the eight versions of example pictures."""
    if "symmetries" in tables:
        yield _symmetries(tables["symmetries"].rows)
    if "together" in tables:
        yield _together(tables["together"].rows)
    if "flips" in tables and "examples" in pictures:
        yield _turned(tables["flips"].rows, pictures["examples"])


def _symmetries(rows: list[Row]) -> Drawn:
    agree = {str(row["symmetry"]): row for row in rows if row["measure"] == "agreement" and row["value"] is not None}
    whole = agree.pop("all", None)
    title, said = "Accuracy under the symmetries of the square", ()
    if agree and whole:
        worst = min(agree, key=lambda name: agree[name]["value"])
        title = f"Answers turn with the picture in {percent(whole['value'])} of cases"
        if agree[worst]["value"] < whole["value"]:
            title += f"; least when it is {worst.replace(' ', ' by ')} ({percent(agree[worst]['value'])})"
        often = "" if whole["low"] is None or whole["low"] > CHANCE else f", no more than by chance ({percent(CHANCE)})"
        title += often
        said = (f"Answers turn with the picture, as they must, in {percent_span(whole)} of cases{often}.",)
    subtitle = (
        "Left and right become what the symmetry makes of them. Agreement: with the turned answer to the picture "
        "as drawn, right or not. Chance: 25 %."
    )
    sheet = _pairs(title, subtitle, rows, "symmetry", {"accuracy": HUES[0], "agreement": HUES[1]}, lambda row: CHANCE)
    return Drawn("symmetries", sheet, rows, said)


def _together(rows: list[Row]) -> Drawn:
    right = {str(row["set"]): row for row in rows if row["measure"] == "all right" and row["value"] is not None}
    title = "Sets of questions that belong together"
    if right:
        low, high = (pick(right, key=lambda name: right[name]["value"]) for pick in (min, max))
        title = (f"Sets of questions are all answered right in {percent(right[low]['value'])} ({low}) to "
                 f"{percent(right[high]['value'])} ({high})")  # fmt: skip
    subtitle = (
        "Answers of a set may fit each other without being right. Grey ticks: what answers drawn at random reach."
    )
    sheet = _pairs(title, subtitle, rows, "set", {"fit": HUES[1], "all right": HUES[0]}, lambda row: row["guess"])
    return Drawn("together", sheet, rows)


def _pairs(
    title: str, subtitle: str, rows: list[Row], key: str, hues: dict[str, str], guess: Callable[[Row], float | None]
) -> Sheet:
    """One line for each value of ``key``, with a dot for each measure."""
    sheet = Sheet(title, subtitle, 0.95 + 0.36 * len({str(row[key]) for row in rows}))
    (panel,) = sheet.panels(left=2.0, right=0.3, bottom=0.8)
    for place, row in zip(dots(panel, rows, key, "measure", hues, 100), rows, strict=True):
        if row["value"] is not None and (guessed := guess(row)) is not None:
            panel.plot(100 * guessed, place, "|", color=GREY, markersize=8)
    panel.set_xlim(-2, 102)
    panel.grid(axis="y", color=LIGHT, linewidth=0.6)
    panel.set_xlabel("percent, with 95 % interval")
    marks = [Line2D([], [], color=colour, marker="o", label=name) for name, colour in hues.items()]
    sheet.legend([*marks, Line2D([], [], color=GREY, marker="|", linestyle="", markersize=8, label="guessing")])
    return sheet


def _turned(rows: list[Row], examples: np.ndarray) -> Drawn:
    names = list(dict.fromkeys(str(row["symmetry"]) for row in rows))
    found: list[tuple[str, list[Example | None]]] = []
    for number in dict.fromkeys(int(row["picture"]) for row in rows):
        own = {str(row["symmetry"]): row for row in rows if row["picture"] == number}
        line = [own.get(name) for name in names]
        shown = [
            Example(examples[number, int(row["drawn"])], str(row["answer"]), str(row["right"])) if row else None
            for row in line
        ]
        found.append((next((str(row["prompt"]) for row in line if row), ""), shown))
    right = sum(row["answer"] == row["right"] for row in rows)
    title = f"Of these {len(rows)} versions of {len(found)} pictures, {right} are answered right"
    heads = [name.replace("turned ", "by ").replace("anti-", "anti-\n") for name in names]
    subtitle = (
        "The eight symmetries of the square; objects stay upright. The model's answer below, the right one in "
        "brackets where it is wrong."
    )
    sheet = draw_examples(title, subtitle, heads, found)
    return Drawn("turned", sheet, rows)
