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
from blindspot.reporting.findings import asked_on, stage_name
from blindspot.reporting.plan import Arm, Column
from blindspot.reporting.tables import arms_of, columns_of, differences_at, scores_at
from blindspot.reporting.text import clean, points, signed

POINTS = 100.0
VERDICTS = {"supported": HUES[2], "refuted": HUES[1], "undecided": GREY, "not tested": LIGHT}
_COLUMNS_IN_A_ROW, _CURVES_IN_A_ROW, _MARKS_IN_A_ROW = 7, 5, 8
_MOST_PANELS, _MOST_MARKS, _MOST_NAMED_CURVES, _MOST_LETTERS = 6, 3, 10, 78
_BAND, _SHADE = "95 % of differences between equal arms with other seeds", "#E9E9E9"
Row = dict[str, Any]


def study_figures(results: Row) -> list[Figure]:
    """Every figure that the results allow: ``hypotheses``, ``scores``, ``curves``, ``differences_<stage>``."""
    found = [hypotheses(results), scores(results), curves(results)]
    found += [differences(results, stage) for stage in results["stages"]]
    return [figure for figure in found if figure is not None]


def hues(arms: Sequence[Arm]) -> dict[str, str]:
    """A colour per panel, or per block where arms have no panels, in the order of the arms."""
    return {hue: HUES[number % len(HUES)] for number, hue in enumerate(dict.fromkeys(arm.hue for arm in arms))}


def hypotheses(results: Row) -> Figure | None:
    """One line a hypothesis: the effect that it is about, coloured by the verdict; None without hypotheses."""
    rows = [row for row in results["hypotheses"] if row["low"] is not None]
    if not rows:
        return None
    counted = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    said = ", ".join(f"{number} {verdict}" for verdict, number in counted.items() if number)
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
    rows = scores_at(results, stage)
    means = {
        arm.id: fmean(own)
        for arm in arms
        if (own := [rows[arm.id, column.id]["score"] for column in columns if (arm.id, column.id) in rows])
    }
    if not means:
        return None
    labels = {arm.id: arm.label for arm in arms}
    best, worst = max(means, key=lambda arm: means[arm]), min(means, key=lambda arm: means[arm])
    title = (
        f"Mean over columns: from {points(means[worst])} ({labels[worst]}) to {points(means[best])} ({labels[best]})"
    )
    subtitle = f"Score in points{asked_on(columns)} after {stage_name(stage)}, mean over seeds; bars: 95 % intervals"
    colours, chance = hues(arms), Key("chance", GREY, NONE, "|", size=9)
    panels_by = Counter(arm.panel for arm in arms)
    if "" in panels_by or len(panels_by) > _MOST_PANELS or max(panels_by.values()) > _MOST_MARKS:
        lines = [
            _Line(arm.label, arm.block, colours[arm.hue],
                  {column.id: rows[arm.id, column.id] for column in columns if (arm.id, column.id) in rows},
                  frozenset(column.id for column in columns))
            for arm in arms
        ]  # fmt: skip
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
    columns = columns_of(results)
    rows = differences_at(results, stage)
    pairs = sorted(results["pairs"], key=lambda pair: pair["kind"] == "replicate")
    pairs = [pair for pair in pairs if any((pair["a"], pair["b"], column.id) in rows for column in columns)]
    counts = [count for count in results["findings"]["counts"] if count["stage"] == stage]
    if not pairs or not counts:
        return None
    bands = {row["column"]: POINTS * row["band"]
             for row in results["noise"] if row["stage"] == stage and row["band"] is not None}  # fmt: skip
    covers = "questions and training runs"
    if not next(iter(rows.values()))["noise_included"]:
        covers = "questions only: no configuration ran twice"
    sides = f"{counts[0]['first']} minus {counts[0]['second']}" if len(counts) == 1 else "first minus second arm"
    title = counts[0]["title"] if len(counts) == 1 else _overall_title(counts, stage)
    subtitle = f"{sides}{asked_on(columns)} after {stage_name(stage)}, points; bars: 95 % interval, {covers}"
    reach = 1.05 * max(
        POINTS * max(abs(row[key] or 0.0) for row in rows.values() for key in ("difference", "low", "high")), 1.0
    )
    legend = [Key("survives Holm's correction", INK, mark="o"), Key("does not", INK, mark="o", face="white")]
    band = [Key(_BAND, _SHADE, NONE)] * any(band is not None for band in bands.values())
    if len(pairs) > _MOST_PANELS:
        lines = []
        for pair in pairs:
            own = {column.id: row for column in columns if (row := rows.get((pair["a"], pair["b"], column.id)))}
            lines.append(_Line(pair["label"], pair["kind"], GREY if pair["kind"] == "replicate" else INK, own,
                               frozenset(column for column, row in own.items() if row["significant"])))  # fmt: skip
        zero = {column.id: Rule(0, "x", INK, "solid", 0.9) for column in columns}
        panels, height = _by_column(columns, lines, "difference", (-reach, reach), zero, bands)
        legend += band
    else:
        hue_of, colours = {arm.id: arm.hue for arm in arms_of(results)}, hues(arms_of(results))
        panels, height = [[]], 1.0 + 0.34 * len(columns)
        areas = [Area((-bands[column.id], bands[column.id]), (place - 0.39, place + 0.39), _SHADE)
                 for place, column in enumerate(columns) if column.id in bands]  # fmt: skip
        for pair in pairs:
            colour = GREY if pair["kind"] == "replicate" else colours[hue_of[pair["a"]]]
            own = [(place, row) for place, column in enumerate(columns)
                   if (row := rows.get((pair["a"], pair["b"], column.id)))]  # fmt: skip
            panels[0].append(Forest(
                names=[column.name for column in columns], areas=areas, x_limits=(-reach, reach), title=pair["label"],
                title_size=11, title_colour=colour, centred=True,
                estimates=[_estimate(row, "difference", place, colour, row["significant"]) for place, row in own],
                series=[Series([POINTS * seed["difference"]], [place], colour, mark="|", size=9, alpha=0.7)
                        for place, row in own if len(row["seeds"]) > 1 for seed in row["seeds"]],
                rules=[Rule(0, "x", INK, "solid", 0.8), *_between(columns)],
            ))  # fmt: skip
        seeds = any(len(row["seeds"]) > 1 for row in rows.values())
        legend += [*([Key("one seed", INK, NONE, "|", size=8)] * seeds), *band]
    behind = [line for row in rows.values() for line in _with_seeds(row)]
    return Figure(f"differences_{stage}", title, subtitle, panels, behind, height, WIDE, legend=legend)


def curves(results: Row) -> Figure | None:
    """Score against the step of the last stage that logged it, mean over seeds, one panel per column."""
    stages = [curve["stage"] for curve in results["curves"]]
    stage = next((stage for stage in reversed(results["stages"]) if stage in stages), None)
    logged = [curve for curve in results["curves"] if curve["stage"] == stage]
    columns = [column for column in columns_of(results) if any(column.id in curve["accuracy"] for curve in logged)]
    if not columns:
        return None
    arms = [arm for arm in arms_of(results) if any(curve["arm"] == arm.id for curve in logged)]
    means = {arm.id: {column.id: _mean_curve(logged, arm.id, column.id) for column in columns} for arm in arms}
    colours = hues(arms_of(results))
    strokes: dict[str, Any] = {
        arm.id: {"colour": GREY, "dash": "dotted"}
        if arm.replicate_of
        else {"colour": colours[arm.hue], "dash": "dashed" if arm.baseline else "solid"}
        for arm in arms
    }
    panels = [
        Lines(series=[Series(list(curve), [POINTS * value for value in curve.values()], width=1.4, **strokes[arm.id])
                      for arm in arms for curve in [means[arm.id][column.id]]],
              rules=[Rule(POINTS * column.chance, "y", LIGHT, "solid", 1.2)] if column.chance is not None else (),
              y_limits=(0, 102), tick_size=8, title=column.name, title_size=9.5, centred=True)
        for column in columns
    ]  # fmt: skip
    if len(arms) > _MOST_NAMED_CURVES:
        legend = [Key(hue, colour) for hue, colour in colours.items()]
    else:
        legend = [Key(arm.short, **strokes[arm.id]) for arm in arms]
    behind = [
        {"stage": stage, "arm": arm.id, "column": column.id, "step": step, "score": value}
        for arm in arms
        for column in columns
        for step, value in means[arm.id][column.id].items()
    ]
    subtitle = f"Score in points on some test questions against the step of {stage_name(stage or '')}, mean over seeds"
    grid = _in_rows(panels, _CURVES_IN_A_ROW)
    return Figure("curves", _curve_title(arms, means), subtitle, grid, behind, 0.6 + 1.95 * len(grid), WIDE, share="y",
                  legend=[*legend, Key("chance", LIGHT)], legend_columns=_MARKS_IN_A_ROW)  # fmt: skip


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

    Args:
        columns: one panel each.
        lines: from top to bottom.
        key: of the estimate in rows: ``score`` or ``difference``.
        limits: of every panel, in points.
        rules: an upright rule per column.
        bands: per column half the width of a grey band about zero, in points.
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


def _mean_curve(logged: list[Row], arm: str, column: str) -> dict[int, float]:
    values: dict[int, list[float]] = defaultdict(list)
    for curve in logged:
        if curve["arm"] == arm:
            for step, value in zip(curve["steps"], curve["accuracy"].get(column, []), strict=False):
                if value is not None:
                    values[step].append(value)
    return {step: fmean(values[step]) for step in sorted(values)}


def _curve_title(arms: list[Arm], means: dict[str, dict[str, dict[int, float]]]) -> str:
    reached: dict[str, list[int]] = defaultdict(list)
    for arm in arms:
        by_step: dict[int, list[float]] = defaultdict(list)
        for curve in means[arm.id].values():
            for step, value in curve.items():
                by_step[step].append(value)
        if by_step and arm.replicate_of is None:
            overall = {step: fmean(values) for step, values in sorted(by_step.items())}
            final = overall[max(overall)]
            reached[arm.marker].append(next(step for step, value in overall.items() if value >= 0.9 * final))
    parts = [f"at step {median(steps):.0f}" + (f" with {name}" if name else "") for name, steps in reached.items()]
    return f"90 % of the final mean score is reached {', '.join(parts)}" if parts else "Score while training"


def _overall_title(counts: list[Row], stage: str) -> str:
    tests, found, gains, losses = (
        sum(count[key] for count in counts) for key in ("tests", "significant", "gains", "losses")
    )
    return f"After {stage_name(stage)}, {found} of {tests} differences exceed noise: {gains} up, {losses} down"


def _with_seeds(row: Row) -> list[Row]:
    """A difference, and behind it those of its single seeds."""
    main = {key: value for key, value in row.items() if key != "seeds"}
    which = {key: row[key] for key in ("a", "b", "label", "kind", "column", "stage", "split")}
    return [main, *(which | seed for seed in row["seeds"])]
