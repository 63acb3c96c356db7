"""Whether answers turn with the picture and agree with themselves."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from blindspot.diagnostics.base import SHOWN, Number, Pictures, Row, Tables, columns
from blindspot.diagnostics.figures import distinct, examples, having, known, percent, percent_span
from blindspot.plots import GREY, HUES, Estimate, Figure, Forest, Key, Series, scaled

ROWS = {
    "symmetries": columns(symmetry=str, measure=str),
    "together": columns(set=str, measure=str, guess=Number),
    "flips": columns(symmetry=str, **SHOWN),
}
CHANCE = 0.25
"""Of one in four directions."""


def draw(tables: Tables, pictures: Pictures) -> Iterator[Figure]:
    if "symmetries" in tables:
        yield _symmetries(tables["symmetries"].rows)
    if "together" in tables:
        yield _together(tables["together"].rows)
    if "flips" in tables and "examples" in pictures:
        yield _turned(tables["flips"].rows, pictures["examples"])


def _symmetries(rows: Sequence[Row]) -> Figure:
    agree = {str(row["symmetry"]): row for row in known(having(rows, measure="agreement"))}
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
    hues = {"accuracy": HUES[0], "agreement": HUES[1]}
    return Figure("symmetries", title, subtitle, says=said, **_pairs(rows, "symmetry", hues, lambda row: CHANCE))


def _together(rows: Sequence[Row]) -> Figure:
    right = {str(row["set"]): row["value"] for row in known(having(rows, measure="all right"))}
    title = "Sets of questions that belong together"
    if right:
        low, high = (pick(right, key=lambda name: right[name]) for pick in (min, max))
        title = (f"Sets of questions are all answered right in {percent(right[low])} ({low}) to "
                 f"{percent(right[high])} ({high})")  # fmt: skip
    subtitle = (
        "Answers of a set may fit each other without being right. Grey ticks: what answers drawn at random reach."
    )
    hues = {"fit": HUES[1], "all right": HUES[0]}
    return Figure("together", title, subtitle, **_pairs(rows, "set", hues, lambda row: row["guess"]))


def _pairs(rows: Sequence[Row], key: str, hues: dict[str, str], guess: Callable[[Row], Number]) -> dict[str, Any]:
    """What a figure shows with one line for each value of ``key``, and a dot for each measure."""
    names, estimates, ticks = distinct(rows, key), [], []
    for row in rows:
        place = names.index(str(row[key])) + 0.28 * list(hues).index(str(row["measure"])) - 0.14
        value, low, high = (scaled(row[end], 100) for end in ("value", "low", "high"))
        estimates.append(Estimate(place, value, low, high, hues[str(row["measure"])], size=6))
        if value is not None and (guessed := guess(row)) is not None:
            ticks.append(Series([100 * guessed], [place], GREY, mark="|", size=8))
    panel = Forest(names=names, estimates=estimates, series=ticks, x_limits=(-2, 102), grid="y",
                   x_label="percent, with 95 % interval")  # fmt: skip
    legend = [Key(name, colour, mark="o") for name, colour in hues.items()]
    legend.append(Key("guessing", GREY, "none", "|", size=8))
    return {"panels": [[panel]], "rows": rows, "height": 0.95 + 0.36 * len(names), "legend": legend}


def _turned(rows: Sequence[Row], images: np.ndarray) -> Figure:
    names = distinct(rows, "symmetry")
    found: list[tuple[str, list[Row | None]]] = []
    for number in dict.fromkeys(row["picture"] for row in rows):
        own = {str(row["symmetry"]): row for row in having(rows, picture=number)}
        line = [own.get(name) for name in names]
        found.append((next(str(row["prompt"]) for row in line if row), line))
    right = sum(row["answer"] == row["right"] for row in rows)
    title = f"Of these {len(rows)} versions of {len(found)} pictures, {right} are answered right"
    heads = [name.replace("turned ", "by ").replace("anti-", "anti-\n") for name in names]
    subtitle = (
        "The eight symmetries of the square; objects stay upright. The model's answer below, the right one in "
        "brackets where it is wrong."
    )
    panels, height = examples(heads, found, images)
    return Figure("turned", title, subtitle, panels, rows, height)
