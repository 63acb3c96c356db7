"""The figures of a run, declared: learning curves, claims, ratios of steps to learn, scores, differences."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import ceil, log2
from statistics import fmean
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np

from blindspot.plots import (
    GREY,
    HUES,
    INK,
    LIGHT,
    NONE,
    WIDE,
    Area,
    Estimate,
    Figure,
    Forest,
    Key,
    Lines,
    Note,
    Rule,
    Series,
    scaled,
    stroke,
)
from blindspot.reporting.run import MOST_ARMS, Column, RunArm, leading, mean_scores, stage_name
from blindspot.reporting.tables import arms_of, asked_on, columns_of, rows_at, told
from blindspot.text import clean, points

POINTS = 100.0
VERDICTS = {"supported": HUES[2], "refuted": HUES[1], "equivalent": HUES[0], "undecided": GREY, "not tested": LIGHT}
_COLUMNS_IN_A_ROW, _CURVES_IN_A_ROW, _MARKS_IN_A_ROW = 7, 5, 8
_MOST_PANELS, _MOST_MARKS, _MOST_NAMED_CURVES, _MOST_LETTERS = 6, 3, 6, 78
_WIDEST = 7.0
"""Doublings beyond which a figure of ratios shows no more."""
_BAND, _SHADE = "95 % of differences between equal arms with other seeds", "#E9E9E9"
Row = dict[str, Any]


def study_figures(results: Row) -> list[Figure]:
    """Every figure that the results allow: ``curves``, ``hypotheses_time``, ``hypotheses``, ``times``, ``scores``,
    ``differences_<stage>``."""
    found = [_curves(results), _claims_on_time(results), _claims_on_scores(results), _times(results), scores(results)]
    found += [differences(results, stage) for stage in results["stages"]]
    return [figure for figure in found if figure is not None]


def hues(arms: Sequence[RunArm]) -> dict[str, str]:
    """A colour per panel, or per block where arms have no panels, in the order of the arms."""
    return {hue: HUES[number % len(HUES)] for number, hue in enumerate(dict.fromkeys(arm.hue for arm in arms))}


def _claims_on_scores(results: Row) -> Figure | None:
    """One line a claim: the effect in points that it is about, coloured by the verdict."""
    rows = [row for row in results["hypotheses"] if row["low"] is not None and row["outcome"] == "score"]
    if not rows:
        return None
    reach = 1.08 * POINTS * max(max(abs(row["low"]), abs(row["high"])) for row in rows)
    estimates = [_estimate(row, "effect", place, VERDICTS[row["verdict"]], True, 8) for place, row in enumerate(rows)]
    panel = _claims(rows, estimates, reach, [POINTS * row["effect"] for row in rows], x_label="effect (points)")
    subtitle = "Effect in points with 95 % interval over questions and training noise; the predicted side is shaded"
    return Figure("hypotheses", _counted(rows, "scores"), subtitle, [[panel]], rows, 0.75 + 0.5 * len(rows))


def _claims_on_time(results: Row) -> Figure | None:
    """One line a claim: the ratio of steps to learn that it is about, on the scale of doublings."""
    rows = [row for row in results["hypotheses"] if row["outcome"] == "time" and row["p"] is not None]
    if not rows:
        return None
    reach = _doublings(rows, "effect")
    estimates = [_ratio(row, "effect", place, VERDICTS[row["verdict"]], True, reach, 8)
                 for place, row in enumerate(rows)]  # fmt: skip
    panel = _claims(rows, estimates, reach, [one.value or 0.0 for one in estimates], x_ticks=_ratios(reach),
                    x_label="times as many steps")  # fmt: skip
    subtitle = (
        "Ratio of steps to learn with 95 % interval over seeds, to the right slower; the predicted side is shaded"
    )
    title = _counted(rows, "time to learn")
    return Figure("hypotheses_time", title, subtitle, [[panel]], rows, 0.75 + 0.5 * len(rows))


def _claims(rows: Sequence[Row], estimates: Sequence[Estimate], reach: float, values: Sequence[float],
            **more: Any) -> Forest:  # fmt: skip
    sides = {"positive": (0, reach), "negative": (-reach, 0)}
    return Forest(
        names=[fill(row["claim"], 44) for row in rows], estimates=estimates,
        areas=[Area(sides[row["predicts"]], (place - 0.45, place + 0.45), alpha=0.45) for place, row in enumerate(rows)
               if row["predicts"] in sides],
        notes=[Note(f"{told(row)[0]}  {row['verdict']}", 1.02, place, across=True, size=9.5)
               for place, row in enumerate(rows)],
        rules=[Rule(0, "x", INK, "solid")], x_limits=(-reach, reach), **more,
    )  # fmt: skip


def _counted(rows: Sequence[Row], of: str) -> str:
    counted = Counter(row["verdict"] for row in rows)
    said = ", ".join(f"{counted[verdict]} {verdict}" for verdict in VERDICTS if counted[verdict])
    return f"Of {len(rows)} claims on {of}: {said}" if len(rows) > 1 else f"One claim on {of}: {said}"


def _times(results: Row) -> Figure | None:
    """One line a pair, a panel a column: the ratio of the steps that two arms take to learn."""
    rows = sorted(results["times"]["pairs"], key=lambda row: row["kind"] == "replicate")
    pairs = list(dict.fromkeys((row["a"], row["b"]) for row in rows))[:MOST_ARMS]
    columns = [column for column in columns_of(results) if any(row["column"] == column.id for row in rows)]
    if not pairs:
        return None
    labels, reach = {(row["a"], row["b"]): row["label"] for row in rows}, _doublings(rows, "ratio")
    panels = [
        Forest(
            names=[clean(labels[pair], _MOST_LETTERS) for pair in pairs], title=column.name, title_size=9.5,
            centred=True, x_limits=(-reach, reach), x_ticks=_ratios(reach), x_label="times as many steps", grid="x",
            rules=[Rule(0, "x", INK, "solid", 0.9)],
            estimates=[_ratio(row, "ratio", pairs.index((row["a"], row["b"])),
                              GREY if row["kind"] == "replicate" else HUES[0], row["significant"], reach)
                       for row in rows if row["column"] == column.id and (row["a"], row["b"]) in pairs],
        )
        for column in columns
    ]  # fmt: skip
    found = sum(row["significant"] for row in rows)
    title = f"{found} of {sum(row['kind'] != 'replicate' for row in rows)} ratios of steps to learn exceed the noise"
    subtitle = "Steps of the first arm over those of the second, with 95 % interval over seeds; to the right slower"
    legend = [Key("survives Holm's correction", INK, mark="o"), Key("does not", INK, mark="o", face="white")]
    return Figure("times", title, subtitle, [panels], rows, 1.0 + 0.28 * len(pairs), WIDE, legend=legend)


def _doublings(rows: Sequence[Row], key: str) -> float:
    """How far a scale of ratios reaches to either side, in doublings: to the ends that are not open."""
    ends = [abs(log2(row[end])) for row in rows for end in (key, "low", "high") if row[end]]
    return min(_WIDEST, ceil(max([1.0, *ends]))) + 0.4


def _ratios(reach: float) -> dict[float, str]:
    apart = 1 if reach < 5 else 2
    ticks = [apart * number for number in range(-int(reach / apart), int(reach / apart) + 1)]
    return {float(tick): f"{2**tick}" if tick >= 0 else f"1/{2**-tick}" for tick in ticks}


def _ratio(row: Row, key: str, place: float, colour: str, filled: bool, reach: float, size: float = 5.5) -> Estimate:
    """A ratio with its interval; what is open or beyond the scale ends at its edge."""
    low, high = (side * reach if row[end] is None else log2(row[end]) for side, end in ((-1, "low"), (1, "high")))
    value = log2(row[key]) if row[key] else reach if row["low"] is not None else -reach
    low, value, high = (max(-reach, min(reach, one)) for one in (low, value, high))
    return Estimate(place, value, low, high, colour, filled, size)


def scores(results: Row) -> Figure | None:
    """Scores after the last stage.

    Where arms cross two axes and are few: a panel per value of the first (encoder family), a mark per value of the
    second (positions). Otherwise one line per arm.
    """
    arms, columns = [arm for arm in arms_of(results) if arm.replicate_of is None], columns_of(results)
    stage = results["stages"][-1]
    rows = rows_at(results["scores"], stage)
    own = {arm.id: {c.id: rows[arm.id, c.id] for c in columns if (arm.id, c.id) in rows} for arm in arms}
    most = max([1, *map(len, own.values())])  # columns; of arms with fewer no mean is comparable
    means = [
        (fmean(row["score"] for row in own[arm.id].values()), arm.label) for arm in arms if len(own[arm.id]) == most
    ]
    if not means:
        return None
    (low, worst), (high, best) = (pick(means, key=lambda mean: mean[0]) for pick in (min, max))
    title = f"Mean over columns: from {points(low)} ({worst}) to {points(high)} ({best})"
    subtitle = f"Score in points{asked_on(columns)} after {stage_name(stage)}, mean over seeds; bars: 95 % intervals"
    colours, chance = hues(arms), Key("chance", GREY, NONE, "|", size=9)
    arms, subtitle = _fewer([arm for arm in arms if own[arm.id]], results, subtitle)
    shown = {arm.hue for arm in arms}
    panels_by = Counter(arm.panel for arm in arms)
    if "" in panels_by or len(panels_by) > _MOST_PANELS or max(panels_by.values()) > _MOST_MARKS:
        everything = frozenset(column.id for column in columns)
        lines = [_Line(arm.label, arm.block, colours[arm.hue], own[arm.id], everything) for arm in arms]
        rules = {column.id: Rule(POINTS * column.chance, "x", GREY, "solid", 0.9)
                 for column in columns if column.chance is not None}  # fmt: skip
        panels, height = _by_column(columns, lines, "score", (0, 102), rules, {})
        legend = [*(Key(hue, colour, mark="o") for hue, colour in colours.items() if hue and hue in shown), chance]
        return Figure("scores", title, subtitle, panels, list(rows.values()), height, WIDE, legend=legend,
                      legend_columns=_MARKS_IN_A_ROW)  # fmt: skip
    ticks = [Series([POINTS * column.chance] * 2, [place - 0.36, place + 0.36], GREY, width=1.2)
             for place, column in enumerate(columns) if column.chance is not None]  # fmt: skip
    panels = []
    for hue, colour in colours.items():
        members = [arm for arm in arms if arm.hue == hue]
        estimates = [
            _estimate(rows[arm.id, column.id], "score", place + 0.26 * (number - (len(members) - 1) / 2), colour,
                      not arm.baseline)
            for place, column in enumerate(columns) for number, arm in enumerate(members)
            if (arm.id, column.id) in rows
        ]  # fmt: skip
        panels.append(Forest(names=[column.name for column in columns], estimates=estimates, series=ticks, grid="x",
                             rules=_between(columns), x_limits=(0, 102), title=hue, title_size=11,
                             title_colour=colour, centred=True))  # fmt: skip
    marks = {arm.marker: Key(arm.marker, INK, mark="o", face="white" if arm.baseline else None) for arm in arms}
    return Figure("scores", title, subtitle, [panels], list(rows.values()), 1.0 + 0.34 * len(columns), WIDE,
                  legend=[*marks.values(), chance])  # fmt: skip


def _fewer(arms: list[RunArm], results: Row, subtitle: str) -> tuple[list[RunArm], str]:
    """The `leading` of very many arms, and a subtitle that says so."""
    means = mean_scores(results["scores"], results["stages"][-1])
    shown = leading(arms, (pair["b"] for pair in results["pairs"]), means)
    if len(shown) < len(arms):
        subtitle += f"; {len(shown)} of {len(arms)} arms, those that most are compared with and the best"
    return shown, subtitle


def differences(results: Row, stage: str) -> Figure | None:
    """Forest plot of one stage: one panel per pair, or where these are many one line; replicates last, in grey."""
    columns, rows = columns_of(results), rows_at(results["differences"], stage)
    pairs = sorted(results["pairs"], key=lambda pair: pair["kind"] == "replicate")
    own = [{c.id: rows[pair["a"], pair["b"], c.id] for c in columns if (pair["a"], pair["b"], c.id) in rows}
           for pair in pairs]  # fmt: skip
    shown = [(pair, found) for pair, found in zip(pairs, own, strict=True) if found]
    counts = [count for count in results["findings"]["counts"] if count["stage"] == stage]
    if not shown or not counts:
        return None
    said = ""
    if len(shown) > MOST_ARMS:
        size = [max(abs(row["difference"]) / (row["error"] or 1.0) for row in found.values()) for _, found in shown]
        kept = sorted(sorted(range(len(shown)), key=lambda place: -size[place])[:MOST_ARMS])
        said = f"; of {len(shown)} pairs the {MOST_ARMS} that differ most for their error"
        shown = [shown[place] for place in kept]
    bands = {row["column"]: POINTS * row["band"]
             for row in results["noise"] if row["stage"] == stage and row["band"] is not None}  # fmt: skip
    noisy = next(iter(rows.values()))["noise_included"]
    covers = "questions and training runs" if noisy else "questions only: no configuration ran twice"
    title, sides = counts[0]["title"], f"{counts[0]['first']} minus {counts[0]['second']}"
    if len(counts) > 1:
        tests, found, gains, losses = (
            sum(count[key] for count in counts) for key in ("tests", "significant", "gains", "losses")
        )
        title = f"After {stage_name(stage)}, {found} of {tests} differences exceed noise: {gains} up, {losses} down"
        sides = "first minus second arm"
    subtitle = f"{sides}{asked_on(columns)} after {stage_name(stage)}, points; bars: 95 % interval, {covers}{said}"
    reach = 1.05 * max(
        POINTS * max(abs(row[key] or 0.0) for row in rows.values() for key in ("difference", "low", "high")), 1.0
    )
    legend = [Key("survives Holm's correction", INK, mark="o"), Key("does not", INK, mark="o", face="white")]
    if len(shown) > _MOST_PANELS:
        lines = [_Line(pair["label"], pair["kind"], GREY if pair["kind"] == "replicate" else INK, found,
                       frozenset(column for column, row in found.items() if row["significant"]))
                 for pair, found in shown]  # fmt: skip
        zero = {column.id: Rule(0, "x", INK, "solid", 0.9) for column in columns}
        panels, height = _by_column(columns, lines, "difference", (-reach, reach), zero, bands)
    else:
        panels, height = [_pair_panels(results, columns, shown, bands, reach)], 1.0 + 0.34 * len(columns)
        if any(len(row["seeds"]) > 1 for row in rows.values()):
            legend.append(Key("one seed", INK, NONE, "|", size=8))
    if bands:
        legend.append(Key(_BAND, _SHADE, NONE))
    behind = []
    for row in rows.values():
        which = {key: row[key] for key in ("a", "b", "label", "kind", "column", "stage", "split")}
        behind.append({key: value for key, value in row.items() if key != "seeds"})
        behind += [which | seed for seed in row["seeds"]]
    return Figure(f"differences_{stage}", title, subtitle, panels, behind, height, WIDE, legend=legend)


def _pair_panels(
    results: Row, columns: Sequence[Column], shown: Sequence[tuple[Row, Mapping[str, Row]]],
    bands: Mapping[str, float], reach: float,
) -> list[Forest]:  # fmt: skip
    arms = arms_of(results)
    hue_of, colours = {arm.id: arm.hue for arm in arms}, hues(arms)
    areas = [Area((-bands[column.id], bands[column.id]), (place - 0.39, place + 0.39), _SHADE)
             for place, column in enumerate(columns) if column.id in bands]  # fmt: skip
    panels = []
    for pair, found in shown:
        colour = GREY if pair["kind"] == "replicate" else colours[hue_of[pair["a"]]]
        own = [(place, found[column.id]) for place, column in enumerate(columns) if column.id in found]
        panels.append(Forest(
            names=[column.name for column in columns], areas=areas, x_limits=(-reach, reach), title=pair["label"],
            title_size=11, title_colour=colour, centred=True,
            estimates=[_estimate(row, "difference", place, colour, row["significant"]) for place, row in own],
            series=[Series([POINTS * seed["difference"]], [place], colour, mark="|", size=9, alpha=0.7)
                    for place, row in own if len(row["seeds"]) > 1 for seed in row["seeds"]],
            rules=[Rule(0, "x", INK, "solid", 0.8), *_between(columns)],
        ))  # fmt: skip
    return panels


def _curves(results: Row) -> Figure | None:
    """Score on probes against the step of the last stage that logged it: a row a column, a panel a group of arms."""
    stages = [curve["stage"] for curve in results["curves"]]
    stage = next((stage for stage in reversed(results["stages"]) if stage in stages), "")
    logged = [curve for curve in results["curves"] if curve["stage"] == stage]
    columns = [column for column in columns_of(results) if any(column.id in curve["accuracy"] for curve in logged)]
    if not columns:
        return None
    known = {curve["arm"] for curve in logged}
    subtitle = (
        f"Score in points on probe questions against the step of {stage_name(stage)}. Line: median of the seeds, "
    )
    subtitle += "band: the middle half of them; grey: a baseline of many arms, dotted a replicate"
    arms, subtitle = _fewer([arm for arm in arms_of(results) if arm.id in known], results, subtitle)
    values: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for curve in logged:
        for column, measured in curve["accuracy"].items():
            for step, value in zip(curve["steps"], measured, strict=False):
                if value is not None:
                    values[curve["arm"], column][step].append(value)
    behind = []
    for arm in arms:
        for column in columns:
            for step, found in sorted(values[arm.id, column.id].items()):
                low, score, high = (float(end) for end in np.quantile(found, [0.25, 0.5, 0.75]))
                behind.append({"stage": stage, "arm": arm.id, "column": column.id, "step": step, "seeds": len(found)}
                              | {"score": score, "low": low, "high": high})  # fmt: skip
    against = Counter(pair["b"] for pair in results["pairs"] if pair["kind"] != "replicate")
    most = [arm for arm in arms if against[arm.id] == max(against.values(), default=0) > 1]
    groups = [[arm for arm in arms if arm.hue == hue] for hue in dict.fromkeys(arm.hue for arm in arms)]
    panels = [_curve_panel(column, group, most[:1], behind) for column in columns for group in groups]
    grid = _in_rows(panels, min(len(groups), _CURVES_IN_A_ROW))
    return Figure("curves", _curve_title(results, columns[0]), subtitle, grid, behind, 0.5 + 2.3 * len(grid), WIDE,
                  share="both", legend=[Key("chance", LIGHT)])  # fmt: skip


def _curve_panel(column: Column, group: list[RunArm], most: list[RunArm], behind: list[Row]) -> Lines:
    """The curves of some arms on one column, before the one that most arms are compared with."""
    shown: list[tuple[RunArm, dict[str, Any]]] = [
        (arm, {"colour": GREY}) for arm in most if arm not in group or len(group) > 1
    ]
    own = [arm for arm in group if arm not in most or len(group) == 1]
    shown += [
        (arm, {"colour": GREY, "dash": "dotted"} if arm.replicate_of else stroke(number))
        for number, arm in enumerate(own)
    ]
    series, names = [], []
    for number, (arm, drawn) in enumerate(shown):
        rows = [row for row in behind if (row["arm"], row["column"]) == (arm.id, column.id)]
        score, low, high = ([POINTS * row[key] for row in rows] for key in ("score", "low", "high"))
        steps = [log2(max(row["step"], 1)) for row in rows]
        series.append(Series(steps, score, low=low, high=high, shade=0.13, width=1.6,
                             **drawn))  # fmt: skip
        if len(shown) <= _MOST_NAMED_CURVES:
            up = 0.05 + 0.085 * (len(shown) - 1 - number)
            names.append(Note(clean(arm.short, 34), 0.98, up, across=True, up=True, align=("right", "center"),
                              colour=drawn["colour"], size=7.5, bold=True))  # fmt: skip
    logged = sorted({row["step"] for row in behind})
    ticks = [step for number, step in enumerate(reversed(logged)) if number % 4 == 0]
    chance = [Rule(POINTS * column.chance, "y", LIGHT, "solid", 1.2)] if column.chance is not None else ()
    return Lines(series=series, rules=chance, notes=names, y_limits=(0, 102), tick_size=8, centred=True,
                 x_ticks={log2(max(step, 1)): f"{step:,}" for step in ticks}, title_size=9,
                 title=f"{group[0].hue}\n{column.name}" if group[0].hue else column.name)  # fmt: skip


def _curve_title(results: Row, column: Column) -> str:
    """The arms that learn a column fastest and most slowly, and how many runs do."""
    rows = [row for row in results["times"]["arms"] if row["column"] == column.id]
    labels = {arm.id: arm.short for arm in arms_of(results) if arm.replicate_of is None}
    timed = sorted((row["steps"], labels[row["arm"]]) for row in rows if row["steps"] and row["arm"] in labels)
    if not timed:
        return "Score while training"
    (first, fast), (last, slow) = timed[0], timed[-1]
    runs, level = sum(row["runs"] for row in rows), POINTS * rows[0]["level"]
    between = f"from {first:.0f} steps ({fast}) to {last:.0f} ({slow})" if len(timed) > 1 else f"{first:.0f} steps"
    learned = sum(row["reached"] for row in rows)
    return f"{level:.0f} % on {column.name} takes {between}; {learned} of {runs} runs get there"


class _Line(NamedTuple):
    """One arm or pair where there are many: lines of one block stand together, marks of ``filled`` columns are full."""

    label: str
    block: str
    colour: str
    rows: Mapping[str, Row]
    filled: frozenset[str]


def _by_column(
    columns: Sequence[Column], lines: Sequence[_Line], key: str, limits: tuple[float, float],
    rules: Mapping[str, Rule], bands: Mapping[str, float],
) -> tuple[list[list[Forest]], float]:  # fmt: skip
    """A panel per column with a line per arm or pair, and the height of all.

    ``rules`` are upright, one a column; ``bands`` are half the width of a grey band about zero, in points.
    """
    apart = [Rule(place - 0.5, "y", GREY, "solid", 0.7) for place in range(1, len(lines))
             if lines[place].block != lines[place - 1].block]  # fmt: skip
    panels = [
        Forest(
            names=[clean(line.label, _MOST_LETTERS) for line in lines], x_limits=limits, whole=4, tick_size=7.5,
            estimates=[_estimate(row, key, place, line.colour, column.id in line.filled, 3.8)
                       for place, line in enumerate(lines) if (row := line.rows.get(column.id))],
            areas=[Area((-bands[column.id], bands[column.id]), colour=_SHADE)] if column.id in bands else (),
            rules=[*([rules[column.id]] if column.id in rules else []), *apart],
            title=column.name if column.paper == column.label else f"{fill(column.paper, 17)}\n{column.label}",
            title_size=8.5, centred=True, grid="x",
        )
        for column in columns
    ]  # fmt: skip
    grid = _in_rows(panels, _COLUMNS_IN_A_ROW)
    return grid, 0.35 + len(grid) * (0.19 * (len(lines) + 1) + 0.72)


def _in_rows(panels: Sequence[Any], most: int) -> list[list[Any]]:
    return [list(panels[start : start + most]) for start in range(0, len(panels), most)]


def _estimate(row: Row, key: str, place: float, colour: str, filled: bool, size: float = 5.5) -> Estimate:
    value, low, high = (scaled(row[end], POINTS) for end in (key, "low", "high"))
    return Estimate(place, value, low, high, colour, filled, size)


def _between(columns: Sequence[Column]) -> list[Rule]:
    """Thin rules between the columns of one of the paper's benchmarks and those of the next."""
    return [Rule(place - 0.5, "y", LIGHT, "solid", 0.8) for place in range(1, len(columns))
            if columns[place].paper != columns[place - 1].paper]  # fmt: skip
