"""How answers depend on place, distance, size, number, and on there being a picture at all."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NotRequired

import numpy as np

from blindspot.diagnostics.base import AGAINST, Number, Pictures, Row, Tables, columns
from blindspot.diagnostics.figures import EMPTY, distinct, having, known, listed, percent, percent_span
from blindspot.evaluation.statistics import ALPHA
from blindspot.plots import HUES, INK, WIDTH, Bar, Bars, Figure, Heat, Key, Lines, Rule, Series, matrix
from blindspot.text import p_value, whole

_BEYOND = {"beyond": Number, "beyond_low": Number, "beyond_high": Number}
"""By how much accuracy is above that on the same right answers anywhere."""
ROWS = {
    "conditions": columns(task=str, condition=str, chance=Number, **AGAINST),
    "cells": columns(task=str, object=str, row=int, column=int, **_BEYOND),
    "spread": columns(task=str, object=str, cells=int, deviation=Number, p=Number),
    "factors": columns(task=str, factor=str, level=int, **_BEYOND),
    "axes": columns(measure=str, axis=str, p=NotRequired[Number]),
    "counts": columns(truth=int, answer=int),
    "answers": columns(task=str, answer=str, measure=str),
}
_FACTORS = {
    "distance": "distance, cells",
    "margin": "margin, cells",
    "size": "size, pixels",
    "objects": "objects in the picture",
}


def draw(tables: Tables, pictures: Pictures) -> Iterator[Figure]:
    for name, one in (("conditions", _conditions), ("axes", _axes), ("factors", _factors), ("counts", _counts)):
        if name in tables:
            yield one(tables[name].rows)
        if name == "conditions" and "cells" in tables:
            yield _cells(tables["cells"].rows, tables["spread"].rows if "spread" in tables else [])


def _conditions(rows: Sequence[Row]) -> Figure:
    tasks, conditions = (distinct(rows, key) for key in ("task", "condition"))
    own = {(str(row["task"]), str(row["condition"])): row for row in rows}
    plain = {task: own[task, conditions[0]] for task in tasks if (task, conditions[0]) in own}
    guessing = [task for task, row in plain.items() if None not in (row["low"], row["chance"])
                and row["low"] <= row["chance"]]  # fmt: skip
    opening = "Answered right" if len(guessing) < len(plain) else "No task is answered better than by guessing"
    marks = {task: ", no better than guessing" for task in guessing if len(guessing) < len(plain)}
    ending = ""
    if blind := known(known(having(rows, condition="blind"), "low"), "chance"):
        above = [str(row["task"]) for row in blind if row["low"] > row["chance"]]
        ending = f"; blind, {listed(above)} above chance" if above else "; blind, no task is clearly above chance"
    scores = [f"{task} {percent(row['value'])}{marks.get(task, '')}" for task, row in plain.items()]
    spans = [f"{task} {percent_span(row)}{marks.get(task, '')}" for task, row in plain.items()]
    subtitle = (
        "Percent right as it is, with the picture empty (blind), replaced by noise, or by another question's; "
        "with 95 % interval. Dashed: chance."
    )
    panels = []
    for task in tasks:
        shown = [own.get((task, condition), EMPTY) for condition in conditions]
        bars = [Bar.of(place, row, HUES[5] if place else HUES[0]) for place, row in enumerate(shown)]
        chances = [row["chance"] for row in shown if row.get("chance") is not None]
        rules = [Rule(100 * chance, "x", INK, width=1.1) for chance in chances[:1]]
        panels.append(Bars(names=conditions, bars=bars, rules=rules, x_limits=(0, 118), x_ticks=(0, 50, 100),
                           title=task))  # fmt: skip
    title, said = f"{opening}: {', '.join(scores)}{ending}", (f"{opening}: {', '.join(spans)}{ending}.",)
    return Figure("conditions", title, subtitle, [panels], rows, 1.85, says=said)


def _cells(rows: Sequence[Row], spread: Sequence[Row]) -> Figure:
    maps = list(dict.fromkeys((str(row["task"]), str(row["object"])) for row in rows))
    tested = {(str(row["task"]), str(row["object"])): row["p"] for row in known(spread, "p")}
    uneven = [row for row in rows if tested.get((row["task"], row["object"]), 1.0) < ALPHA / max(len(tested), 1)]
    kinds = ["value", "beyond"] if any(row.get("beyond") is not None for row in rows) else ["value"]
    title = f"{'There is no sign that accuracy depends' if tested else 'Accuracy, depending'} on where objects are"
    far = max(uneven, key=lambda row: abs(row[kinds[-1]] or 0.0), default=None)
    if far is not None:
        where = f"with the {far['object']} in row {int(far['row']) + 1}, column {int(far['column']) + 1}"
        much = f"{percent(far['value'])} right"
        if kinds[-1] == "beyond":
            more = "more" if far["beyond"] > 0 else "less"
            much = f"{whole(100 * abs(far['beyond']))} points {more} than elsewhere"
        title = (
            f"Place matters most for {far['task']}: {much} {where} (p {p_value(tested[far['task'], far['object']])})"
        )
    high, wide = (1 + max(int(row[key]) for row in rows) for key in ("row", "column"))
    subtitle = (
        "Percent right by the cell of the object, the top of the picture on top (dash: never asked). Below: points "
        "above or below the same right answers anywhere, so that a preferred answer does not count. p: of cells being "
        "alike, to be held against 5 % over the number of maps."
    )
    panels: list[list[Heat]] = []
    for kind in kinds:
        panels.append([])
        for task, role in maps:
            values_hw = np.full((high, wide), np.nan)
            for row in known(having(rows, task=task, object=role), kind):
                values_hw[int(row["row"]), int(row["column"])] = row[kind]
            p = f" (p {p_value(tested[task, role])})" if (task, role) in tested else ""
            head, limits = (f"{task},\n{role}{p}", (0.0, 1.0)) if kind == "value" else ("", (-0.5, 0.5))
            panels[-1].append(Heat(values_hw=values_hw, names=[""] * high, columns=[""] * wide, limits=limits,
                                   title=head, title_size=8.5, light=True))  # fmt: skip
    side = (WIDTH - 0.6 - 0.2 * (len(maps) - 1)) / max(len(maps), 3)
    return Figure("cells", title, subtitle, panels, rows, len(kinds) * (side * high / wide + 0.15) + 0.6)


def _axes(rows: Sequence[Row]) -> Figure:
    """Both axes; the title is about the last measure, which leaves out that an axis may be preferred."""
    shown = [row for row in rows if row["axis"] != "difference"]
    gap = [row for row in having(rows, axis="difference") if None not in (row["value"], row["low"], row["high"])]
    title = "Left and right against above and below"
    if gap:
        title = "No clear difference between left and right and above and below"
        if gap[-1]["low"] > 0 or gap[-1]["high"] < 0:
            left = gap[-1]["value"] > 0
            better, worse = ("Left and right", "above and below") if left else ("Above and below", "left and right")
            title = f"{better} are answered better than {worse}, by {whole(100 * abs(gap[-1]['value']))} points"
    subtitle = (
        "Percent right, with 95 % interval, on the same objects with rows and columns exchanged. Of two: only the "
        "two answers on the right axis count, so that preferring an axis does not matter. Dashed: chance."
    )
    names = [", ".join(filter(None, (str(row["axis"]), row.get("measure")))) for row in shown]
    hues = [HUES[0] if row["axis"] == "left, right" else HUES[2] for row in shown]
    chances = [50 if row.get("measure") == "of two" else 25 for row in shown]
    panel = Bars(names=names, bars=[Bar.of(place, row, hues[place]) for place, row in enumerate(shown)],
                 series=[Series([chance] * 2, [place - 0.5, place + 0.5], INK, dash="dashed", width=1.1)
                         for place, chance in enumerate(chances)], x_limits=(0, 106))  # fmt: skip
    return Figure("axes", title, subtitle, [[panel]], rows, 0.5 + 0.3 * len(shown))


def _factors(rows: Sequence[Row]) -> Figure:
    factors = [factor for factor in _FACTORS if having(rows, factor=factor)]
    hues = {task: HUES[number % len(HUES)] for number, task in enumerate(distinct(rows, "task"))}
    runs = {(task, factor): sorted(known(having(rows, task=task, factor=factor)), key=lambda row: row["level"])
            for task in hues for factor in factors}  # fmt: skip
    title = "Neither distance nor margin, size or number of objects matters beyond chance"
    changes = [(_apart(*pair), *pair) for own in runs.values() for pair in combinations(own, 2)]
    apart, low, high = max(changes, key=lambda change: change[0], default=(0.0, {}, {}))
    if apart > 0:
        title = (f"{str(low['factor']).capitalize()} matters most: {low['task']} {percent(low['value'])} right at "
                 f"{low['level']}, {percent(high['value'])} at {high['level']}")  # fmt: skip
    subtitle = (
        "Percent right with 95 % interval. Distance: cells along the axis that decides; margin: that less cells "
        "along the other; size: of the smaller object."
    )
    panels = [
        Lines(series=[Series.of([row["level"] for row in runs[task, factor]], runs[task, factor], hue, 100)
                      for task, hue in hues.items() if runs[task, factor]],
              y_limits=(0, 103), whole=5, grid="y", x_label=_FACTORS[factor])
        for factor in factors
    ]  # fmt: skip
    legend = [Key(task, hue, mark="o") for task, hue in hues.items()]
    return Figure("factors", title, subtitle, [panels], rows, 3.0, legend=legend)


def _apart(a: Row, b: Row) -> float:
    """The gap between two intervals, without preferred answers if known; not above 0 where they meet or are unknown."""
    low, high = ("beyond_low", "beyond_high") if "beyond_low" in a else ("low", "high")
    if None in (a[low], a[high], b[low], b[high]):
        return 0.0
    return max(a[low] - b[high], b[low] - a[high])


def _counts(rows: Sequence[Row]) -> Figure:
    truths, answers = (sorted({row[key] for row in rows}) for key in ("truth", "answer"))
    values = {(row["truth"], row["answer"]): row["value"] for row in rows}
    wrong = {key: value for key, value in values.items() if key[0] != key[1] and value}
    right = [values[truth, truth] for truth in truths if values.get((truth, truth)) is not None]
    title = f"Counts are right in {percent(sum(right) / len(right))}" if right else "Counts"
    if wrong:
        truth, answer = max(wrong, key=lambda key: wrong[key])
        title += f"; the most frequent error takes {truth} for {answer} ({percent(wrong[truth, answer])})"
    panel = Heat(values_hw=matrix([values.get((truth, answer)) for answer in answers] for truth in truths),
                 names=[str(truth) for truth in truths], columns=[str(answer) for answer in answers],
                 x_label="answered", y_label="objects")  # fmt: skip
    subtitle = "Percent of each answer (columns), by the number of objects in the picture (rows)."
    return Figure("counts", title, subtitle, [[panel]], rows, 2.75, width=5.2)
