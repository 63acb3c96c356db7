"""The figures of a run, declared: claims, scores, score against training step, differences."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from textwrap import fill
from typing import Any, NamedTuple

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
)
from blindspot.reporting.run import Column, RunArm, stage_name
from blindspot.reporting.tables import arms_of, asked_on, columns_of, rows_at
from blindspot.text import clean, points, signed

POINTS = 100.0
VERDICTS = {"supported": HUES[2], "refuted": HUES[1], "undecided": GREY, "not tested": LIGHT}
_COLUMNS_IN_A_ROW, _CURVES_IN_A_ROW, _MARKS_IN_A_ROW = 7, 5, 8
_MOST_PANELS, _MOST_MARKS, _MOST_NAMED_CURVES, _MOST_LETTERS = 6, 3, 10, 78
_BAND, _SHADE = "95 % of differences between equal arms with other seeds", "#E9E9E9"
Row = dict[str, Any]


def study_figures(results: Row) -> list[Figure]:
    """Every figure that the results allow: ``hypotheses``, ``scores``, ``curves``, ``differences_<stage>``."""
    found = [_hypotheses(results), scores(results), _curves(results)]
    found += [differences(results, stage) for stage in results["stages"]]
    return [figure for figure in found if figure is not None]


def hues(arms: Sequence[RunArm]) -> dict[str, str]:
    """A colour per panel, or per block where arms have no panels, in the order of the arms."""
    return {hue: HUES[number % len(HUES)] for number, hue in enumerate(dict.fromkeys(arm.hue for arm in arms))}


def _hypotheses(results: Row) -> Figure | None:
    """One line a hypothesis: the effect that it is about, coloured by the verdict."""
    rows = [row for row in results["hypotheses"] if row["low"] is not None]
    if not rows:
        return None
    counted = Counter(row["verdict"] for row in rows)
    said = ", ".join(f"{counted[verdict]} {verdict}" for verdict in VERDICTS if counted[verdict])
    reach = 1.08 * POINTS * max(max(abs(row["low"]), abs(row["high"])) for row in rows)
    sides = {"positive": (0, reach), "negative": (-reach, 0)}
    panel = Forest(
        names=[fill(row["claim"], 44) for row in rows],
        estimates=[_estimate(row, "effect", place, VERDICTS[row["verdict"]], True, 8)
                   for place, row in enumerate(rows)],
        areas=[Area(sides[row["predicts"]], (place - 0.45, place + 0.45), alpha=0.45) for place, row in enumerate(rows)
               if row["predicts"] in sides],
        notes=[Note(f"{signed(row['effect'])}  {row['verdict']}", 1.02, place, across=True, size=9.5)
               for place, row in enumerate(rows)],
        rules=[Rule(0, "x", INK, "solid")], x_limits=(-reach, reach), x_label="effect (points)",
    )  # fmt: skip
    subtitle = "Effect in points with 95 % interval over questions and training noise; the predicted side is shaded"
    return Figure("hypotheses", f"Of {len(rows)} claims: {said}", subtitle, [[panel]], rows, 0.75 + 0.5 * len(rows))


def scores(results: Row) -> Figure | None:
    """Scores after the last stage.

    Where arms cross two axes and are few: a panel per value of the first (encoder family), a mark per value of the
    second (positions). Otherwise one line per arm.
    """
    arms, columns = [arm for arm in arms_of(results) if arm.replicate_of is None], columns_of(results)
    stage = results["stages"][-1]
    rows = rows_at(results["scores"], stage)
    own = {arm.id: {c.id: rows[arm.id, c.id] for c in columns if (arm.id, c.id) in rows} for arm in arms}
    means = [(fmean(row["score"] for row in own[arm.id].values()), arm.label) for arm in arms if own[arm.id]]
    if not means:
        return None
    (low, worst), (high, best) = (pick(means, key=lambda mean: mean[0]) for pick in (min, max))
    title = f"Mean over columns: from {points(low)} ({worst}) to {points(high)} ({best})"
    subtitle = f"Score in points{asked_on(columns)} after {stage_name(stage)}, mean over seeds; bars: 95 % intervals"
    colours, chance = hues(arms), Key("chance", GREY, NONE, "|", size=9)
    panels_by = Counter(arm.panel for arm in arms)
    if "" in panels_by or len(panels_by) > _MOST_PANELS or max(panels_by.values()) > _MOST_MARKS:
        everything = frozenset(column.id for column in columns)
        lines = [_Line(arm.label, arm.block, colours[arm.hue], own[arm.id], everything) for arm in arms]
        rules = {column.id: Rule(POINTS * column.chance, "x", GREY, "solid", 0.9)
                 for column in columns if column.chance is not None}  # fmt: skip
        panels, height = _by_column(columns, lines, "score", (0, 102), rules, {})
        legend = [*(Key(hue, colour, mark="o") for hue, colour in colours.items() if hue), chance]
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
    subtitle = f"{sides}{asked_on(columns)} after {stage_name(stage)}, points; bars: 95 % interval, {covers}"
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
    """Score against the step of the last stage that logged it, mean over seeds, one panel per column."""
    stages = [curve["stage"] for curve in results["curves"]]
    stage = next((stage for stage in reversed(results["stages"]) if stage in stages), "")
    logged = [curve for curve in results["curves"] if curve["stage"] == stage]
    columns = [column for column in columns_of(results) if any(column.id in curve["accuracy"] for curve in logged)]
    if not columns:
        return None
    arms = [arm for arm in arms_of(results) if any(curve["arm"] == arm.id for curve in logged)]
    values: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for curve in logged:
        for column, measured in curve["accuracy"].items():
            for step, value in zip(curve["steps"], measured, strict=False):
                if value is not None:
                    values[curve["arm"], column, step].append(value)
    behind = [
        {"stage": stage, "arm": arm.id, "column": column.id, "step": step, "score": fmean(found)}
        for arm in arms for column in columns
        for step, found in sorted((step, found) for (*of, step), found in values.items() if of == [arm.id, column.id])
    ]  # fmt: skip
    colours = hues(arms_of(results))
    strokes: dict[str, Any] = {
        arm.id: {"colour": GREY, "dash": "dotted"}
        if arm.replicate_of
        else {"colour": colours[arm.hue], "dash": "dashed" if arm.baseline else "solid"}
        for arm in arms
    }
    panels = []
    for column in columns:
        series = []
        for arm in arms:
            own = [row for row in behind if (row["arm"], row["column"]) == (arm.id, column.id)]
            series.append(Series([row["step"] for row in own], [POINTS * row["score"] for row in own], width=1.4,
                                 **strokes[arm.id]))  # fmt: skip
        chance = [Rule(POINTS * column.chance, "y", LIGHT, "solid", 1.2)] if column.chance is not None else ()
        panels.append(Lines(series=series, rules=chance, y_limits=(0, 102), tick_size=8, title=column.name,
                            title_size=9.5, centred=True))  # fmt: skip
    legend = [Key(arm.short, **strokes[arm.id]) for arm in arms]
    if len(arms) > _MOST_NAMED_CURVES:
        legend = [Key(hue, colour) for hue, colour in colours.items()]
    subtitle = f"Score in points on some test questions against the step of {stage_name(stage)}, mean over seeds"
    grid = _in_rows(panels, _CURVES_IN_A_ROW)
    return Figure("curves", _curve_title(arms, behind), subtitle, grid, behind, 0.6 + 1.95 * len(grid), WIDE,
                  share="y", legend=[*legend, Key("chance", LIGHT)], legend_columns=_MARKS_IN_A_ROW)  # fmt: skip


def _curve_title(arms: list[RunArm], behind: list[Row]) -> str:
    """When arms reach 90 % of their final mean score: the median of those that share a mark."""
    reached: dict[str, list[int]] = defaultdict(list)
    for arm in arms:
        by_step: dict[int, list[float]] = defaultdict(list)
        for row in behind:
            if row["arm"] == arm.id:
                by_step[row["step"]].append(row["score"])
        if by_step and arm.replicate_of is None:
            overall = {step: fmean(values) for step, values in sorted(by_step.items())}
            final = overall[max(overall)]
            reached[arm.marker].append(next(step for step, value in overall.items() if value >= 0.9 * final))
    parts = [f"at step {median(steps):.0f}" + (f" with {name}" if name else "") for name, steps in reached.items()]
    return f"90 % of the final mean score is reached {', '.join(parts)}" if parts else "Score while training"


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
            title=column.name if column.paper == column.label else f"{column.paper}\n{column.label}",
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
