"""How answers depend on place, distance, size, number, and on there being a picture at all."""

from collections.abc import Iterator
from itertools import product

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from blindspot.evaluation.statistics import ALPHA
from blindspot.reporting.diagnosis.data import Pictures, Row, Tables, listed, percent, percent_span, whole
from blindspot.reporting.diagnosis.drawing import DASHES, DEPTH, DIVIDED, bars, heat, line
from blindspot.reporting.figure_style import GREY, HUES, INK, LIGHT
from blindspot.reporting.sheet import WIDTH, Drawn, Sheet

_FACTORS = {
    "distance": "distance, cells",
    "margin": "margin, cells",
    "size": "size, pixels",
    "objects": "objects in the picture",
}


def draw(tables: Tables, pictures: Pictures) -> Iterator[Drawn]:
    """With and without the picture, by cell, by distance and size, counts, and the two axes."""
    for name, one in (("conditions", _conditions), ("axes", _axes), ("factors", _factors), ("counts", _counts)):
        if name in tables:
            yield one(tables[name].rows)
        if name == "conditions" and "cells" in tables:
            yield _cells(tables["cells"].rows, tables["spread"].rows if "spread" in tables else [])


def _conditions(rows: list[Row]) -> Drawn:
    tasks, conditions = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("task", "condition"))
    own = {(str(row["task"]), str(row["condition"])): row for row in rows}
    plain = {task: own[task, conditions[0]] for task in tasks if (task, conditions[0]) in own}
    guessing = [task for task, row in plain.items() if None not in (row["low"], row["chance"])
                and row["low"] <= row["chance"]]  # fmt: skip
    opening = "Answered right" if len(guessing) < len(plain) else "No task is answered better than by guessing"
    marks = {task: ", no better than guessing" for task in guessing if len(guessing) < len(plain)}
    scores = [f"{task} {percent(row['value'])}{marks.get(task, '')}" for task, row in plain.items()]
    known = [
        row for row in rows if row["condition"] == "blind" and row["low"] is not None and row["chance"] is not None
    ]
    guessed = [str(row["task"]) for row in known if row["low"] > row["chance"]]
    ending = ""
    if known:
        ending = f"; blind, {listed(guessed)} above chance" if guessed else "; blind, no task is clearly above chance"
    title = f"{opening}: {', '.join(scores)}{ending}"
    subtitle = (
        "Percent right as it is, with the picture empty (blind), replaced by noise, or by another question's; "
        "with 95 % interval. Dashed: chance."
    )
    sheet = Sheet(title, subtitle, 1.85)
    panels = sheet.panels(1, len(tasks), left=0.95, right=0.3, bottom=0.45, top=0.3, gaps=(0, 0.3))
    empty: Row = {"value": None, "low": None, "high": None}
    for panel, task in zip(panels, tasks, strict=True):
        shown = [own.get((task, condition), empty) for condition in conditions]
        bars(
            panel,
            conditions if panel is panels[0] else [""] * len(conditions),
            shown,
            [HUES[0], *[HUES[5]] * (len(conditions) - 1)],
        )
        chance = next((row["chance"] for row in shown if row.get("chance") is not None), None)
        if chance is not None:
            panel.axvline(100 * chance, color=INK, linewidth=1.1, linestyle=DASHES)
        panel.set_xlim(0, 118)
        panel.set_xticks([0, 50, 100])
        panel.set_title(task, loc="left", fontsize=10)
    spans = [f"{task} {percent_span(row)}{marks.get(task, '')}" for task, row in plain.items()]
    said = (f"{opening}: {', '.join(spans)}{ending}.",)
    return Drawn("conditions", sheet, rows, said)


def _cells(rows: list[Row], spread: list[Row]) -> Drawn:
    maps = list(dict.fromkeys((str(row["task"]), str(row["object"])) for row in rows))
    tested = {(str(row["task"]), str(row["object"])): row["p"] for row in spread if row["p"] is not None}
    uneven = [row for row in rows if tested.get((row["task"], row["object"]), 1.0) < ALPHA / max(len(tested), 1)]
    kinds = ["value", "beyond"] if any(row.get("beyond") is not None for row in rows) else ["value"]
    title = f"{'There is no sign that accuracy depends' if tested else 'Accuracy, depending'} on where objects are"
    far = max(uneven, key=lambda row: abs(row[kinds[-1]] or 0.0), default=None)
    if far is not None:
        p = _p(tested[far["task"], far["object"]])
        title = f"Place matters most for {far['task']}: {_there(far, kinds[-1])} (p {p})"
    high, wide = (1 + max(int(row[key]) for row in rows) for key in ("row", "column"))
    side = (WIDTH - 0.6 - 0.2 * (len(maps) - 1)) / max(len(maps), 3)
    subtitle = (
        "Percent right by the cell of the object, the top of the picture on top (dash: never asked). Below: points "
        "above or "
        "below the same right answers anywhere, so that a preferred answer does not count. p: of cells being alike, "
        "to be "
        "held against 5 % over the number of maps."
    )
    sheet = Sheet(title, subtitle, len(kinds) * (side * high / wide + 0.15) + 0.6)
    panels = sheet.panels(len(kinds), len(maps), left=0.3, right=0.3, bottom=0.12, top=0.45, gaps=(0.15, 0.2))
    for panel, (kind, (task, role)) in zip(panels, product(kinds, maps), strict=True):
        values = np.full((high, wide), np.nan)
        for row in rows:
            if (row["task"], row["object"]) == (task, role) and row[kind] is not None:
                values[int(row["row"]), int(row["column"])] = row[kind]
        limits, colours = ((0.0, 1.0), DEPTH) if kind == "value" else ((-0.5, 0.5), DIVIDED)
        heat(panel, values, [""] * high, [""] * wide, limits, colours)
        if kind == "value":
            p = f" (p {_p(tested[task, role])})" if (task, role) in tested else ""
            panel.set_title(f"{task},\n{role}{p}", fontsize=8.5, fontweight="normal", loc="left")
    return Drawn("cells", sheet, rows)


def _there(row: Row, kind: str) -> str:
    where = f"with the {row['object']} in row {int(row['row']) + 1}, column {int(row['column']) + 1}"
    if kind == "value":
        return f"{percent(row['value'])} right {where}"
    points = whole(100 * abs(row["beyond"]))
    return f"{points} points {'more' if row['beyond'] > 0 else 'less'} than elsewhere {where}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _axes(rows: list[Row]) -> Drawn:
    """Both axes; the title is about the last measure, which leaves out that an axis may be preferred."""
    shown = [row for row in rows if row["axis"] != "difference"]
    gap = [row for row in rows if row["axis"] == "difference" and None not in (row["value"], row["low"], row["high"])]
    title = "Left and right against above and below"
    if gap:
        better, worse = (
            ("Left and right", "above and below") if gap[-1]["value"] > 0 else ("Above and below", "left and right")
        )
        title = "No clear difference between left and right and above and below"
        if gap[-1]["low"] > 0 or gap[-1]["high"] < 0:
            title = f"{better} are answered better than {worse}, by {whole(100 * abs(gap[-1]['value']))} points"
    subtitle = (
        "Percent right, with 95 % interval, on the same objects with rows and columns exchanged. Of two: only the "
        "two answers "
        "on the right axis count, so that preferring an axis does not matter. Dashed: chance."
    )
    sheet = Sheet(title, subtitle, 0.5 + 0.3 * len(shown))
    (panel,) = sheet.panels(left=1.9, right=0.5, bottom=0.35)
    hues = [HUES[0] if row["axis"] == "left, right" else HUES[2] for row in shown]
    names = [", ".join(filter(None, (str(row["axis"]), row.get("measure")))) for row in shown]
    bars(panel, names, shown, hues)
    for place, row in enumerate(shown):
        chance = 50 if row.get("measure") == "of two" else 25
        panel.plot([chance, chance], [place - 0.5, place + 0.5], color=INK, linewidth=1.1, linestyle=DASHES)
    panel.set_xlim(0, 106)
    return Drawn("axes", sheet, rows)


def _factors(rows: list[Row]) -> Drawn:
    factors = [factor for factor in _FACTORS if any(row["factor"] == factor for row in rows)]
    tasks = list(dict.fromkeys(str(row["task"]) for row in rows))
    runs = {(task, factor): sorted((row for row in rows if (row["task"], row["factor"]) == (task, factor)
                                    and row["value"] is not None), key=lambda row: row["level"])
            for task in tasks for factor in factors}  # fmt: skip
    title = "Neither distance nor margin, size or number of objects matters beyond chance"
    changes = [(_apart(own[at], own[to]), own[at], own[to]) for own in runs.values() for at in range(len(own))
               for to in range(at + 1, len(own))]  # fmt: skip
    apart, low, high = max(changes, key=lambda change: change[0], default=(0.0, {}, {}))
    if apart > 0:
        title = (f"{str(low['factor']).capitalize()} matters most: {low['task']} {percent(low['value'])} right at "
                 f"{low['level']}, {percent(high['value'])} at {high['level']}")  # fmt: skip
    subtitle = (
        "Percent right with 95 % interval. Distance: cells along the axis that decides; margin: that less cells "
        "along the other; size: of the smaller object."
    )
    sheet = Sheet(title, subtitle, 3.0)
    panels = sheet.panels(1, max(1, len(factors)), left=0.5, bottom=0.85, top=0.15, gaps=(0, 0.35), share=False)
    for panel, factor in zip(panels, factors, strict=False):
        for number, task in enumerate(tasks):
            own = runs[task, factor]
            if own:
                line(panel, [row["level"] for row in own], own, HUES[number % len(HUES)], 100)
        panel.set_ylim(0, 103)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.grid(axis="y", color=LIGHT, linewidth=0.6)
        panel.set_xlabel(_FACTORS[factor])
    sheet.legend(Line2D([], [], color=HUES[n % len(HUES)], marker="o", label=task) for n, task in enumerate(tasks))
    return Drawn("factors", sheet, rows)


def _apart(a: Row, b: Row) -> float:
    """The gap between two intervals, without preferred answers if known; not above 0 where they meet or are unknown."""
    low, high = ("beyond_low", "beyond_high") if "beyond_low" in a else ("low", "high")
    if None in (a[low], a[high], b[low], b[high]):
        return 0.0
    return max(a[low] - b[high], b[low] - a[high])


def _counts(rows: list[Row]) -> Drawn:
    truths, answers = (sorted({row[key] for row in rows}) for key in ("truth", "answer"))
    values = {(row["truth"], row["answer"]): row["value"] for row in rows}
    wrong = {key: value for key, value in values.items() if key[0] != key[1] and value}
    right = [values[truth, truth] for truth in truths if values.get((truth, truth)) is not None]
    title = f"Counts are right in {percent(sum(right) / len(right))}" if right else "Counts"
    if wrong:
        truth, answer = max(wrong, key=lambda key: wrong[key])
        title += f"; the most frequent error takes {truth} for {answer} ({percent(wrong[truth, answer])})"
    sheet = Sheet(title, "Percent of each answer (columns), by the number of objects in the picture (rows).", 2.75, 5.2)
    (panel,) = sheet.panels(left=0.85, right=0.6, bottom=0.55)
    shown = np.array([[values.get((truth, answer)) for answer in answers] for truth in truths], dtype=float)
    heat(panel, shown, [str(truth) for truth in truths], [str(answer) for answer in answers])
    panel.set_xlabel("answered")
    panel.set_ylabel("objects", color=GREY)
    return Drawn("counts", sheet, rows)
