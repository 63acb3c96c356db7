"""The stage figure of a study: what can be read at each stage, arm by arm."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import isnan
from statistics import fmean

from matplotlib.lines import Line2D

from blindspot.reporting.diagnosis.data import Table, Tables, ratio
from blindspot.reporting.diagnosis.stages import TARGETS, Stage, best_rows, places_of, relative, scaffold, spoken
from blindspot.reporting.figure_style import stroke
from blindspot.reporting.sheet import Drawn, Sheet, legend_height

_MARK = {"linewidth": 1.5, "marker": "o", "markersize": 3}


def stage_figure_of_arms(diagnosed: Sequence[tuple[str, Mapping[str, Tables]]]) -> Drawn | None:
    """The stages of several arms: a panel for each target with a line for each arm; None if no arm was probed.

    Args:
        diagnosed: label of the arm and the tables of its diagnostics; an arm with several seeds occurs several times,
            and its line is the mean.
    """
    probed = [
        (label, tables["probes"]["stages"]) for label, tables in diagnosed if "stages" in tables.get("probes", {})
    ]
    found = {target: _means(probed, target) for target in TARGETS}
    found = {target: means for target, means in found.items() if means}
    if not found:
        return None
    arms = list(dict.fromkeys(label for label, _ in probed))
    stages = sorted({stage for means in found.values() for _, stage in means})
    x = places_of(stages)
    foot = legend_height(len(arms), 3)
    subtitle = "Best read-out at each stage, from chance (0) to everything right (1); mean over seeds"
    sheet = Sheet(_arms_title(found), subtitle, 1.15 + 1.55 * len(found) + foot)
    panels = sheet.panels(len(found), bottom=0.9 + foot, top=0.25, gaps=(0.32, 0), share=True)
    for panel, (target, means) in zip(panels, found.items(), strict=True):
        for number, arm in enumerate(arms):
            own = [stage for stage in stages if (arm, stage) in means]
            for _, group in groupby(own, key=lambda stage: stage.group):
                shown = list(group)
                panel.plot(
                    [x[stage] for stage in shown], [means[arm, stage] for stage in shown], **_MARK | stroke(number)
                )
        scaffold(panel, x, named=panel is panels[-1])
        panel.set_title(target, loc="left", pad=4)
    sheet.legend((Line2D([], [], label=arm, **_MARK | stroke(number)) for number, arm in enumerate(arms)), columns=3)
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
    ends = f"{best[1]} {ratio(best[0])}, {worst[1]} {ratio(worst[0])}"
    return f"Arms differ most in {target} at {spoken(stage.label)}: {ends}"
