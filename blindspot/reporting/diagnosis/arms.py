"""The stage figure of a study: what can be read at each stage, arm by arm."""

from collections.abc import Sequence
from itertools import groupby
from math import isnan
from statistics import fmean
from typing import Any

from matplotlib import rc_context
from matplotlib.lines import Line2D

from blindspot.reporting.diagnosis.data import Table, Tables, ratio
from blindspot.reporting.diagnosis.drawing import Drawn, Sheet
from blindspot.reporting.diagnosis.stages import TARGETS, Stage, best_rows, places_of, relative, scaffold
from blindspot.reporting.figure_style import HUES


@rc_context({"text.parse_math": False})
def stage_figure_of_arms(results: Sequence[tuple[str, Tables]]) -> Drawn | None:
    """The stages of several arms: a panel for each target with a line for each arm; None if no arm was probed.

    Args:
        results: label of the arm and the tables of ``probes``; an arm with several seeds occurs several times, and
            its line is the mean.
    """
    probed = [(label, tables["stages"]) for label, tables in results if "stages" in tables]
    found = {target: _means(probed, target) for target in TARGETS}
    found = {target: means for target, means in found.items() if means}
    if not found:
        return None
    arms = list(dict.fromkeys(label for label, _ in probed))
    stages = sorted({stage for means in found.values() for _, stage in means})
    x = places_of(stages)
    rows_of_legend = -(-len(arms) // 3)
    subtitle = "Best read-out at each stage, from chance (0) to everything right (1); mean over seeds"
    sheet = Sheet(_arms_title(found), subtitle, 0.95 + 1.55 * len(found) + 0.2 * rows_of_legend)
    panels = sheet.panels(len(found), bottom=0.7 + 0.2 * rows_of_legend, top=0.25, gaps=(0.32, 0), share=True)
    for panel, (target, means) in zip(panels, found.items(), strict=True):
        for number, arm in enumerate(arms):
            own = [stage for stage in stages if (arm, stage) in means]
            for _, group in groupby(own, key=lambda stage: stage.group):
                shown = list(group)
                panel.plot([x[stage] for stage in shown], [means[arm, stage] for stage in shown], **_stroke(number))
        scaffold(panel, x, named=panel is panels[-1])
        panel.set_title(target, loc="left", pad=4)
    sheet.legend((Line2D([], [], label=arm, **_stroke(number)) for number, arm in enumerate(arms)), columns=3)
    rows = [
        {"target": target, "arm": arm, "stage": stage.label, "value": value}
        for target, means in found.items()
        for (arm, stage), value in means.items()
    ]
    return Drawn("stages_of_arms", sheet, rows)


def _means(probed: Sequence[tuple[str, Table]], target: str) -> dict[tuple[str, Stage], float]:
    values: dict[tuple[str, Stage], list[float]] = {}
    for label, table in probed:
        for stage, row in best_rows(table, target).items():
            value = relative(row["value"], row["chance"])
            if not isnan(value):
                values.setdefault((label, stage), []).append(value)
    return {key: fmean(found) for key, found in values.items()}


def _arms_title(found: dict[str, dict[tuple[str, Stage], float]]) -> str:
    spreads = []
    for target, means in found.items():
        for stage in {stage for _, stage in means}:
            at = sorted((value, arm) for (arm, where), value in means.items() if where == stage)
            if len(at) > 1:
                spreads.append((at[-1][0] - at[0][0], target, stage, at[0], at[-1]))
    if not spreads:
        return "What can be read at each stage"
    _, target, stage, worst, best = max(spreads)
    return f"Arms differ most in {target} at {stage.label}: {best[1]} {ratio(best[0])}, {worst[1]} {ratio(worst[0])}"


def _stroke(number: int) -> dict[str, Any]:
    dashes = ("solid", "dashed", "dotted")[number // len(HUES) % 3]
    return {"color": HUES[number % len(HUES)], "linestyle": dashes, "linewidth": 1.5, "marker": "o", "markersize": 3}
