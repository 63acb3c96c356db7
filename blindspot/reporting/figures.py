"""The figures of a run: scores, differences, accuracy against training step."""

from collections import Counter, defaultdict
from statistics import fmean, median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from blindspot.reporting.figure_rows import Line, draw_lines, estimate
from blindspot.reporting.figure_style import GREY, INK, LIGHT, POINTS, column_rows, hues
from blindspot.reporting.findings import asked_on, stage_name
from blindspot.reporting.hypothesis_figure import draw_hypotheses
from blindspot.reporting.plan import Arm, Column
from blindspot.reporting.sheet import WIDE, Drawn, Sheet, legend_height
from blindspot.reporting.tables import arms_of, columns_of, differences_at, scores_at
from blindspot.reporting.text import points

_PER_ROW = 5
_MARKS_IN_A_ROW = 8
_MOST_PANELS = 6
_MOST_MARKS = 3
_MOST_NAMED_CURVES = 10
_BAND = "95 % of differences between equal arms with other seeds"
Row = dict[str, Any]


def draw_figures(results: Row) -> list[Drawn]:
    """Every figure that the results allow: ``hypotheses``, ``scores``, ``curves``, ``differences_<stage>``."""
    found = [draw_hypotheses(results), draw_scores(results), draw_curves(results)]
    found += [draw_differences(results, stage) for stage in results["stages"]]
    return [drawn for drawn in found if drawn is not None]


def draw_scores(results: Row) -> Drawn | None:
    """Scores after the last stage.

    Where arms cross two axes and are few: a panel per value of the first (encoder family), a mark per value of the
    second (positions). Otherwise one line per arm.
    """
    arms, columns = [arm for arm in arms_of(results) if arm.replicate_of is None], columns_of(results)
    stage = results["stages"][-1]
    rows = scores_at(results, stage)
    means = {
        arm.id: fmean(scores)
        for arm in arms
        if (scores := [rows[arm.id, column.id]["score"] for column in columns if (arm.id, column.id) in rows])
    }
    if not means:
        return None
    labels = {arm.id: arm.label for arm in arms}
    best, worst = max(means, key=lambda arm: means[arm]), min(means, key=lambda arm: means[arm])
    title = (
        f"Mean over columns: from {points(means[worst])} ({labels[worst]}) to {points(means[best])} ({labels[best]})"
    )
    subtitle = f"Score in points{asked_on(columns)} after {stage_name(stage)}, mean over seeds; bars: 95 % intervals"
    colours = hues(arms)
    chance = Line2D([], [], color=GREY, marker="|", linestyle="", markersize=9, label="chance")
    if not _fit_panels(arms):
        lines = [
            Line(arm.label, arm.block, colours[arm.hue], _of(rows, columns, arm.id), _ids(columns)) for arm in arms
        ]
        rules = {column.id: POINTS * column.chance for column in columns if column.chance is not None}
        sheet = draw_lines(title, subtitle, columns, lines, "score", (0, 102), rules, {})
        sheet.legend([*_hue_marks(colours), chance], _MARKS_IN_A_ROW)
        return Drawn("scores", sheet, list(rows.values()))
    sheet, panels = _panels(title, subtitle, len(columns), len(colours))
    for panel, (hue, colour) in zip(panels, colours.items(), strict=True):
        members = [arm for arm in arms if arm.hue == hue]
        column_rows(panel, columns, labels=panel is panels[0])
        for place, column in enumerate(columns):
            if column.chance is not None:
                panel.plot(
                    [POINTS * column.chance] * 2, [place - 0.36, place + 0.36], color=GREY, linewidth=1.2, zorder=1
                )
            for number, arm in enumerate(members):
                if (arm.id, column.id) in rows:
                    height = place + 0.26 * (number - (len(members) - 1) / 2)
                    estimate(panel, rows[arm.id, column.id], "score", height, colour, not arm.baseline, 5.5)
        panel.set_xlim(0, 102)
        panel.set_title(hue, color=colour)
        panel.grid(axis="x", color=LIGHT, linewidth=0.6)
        panel.set_axisbelow(True)
    sheet.legend([*_marker_marks(arms), chance])
    return Drawn("scores", sheet, list(rows.values()))


def draw_differences(results: Row, stage: str) -> Drawn | None:
    """Forest plot of one stage: one panel per pair, or where these are many one line; replicates last, in grey."""
    columns = columns_of(results)
    rows = differences_at(results, stage)
    pairs = sorted(results["pairs"], key=lambda pair: pair["kind"] == "replicate")
    pairs = [pair for pair in pairs if any((pair["a"], pair["b"], column.id) in rows for column in columns)]
    counts = [count for count in results["findings"]["counts"] if count["stage"] == stage]
    if not pairs or not counts:
        return None
    bands = {row["column"]: row["band"] for row in results["noise"] if row["stage"] == stage}
    drawn = rows[next(key for key in rows)]
    covers = "questions and training runs" if drawn["noise_included"] else "questions only: no configuration ran twice"
    sides = f"{counts[0]['first']} minus {counts[0]['second']}" if len(counts) == 1 else "first minus second arm"
    title = counts[0]["title"] if len(counts) == 1 else _overall_title(counts, stage)
    subtitle = f"{sides}{asked_on(columns)} after {stage_name(stage)}, points; bars: 95 % interval, {covers}"
    name, behind = f"differences_{stage}", [line for row in rows.values() for line in _with_seeds(row)]
    hue = {arm.id: arm.hue for arm in arms_of(results)}
    colours = hues(arms_of(results))
    reach = 1.05 * max(
        POINTS * max(abs(row[key] or 0.0) for row in rows.values() for key in ("difference", "low", "high")), 1.0
    )
    marks: list[Any] = [
        Line2D([], [], color=INK, marker="o", markerfacecolor=INK, label="survives Holm's correction"),
        Line2D([], [], color=INK, marker="o", markerfacecolor="white", label="does not"),
    ]
    if len(pairs) > _MOST_PANELS:
        lines = [_pair_line(pair, columns, rows, GREY if pair["kind"] == "replicate" else INK) for pair in pairs]
        widths = {column: POINTS * band for column, band in bands.items() if band is not None}
        zero = dict.fromkeys(_ids(columns), 0.0)
        sheet = draw_lines(title, subtitle, columns, lines, "difference", (-reach, reach), zero, widths)
        sheet.legend([*marks, *([Patch(color="#E9E9E9", label=_BAND)] if widths else [])])
        return Drawn(name, sheet, behind)
    sheet, panels = _panels(title, subtitle, len(columns), len(pairs))
    for panel, pair in zip(panels, pairs, strict=True):
        colour = GREY if pair["kind"] == "replicate" else colours[hue[pair["a"]]]
        column_rows(panel, columns, labels=panel is panels[0])
        panel.axvline(0, color=INK, linewidth=0.8, zorder=1)
        for place, column in enumerate(columns):
            band, row = bands.get(column.id), rows.get((pair["a"], pair["b"], column.id))
            if band is not None:
                panel.barh(place, 2 * POINTS * band, left=-POINTS * band, height=0.78, color="#E9E9E9", zorder=0)
            if row is not None:
                for seed in row["seeds"] if len(row["seeds"]) > 1 else []:
                    panel.plot(POINTS * seed["difference"], place, "|", color=colour, markersize=9, alpha=0.7, zorder=2)
                estimate(panel, row, "difference", place, colour, row["significant"], 5.5)
        panel.set_title(pair["label"], color=colour)
    for panel in panels:
        panel.set_xlim(-reach, reach)
    if any(len(row["seeds"]) > 1 for row in rows.values()):
        marks.append(Line2D([], [], color=INK, marker="|", linestyle="", markersize=8, label="one seed"))
    if any(band is not None for band in bands.values()):
        marks.append(Patch(color="#E9E9E9", label=_BAND))
    sheet.legend(marks)
    return Drawn(name, sheet, behind)


def draw_curves(results: Row) -> Drawn | None:
    """Score against the step of the last stage that logged it, mean over seeds, one panel per column."""
    stages = [curve["stage"] for curve in results["curves"]]
    stage = next((stage for stage in reversed(results["stages"]) if stage in stages), None)
    curves = [curve for curve in results["curves"] if curve["stage"] == stage]
    columns = [column for column in columns_of(results) if any(column.id in curve["accuracy"] for curve in curves)]
    if not columns:
        return None
    arms = [arm for arm in arms_of(results) if any(curve["arm"] == arm.id for curve in curves)]
    means = {arm.id: {column.id: _mean_curve(curves, arm.id, column.id) for column in columns} for arm in arms}
    colours = hues(arms_of(results))
    if len(arms) > _MOST_NAMED_CURVES:
        lines = [Line2D([], [], color=colour, label=hue) for hue, colour in colours.items()]
    else:
        lines = [Line2D([], [], label=arm.short, **_stroke(arm, colours)) for arm in arms]
    across, down = min(_PER_ROW, len(columns)), -(-len(columns) // _PER_ROW)
    subtitle = f"Score in points on some test questions against the step of {stage_name(stage or '')}, mean over seeds"
    foot = 0.6 + legend_height(len(lines) + 1, _MARKS_IN_A_ROW)
    sheet = Sheet(_curve_title(arms, means), subtitle, 0.3 + 1.95 * down - 0.55 + foot, WIDE)
    panels = sheet.panels(down, across, left=0.6, bottom=foot, top=0.3, gaps=(0.55, 0.3))
    for panel in panels[len(columns) :]:
        panel.set_axis_off()
    for number, (panel, column) in enumerate(zip(panels, columns, strict=False)):
        for arm in arms:
            curve = means[arm.id][column.id]
            panel.plot(list(curve), [POINTS * value for value in curve.values()], **_stroke(arm, colours))
        if column.chance is not None:
            panel.axhline(POINTS * column.chance, color=LIGHT, linewidth=1.2, zorder=0)
        panel.set_ylim(0, 102)
        panel.set_title(column.name, fontsize=9.5)
        panel.tick_params(labelsize=8, labelleft=number % across == 0)
    sheet.legend([*lines, Line2D([], [], color=LIGHT, label="chance")], _MARKS_IN_A_ROW)
    behind = [
        {"stage": stage, "arm": arm.id, "column": column.id, "step": step, "score": value}
        for arm in arms
        for column in columns
        for step, value in means[arm.id][column.id].items()
    ]
    return Drawn("curves", sheet, behind)


def _mean_curve(curves: list[Row], arm: str, column: str) -> dict[int, float]:
    values: dict[int, list[float]] = defaultdict(list)
    for curve in curves:
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


def _panels(title: str, subtitle: str, columns: int, number: int) -> tuple[Sheet, list[Axes]]:
    sheet = Sheet(title, subtitle, 1.0 + 0.34 * columns, WIDE)
    return sheet, sheet.panels(1, number, left=2.0, bottom=0.7, top=0.3, gaps=(0, 0.17))


def _with_seeds(row: Row) -> list[Row]:
    """A difference, and behind it those of its single seeds."""
    main = {key: value for key, value in row.items() if key != "seeds"}
    which = {key: row[key] for key in ("a", "b", "label", "kind", "column", "stage", "split")}
    return [main, *(which | seed for seed in row["seeds"])]


def _fit_panels(arms: list[Arm]) -> bool:
    panels = Counter(arm.panel for arm in arms)
    return "" not in panels and len(panels) <= _MOST_PANELS and max(panels.values()) <= _MOST_MARKS


def _of(rows: dict[tuple[str, str], Row], columns: list[Column], arm: str) -> dict[str, Row]:
    return {column.id: rows[arm, column.id] for column in columns if (arm, column.id) in rows}


def _ids(columns: list[Column]) -> frozenset[str]:
    return frozenset(column.id for column in columns)


def _pair_line(pair: Row, columns: list[Column], rows: dict[tuple[str, str, str], Row], colour: str) -> Line:
    mine = {column.id: row for column in columns if (row := rows.get((pair["a"], pair["b"], column.id)))}
    filled = frozenset(column for column, row in mine.items() if row["significant"])
    return Line(pair["label"], pair["kind"], colour, mine, filled)


def _overall_title(counts: list[Row], stage: str) -> str:
    tests, found = (sum(count[key] for count in counts) for key in ("tests", "significant"))
    gains, losses = (sum(count[key] for count in counts) for key in ("gains", "losses"))
    return f"After {stage_name(stage)}, {found} of {tests} differences exceed noise: {gains} up, {losses} down"


def _stroke(arm: Arm, colours: dict[str, str]) -> Row:
    if arm.replicate_of:
        return {"color": GREY, "linestyle": "dotted", "linewidth": 1.4}
    return {"color": colours[arm.hue], "linestyle": "dashed" if arm.baseline else "solid", "linewidth": 1.4}


def _hue_marks(colours: dict[str, str]) -> list[Line2D]:
    return [Line2D([], [], color=colour, marker="o", label=hue) for hue, colour in colours.items() if hue]


def _marker_marks(arms: list[Arm]) -> list[Line2D]:
    marks = {}
    for arm in arms:
        face = "white" if arm.baseline else INK
        marks[arm.marker] = Line2D([], [], color=INK, marker="o", markerfacecolor=face, label=arm.marker)
    return list(marks.values())
